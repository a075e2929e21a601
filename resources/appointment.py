"""Appointment: the booked time. Booked with a Device for an order, it schedules the order's unscheduled steps."""

from datetime import datetime, timedelta

from fhir_server.elements import has_code
from fhir_server.outcome import FhirError, fail
from fhir_server.references import target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.search import dates
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, beginnings, device, service_request, task
from resources.booked_steps import none_begun, none_waits
from resources.lifecycle import check_status, lifecycle
from resources.scheduling import occupancy
from resources.scheduling.occupancy import HOLDS_TIME, LONGEST

APPOINTMENT = lifecycle(
    "Appointment",
    "appointment",
    """
    from                      | to                 | who           | needs                   | then
    new proposed pending      | proposed waitlist  | staff; RIS    |                         | slots free
    waitlist                  |                    |               |                         |
    new proposed waitlist     | pending            | staff; RIS    | free station and people | slots busy-tentative
    new proposed pending      | booked             | staff; RIS    | an active order; a free | its steps are scheduled, slots
    waitlist                  |                    |               | station that does it;   | busy, off the waiting list
                              |                    |               | free people; authorized |
    new proposed pending      | arrived checked-in | staff; RIS    | an active order; a free | its steps are ready, slots busy,
    waitlist                  |                    |               | station that does it;   | off the waiting list
                              |                    |               | free people; authorized |
    booked                    | arrived checked-in | staff; RIS    |                         | its steps are ready
    arrived                   | checked-in         | staff; RIS    |                         |
    arrived                   | booked             | staff; RIS    | none of its steps begun | its steps are scheduled, not ready
    checked-in                | arrived            | staff; RIS    | none of its steps begun |
    booked arrived checked-in | fulfilled          | staff; RIS    | none of its steps waits |
    proposed pending waitlist | cancelled noshow   | staff; RIS    |                         | slots free
    booked arrived            | cancelled noshow   | staff; v2 RIS | none of its steps begun | its steps wait again, slots free
    checked-in                | cancelled          | staff; v2 RIS | none of its steps begun | its steps wait again, slots free
    checked-in                | booked arrived     | ; reconcile   |                         | as before the step began
    fulfilled                 | booked arrived     | ; reconcile   |                         | as before the step began
                              | checked-in         |               |                         |
    *                         | entered-in-error   | staff         | none of its steps begun | its steps wait again, slots free
    """,
    needs={"none of its steps begun": none_begun, "none of its steps waits": none_waits},
)
_BOOKED = frozenset({"booked", "arrived", "checked-in"})
_OPEN = _BOOKED | {"proposed", "pending", "waitlist"}
_OVER = frozenset({"revoked", "completed", "entered-in-error"})  # of an order
_PLAUSIBLE_YEARS = range(1900, 3000)


def participants(appointment: Resource, resource_type: str) -> list[str]:
    """The references to participants of this type, such as `Device/ct1`."""
    found = (target(p.get("actor")) for p in appointment.get("participant", ()))
    return [str(t) for t in found if t and t.type == resource_type]


def stations(appointment: Resource) -> list[str]:
    """The scanners that it takes, without the equipment that is needed beside them."""
    scanners = [p for p in appointment.get("participant", ()) if not _is_equipment(p)]
    return [s for s in occupancy.takes({"participant": scanners}) if s.startswith("Device/")]


def _is_equipment(participant: Resource) -> bool:
    return has_code(participant.get("type"), occupancy.PARTICIPANT, occupancy.EQUIPMENT)


def orders(appointment: Resource) -> list[str]:
    """The ids of the orders that it is for."""
    found = (target(r) for r in appointment.get("basedOn", ()))
    return [t.id for t in found if t and t.type == "ServiceRequest"]


def is_booked(appointment: Resource | None) -> bool:
    """Whether the patient is expected, or there."""
    return appointment is not None and appointment.get("status") in _BOOKED


def _holds_time(appointment: Resource | None) -> bool:
    return appointment is not None and appointment.get("status") in HOLDS_TIME


def _is_fulfilled(appointment: Resource | None) -> bool:
    return appointment is not None and appointment.get("status") == "fulfilled"


def place(appointment: Resource | None) -> object:
    """When and where it is; what it has as long as it holds no time, doesn't matter."""
    if appointment is None or not _holds_time(appointment):
        return None
    return appointment.get("start"), appointment.get("end"), tuple(occupancy.takes(appointment))


def _where(appointment: Resource | None) -> object:
    return appointment and _holds_time(appointment) and (appointment["start"], appointment["end"], stations(appointment))


# Rules


