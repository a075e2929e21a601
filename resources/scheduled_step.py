"""What follows when a scheduled procedure step begins and ends: the appointment, the reading worklist, the end of the order."""

from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import (
    appointment,
    diagnostic_report,
    encounter,
    examination,
    imaging_study,
    requested_procedure,
    service_request,
    task,
    terms,
    work_items,
)
from resources.security_labels import labelled

_CALLED_OFF = frozenset({"cancelled", "entered-in-error"})


async def follow(unit: UnitOfWork, change: Change) -> None:
    """Whoever moved the step: the scanner by MPPS, a technologist by hand, the order by being revoked."""
    step = change.after
    if step is None or not task.is_step(step):
        return
    if change.became("status", "in-progress"):
        await appointment.begin(unit, step)
        await encounter.begin(unit, step)
    elif change.became("status", "ready") or change.became("status", "accepted"):
        await appointment.expect(unit, step)
    elif change.became("status", "entered-in-error"):
        await appointment.end(unit, step)
        procedure = await unit.get(step.get("focus"))
        if procedure is not None and not {"completed"} & {s["status"] for s in await task.steps_of(unit, procedure["id"])}:
            await requested_procedure.end_readings(unit, procedure)
    elif change.became("status", "completed", "failed", "cancelled"):
        await appointment.end(unit, step)
        await encounter.end(unit, step)
        procedure = await unit.get(step.get("focus"))
        if step["status"] == "failed" and not await _is_settled(unit, step, procedure):
            text = "An examination was stopped. Is it to be repeated (schedule another step), or is the order to be revoked?"
            about, patient = f"Task/{step['id']}", step.get("for", {}).get("reference")
            await work_items.open_work_item(unit, "examination-stopped", text, about, patient)
        if procedure is not None:
            await _when_examined(unit, procedure)


async def _is_settled(unit: UnitOfWork, step: Resource, procedure: Resource | None) -> bool:
    """Whether the placer has discontinued the order, or it is repeated: then nobody need be asked what is to become of it."""
    if await examination.repeats_of(unit, step):
        return True
    order = await service_request.order_of(unit, procedure)
    return order is not None and order["status"] == "revoked"


async def _when_examined(unit: UnitOfWork, procedure: Resource) -> None:
    """With the last step of a requested procedure ended, and one done, its study waits to be read, unless it has been."""
    ends = {s["status"] for s in await task.steps_of(unit, procedure["id"])}
    if ends & task.OPEN or "completed" not in ends:
        return
    if await diagnostic_report.is_signed(unit, procedure):
        await service_request.complete_if_reported(unit, procedure)
        return
    await read_again(unit, procedure)


async def read_again(unit: UnitOfWork, procedure: Resource, over: frozenset[str] = _CALLED_OFF) -> None:
    """Its studies wait to be read, unless a reading of theirs is in another status than these."""
    for study in await imaging_study.of_procedure(unit, procedure["id"]):
        readings = await unit.search("Task", focus=f"ImagingStudy/{study['id']}", code=terms.READING)
        if all(r["status"] in over for r in readings):
            await unit.create(labelled(_reading(unit, procedure, study), study))


def _reading(unit: UnitOfWork, procedure: Resource, study: Resource) -> Resource:
    reading = work_items.of_procedure(procedure, terms.INTERPRETATION, "Interpretation", study, unit.now)
    if text := procedure.get("code", {}).get("text") or study.get("description"):
        reading["description"] = text
    return reading


def register(registry: Registry) -> None:
    registry.reaction("Task", follow)
