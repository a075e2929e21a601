"""Finding messages in the store, received and sent: by patient, order, control id, partner, time, status and type."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

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
    status: CA, AA, AE, AR or what `state` says of those received; pending, delivered, refused, dead, cancelled of those sent
    kind: `ADT^A04` or `ADT`
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


async def find(db: AsyncDatabase[Document], wanted: Wanted) -> list[Document]:
    """The newest documents, of `outbox` or `messages`, without the messages themselves."""
    store = Store(db)
    where: list[Document] = []
    if wanted.patient:
        references = await _references(store, "Patient", wanted.patient)  # a merge is about two
        where.append({"$or": [{"patient": {"$in": references}}, {"about": {"$in": references}}]})
    if wanted.order:
        where.append({"about": {"$in": await _references(store, "ServiceRequest", wanted.order)}})
    if wanted.control_id:
        where.append({"control_id": wanted.control_id})
    if wanted.kind:
        where.append({"type": wanted.kind if "^" in wanted.kind else re.compile(f"^{re.escape(wanted.kind)}\\^")})
    period = {k: v for k, v in (("$gte", wanted.since), ("$lt", wanted.until)) if v is not None}
    if period:
        where.append({"created" if wanted.outbound else "received": period})
    if wanted.outbound:
        where += [{"destination": _endpoint(wanted.partner)}] if wanted.partner else []
        where += [{"state": wanted.status}] if wanted.status else []
        found = db[outbox.COLLECTION].find(_all(where), {"message": 0}, sort=[("key", -1)], limit=wanted.limit)
    else:
        where += [_sender(wanted.partner)] if wanted.partner else []
        where += [{"outcome" if wanted.status in OUTCOMES else "state": wanted.status}] if wanted.status else []
        found = db[message_log.COLLECTION].find(_all(where), {"raw": 0, "ack": 0}, sort=[("received", -1)], limit=wanted.limit)
    return await found.to_list()


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
    names = {"sender": partner if "|" in partner else re.compile(f"^{re.escape(partner)}\\|")}
    return {"$or": [{"partner": _endpoint(partner)}, names]}