async def check(unit: UnitOfWork, change: Change) -> None:
    """A booking has a time, is for the patient of an active order, and takes a time of its station that nobody else has."""
    appointment = change.after
    if appointment is None:
        if _holds_time(change.before):
            raise fail("business-rule", "a booking can't be deleted; it can be cancelled", "Appointment.status")
        return
    await check_status(unit, change, APPOINTMENT)
    if change.before is not None and is_booked(change.before) and sorted(orders(change.before)) != sorted(orders(appointment)):
        text = "what a booking is for can't be changed; cancel it and book anew"
        raise fail("business-rule", text, "Appointment.basedOn")
    await _check_orders(unit, appointment, change.before)
    if not _holds_time(appointment):
        return
    _check_stations_accept(appointment)
    start, end = _moment(appointment, "start"), _moment(appointment, "end")
    if not timedelta(0) < end - start <= LONGEST:
        raise fail("business-rule", "a booking ends after it starts, within 24 hours", "Appointment.end")
    if is_booked(change.before) and _where(change.before) != _where(appointment):
        await none_begun(unit, change)
    if place(change.before) != place(appointment):
        await occupancy.require_free(unit, change.id, appointment)
    if not _holds_time(change.before):
        await _instruct(unit, appointment)


def _check_stations_accept(appointment: Resource) -> None:
    for i, participant in enumerate(appointment.get("participant", ())):
        actor = target(participant.get("actor"))
        if actor and actor.type == "Device" and participant.get("status") == "declined":
            where = f"Appointment.participant[{i}].status"
            raise fail("business-rule", "a booked station has not declined; cancel the booking, or name another station", where)


async def _check_orders(unit: UnitOfWork, appointment: Resource, before: Resource | None) -> None:
    """FhirError `business-rule` for orders of another patient, and for those that can't be booked or wait for a time."""
    if appointment["status"] not in _OPEN:
        return
    begins = is_booked(appointment) and not is_booked(before)
    opens = before is None or before["status"] not in _OPEN
    patients = participants(appointment, "Patient")
    for order_id in orders(appointment):
        order = await unit.read("ServiceRequest", order_id)
        if order is None:
            continue
        if begins or opens:  # whoever ends or holds the order meanwhile, meets us here
            of = await service_request.order_of(unit, order) or order
            await unit.lock(service_request.lock_of(of["id"]))
        if patients and order.get("subject", {}).get("reference") not in patients:
            raise fail("business-rule", "the order is for another patient than the booking", "Appointment.participant")
        if begins and order["status"] != "active":
            raise fail("business-rule", f"the order is {order['status']}: only an active one is booked", "Appointment.basedOn")
        if opens and order["status"] in _OVER:
            raise fail("business-rule", f"the order is {order['status']}: it wants no time any more", "Appointment.basedOn")


async def _instruct(unit: UnitOfWork, appointment: Resource) -> None:
    """The patient is told how to prepare: as the protocol says, else the order, else the catalogue for the procedure."""
    if "patientInstruction" in appointment:
        return
    texts: list[str] = []
    for order_id in orders(appointment):
        order = await unit.read("ServiceRequest", order_id) or {}
        procedures = await unit.search("ServiceRequest", based_on=f"ServiceRequest/{order_id}", intent="filler-order")
        said = [p.get("patientInstruction") for p in procedures if p["status"] in {"active", "on-hold"}]
        said = [text for text in said if text] or [order.get("patientInstruction")]
        if not any(said):
            said = [activity_definition.preparation(await activity_definition.catalogue_entry(unit, order))]
        texts += [text for text in dict.fromkeys(said) if text and text not in texts]
    if texts:
        appointment["patientInstruction"] = "\n".join(texts)


def _moment(appointment: Resource, element: str) -> datetime:
    if element not in appointment:
        raise fail("business-rule", "a booking needs its start and end", f"Appointment.{element}")
    try:
        moment = dates.moment(appointment[element])
    except (TypeError, ValueError):
        raise fail("value", "that is not an instant", f"Appointment.{element}") from None
    if moment.year not in _PLAUSIBLE_YEARS:
        raise fail("value", "nobody is booked in that year", f"Appointment.{element}")
    return moment


# Reactions


async def follow(unit: UnitOfWork, change: Change) -> None:
    """Steps and slots follow the appointment."""
    before, appointment = change.before, change.after
    if appointment is None or (_is_fulfilled(before) and is_booked(appointment)):  # reopened, with the steps and slots it has
        return
    if is_booked(appointment) and not is_booked(before):
        await _schedule(unit, appointment)
    elif is_booked(appointment) and place(before) != place(appointment):
        await _move(unit, appointment)
    elif is_booked(appointment) and change.became("status", "arrived", "checked-in"):
        await _bring(unit, appointment, "accepted", "ready")
    elif change.became("status", "booked"):
        await _bring(unit, appointment, "ready", "accepted")
    elif is_booked(before) and appointment["status"] in {"cancelled", "noshow", "entered-in-error"}:
        for step in await _own_steps(unit, appointment):
            await unit.update(task.unschedule(step))
    await occupancy.mark_slots(unit, before, appointment)


