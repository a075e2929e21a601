"""The outbox: what must leave, written in the transaction that makes it so, and sent by the delivery workers afterwards.

A document of `outbox`:
    {_id, destination: "Endpoint/ehr", key: nanoseconds (the order of sending), state: pending | delivered | refused |
     dead | cancelled, type: "ORU^R01", control_id, message: bytes, about: ["ServiceRequest/1", ...], patient: "Patient/1",
     created, attempts, refusals, unanswered, next_attempt, error, answer, delivered, replayed, states: [{state, at}]}
`refused` by its receiver, `dead`: sent many times and never answered, `invalid`: it breaks HL7's definitions and is not sent.
"""

import time
from dataclasses import dataclass
from typing import Any

from bson import Binary, ObjectId
from pymongo import IndexModel

from fhir_server import clock
from fhir_server.store import Store

COLLECTION = "outbox"
# Before the Endpoint's reference where the DICOM bridge delivers (bridges/dicom/mpps_delivery.py): `dicom:Endpoint/pacs`.
DICOM = "dicom:"
PAYER = "payer:"  # the same where payers are asked (bridges/payer/delivery.py)


@dataclass(frozen=True, slots=True)
class Outbound:
    """One message for one destination, ready to be sent byte for byte; `invalid`: why it is kept, shown and not sent."""

    destination: str
    type: str
    control_id: str
    message: bytes
    about: tuple[str, ...] = ()
    patient: str | None = None
    invalid: str | None = None


def document(message: Outbound) -> dict[str, Any]:
    """The pending outbox document of a message."""
    created = clock.naive(clock.now())
    return {
        "_id": ObjectId(),
        "destination": message.destination,
        "key": time.time_ns(),
        "state": "invalid" if message.invalid else "pending",
        "type": message.type,
        "control_id": message.control_id,
        "message": Binary(message.message),
        "about": list(message.about),
        "patient": message.patient,
        "created": created,
        "attempts": 0,
        "next_attempt": created,
    } | ({"error": message.invalid} if message.invalid else {})


async def ensure_indexes(store: Store) -> None:
    await store.db[COLLECTION].create_indexes(
        [
            IndexModel([("destination", 1), ("state", 1), ("key", 1)]),
            IndexModel([("control_id", 1)]),
            IndexModel([("about", 1), ("key", -1)]),
            IndexModel([("patient", 1), ("key", -1)]),
            IndexModel([("type", 1), ("key", -1)]),
            IndexModel([("destination", 1), ("key", -1)]),
            IndexModel([("key", -1)]),
            IndexModel([("state", 1), ("key", 1)]),
        ]
    )
