"""`Task/[id]/$claim`, `$release` and `$reassign`: who reads a study. Two who claim at once get one owner between them."""

from collections.abc import Awaitable, Callable
from typing import Final

from fhir_server import audit, clock
from fhir_server.operations import Answer, Call, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation
from resources.department_operation import reference, seen
from resources.reading import worklist
from resources.reading.offering import offer

_NEEDS: Final = {"Task": "u"}
_PEOPLE: Final = ("Practitioner", "PractitionerRole")


async def claim(call: Call) -> Answer:
    """The reading is the caller's. FhirError 409 when it is another's already, or has ended."""
    arguments.check_body("claim", call.body, frozenset({"owner"}))
    await department_operation.require(call, "claim", _NEEDS)
    wanted = reference(call, "owner", *_PEOPLE)
    who = call.access.user or (str(wanted) if wanted else None)
    if who is None:
        raise fail("required", "owner says who reads it", "Parameters.parameter", status=400)
    if wanted is not None and str(wanted) != who:
        raise fail("business-rule", "$claim is for oneself: $reassign gives a reading to another", "Parameters.parameter")

    async def change(_unit: UnitOfWork, reading: Resource) -> Resource:
        if (had := worklist.owner(reading)) not in {None, who}:
            raise fail("conflict", f"the reading is claimed by {had}", "Task.owner")
        return _owned(reading, who)

    return await _change(call, change)


async def release(call: Call) -> Answer:
    """The reading is nobody's again. FhirError 409 when it is another's."""
    arguments.check_body("release", call.body, frozenset())
    await department_operation.require(call, "release", _NEEDS)

    async def change(_unit: UnitOfWork, reading: Resource) -> Resource:
        if call.access.person and (had := worklist.owner(reading)) not in {None, call.access.user}:
            raise fail("conflict", f"the reading is claimed by {had}: $reassign takes it from somebody", "Task.owner")
        kept = {k: v for k, v in reading.items() if k != "owner"}
        return kept | ({"status": "requested"} if reading["status"] == "accepted" else {})

    return await _change(call, change)


async def reassign(call: Call) -> Answer:
    """The reading is somebody else's, or (without owner) nobody's; the reason stays in its notes."""
    arguments.check_body("reassign", call.body, frozenset({"owner", "reason"}))
    await department_operation.require(call, "reassign", _NEEDS)
    to, reason = reference(call, "owner", *_PEOPLE, "Organization"), arguments.one(call, "reason")
    if not reason:
        raise fail("required", "reason says why it is taken from its owner", "Parameters.parameter", status=400)

    async def change(unit: UnitOfWork, reading: Resource) -> Resource:
        if to is not None and await unit.seen(to.type, to.id, "r") is None:
            raise fail("value", f"there is no {to}", "Task.owner", status=422)
        note: Resource = {"text": f"Reassigned: {reason}", "time": clock.instant(unit.now)}
        if call.access.user:
            note["authorReference"] = {"reference": call.access.user}
        noted = reading | {"note": [*reading.get("note", ()), note]}
        if to is None:
            kept = {k: v for k, v in noted.items() if k != "owner"}
            return kept | ({"status": "requested"} if reading["status"] == "accepted" else {})
        return _owned(noted, str(to))

    return await _change(call, change)


def _owned(reading: Resource, who: str) -> Resource:
    begun = reading["status"] == "in-progress"
    return reading | {"owner": {"reference": who}, "status": "in-progress" if begun else "accepted"}


async def _change(call: Call, change: Callable[[UnitOfWork, Resource], Awaitable[Resource]]) -> Answer:
    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        reading = await seen(unit, Target("Task", str(call.id)), "u")
        if not worklist.is_reading(reading):
            raise fail("business-rule", "this Task is not the reading of a study", "Task.code")
        if not worklist.is_open(reading):
            raise fail("conflict", f"the reading is {reading['status']}", "Task.status")
        changed = await change(unit, reading)
        with unit.as_department(), worklist.moving(unit):
            stored = await unit.update(changed)
        return lambda: unit.final(stored)

    named = audit.seen([f"Task/{call.id}"])
    return Answer((await call.interactions.transact(call.access, call.act, work, named))())


def register(registry: Registry) -> None:
    """Offer them."""
    offer(registry, "Task", {"claim": claim, "release": release, "reassign": reassign})
