"""What needs the payer's authorization isn't booked without it, by whatever door: a booked Appointment, a scheduled step.

The catalogue says what needs one (`authorized.REQUIRED`). It must hold at the booked time and have a unit left, or somebody who
may has overridden that (`override.py`). The requested procedure is then marked with it, and has its unit until it is revoked. A
booking that is moved is judged anew. What is examined unbooked is not stopped at the scanner: people are shown it.
"""

from datetime import datetime, tzinfo

from fhir_server import clock
from fhir_server.outcome import FhirError, Issue
from fhir_server.references import ref
from fhir_server.registry import Change, Resource
from fhir_server.search import dates
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, service_request, task, work_items
from resources.coverage import authorized, marks
from resources.coverage.authorized import Wanted

MISSING = "authorization-missing"  # the work item: an order that was to be booked, or was examined, without one
_SCHEDULED = frozenset({"accepted", "ready"})


class NotAuthorized(FhirError):
    """A booking without the authorization that it needs. `order` is what it is for, `text` what people are told."""

    def __init__(self, order: Resource, text: str, expression: str) -> None:
        super().__init__(Issue("business-rule", text, expression))
        self.order = order
        self.text = text


class Booking:
    """The reactions. `zone` is the department's, in which an authorization's days are meant."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone

    async def follow_appointment(self, unit: UnitOfWork, change: Change) -> None:
        """A booking, or one at another time, with or without a station."""
        booked = change.after
        if booked is None or not appointment.is_booked(booked):
            return
        if appointment.is_booked(change.before) and (change.before or {}).get("start") == booked["start"]:
            return
        for order_id in appointment.orders(booked):
            for procedure in await _to_be_booked(unit, booked, order_id):
                await self._authorize(unit, procedure, booked["start"], "Appointment.basedOn")

    async def follow_step(self, unit: UnitOfWork, change: Change) -> None:
        """A step that is scheduled, with or without an appointment, or begun without having been."""
        step = change.after
        if step is None or not task.is_step(step):
            return
        before = change.before or {}
        if step["status"] in _SCHEDULED and not (before.get("status") in _SCHEDULED and _start(before) == _start(step)):
            procedure = await unit.get(step.get("focus"))
            # One that was held after it was scheduled has its unit already; one that was put on hold with a time has none.
            was_held = before.get("status") == "on-hold" and _start(before) == _start(step)
            if procedure is not None and not (was_held and marks.bound(procedure)):
                await self._authorize(unit, procedure, str(_start(step)), "Task.restriction.period")
        elif change.became("status", "in-progress", "completed") and before.get("status") not in _SCHEDULED | {"in-progress"}:
            await self._show_if_missing(unit, step)

    async def _authorize(self, unit: UnitOfWork, procedure: Resource, start: str, expression: str) -> None:
        """Mark a procedure with the authorization that it is booked on. NotAuthorized without one."""
        wanted = await authorized.wanted(unit, procedure)
        if wanted is None or marks.is_overridden(procedure, wanted.order):
            return
        why = await self._take(unit, wanted, dates.moment(start))
        if why is not None:
            raise NotAuthorized(wanted.order or procedure, _refusal(wanted, why), expression)
        for request in wanted.requests:
            await work_items.close(unit, MISSING, request, "authorized")

    async def _take(self, unit: UnitOfWork, wanted: Wanted, moment: datetime) -> str | None:
        """Take a unit of the authorization that holds at that moment. Else why there is none, and nothing is taken."""
        found = await authorized.find(unit, wanted, moment, self._zone)
        if found.terms is None:
            return found.why_not
        current = await unit.get(ref(wanted.procedure))
        if current is not None and service_request.is_procedure(current) and marks.bound(current) != found.terms.of:
            await marks.mark(unit, current, marks.AUTHORIZATION, {"valueReference": {"reference": found.terms.of}})
        return None

    async def _show_if_missing(self, unit: UnitOfWork, step: Resource) -> None:
        procedure = await unit.get(step.get("focus"))
        wanted = await authorized.wanted(unit, procedure) if procedure is not None else None
        if wanted is None or marks.is_overridden(wanted.procedure, wanted.order):
            return
        if await self._take(unit, wanted, clock.now()) is not None:
            about = wanted.requests[-1]
            text = "An examination that needs the payer's authorization was begun without one: get it, or say why it needs none"
            await work_items.raise_once(unit, MISSING, about, text, about=about, patient=_patient(wanted.procedure))


def _start(step: Resource) -> str | None:
    start: str | None = step.get("restriction", {}).get("period", {}).get("start")
    return start


def _patient(request: Resource) -> str | None:
    patient: str | None = request["subject"].get("reference")
    return patient


def _refusal(wanted: Wanted, why: str) -> str:
    name = next((c["display"] for c in wanted.procedure.get("code", {}).get("coding", ()) if "display" in c), "this procedure")
    known = f" ({why})" if why else ""
    return (
        f"{name} needs the payer's authorization, and none holds at that time{known}: get one "
        "(CoverageEligibilityRequest/$submit), or override it with a reason (ServiceRequest/[id]/$override-authorization)"
    )


async def _to_be_booked(unit: UnitOfWork, booked: Resource, request_id: str) -> list[Resource]:
    """The requested procedures of an order that a booking is for: those of which a step has not begun; else the order itself.

    With stations, those whose steps it has scheduled there.
    """
    request = await unit.read("ServiceRequest", request_id)
    if request is None:
        return []
    procedures = [request] if service_request.is_procedure(request) else await service_request.procedures_of(unit, request_id)
    if not procedures:
        return [request] if service_request.is_order(request) else []
    steps = await task.steps_of(unit, *(p["id"] for p in procedures))
    own = f"Appointment/{booked['id']}" if appointment.participants(booked, "Device") else None
    meant = [s for s in steps if s["status"] in task.BEFORE_START and (own is None or task.appointment_of(s) == own)]
    waiting = {s.get("focus", {}).get("reference") for s in meant}
    return [p for p in procedures if ref(p)["reference"] in waiting or not steps]
