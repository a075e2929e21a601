"""Procedure: the performed procedure step. Its status moves the scheduled steps that it performs."""

from fhir_server.elements import concept, extension
from fhir_server.references import ref, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import task, terms
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
    """The steps that a Procedure performs: the one it names, else those of its requested procedures that are open."""
    named = extension(performed, terms.SCHEDULED_STEP)
    if named is not None:
        step = await unit.get(named.get("valueReference"))
        return [step] if step else []
    procedures = [to.id for r in performed.get("basedOn", ()) if (to := target(r)) and to.type == "ServiceRequest"]
    return [s for s in await task.steps_of(unit, *procedures) if s["status"] in task.OPEN]


async def _start(unit: UnitOfWork, step: Resource, performed: Resource) -> Resource:
    """A step that the scanner has begun is in progress, whatever was planned (also when it was on hold)."""
    if step["status"] not in task.BEFORE_START:
        return step
    step["status"] = "in-progress"
    if start := performed.get("performedPeriod", {}).get("start"):
        step["executionPeriod"] = {"start": start}
    made = {"type": concept(terms.TASK_DETAIL, "performed-procedure-step"), "valueReference": ref(performed)}
    step["output"] = [*step.get("output", ()), made]
    return await unit.update(step)


async def _finish(unit: UnitOfWork, step: Resource, performed: Resource, status: str) -> None:
    step = await _start(unit, step, performed)
    if step["status"] != "in-progress":
        return
    step["status"] = status
    if period := performed.get("performedPeriod"):
        step["executionPeriod"] = period
    if status == "failed" and "statusReason" in performed:
        step["statusReason"] = performed["statusReason"]
    await unit.update(step)


def register(registry: Registry) -> None:
    registry.rule("Procedure", check)
    registry.reaction("Procedure", follow)
