"""Procedure: the performed procedure step. Its status moves the scheduled step, the appointment and the reading worklist."""

from fhir_server.elements import concept, extension
from fhir_server.references import ref, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, task, terms
from resources.lifecycle import check_transition, check_unchanged

_TRANSITIONS = {
    "preparation": frozenset({"in-progress", "not-done", "on-hold", "stopped"}),
    "in-progress": frozenset({"completed", "stopped", "on-hold", "not-done"}),
    "on-hold": frozenset({"in-progress", "stopped", "not-done", "completed"}),
    "unknown": frozenset({"in-progress", "completed", "stopped", "not-done"}),
}


async def check(_unit: UnitOfWork, change: Change) -> None:
    if change.after is not None:
        check_transition(change, _TRANSITIONS)
        check_unchanged(change, "subject")


async def follow(unit: UnitOfWork, change: Change) -> None:
    """The scheduled steps follow what was performed."""
    performed = change.after
    if performed is None:
        return
    for step in await performed_steps(unit, performed):
        if change.became("status", "in-progress"):
            await _start(unit, step, performed)
        elif change.became("status", "completed"):
            await _finish(unit, step, performed, "completed")
        elif change.became("status", "stopped", "not-done"):
            await _finish(unit, step, performed, "failed")


async def performed_steps(unit: UnitOfWork, performed: Resource) -> list[Resource]:
    """The steps that a Procedure performs: the one it names, else those of its requested procedure that are open."""
    named = extension(performed, terms.SCHEDULED_STEP)
    if named is not None:
        step = await unit.get(named.get("valueReference"))
        return [step] if step else []
    steps: list[Resource] = []
    for reference in performed.get("basedOn", ()):
        to = target(reference)
        if to and to.type == "ServiceRequest":
            steps += [s for s in await task.steps_of(unit, to.id) if s["status"] in task.OPEN.split(",")]
    return steps


async def _start(unit: UnitOfWork, step: Resource, performed: Resource) -> None:
    if step["status"] not in {"requested", "accepted", "ready"}:
        return
    step["status"] = "in-progress"
    if start := performed.get("performedPeriod", {}).get("start"):
        step["executionPeriod"] = {"start": start}
    made = {"type": concept(terms.TASK_DETAIL, "performed-procedure-step"), "valueReference": ref(performed)}
    step["output"] = [*step.get("output", ()), made]
    await unit.update(step)
    await appointment.begin(unit, step)


async def _finish(unit: UnitOfWork, step: Resource, performed: Resource, status: str) -> None:
    if step["status"] in {"requested", "accepted", "ready"}:
        await _start(unit, step, performed)
    if step["status"] != "in-progress":
        return
    step["status"] = status
    period = performed.get("performedPeriod")
    if period:
        step["executionPeriod"] = period
    if status == "failed" and "statusReason" in performed:
        step["statusReason"] = performed["statusReason"]
    step = await unit.update(step)
    await appointment.fulfil(unit, step)
    if status == "completed":
        await _ask_for_reading(unit, step)


async def _ask_for_reading(unit: UnitOfWork, step: Resource) -> None:
    """With the last step of a requested procedure done, its study waits to be read."""
    procedure = await unit.get(step.get("focus"))
    if procedure is None:
        return
    steps = await task.steps_of(unit, procedure["id"])
    if any(s["status"] in task.OPEN.split(",") for s in steps if s["id"] != step["id"]):
        return
    for study in await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}"):
        if await unit.search("Task", focus=f"ImagingStudy/{study['id']}", code=f"{terms.TASK_CODE}|{terms.INTERPRETATION}"):
            continue
        reading: Resource = {
            "resourceType": "Task",
            "basedOn": [ref(procedure)],
            "status": "requested",
            "intent": "order",
            "priority": procedure.get("priority", "routine"),
            "code": concept(terms.TASK_CODE, terms.INTERPRETATION, "Interpretation"),
            "focus": ref(study),
            "for": procedure["subject"],
            "authoredOn": study["meta"]["lastUpdated"],
        }
        if text := procedure.get("code", {}).get("text") or study.get("description"):
            reading["description"] = text
        await unit.create(reading)


def register(registry: Registry) -> None:
    registry.rule("Procedure", check)
    registry.reaction("Procedure", follow)
