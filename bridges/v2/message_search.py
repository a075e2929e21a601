"""Finding messages in the store, received and sent: by patient, order, control id, partner, time, status and type."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bson import Int64
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from bridges.v2 import message_log
from bridges.v2.message_show import harmless
from fhir_server import outbox
from fhir_server.search.query import compile_query
from fhir_server.store import Store

Document = dict[str, Any]
OUTCOMES: Final = frozenset({message_log.ACCEPTED, "AA", "AE", "AR"})
_MOST: Final = 100  # patients or orders that one identifier may mean


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; what is empty isn't asked.

    patient, order: `Patient/1` (or several, with commas), an id, or the value of an identifier (hospital number; placer, filler,
        accession number)
    partner: `Endpoint/his`, its id, or the names of MSH-3 and MSH-4 as `HIS|HOSP` or `HIS`
    since, until: UTC; received or written from then on, and before
    status: CA, AA, AE, AR or what `state` says of those received; pending, delivered, refused, dead, invalid,
        cancelled of those sent, or several of these with commas between
    kind: `ADT^A04` or `ADT`
    place: go on there (`place`), with what is older
    """

    outbound: bool = False
    patient: str = ""
    order: str = ""
    control_id: str = ""
    partner: str = ""
    since: datetime | None = None
    until: datetime | None = None
    status: str = ""
    kind: str = ""
    limit: int = 50
    place: str = ""


async def find(db: AsyncDatabase[Document], wanted: Wanted) -> list[Document]:
    """The newest documents, of `outbox` or `messages`, without the messages themselves."""
    store = Store(db)
    order = "key" if wanted.outbound else "received"
    collection = db[outbox.COLLECTION if wanted.outbound else message_log.COLLECTION]
    where: list[Document] = []
    if wanted.patient:
        references = await _references(store, "Patient", wanted.patient)  # a merge is about two
        where.append({"$or": [{"patient": {"$in": references}}, {"about": {"$in": references}}]})
    if wanted.order:
        where.append({"about": {"$in": await _references(store, "ServiceRequest", wanted.order)}})
    if wanted.control_id:
        where.append({"control_id": wanted.control_id})
    if wanted.kind:
        where.append({"type": wanted.kind if "^" in wanted.kind else await _kinds(collection, wanted.kind)})
    period = {k: v for k, v in (("$gte", wanted.since), ("$lt", wanted.until)) if v is not None}
    if period:
        where.append({"created" if wanted.outbound else "received": period})
    skip = 0
    if wanted.place:
        newest, skip = _place(wanted.place, outbound=wanted.outbound)
        where.append({order: {"$lte": newest}})
    if wanted.outbound:
        where += [{"destination": _endpoint(wanted.partner)}] if wanted.partner else []
        where += [{"state": {"$in": wanted.status.split(",")}}] if wanted.status else []
        without = {"message": 0}
    else:
        where += [_sender(wanted.partner)] if wanted.partner else []
        where += [{"outcome" if wanted.status in OUTCOMES else "state": wanted.status}] if wanted.status else []
        without = {"raw": 0, "ack": 0}
    return await collection.find(_all(where), without, sort=[(order, -1)], limit=wanted.limit, skip=skip).to_list()


def place(found: list[Document], before: str = "") -> str:
    """The place after these documents, which were found from `before` on.

    It is the moment of the last one, and how many of that moment were seen.
    """
    last = _moment(found[-1])
    seen = sum(_moment(document) == last for document in found)
    newest, _, skipped = before.partition("~")
    return f"{last}~{seen + int(skipped) if newest == str(last) else seen}"


def _moment(document: Document) -> int:
    """The nanosecond of a message sent, the millisecond of one received."""
    if "destination" in document:
        return int(document["key"])
    received: datetime = document["received"]
    return round(received.replace(tzinfo=UTC).timestamp() * 1000)


def _place(text: str, *, outbound: bool) -> tuple[Any, int]:
    """What a place means; ValueError for what is none."""
    newest, _, skip = text.partition("~")
    if not re.fullmatch(r"[0-9]{1,19}~[0-9]{1,6}", text) or int(newest) >= 2**63:
        raise ValueError("this is no place in the list of messages")
    if outbound:
        return Int64(newest), int(skip)
    return datetime.fromtimestamp(int(newest) / 1000, UTC).replace(tzinfo=None), int(skip)


async def _kinds(collection: AsyncCollection[Document], kind: str) -> Document:
    """All types of a kind, one by one: by their index, each of them is in the order of the list."""
    return {"$in": [known for known in await collection.distinct("type") if str(known).startswith(f"{kind}^")]}


def _all(where: list[Document]) -> Document:
    return {"$and": where} if where else {}


def row(document: Document) -> list[str]:
    """A line of the list: id, when, type, control id, partner, state, attempts or resources, error."""
    sent = "destination" in document
    when = document["created"] if sent else document["received"]
    cells = [
        str(document["_id"]),
        f"{when:%Y-%m-%d %H:%M:%S}",
        document.get("type", ""),
        document.get("control_id", ""),
        document["destination"] if sent else document["sender"],
        document["state"] if sent else document["outcome"],
        str(document["attempts"]) if sent else ", ".join(document["about"][:3]),
        (document.get("error") or "") if sent else "; ".join(document["errors"]),
    ]
    return [harmless(cell.replace("\t", " ").replace("\n", " ")) for cell in cells]


async def _references(store: Store, resource_type: str, text: str) -> list[str]:
    """The resources that a text may mean: references, with commas between them, an id, or an identifier."""
    if text.startswith(f"{resource_type}/"):
        return text.split(",")[:_MOST]
    query = compile_query(resource_type, [("identifier", text.replace(",", "\\,"))])
    found = await store.find(query, limit=_MOST)
    return [f"{resource_type}/{text}", *(f"{resource_type}/{document['_id']}" for document in found)]


def _endpoint(partner: str) -> str:
    return partner if partner.startswith("Endpoint/") else f"Endpoint/{partner}"


def _sender(partner: str) -> Document:
    if partner.startswith("Endpoint/"):
        return {"partner": partner}
    if "|" in partner:  # no id of an Endpoint
        return {"sender": partner}
    return {"$or": [{"partner": _endpoint(partner)}, {"sender": re.compile(f"^{re.escape(partner)}\\|")}]}
