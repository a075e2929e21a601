"""Holding, booking, moving and ending: what the operations ask for, which the rules of Appointment then judge."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from fhir_server import clock
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from fhir_server.search import dates
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, device
from resources.scheduling import needs, occupancy, waiting
from resources.security_labels import labelled

HOLD: Final = timedelta(minutes=10)
_OPEN: Final = frozenset({"proposed", "pending", "waitlist"})
_CANCELLABLE: Final = _OPEN | {"booked", "arrived", "checked-in"}
_EARLIEST_ARRIVAL: Final = timedelta(hours=24)
BOOKED_BY: Final = "urn:fhir-ris:booked-by"  # extension on Appointment (Reference): the person who held or booked it last


async def hold(unit: UnitOfWork, visit: Sequence[Resource]) -> list[Resource]:
    """Keep the times of a proposed visit for some minutes."""
    until = {"url": occupancy.HOLD_UNTIL, "valueInstant": clock.instant(unit.now + HOLD)}
    held = []
    for proposed in visit:
        stored = await unit.read("Appointment", proposed["id"])
        _require(stored, {"proposed"}, "held")
        leg = stored or proposed
        held.append(
            await _write(
                unit, leg | {"status": "pending", "extension": [*_afresh(leg), *await _by(unit), until]}, new=stored is None
            )
        )
    return held


async def book(
    unit: UnitOfWork, visit: Sequence[Resource], *, comment: str | None, overbook: str | None, displace: str | None
) -> list[Resource]:
    """Book a visit: as proposed, as held, or (one Appointment without an id) at a time of the caller's choice.

    overbook: why it may be one more than there is time for; displace: why what is less urgent has to give way
    """
    booked = []
    for proposed in visit:
        stored = await unit.read("Appointment", proposed["id"]) if "id" in proposed else None
        _require(stored, _OPEN, "booked")
        leg = stored or await _completed(unit, proposed)
        extensions = [*_afresh(leg), *await _by(unit)]
        if overbook:
            extensions.append({"url": occupancy.OVERBOOKED, "valueString": overbook})
        if displace:
            await waiting.displace(unit, leg, displace)
        accepted = [p | {"status": "accepted"} if p["status"] == "tentative" else p for p in leg["participant"]]
        leg = {k: v for k, v in leg.items() if k != "extension"} | {"status": "booked", "participant": accepted}
        leg |= ({"extension": extensions} if extensions else {}) | ({"comment": comment} if comment else {})
        booked.append(await _write(unit, leg, new=stored is None))
    return booked


def _require(stored: Resource | None, statuses: frozenset[str] | set[str], what: str) -> None:
    if stored is not None and stored["status"] not in statuses:
        over = (stored["status"] == "cancelled" and "the hold is over") or f"it is {stored['status']}"
        raise fail("conflict", f"the appointment can't be {what}: {over}", "Appointment.status")


async def _write(unit: UnitOfWork, leg: Resource, *, new: bool) -> Resource:
    if not new:
        return await unit.update(leg)
    for order_id in appointment.orders(leg):
        leg = labelled(leg, await unit.read("ServiceRequest", order_id) or {})
    return await unit.create(leg, leg.get("id"))


def _afresh(leg: Resource) -> list[Resource]:
    """Its extensions, but for what its being held or booked anew says."""
    return [e for e in leg.get("extension", ()) if e.get("url") not in {occupancy.HOLD_UNTIL, BOOKED_BY}]


async def _by(unit: UnitOfWork) -> list[Resource]:
    """Who it is that holds or books, for whoever comes too late; nothing for clients without a person."""
    name = unit.access.user_name
    person = await unit.get(unit.access.user)
    known = {"reference": unit.access.user} if person else {}
    return [{"url": BOOKED_BY, "valueReference": known | {"display": name}}] if name else []


async def _completed(unit: UnitOfWork, leg: Resource) -> Resource:
    """With its end: all that waits of its orders and that its stations do, one after the other, as the catalogue says."""
    if "start" not in leg:
        raise fail("required", "say when: start", "Appointment.start")
    if "end" in leg:
        return leg
    orders = [order for id_ in appointment.orders(leg) if (order := await unit.read("ServiceRequest", id_))]
    wanted = await needs.of_orders(unit, orders)
    there = [found for station in appointment.stations(leg) if (found := await unit.get(station))]
    done = {modality for found in there for modality in device.modalities(found)}
    lengths = [n.length for n in wanted if not done or not n.modalities or n.modalities & done]
    if not lengths:
        raise fail("required", "it isn't known how long it takes: give the end", "Appointment.end")
    return leg | {"end": clock.instant(dates.plus(dates.moment(leg["start"]), sum(lengths, timedelta(0))))}


async def move(unit: UnitOfWork, booking: Resource, to: Resource, reason: str | None) -> Resource:
    """The booking at another time: as proposed (`to` has participants and slots), or just from another start on."""
    if booking["status"] not in {"booked", "pending"}:
        raise fail("business-rule", f"the appointment is {booking['status']}: only one to come is moved", "Appointment.status")
    start, end = occupancy.interval(booking)
    moved = {k: v for k, v in booking.items() if k != "slot"}
    if "participant" in to:
        _require_for(booking, to)
        moved |= {e: to[e] for e in ("start", "end", "slot", "minutesDuration") if e in to}
        kept = [p for p in booking["participant"] if not _is_placed(p)]
        moved["participant"] = kept + [p | {"status": "accepted"} for p in to["participant"] if _is_placed(p)]
    else:
        begins = dates.moment(to["start"])
        moved |= {"start": clock.instant(begins), "end": clock.instant(dates.plus(begins, end - start))}
    if dates.moment(moved["start"]) < unit.now - HOLD:
        raise fail("business-rule", "an appointment isn't moved into the past", "Appointment.start")
    return await unit.update(moved | ({"comment": reason} if reason else {}))


def _require_for(booking: Resource, proposed: Resource) -> None:
    """A proposal is for what the booking is for. FhirError `business-rule`."""
    patients = appointment.participants(proposed, "Patient")
    others = set(patients) - set(appointment.participants(booking, "Patient"))
    if others or sorted(appointment.orders(proposed)) != sorted(appointment.orders(booking)):
        text = "that was proposed for something else: look for times with `appointment`, the booking that is to be moved"
        raise fail("business-rule", text, "Appointment.basedOn")


def _is_placed(participant: Resource) -> bool:
    """Whether it is one whose time is taken, or a room: these follow the time, everybody else stays."""
    one = {"participant": [participant]}
    return bool(occupancy.takes(one) or appointment.participants(one, "Location"))


async def cancel(unit: UnitOfWork, booking: Resource, code: str, reason: str, *, again: bool) -> list[Resource]:
    """The booking, cancelled; `again`: with an entry of the waiting list in its place."""
    if booking["status"] not in _CANCELLABLE:
        raise fail("business-rule", f"the appointment is {booking['status']} and can't be cancelled", "Appointment.status")
    ended = await unit.update(waiting.cancelled(booking, code, reason))
    return [ended, await waiting.enlist(unit, booking, reason)] if again else [ended]


async def no_show(unit: UnitOfWork, booking: Resource, reason: str | None) -> Resource:
    """The patient didn't come: what was scheduled waits again."""
    _require_expected(booking, "missed")
    if occupancy.interval(booking)[0] > unit.now:
        raise fail("business-rule", "the appointment is yet to come", "Appointment.start")
    return await unit.update(booking | {"status": "noshow"} | ({"comment": reason} if reason else {}))


async def check_in(unit: UnitOfWork, booking: Resource) -> Resource:
    """The patient is there, and all is said and signed: the step is ready for the scanner."""
    if booking["status"] == "checked-in":
        return booking
    _require_expected(booking, "checked in")
    if occupancy.interval(booking)[0] > unit.now + _EARLIEST_ARRIVAL:
        raise fail("business-rule", "the appointment is on a later day: move it first", "Appointment.start")
    return await unit.update(booking | {"status": "checked-in"})


def _require_expected(booking: Resource, what: str) -> None:
    if booking["status"] not in {"booked", "arrived"}:
        text = f"the appointment is {booking['status']}: only one that is booked is {what}"
        raise fail("business-rule", text, "Appointment.status")
