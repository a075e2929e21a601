"""What the forms of the board do: each is one operation, and leads back to the board."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from console.asking import parameters, reference
from console.screens.schedule import asked as asking
from console.screens.schedule.asked import Asked
from console.screens.schedule.board import Scanner, scanners
from console.visit import Visit
from fhir_server import clock
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.registry import Resource
from resources.scheduling import schedules

_LONGEST_BLOCK: Final = timedelta(days=31)
_CLOSED: Final = "urn:fhir-ris:closed-time"  # the Schedule, from when and until when


async def book(visit: Visit, asked: Asked) -> Response:
    """Book, or hold, what was proposed or held; or book a time of one's own choice."""
    form, hold = visit.form, visit.form.get("hold") is not None
    proposal = form.get("proposal")
    if proposal is not None:
        given = {"appointment_reference": reference(f"Appointment/{proposal}")}
        note = {} if hold else {"comment": form.get("comment")}
        booked = await _at_a_time(visit, "Appointment/$hold" if hold else "Appointment/$book", **given, **note)
    else:
        booked = await _own_choice(visit, asked, _moment(visit), form.text("on"))
    return _to(visit, asked, booked, "schedule-held" if hold else "schedule-booked")


async def walk_in(visit: Visit, asked: Asked) -> Response:
    """Book it for now, and check the patient in."""
    booked = await _own_choice(visit, asked, visit.now.replace(second=0, microsecond=0), visit.form.text("on"))
    await visit.desk.operation(f"Appointment/{booked['id']}/$check-in")
    return _to(visit, asked, booked, "schedule-walked-in")


async def _own_choice(visit: Visit, asked: Asked, at: datetime, on: str) -> Resource:
    """Book the picked orders at this time on this scanner; what the form leaves out, the catalogue says."""
    patients = [(await visit.desk.read(f"ServiceRequest/{id_}"))["subject"] for id_ in asked.orders]
    if not patients or not on:
        raise fail("required", visit.t("schedule.say-what-and-where"), status=422)
    minutes = asking.minutes(visit.form.text("minutes"))
    wanted = {
        "resourceType": "Appointment",
        "status": "pending",
        "basedOn": [{"reference": f"ServiceRequest/{id_}"} for id_ in asked.orders],
        "start": clock.instant(at),
        "participant": [{"actor": a, "status": "accepted"} for a in (patients[0], {"reference": f"Device/{on}"})],
    } | ({"end": clock.instant(at + timedelta(minutes=minutes))} if minutes else {})
    form = visit.form
    why = {name: form.get(name) for name in ("comment", "overbook", "displace")}
    return await _at_a_time(visit, "Appointment/$book", appointment_resource=wanted, **why)


async def _at_a_time(visit: Visit, address: str, **given: Any) -> Resource:
    """Hold or book; the first Appointment. FhirError 409 with what the operation says when it came too late."""
    reply = await visit.desk.ask("POST", address, {"resourceType": "Parameters", "parameter": parameters(given)})
    found = reply.resource or {}
    if found.get("resourceType") == "OperationOutcome":
        graver = [i for i in found["issue"] if i["severity"] in {"error", "fatal"}]
        raise FhirError(*(Issue(i["code"], i.get("diagnostics", "")) for i in graver), status=reply.status)
    first: Resource = found["entry"][0]["resource"]
    return first


def _moment(visit: Visit) -> datetime:
    at = visit.form.get("at")
    if at is None:
        raise fail("required", visit.t("schedule.say-when"), status=422)
    return visit.moment(at)


async def reschedule(visit: Visit, asked: Asked) -> Response:
    """Another time: the proposed one, or from another moment on."""
    form, to = visit.form, visit.form.get("proposal")
    given = {"appointment_reference": reference(f"Appointment/{to}")} if to else {}
    if not to:
        given["start"] = {"valueDateTime": clock.instant(_moment(visit))}
    moved = await _on_booking(visit, asked, "$reschedule", **given, reason=form.get("reason"))
    return _to(visit, asked, moved, "schedule-moved")


async def cancel(visit: Visit, asked: Asked) -> Response:
    """Cancel a booking, let go a hold, or take an entry off the waiting list."""
    form = visit.form
    again = True if form.get("waiting-list") else None
    code = {"valueCode": form.text("code") or "other"}
    await _on_booking(visit, asked, "$cancel", reason=form.get("reason"), code=code, waiting_list=again)
    return visit.to(replace(asked.plain, waiting=asked.waiting).to(), "schedule-listed" if again else "schedule-cancelled")


async def no_show(visit: Visit, asked: Asked) -> Response:
    """The patient didn't come."""
    await _on_booking(visit, asked, "$no-show")
    return visit.to(asked.plain.to(), "schedule-missed")


