"""Appointment: the booked time. Booked with a Device for an order, it schedules the order's unscheduled steps."""

from datetime import datetime, timedelta

from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import device, service_request, task
from resources.lifecycle import check_transition

_OPEN = frozenset({"booked", "cancelled", "pending", "proposed", "waitlist", "arrived", "checked-in", "noshow"})
_TRANSITIONS = {
    "proposed": _OPEN,
    "pending": _OPEN,
    "waitlist": _OPEN,
    "booked": frozenset({"arrived", "checked-in", "fulfilled", "cancelled", "noshow", "pending"}),
    "arrived": frozenset({"booked", "checked-in", "fulfilled", "cancelled", "noshow"}),
    "checked-in": frozenset({"arrived", "fulfilled", "cancelled"}),
}
_HOLDS_TIME = "pending,booked,arrived,checked-in"
# An examination takes less than this; it bounds the search for overlapping bookings.
_LONGEST = timedelta(hours=24)


def participants(appointment: Resource, resource_type: str) -> list[str]:
    """The references to participants of this type, such as `Device/ct1`."""
    actors = (p.get("actor", {}).get("reference", "") for p in appointment.get("participant", ()))
    return [a for a in actors if a.startswith(f"{resource_type}/")]


def orders(appointment: Resource) -> list[str]:
    """The ids of the orders that it is for."""
    found = (target(r) for r in appointment.get("basedOn", ()))
    return [t.id for t in found if t and t.type == "ServiceRequest"]


# Rules


async def check(unit: UnitOfWork, change: Change) -> None:
    """A booking has a time, is for the order's patient, and takes a time of its station that nobody else has."""
    appointment = change.after
    if appointment is None:
        return
    check_transition(change, _TRANSITIONS)
    if appointment.get("status") not in {"pending", "booked", "arrived", "checked-in"}:
        return
    if "start" not in appointment or "end" not in appointment:
        raise fail("business-rule", "a booking needs its start and end", "Appointment.start")
    start, end = _moment(appointment, "start"), _moment(appointment, "end")
    if end <= start:
        raise fail("business-rule", "a booking ends after it starts", "Appointment.end")
    await _check_patient(unit, appointment)
    for station in participants(appointment, "Device"):
        if change.before is None or _place(change.before) != _place(appointment):
            await _check_free(unit, change.id, station, start, end)


async def _check_patient(unit: UnitOfWork, appointment: Resource) -> None:
    patients = participants(appointment, "Patient")
    for order_id in orders(appointment):
        order = await unit.read("ServiceRequest", order_id)
        if order and patients and order.get("subject", {}).get("reference") not in patients:
            raise fail("business-rule", "the order is for another patient than the booking", "Appointment.participant")


async def _check_free(unit: UnitOfWork, own_id: str, station: str, start: datetime, end: datetime) -> None:
    await unit.lock(f"station:{station}")
    others = await unit.search_all(
        "Appointment",
        [("actor", station), ("status", _HOLDS_TIME), ("date", f"ge{_text(start - _LONGEST)}"), ("date", f"lt{_text(end)}")],
    )
    for other in others:
        if other["id"] != own_id and station in participants(other, "Device") and _moment(other, "end") > start:
            raise fail("conflict", f"{station} is taken at that time by Appointment/{other['id']}", "Appointment.start")


def _place(appointment: Resource) -> tuple[object, ...]:
    holds = appointment.get("status") in _HOLDS_TIME.split(",")
    return holds, appointment.get("start"), appointment.get("end"), participants(appointment, "Device")


def _moment(appointment: Resource, element: str) -> datetime:
    try:
        return datetime.fromisoformat(appointment[element])
    except (KeyError, ValueError):
        raise fail("value", f"{appointment.get(element)!r} is not an instant", f"Appointment.{element}") from None


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


# Reactions


async def follow(unit: UnitOfWork, change: Change) -> None:
    """Steps and slots follow the appointment."""
    appointment = change.after
    if appointment is None:
        return
    status = appointment.get("status")
    if status == "booked" and (change.before is None or _place(change.before) != _place(appointment)):
        await _schedule(unit, appointment)
    elif change.became("status", "arrived", "checked-in"):
        if change.before is None or change.before.get("status") not in {"booked", "arrived", "checked-in"}:
            await _schedule(unit, appointment)
        await _arrive(unit, appointment)
    elif change.became("status", "cancelled", "noshow", "entered-in-error"):
        await _release(unit, appointment)
    await _mark_slots(unit, appointment)


async def _schedule(unit: UnitOfWork, appointment: Resource) -> None:
    stations = participants(appointment, "Device")
    if not stations:
        return
    for step in await _steps(unit, appointment):
        mine = _appointment_of(step) == f"Appointment/{appointment['id']}"
        if step["status"] == "requested" or (mine and step["status"] in {"accepted", "ready"}):
            station = await device.fitting(unit, stations, task.modality(step))
            if station is None:
                modality = task.modality(step)
                raise fail("business-rule", f"the step needs {modality}, which no booked station does", "Appointment.participant")
            task.schedule(step, station, appointment["start"], appointment["end"], appointment)
            await unit.update(step)


async def _arrive(unit: UnitOfWork, appointment: Resource) -> None:
    for step in await _steps(unit, appointment):
        if step["status"] == "accepted" and _appointment_of(step) == f"Appointment/{appointment['id']}":
            await unit.update(step | {"status": "ready"})


async def _release(unit: UnitOfWork, appointment: Resource) -> None:
    for step in await _steps(unit, appointment):
        if step["status"] in {"accepted", "ready"} and _appointment_of(step) == f"Appointment/{appointment['id']}":
            task.unschedule(step)
            await unit.update(step)


async def _steps(unit: UnitOfWork, appointment: Resource) -> list[Resource]:
    steps = []
    for order_id in orders(appointment):
        for procedure in await service_request.procedures_of(unit, order_id):
            steps += await task.steps_of(unit, procedure["id"])
    return steps


def _appointment_of(step: Resource) -> str | None:
    found = task.detail(step, "appointment")
    return found["valueReference"]["reference"] if found else None


async def _mark_slots(unit: UnitOfWork, appointment: Resource) -> None:
    status = "free" if appointment.get("status") in {"cancelled", "noshow", "entered-in-error"} else "busy"
    if appointment.get("status") in {"proposed", "waitlist"}:
        return
    for reference in appointment.get("slot", ()):
        slot = await unit.get(reference)
        if slot and slot.get("status") in {"free", "busy", "busy-tentative"} and slot["status"] != status:
            await unit.update(slot | {"status": status})


async def fulfil(unit: UnitOfWork, step: Resource) -> None:
    """After a step's end: its appointment is fulfilled when no other of its steps is open."""
    reference = _appointment_of(step)
    appointment = await unit.get(reference)
    if appointment is None or appointment["status"] not in {"booked", "arrived", "checked-in"}:
        return
    others = [s for s in await _steps(unit, appointment) if _appointment_of(s) == reference and s["id"] != step["id"]]
    if all(s["status"] in {"completed", "failed", "cancelled", "entered-in-error"} for s in others):
        await unit.update(appointment | {"status": "fulfilled"})


async def begin(unit: UnitOfWork, step: Resource) -> None:
    """The scanner has begun: who is being examined has arrived."""
    appointment = await unit.get(_appointment_of(step))
    if appointment is not None and appointment["status"] in {"booked", "arrived"}:
        await unit.update(appointment | {"status": "checked-in"})


def register(registry: Registry) -> None:
    registry.rule("Appointment", check)
    registry.reaction("Appointment", follow)
