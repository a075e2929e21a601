"""Task: the scheduled procedure step (intent `plan`), and a person's work item (intent `order`) such as an interpretation."""

from typing import Any

from fhir_server import clock
from fhir_server.elements import concept, has_code, identifier_value
from fhir_server.outcome import fail
from fhir_server.references import ref
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.lifecycle import check_transition, check_unchanged

_BEFORE_START = frozenset({"requested", "accepted", "ready", "on-hold"})
_TRANSITIONS = {
    "draft": frozenset({"requested", "accepted", "ready", "cancelled"}),
    "requested": frozenset({"received", "accepted", "ready", "in-progress", "on-hold", "cancelled", "rejected", "completed"}),
    "received": frozenset({"accepted", "rejected", "cancelled", "in-progress"}),
    "accepted": frozenset({"requested", "ready", "in-progress", "on-hold", "cancelled", "completed"}),
    "ready": frozenset({"requested", "accepted", "in-progress", "on-hold", "cancelled", "completed"}),
    "on-hold": frozenset({"requested", "accepted", "ready", "in-progress", "cancelled"}),
    "in-progress": frozenset({"completed", "failed", "on-hold", "accepted"}),
}
# Task.status to DICOM Scheduled Procedure Step Status (DESIGN.md section 3).
_SPS_STATUS = {
    "accepted": "SCHEDULED",
    "ready": "ARRIVED",
    "in-progress": "STARTED",
    "completed": "COMPLETED",
    "cancelled": "CANCELED",
    "failed": "DISCONTINUED",
}
OPEN = ",".join(sorted(_BEFORE_START | {"in-progress"}))


def is_step(task: Resource) -> bool:
    """Whether a Task is a scheduled procedure step."""
    return task.get("intent") == "plan"


def detail(task: Resource, code: str, where: str = "input") -> dict[str, Any] | None:
    """The Task.input (or output) of this kind: `modality`, `appointment`, `performed-procedure-step`."""
    return next((i for i in task.get(where, ()) if has_code(i.get("type"), terms.TASK_DETAIL, code)), None)


def modality(task: Resource) -> str | None:
    """The DICOM modality of a step, such as `CT`."""
    found = detail(task, "modality")
    return next((c["code"] for c in (found or {}).get("valueCodeableConcept", {}).get("coding", ()) if "code" in c), None)


def new_step(procedure: Resource, step_id: str, modality_code: str | None) -> Resource:
    """The unscheduled step of a requested procedure."""
    step: Resource = {
        "resourceType": "Task",
        "identifier": [{"system": terms.SCHEDULED_STEP_ID, "value": step_id}],
        "basedOn": [ref(procedure)],
        "status": "requested",
        "intent": "plan",
        "priority": procedure.get("priority", "routine"),
        "code": procedure["code"],
        "focus": ref(procedure),
        "for": procedure["subject"],
        "authoredOn": clock.instant(clock.now()),
    }
    if "encounter" in procedure:
        step["encounter"] = procedure["encounter"]
    if modality_code:
        kind = concept(terms.TASK_DETAIL, "modality")
        step["input"] = [{"type": kind, "valueCodeableConcept": concept(terms.DCM, modality_code)}]
    return step


def schedule(step: Resource, station: str, start: str, end: str | None, appointment: Resource | None = None) -> None:
    """Give a step its station (`Device/ct1`) and time, in place; it becomes `accepted`."""
    step["status"] = "accepted"
    step["owner"] = {"reference": station}
    step["restriction"] = {"period": {"start": start} | ({"end": end} if end else {})}
    if appointment is not None:
        kept = [i for i in step.get("input", ()) if not has_code(i.get("type"), terms.TASK_DETAIL, "appointment")]
        step["input"] = [*kept, {"type": concept(terms.TASK_DETAIL, "appointment"), "valueReference": ref(appointment)}]


def unschedule(step: Resource) -> None:
    """Take station and time from a step, in place; it is `requested` again."""
    step["status"] = "requested"
    for element in ("owner", "restriction"):
        step.pop(element, None)
    kept = [i for i in step.get("input", ()) if not has_code(i.get("type"), terms.TASK_DETAIL, "appointment")]
    if kept:
        step["input"] = kept
    else:
        step.pop("input", None)


async def steps_of(unit: UnitOfWork, procedure_id: str) -> list[Resource]:
    """The steps of a requested procedure."""
    return [t for t in await unit.search("Task", based_on=f"ServiceRequest/{procedure_id}") if is_step(t)]


async def open_work_item(
    unit: UnitOfWork, code: str, description: str, about: str | None = None, patient: str | None = None
) -> Resource:
    """A Task that asks a person to look at something: `patient-mismatch`, `unscheduled-procedure-step`, ..."""
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
    return await unit.create(item)


async def check(_unit: UnitOfWork, change: Change) -> None:
    """Rules of a Task; those of a step also keep `businessStatus` in line with `status`."""
    task = change.after
    if task is None:
        return
    check_transition(change, _TRANSITIONS)
    check_unchanged(change, "intent", "for", "focus")
    if not is_step(task):
        return
    step_id = identifier_value(task, terms.SCHEDULED_STEP_ID) or ""
    if len(step_id) > terms.SHORT_STRING or "\\" in step_id:
        raise fail("value", "a scheduled procedure step id has at most 16 characters", "Task.identifier.value")
    status = task.get("status", "")
    if status in {"accepted", "ready"}:
        if not str(task.get("owner", {}).get("reference", "")).startswith("Device/"):
            raise fail("business-rule", "a scheduled step needs its station: a Device as owner", "Task.owner")
        if "start" not in task.get("restriction", {}).get("period", {}):
            raise fail("business-rule", "a scheduled step needs its time", "Task.restriction.period.start")
    if status in _SPS_STATUS:
        if not (status == "ready" and has_code(task.get("businessStatus"), terms.SPS_STATUS, "READY")):
            task["businessStatus"] = concept(terms.SPS_STATUS, _SPS_STATUS[status])
    else:
        task.pop("businessStatus", None)


def register(registry: Registry) -> None:
    registry.rule("Task", check)