async def check_in(visit: Visit, asked: Asked) -> Response:
    """The patient is there."""
    await _on_booking(visit, asked, "$check-in")
    return visit.to(asked.to(), "schedule-checked-in")


async def _on_booking(visit: Visit, asked: Asked, operation: str, **given: Any) -> Resource:
    """An operation of the picked booking, as it was when the page showed it."""
    address = f"Appointment/{asked.booking}/{operation}"
    found: Resource = await visit.desk.operation(address, if_match=visit.form.get("version"), **given)
    return found


def _to(visit: Visit, asked: Asked, booked: Resource, done: str) -> Response:
    """The board with the new booking on it, and nothing picked but a hold, which is still to be booked."""
    day = datetime.fromisoformat(booked["start"]).astimezone(visit.zone).date()
    shown = booked["id"] if booked["status"] == "pending" else ""
    return visit.to(replace(asked.plain, day=day, booking=shown).to(), done)


# The waiting list


async def enlist(visit: Visit, asked: Asked) -> Response:
    """Put the picked orders on the waiting list."""
    for id_ in asked.orders:
        order = await visit.desk.read(f"ServiceRequest/{id_}")
        entry = {
            "resourceType": "Appointment",
            "status": "waitlist",
            "basedOn": [{"reference": f"ServiceRequest/{id_}"}],
            "created": clock.instant(visit.now),
            "participant": [{"actor": order["subject"], "status": "needs-action"}],
        } | ({"comment": why} if (why := visit.form.get("comment")) else {})
        await visit.desk.create(entry, unless=f"based-on=ServiceRequest/{id_}&status=waitlist")
    return visit.to(replace(asked.plain, waiting=True).to(), "schedule-listed")


# The time of a scanner


async def block(visit: Visit, asked: Asked) -> Response:
    """Close a time of a scanner: a Slot that nobody can book, one a day, however often the form is sent."""
    form = visit.form
    start, end = _moment(visit), visit.moment(form.text("until"))
    if not start < end <= start + _LONGEST_BLOCK:
        raise fail("value", visit.t("schedule.until-after-from"), status=422)
    known = next((s for s in await scanners(visit) if s.id == form.get("on")), None)
    of = _schedule(visit, known)
    entries = []
    while start < end:
        midnight = datetime.combine(start.astimezone(visit.zone).date() + timedelta(days=1), datetime.min.time(), visit.zone)
        until = min(end, midnight)
        name = f"{of['id']} {clock.instant(start)} {clock.instant(until)}"
        slot = {
            "resourceType": "Slot",
            "identifier": [{"system": _CLOSED, "value": name}],
            "schedule": {"reference": f"Schedule/{of['id']}"},
            "status": "busy-unavailable",
            "start": clock.instant(start),
            "end": clock.instant(until),
        } | ({"comment": why} if (why := form.get("comment")) else {})
        unless = urlencode({"identifier": f"{_CLOSED}|{name}", "status": "busy-unavailable"})
        entries.append({"resource": slot, "request": {"method": "POST", "url": "Slot", "ifNoneExist": unless}})
        start = until
    await visit.desk.ask("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    return visit.to(asked.plain.to(), "schedule-blocked")


def _schedule(visit: Visit, one: Scanner | None) -> Resource:
    """The Schedule that a scanner's time is closed in: its own, rather than one that it shares."""
    if one is None or not one.schedules:
        raise fail("business-rule", visit.t("schedule.no-schedule"), status=422)
    return min(one.schedules, key=lambda s: len(schedules.actors(s, *schedules.BOOKABLE)))


async def unblock(visit: Visit, asked: Asked) -> Response:
    """Open a time again that somebody has closed."""
    change = {"op": "replace", "path": "/status", "value": "entered-in-error"}
    await visit.desk.patch(f"Slot/{asked.slot}", change, if_match=visit.form.get("version"))
    return visit.to(asked.plain.to(), "schedule-unblocked")


async def generate(visit: Visit, asked: Asked) -> Response:
    """Bring the slots of a Schedule to where its hours say they are."""
    await visit.desk.operation(f"Schedule/{visit.form.text('schedule')}/$generate-slots")
    return visit.to(asked.to(), "schedule-generated")


DEEDS: Final[dict[str, Callable[[Visit, Asked], Awaitable[Response]]]] = {
    "book": book,
    "walk-in": walk_in,
    "reschedule": reschedule,
    "cancel": cancel,
    "no-show": no_show,
    "check-in": check_in,
    "enlist": enlist,
    "block": block,
    "unblock": unblock,
    "generate": generate,
}
