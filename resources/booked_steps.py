"""What the lifecycle of an Appointment needs of the steps that it has scheduled."""

from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import task

_BEGUN = frozenset({"in-progress", "completed", "failed"})


async def _steps(unit: UnitOfWork, appointment: Resource) -> list[Resource]:
    """All steps that it has scheduled."""
    orders = [str(to) for r in appointment.get("basedOn", ()) if (to := target(r)) and to.type == "ServiceRequest"]
    if not orders:
        return []
    procedures = await unit.search("ServiceRequest", based_on=",".join(orders), intent="filler-order")
    steps = await task.steps_of(unit, *(o.partition("/")[2] for o in orders), *(p["id"] for p in procedures))
    return [s for s in steps if task.appointment_of(s) == f"Appointment/{appointment['id']}"]


async def none_begun(unit: UnitOfWork, change: Change) -> None:
    """What has begun was not cancelled, and its patient is there."""
    appointment = change.after or {}
    if any(s["status"] in _BEGUN for s in await _steps(unit, appointment)):
        moves = (change.before or {}).get("status") == appointment["status"]
        text = "its examination has begun: the appointment can't " + ("be moved" if moves else f"become {appointment['status']}")
        raise fail("conflict", text, "Appointment.status")


async def none_waits(unit: UnitOfWork, change: Change) -> None:
    """With the last examination done or stopped it is fulfilled."""
    if any(s["status"] in task.OPEN for s in await _steps(unit, change.after or {})):
        raise fail("conflict", "examinations of this appointment are still to be done", "Appointment.status")
