"""Messages that came before their order: kept, played when the order arrives, shown to a person when their time is over.

A document of `parked_orders`, one for each order group that waits:
    {_id, placer: value, identifier: Identifier, bare: whether it has no namespace, number: which group of the message,
     raw: bytes, charset, zone, endpoint, sender: [application, facility], message: the key of the message in the store,
     shown: what the work item will say, received, until}
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from bson import Binary, ObjectId
from pymongo import IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from bridges.v2 import message_log
from bridges.v2.datatypes import EI
from bridges.v2.message import parse
from bridges.v2.order_control import unknown_order
from bridges.v2.order_groups import Order, order_groups
from bridges.v2.order_map import placer_number, placer_segment
from bridges.v2.order_numbers import is_bare, named_by
from bridges.v2.partner import Partner
from bridges.v2.people_in import People
from bridges.v2.reception import Sender
from bridges.v2.refused import Refused
from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.registry import Resource
from fhir_server.search.query import compile_query
from fhir_server.unit_of_work import UnitOfWork
from resources import order_numbers, work_items
from resources.identifiers import escaped, same
from smart_auth.access import Access

log = structlog.get_logger()

COLLECTION = "parked_orders"
Document = dict[str, Any]
Perform = Callable[[Order], Awaitable[None]]
_OLDEST = [("received", 1), ("_id", 1)]


async def ensure_indexes(db: AsyncDatabase[Document]) -> None:
    keys = [[("placer", 1), ("received", 1)], [("numbers", 1)], [("until", 1)], [("message.digest", 1)]]
    await db[COLLECTION].create_indexes([IndexModel(key) for key in keys])


async def park(order: Order) -> None:
    """Keep this order group until its order, of this placer order number, arrives."""
    unit, partner = order.unit, order.sender.partner
    placer = placer_number(order)
    await unit.lock(f"placer:{placer['value']}")  # whoever brings the order meanwhile, starts one of us again
    await unit.db[COLLECTION].insert_one(
        {
            "placer": placer["value"],
            "identifier": placer,
            "bare": is_bare(EI.from_field(placer_segment(order).repetitions(2)[0])),
            "number": order.group.number,
            "raw": Binary(order.message.raw),
            "charset": partner.charset,
            "zone": str(order.sender.zone),
            "endpoint": partner.reference,
            "sender": [order.sender.application, order.sender.facility],
            "message": message_log.Key.of(order.message.raw, order.message).filter(),
            "shown": unknown_order(order).text,
            "received": clock.naive(unit.now),
            "until": clock.naive(unit.now + timedelta(hours=partner.unknown_order_hours)),
        },
        session=unit.session,
    )


async def play(unit: UnitOfWork, stored: Resource, numbers: Collection[str], perform: Perform) -> bool:
    """Do what was said of this order before it came, in the order in which it was said, in the order's own transaction.

    What is refused becomes a work item: the order itself is right.
    Returns whether whole messages wait for one of its numbers (`parked_messages.py`). Who parks one from now on, takes a lock of
    these numbers that we hold, and finds the order.
    """
    placer = order_numbers.placer_number(stored) or {}
    sought = {"$or": [{"placer": placer.get("value", "")}, {"numbers": {"$in": list(numbers)}}]}
    waiting = await unit.db[COLLECTION].find(sought, sort=_OLDEST, session=unit.session).to_list()
    for document in waiting:
        if "placer" in document and await _is_of(unit, document, stored):
            await _play(unit, document, stored, perform)
    return any("numbers" in document for document in waiting)


async def catch_up(order: Order, perform: Perform) -> None:
    """Do first what waits for an order that came by another door than HL7 v2, before what is said of it now."""
    unit, placer = order.unit, placer_number(order)
    waiting = unit.db[COLLECTION].find({"placer": placer["value"]}, sort=_OLDEST, session=unit.session)
    for document in await waiting.to_list():
        if (stored := await _found(unit, document)) is not None:
            await _play(unit, document, stored, perform)


async def play_left(interactions: Interactions, perform: Perform) -> None:
    """Do what waits for an order that is here though it came by another door than HL7 v2, each group in its own transaction."""
    store = interactions.store
    which = {"placer": {"$exists": True}}
    for document in await store.db[COLLECTION].find(which, {"placer": 1}, sort=_OLDEST).to_list():
        query = compile_query("ServiceRequest", [("identifier", escaped(document["placer"])), ("intent", "order,original-order")])
        if not await store.find_ids(query, 1):
            continue
        act = Act("parked-order", source="v2", detail="its order is here")
        try:
            await interactions.transact(Access.system("v2"), act, partial(_play_left, id_=document["_id"], perform=perform))
        except _NotYet:
            continue
        except PyMongoError:
            raise
        except Exception as error:  # noqa: BLE001 - it must not keep back the others; the error's text may name a patient
            log.error("a parked order group could not be processed", error=type(error).__name__)  # noqa: TRY400 - as above


class _NotYet(Exception):
    """Its order isn't here: the number is that of another one."""