async def _schedule(unit: UnitOfWork, appointment: Resource) -> None:
    """Give the waiting steps of each order their station and time: those that one of the stations can do."""
    there = stations(appointment)
    for order_id in orders(appointment) if there else ():
        steps = await service_request.steps_of(unit, order_id)
        waiting = [s for s in steps if s["status"] == "requested"]
        if not waiting and steps:
            raise fail("conflict", "no step of the order waits to be scheduled", "Appointment.basedOn")
        placed = 0
        for step in waiting:
            station = await device.fitting(unit, there, task.modality(step))
            if station is not None:
                await unit.update(task.schedule(step, station, appointment))
                placed += 1
        if waiting and not placed:
            raise _no_station(waiting[0])


async def _move(unit: UnitOfWork, appointment: Resource) -> None:
    """Its steps go where it goes, and wait again when it has no station any more."""
    there = stations(appointment)
    for step in await _own_steps(unit, appointment):
        if not there:
            await unit.update(task.unschedule(step))
            continue
        station = await device.fitting(unit, there, task.modality(step))
        if station is None:
            raise _no_station(step)
        await unit.update(task.schedule(step, station, appointment))


def _no_station(step: Resource) -> Exception:
    return fail("business-rule", f"the step needs {task.modality(step)}, which no booked station does", "Appointment.participant")


async def _bring(unit: UnitOfWork, appointment: Resource, was: str, becomes: str) -> None:
    for step in await _own_steps(unit, appointment):
        if step["status"] == was:
            await unit.update(step | {"status": becomes})


async def _own_steps(unit: UnitOfWork, appointment: Resource, *, ended: bool = False) -> list[Resource]:
    """The steps that it has scheduled and that have not begun; with `ended`, all."""
    found = [s for o in orders(appointment) for s in await service_request.steps_of(unit, o)]
    own = [s for s in found if task.appointment_of(s) == f"Appointment/{appointment['id']}"]
    return own if ended else [s for s in own if s["status"] in task.BEFORE_START]


# What a step's course means for its appointment: called by the rules of steps


async def expect(unit: UnitOfWork, step: Resource) -> None:
    """The step waits, its patient there (`ready`) or not: so does the appointment."""
    appointment = await unit.get(task.appointment_of(step))
    if appointment is None:
        return
    if step["status"] == "ready" and appointment["status"] == "booked":
        await unit.update(appointment | {"status": "arrived"})
    elif step["status"] == "accepted" and appointment["status"] in {"arrived", "checked-in"}:
        for status in ("arrived", "booked"):
            await unit.update(appointment | {"status": status})


async def begin(unit: UnitOfWork, step: Resource) -> None:
    """The examination has begun: who is being examined has arrived."""
    appointment = await unit.get(task.appointment_of(step))
    if appointment is not None and appointment["status"] in {"booked", "arrived"}:
        await unit.update(appointment | {"status": "checked-in"})


async def end(unit: UnitOfWork, step: Resource) -> None:
    """After a step's end: with the last one the appointment is fulfilled, or cancelled when nothing was begun."""
    appointment = await unit.get(task.appointment_of(step))
    if appointment is None or not is_booked(appointment):
        return
    ends = {s["status"] for s in await _own_steps(unit, appointment, ended=True)}
    if ends & task.OPEN:
        return
    await unit.update(appointment | {"status": "fulfilled" if ends & {"completed", "failed"} else "cancelled"})


async def reopen(unit: UnitOfWork, step: Resource, beginning: beginnings.Beginning) -> None:
    """The step was not performed after all: the appointment is as it was before, unless another of its steps has begun.

    One that was fulfilled and whose time somebody else has by now, stays so.
    """
    appointment = await unit.get(task.appointment_of(step))
    if appointment is None or appointment["status"] not in {"checked-in", "fulfilled"}:
        return
    others = [s for s in await _own_steps(unit, appointment, ended=True) if s["id"] != step["id"]]
    begun = any(s["status"] in {"in-progress", "completed", "failed"} for s in others)
    status = "checked-in" if begun else await beginnings.status_before(unit, appointment, beginning)
    again = appointment | {"status": status}
    if status != appointment["status"] and is_booked(again) and (is_booked(appointment) or await _is_possible(unit, again)):
        await unit.update(again)


async def _is_possible(unit: UnitOfWork, appointment: Resource) -> bool:
    """Whether it can be booked: its orders are active, and nobody else has its time."""
    try:
        await _check_orders(unit, appointment, None)
        await occupancy.require_free(unit, appointment["id"], appointment)
    except FhirError:
        return False
    return True


def register(registry: Registry) -> None:
    registry.rule("Appointment", check)
    registry.reaction("Appointment", follow)
