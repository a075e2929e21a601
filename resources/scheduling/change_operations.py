"""What becomes of a booking: `$reschedule`, `$cancel`, `$no-show` and `$check-in` of an Appointment (own)."""

from collections.abc import Awaitable, Callable
from typing import Final

from fhir_server import clock
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation
from resources.scheduling import bookings, proposals

_NEEDS: Final = {"Appointment": "u"}
# Why a booking is cancelled, for the figures: urn:fhir-ris:cancellation.
REASONS: Final = frozenset({"patient", "department", "scanner-down", "weather", "not-prepared", "deceased", "error", "other"})

Done = list[Resource]


def register(registry: Registry) -> None:
    of, level = frozenset({"Appointment"}), frozenset[Level]({"instance"})
    for name, run in (("reschedule", reschedule), ("cancel", cancel), ("no-show", no_show), ("check-in", check_in)):
        definition = f"urn:fhir-ris:OperationDefinition/Appointment-{name}"
        registry.operation(Operation(name, definition, level, run, of, affects_state=True))


async def reschedule(call: Call) -> Answer:
    """The Appointment at another time: `appointment-reference` (proposed by `$find`), or `start`. 409 when it is taken."""
    arguments.check_body("reschedule", call.body, frozenset({"appointment-reference", "start", "reason"}))
    to = department_operation.reference(call, "appointment-reference", "Appointment")
    start, reason = department_operation.moment(call, "start"), arguments.one(call, "reason")
    if (to is None) == (start is None):
        text = "$reschedule needs appointment-reference, or start: a moment with its time zone"
        raise fail("required", text, "Parameters.parameter", status=400)
    proposed: Resource = {"start": clock.instant(start)} if start else {}
    if to is not None:
        kept = await proposals.of(call.interactions.store.db, to.id)
        if kept is None or len(kept[0]) > 1:
            raise fail("not-found", f"there is no {to} proposed for one appointment")
        proposed = kept[0][0]

    async def work(unit: UnitOfWork, booking: Resource) -> Done:
        return [await bookings.move(unit, booking, proposed, reason)]

    return await _on_booking(call, "appointment-reschedule", work)


async def cancel(call: Call) -> Answer:
    """The Appointment, cancelled: `code` says why for the figures, `reason` in words; `waiting-list`: it waits for another."""
    arguments.check_body("cancel", call.body, frozenset({"code", "reason", "waiting-list"}))
    code, reason = arguments.one(call, "code") or "other", arguments.one(call, "reason")
    if code not in REASONS:
        raise fail("code-invalid", f"code is one of {', '.join(sorted(REASONS))}", "Parameters.parameter", status=400)
    if reason is None:
        raise fail("required", "say why: reason", "Parameters.parameter", status=400)
    again = any(part.get("valueBoolean") is True for part in arguments.parts(call.body, "waiting-list"))

    async def work(unit: UnitOfWork, booking: Resource) -> Done:
        return await bookings.cancel(unit, booking, code, reason, again=again)

    return await _on_booking(call, "appointment-cancel", work)


async def no_show(call: Call) -> Answer:
    """The Appointment, `noshow`."""
    arguments.check_body("no-show", call.body, frozenset({"reason"}))
    reason = arguments.one(call, "reason")

    async def work(unit: UnitOfWork, booking: Resource) -> Done:
        return [await bookings.no_show(unit, booking, reason)]

    return await _on_booking(call, "appointment-no-show", work)


async def check_in(call: Call) -> Answer:
    """The Appointment, `checked-in`."""
    arguments.check_body("check-in", call.body, frozenset())

    async def work(unit: UnitOfWork, booking: Resource) -> Done:
        return [await bookings.check_in(unit, booking)]

    return await _on_booking(call, "appointment-check-in", work)


async def _on_booking(call: Call, operation: str, change: Callable[[UnitOfWork, Resource], Awaitable[Done]]) -> Answer:
    await department_operation.require(call, operation, _NEEDS)

    async def work(unit: UnitOfWork) -> Callable[[], Done]:
        booking = await department_operation.seen(unit, Target("Appointment", str(call.id)), "u")
        with unit.as_department():
            done = await change(unit, booking)
        return lambda: [unit.final(one) for one in done]

    stored = (await call.interactions.transact(call.access, call.act, work))()
    if len(stored) == 1:
        return Answer(stored[0])
    rows = [{"name": "return", "resource": one} for one in stored]
    return Answer({"resourceType": "Parameters", "parameter": rows})
