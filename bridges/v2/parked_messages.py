"""Results and appointments that came before their order: kept whole, received again once the order is here.

They wait beside the parked order groups (`order_parked.py`), and `parked_sweep.py` looks after both. A document:
    {_id, numbers: the numbers of orders that it names, raw: bytes, charset, zone, endpoint, message: its key in the store,
     shown: what the work item will say, about: the number of its appointment, received, until}
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
from bson import Binary, ObjectId
from pymongo.errors import PyMongoError

from bridges.v2 import message_log
from bridges.v2.ack import AckError
from bridges.v2.message import parse
from bridges.v2.order_parked import COLLECTION
from bridges.v2.partner import Partner
from bridges.v2.reception import Receive, Reception, Reply, Sender
from bridges.v2.refused import Refused, from_fhir
from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.references import Target
from fhir_server.registry import Resource
from fhir_server.search.query import compile_query
from fhir_server.unit_of_work import UnitOfWork
from resources import work_items
from resources.identifiers import escaped
from smart_auth.access import Access

# MSH-9.1 -> what receives it, for messages that may wait; each receiver enters itself.
RECEIVERS: Final[dict[str, Receive]] = {}
log = structlog.get_logger()

UNKNOWN: Final = "unknown-order"  # the kind of the work item of a message whose order isn't here
_AT_ONCE: Final = 10  # numbers that are looked for at once
_LONGEST: Final = 64  # characters of a number that an order can have
_MOST: Final = 10_000
_TRY_AGAIN: Final = frozenset({"transient", "lock-error", "timeout"})
Document = dict[str, Any]


async def park(reception: Reception, numbers: Iterable[str], shown: str, about: str = "") -> Reply:
    """Keep the message until an order with one of these numbers comes. `about`: the number of its appointment."""
    unit, partner, message = reception.unit, reception.sender.partner, reception.message
    known = sorted({n for n in numbers if n})
    await unit.lock(*(f"{kind}:{n}" for n in known for kind in ("accession", "filler", "placer")))  # as who brings the order does
    await unit.db[COLLECTION].insert_one(
        {
            "numbers": known,
            "raw": Binary(message.raw),
            "charset": partner.charset,
            "zone": str(reception.sender.zone),
            "endpoint": partner.reference,
            "message": message_log.Key.of(message.raw, message).filter(),
            "shown": shown,
            "about": about,
            "received": clock.naive(unit.now),
            "until": clock.naive(unit.now + timedelta(hours=partner.unknown_order_hours)),
        },
        session=unit.session,
    )
    return Reply(text="kept until the order arrives", state="parked")


async def waited_for(reception: Reception, about: str) -> list[str]:
    """The numbers of orders that the partner's messages about this appointment wait for."""
    where = {"endpoint": reception.sender.partner.reference, "about": about}
    found = reception.unit.db[COLLECTION].find(where, {"numbers": 1}, session=reception.unit.session)
    return [number for document in await found.to_list() for number in document["numbers"]]


async def play(interactions: Interactions, order_id: str, numbers: Collection[str]) -> None:
    """Receive again what has waited for this order, oldest first, each in its own transaction. What is refused, people see.

    numbers: those of the order
    """
    waiting = (
        interactions.store.db[COLLECTION]
        .find({"numbers": {"$in": list(numbers)}}, {"_id": 1})
        .sort([("received", 1), ("_id", 1)])
    )
    act = Act("parked-message", source="v2", detail="its order is here")
    for document in await waiting.to_list():
        try:
            await interactions.transact(Access.system("v2"), act, partial(_play, id_=document["_id"], order_id=order_id))
        except Refused as refusal:
            if any(item.kind == UNKNOWN for item in refusal.shown):
                continue  # this order only shares a number with the one that is waited for
            failure = refusal
        except (FhirError, PyMongoError):
            raise
        except Exception as error:  # noqa: BLE001 - it must not keep back the others; the error's text may name a patient
            log.error("a parked message could not be processed", error=type(error).__name__)  # noqa: TRY400 - as above
            failure = Refused(AckError(code=207, text="an internal error; it is in the receiver's log"))
        else:
            continue
        await interactions.transact(Access.system("v2"), act, partial(_give_up, document["_id"], order_id, failure))


async def play_left(interactions: Interactions) -> None:
    """Receive again whatever has an order that is here, though nobody has done it when that came."""
    store = interactions.store
    waiting = await store.db[COLLECTION].find({"numbers.0": {"$exists": True}}, {"numbers": 1}).sort("received", 1).to_list()
    numbers = sorted({n for document in waiting for n in document["numbers"] if len(n) <= _LONGEST})
    seen: set[str] = set()
    for start in range(0, len(numbers), _AT_ONCE):
        some = ",".join(escaped(n) for n in numbers[start : start + _AT_ONCE])
        query = compile_query("ServiceRequest", [("identifier", some), ("intent", "order")])
        new = set(await store.find_ids(query, _MOST)) - seen
        seen |= new
        for to, found in (await store.read_many(Target("ServiceRequest", order_id) for order_id in sorted(new))).items():
            if found.resource is not None:
                await play(interactions, to.id, numbers_of(found.resource))


def numbers_of(order: Resource) -> tuple[str, ...]:
    """The numbers by which a message may have named an order."""
    return tuple(i["value"] for i in order.get("identifier", ()) if "value" in i)


async def _play(unit: UnitOfWork, id_: ObjectId, order_id: str) -> None:
    document = await unit.db[COLLECTION].find_one_and_delete({"_id": id_}, session=unit.session)
    if document is None:  # another process was faster
        return
    message = parse(bytes(document["raw"]), default_charset=document["charset"])
    endpoint = await unit.get({"reference": document["endpoint"]}) if document["endpoint"] else None
    partner = replace((Partner.of(endpoint) if endpoint else None) or Partner(), unknown_order="refuse")  # it waits already
    unit.origin = partner.reference or None
    sender = Sender.of(message, ZoneInfo(document["zone"]), partner)
    try:
        await RECEIVERS[message.type[0]](Reception(unit, message, sender))
        await unit.react()
    except FhirError as error:
        if error.code in _TRY_AGAIN:
            raise
        raise from_fhir(error) from None
    order = await unit.read("ServiceRequest", order_id)
    await message_log.mark(unit.db, unit.session, document["message"], "played", order)


async def _give_up(id_: ObjectId, order_id: str, failure: Refused, unit: UnitOfWork) -> None:
    document = await unit.db[COLLECTION].find_one_and_delete({"_id": id_}, session=unit.session)
    if document is None:
        return
    text = f"{document['shown']} when it came; now that it is: {failure}"
    order = await unit.read("ServiceRequest", order_id)
    whose = (order or {}).get("subject", {}).get("reference")
    await work_items.open_work_item(unit, "parked-message-refused", text, f"ServiceRequest/{order_id}", whose)
    await message_log.mark(unit.db, unit.session, document["message"], "refused-later", order)
