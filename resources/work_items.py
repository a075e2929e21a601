"""Work items: Tasks that ask a person to look at something. Some are opened once for a subject, however often that happens."""

from datetime import datetime
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import concept, has_code
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.task import OPEN

SUBJECT: Final = "urn:fhir-ris:work-item"
_OPEN: Final = ",".join(sorted(OPEN))


async def open_work_item(
    unit: UnitOfWork,
    code: str,
    description: str,
    about: str | None = None,
    patient: str | None = None,
    details: list[dict[str, Any]] | None = None,
    subject: dict[str, Any] | None = None,
) -> Resource:
    """A Task that asks a person to look at something: `patient-mismatch`, `unknown-order`, `order-hold`, ...

    details: its inputs, such as the candidates to choose from
    subject: identifies it among those of its kind, where it is to be found again
    """
    item: Resource = {
        "resourceType": "Task",
        "status": "requested",
        "intent": "order",
        "priority": "urgent",
        "code": concept(terms.TASK_CODE, code),
        "description": description,
        "authoredOn": clock.instant(unit.now),
    }
    if about:
        item["focus"] = {"reference": about}
    if patient:
        item["for"] = {"reference": patient}
    if details:
        item["input"] = details
    if subject:
        item["identifier"] = [subject]
    return await unit.create(item)


def of_procedure(procedure: Resource, kind: str, display: str, focus: Resource, now: datetime) -> Resource:
    """The Task that asks somebody to do a part of a requested procedure: to read its study, to choose its protocol."""
    item: Resource = {
        "resourceType": "Task",
        "basedOn": [ref(procedure)],
        "status": "requested",
        "intent": "order",
        "priority": procedure.get("priority", "routine"),
        "code": concept(terms.TASK_CODE, kind, display),
        "focus": ref(focus),
        "for": procedure["subject"],
        "authoredOn": clock.instant(now),
    }
    if "encounter" in procedure:
        item["encounter"] = procedure["encounter"]
    return item


async def open_items(unit: UnitOfWork, about: str, *codes: str) -> list[Resource]:
    """The work items about a resource (`Procedure/1`) that nobody has settled yet, of these kinds or of all."""
    found = await unit.search("Task", focus=about, status=_OPEN)
    items = [
        t for t in found if t.get("intent") == "order" and not has_code(t.get("code"), terms.TASK_CODE, terms.INTERPRETATION)
    ]
    return [t for t in items if not codes or any(has_code(t.get("code"), terms.TASK_CODE, c) for c in codes)]


async def raise_once(
    unit: UnitOfWork, code: str, subject: str, description: str, *, about: str | None = None, patient: str | None = None
) -> Resource:
    """The open Task of this kind (`interface-alert`, `message-refused`) and subject, made if there is none.

    subject: what it is about, in words that stay the same: `silent Endpoint/his`
    description: for people; no patient's data. Where it has changed, the open Task gets the new one.
    """
    await unit.lock(f"work-item:{code}:{subject}")
    if known := await _open(unit, code, subject):
        same = known[0].get("description") == description
        return known[0] if same else await unit.update(known[0] | {"description": description})
    own = {"system": SUBJECT, "value": f"{code} {subject}"}
    return await open_work_item(unit, code, description, about, patient, subject=own)


async def close(unit: UnitOfWork, code: str, subject: str, reason: str) -> int:
    """Complete the open Task of this kind and subject, with the reason; how many there were."""
    items = await _open(unit, code, subject)
    for item in items:
        await complete(unit, item, reason)
    return len(items)


async def complete(unit: UnitOfWork, item: Resource, reason: str) -> None:
    """A work item is done."""
    await unit.update(item | {"status": "completed", "statusReason": {"text": reason}})


async def _open(unit: UnitOfWork, code: str, subject: str) -> list[Resource]:
    return await unit.search("Task", identifier=f"{SUBJECT}|{code} {subject}".replace(",", "\\,"), status=_OPEN)