async def _play_left(unit: UnitOfWork, id_: ObjectId, perform: Perform) -> None:
    document = await unit.db[COLLECTION].find_one({"_id": id_}, session=unit.session)
    stored = await _found(unit, document) if document is not None else None
    if document is None or stored is None:
        raise _NotYet
    unit.origin = document["endpoint"] or None
    await _play(unit, document, stored, perform)


async def _found(unit: UnitOfWork, document: Document) -> Resource | None:
    """The order that a group waits for. Of a number without its namespace, which only its value tells, the patient tells."""
    stored = await order_numbers.by_placer_number(unit, document["identifier"])
    if stored is not None or not document.get("bare"):
        return stored
    order = await _again(unit, document)
    return await named_by(order, placer_segment(order), 2)


async def _is_of(unit: UnitOfWork, document: Document, stored: Resource) -> bool:
    """Whether a group waits for this order."""
    if same(document["identifier"], order_numbers.placer_number(stored) or {}):
        return True
    found = await _found(unit, document) if document.get("bare") else None
    return found is not None and found["id"] == stored["id"]


async def _play(unit: UnitOfWork, document: Document, stored: Resource, perform: Perform) -> None:
    """One group. Refused as if it came now, for people to see."""
    state = "played"
    try:
        with unit.attempt():
            await perform(await _again(unit, document))
    except Refused as failure:
        state = "refused-later"
        text = f"{document['shown']} when it came; now that it is: {failure}"
        about = f"ServiceRequest/{stored['id']}"
        await work_items.open_work_item(unit, "parked-message-refused", text, about, stored["subject"].get("reference"))
    await unit.db[COLLECTION].delete_one({"_id": document["_id"]}, session=unit.session)
    if state == "played" and await unit.db[COLLECTION].find_one(_of_message(document), session=unit.session):
        state = "parked"  # another order of the same message is still to come
    await message_log.mark(unit.db, unit.session, document["message"], state, stored)


def _of_message(document: Document) -> Document:
    """The other groups of the same message."""
    return {f"message.{part}": value for part, value in document["message"].items()}


async def _again(unit: UnitOfWork, document: Document) -> Order:
    """The order group as it was received."""
    message = parse(bytes(document["raw"]), default_charset=document["charset"])
    endpoint = await unit.get({"reference": document["endpoint"]}) if document["endpoint"] else None
    partner = (Partner.of(endpoint) if endpoint else None) or Partner()
    sender = replace(Sender.of(message, ZoneInfo(document["zone"]), partner), zone=ZoneInfo(document["zone"]))
    group = order_groups(message)[document["number"]]
    return Order(unit, sender, message, People(unit, sender), group)


async def expire(interactions: Interactions) -> int:
    """Give what has waited too long to a person; how many that were. To be called now and then, by any process."""
    db = interactions.store.db
    over = await db[COLLECTION].find({"until": {"$lt": clock.naive(clock.now())}}, {"_id": 1}, limit=1000).to_list()

    async def give_up(unit: UnitOfWork, id_: ObjectId) -> None:
        document = await unit.db[COLLECTION].find_one_and_delete({"_id": id_}, session=unit.session)
        if document is None:  # played, or given up by another process
            return
        await work_items.open_work_item(unit, "unknown-order", f"{document['shown']}, nor has it come since")
        await message_log.mark(unit.db, unit.session, document["message"], "given-up")

    for due in over:
        await interactions.transact(
            Access.system("v2"), Act("parked-order", source="v2", detail="given up"), partial(give_up, id_=due["_id"])
        )
    if over:
        log.warning("messages about orders that never came were given to people", number=len(over))
    return len(over)
