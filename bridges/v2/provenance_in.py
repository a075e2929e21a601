"""A received message -> Provenance: which message made which resources what they are (HL7 v2-to-FHIR)."""

from datetime import datetime
from typing import Any, Final

from bson import ObjectId

from fhir_server import clock
from fhir_server.elements import concept
from fhir_server.registry import Change, Resource
from resources.security_labels import labelled

MESSAGE: Final = "urn:fhir-ris:message"
SENDER: Final = "urn:fhir-ris:v2-sender"
_MOST_TARGETS: Final = 1000
_ACTIVITY: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_PARTICIPANT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


def provenance(changes: list[Change], message_id: ObjectId, sender: str, kind: str, now: datetime) -> Resource | None:
    """The Provenance of what a message changed; None when that is nothing.

    target: what it has created and updated, of at most 1000 resources; agent: the sender (MSH-3 and MSH-4); entity: the message,
    by its id in the message store.
    """
    left = [c for c in changes if c.after is not None]
    if not left:
        return None
    created = any(c.before is None for c in left)
    what: dict[str, Any] = {"identifier": {"system": MESSAGE, "value": str(message_id)}, "display": kind or "HL7 v2 message"}
    who = {"identifier": {"system": SENDER, "value": sender or "unknown"}, "display": sender or "unknown"}
    made: Resource = {
        "resourceType": "Provenance",
        "target": [{"reference": f"{c.type}/{c.id}"} for c in left[:_MOST_TARGETS]],
        "recorded": clock.instant(now),
        "activity": concept(_ACTIVITY, "CREATE" if created else "UPDATE"),
        "agent": [{"type": concept(_PARTICIPANT, "author"), "who": who}],
        "entity": [{"role": "source", "what": what}],
    }
    for change in left:
        made = labelled(made, change.after or {})
    return made
