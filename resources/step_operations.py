"""What people say of a scheduled step (Task): `$track`, `$start`, `$complete`, `$stop`, `$repeat`, `$give-contrast`.

Each is called by POST on a step, with Parameters, and answers with Parameters of references (`step`, `procedure`, ...).
The rules are in `tracking.py`, `examination.py` and `contrast.py`.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from fhir_server import audit, clock
from fhir_server.elements import codes
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target, ref
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import contrast, department_operation, examination, parameters, task, terms, tracking
from resources.department_operation import answer, seen
from resources.safety.answers import moment

_PEOPLE: Final = ("Practitioner", "PractitionerRole")
Rows = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _StepOperation:
    """An operation on a step: what it takes, which scopes it needs, and what it does. `do` gives what is answered."""

    name: str
    takes: frozenset[str]
    needs: dict[str, str]
    do: Callable[[UnitOfWork, Call, Resource], Awaitable[Rows]]

    async def __call__(self, call: Call) -> Answer:
        arguments.check_body(self.name, call.body, self.takes)
        await department_operation.require(call, self.name, self.needs)

        async def work(unit: UnitOfWork) -> Rows:
            step = await seen(unit, Target("Task", str(call.id)), "u")
            if not task.is_step(step):
                raise fail("business-rule", "that Task is no scheduled procedure step", "Task.intent")
            with unit.as_department():
                return [("step", f"Task/{step['id']}"), *await self.do(unit, call, step)]

        rows = await call.interactions.transact(call.access, call.act, work, audit.seen([f"Task/{call.id}"]))
        return Answer(answer(rows))


# $track


async def _track(unit: UnitOfWork, call: Call, step: Resource) -> Rows:
    wanted = parameters.required(arguments.one(call, "state"), "state", "says where the patient is")
    at = moment(given) if (given := arguments.moment(call, "at")) else unit.now
    if wanted not in {"arrived", "prepared", "in-room", "left"}:
        raise fail("value", "state is arrived, prepared, in-room or left", "Parameters.parameter", status=400)
    if step["status"] == "accepted" and wanted != "left":
        step = step | {"status": "ready"}
    possible = tracking.STATES.get(step["status"], ())
    if wanted not in possible:
        known = ", ".join(possible) or "nothing"
        raise fail("business-rule", f"the step is {step['status']}: it can be tracked as {known}", "Task.businessStatus")
    if (last := tracking.tracked(step)) and moment(last[-1][1]) > at:
        raise fail("business-rule", f"it was {last[-1][0]} at {last[-1][1]}, which is later", "Parameters.parameter")
    row = tracking.entry(wanted, at, await tracking.person(unit))
    await unit.update(tracking.at_state(step, wanted) | {"extension": [*step.get("extension", ()), row]})
    booked = await unit.get(task.appointment_of(step))
    if wanted != "left" and booked is not None and booked["status"] == "booked":
        await unit.update(booked | {"status": "arrived"})
    return []


# $start, $complete, $stop


async def _start(unit: UnitOfWork, call: Call, step: Resource) -> Rows:
    return [("procedure", _name(await examination.start(unit, step, arguments.moment(call, "at"))))]


async def _complete(unit: UnitOfWork, call: Call, step: Resource) -> Rows:
    return [("procedure", _name(p)) for p in await examination.complete(unit, step, _done(call))]


async def _stop(unit: UnitOfWork, call: Call, step: Resource) -> Rows:
    reason = parameters.required(parameters.concept(call, "reason"), "reason", "says why it was stopped (DICOM CID 9301)")
    repeat = parameters.flag(call, "repeat")
    if repeat and terms.WRONG_ENTRY in codes(reason, terms.DCM):
        raise fail("business-rule", "a step that was selected by mistake waits again: nothing is to be repeated", "Task.status")
    rows = [("procedure", _name(p)) for p in await examination.stop(unit, step, reason, _done(call))]
    if repeat:
        rows.append(("new-step", _name(await examination.again(unit, step, reason))))
    return rows


def _done(call: Call) -> examination.Done:
    return examination.Done(
        arguments.moment(call, "start"),
        arguments.moment(call, "end"),
        [str(to) for to in parameters.references(call, "performer", *_PEOPLE)],
        parameters.concepts(call, "protocol"),
        parameters.number(call, "series"),
        parameters.number(call, "images"),
        arguments.one(call, "note"),
    )


# $repeat


async def _repeat(unit: UnitOfWork, call: Call, step: Resource) -> Rows:
    reason = parameters.required(parameters.concept(call, "reason"), "reason", "says why (DICOM CID 7011)")
    if not examination.REJECT_REASONS.intersection(codes(reason, terms.DCM)):
        raise fail("code-invalid", "why it is repeated is told by a code of DICOM CID 7011", "Parameters.parameter", status=422)
    images, anew = parameters.number(call, "images", 1), parameters.flag(call, "new-step")
    if images is None and not anew:
        raise fail("required", "images says how many were rejected, new-step that all is done anew", status=400)
    if images is not None:
        step = await examination.reject(unit, step, reason, images)
    if not anew:
        return []
    if step["status"] not in {"completed", "failed"}:
        raise fail("conflict", f"the step is {step['status']}: only one that has ended is done anew", "Task.status")
    return [("new-step", _name(await examination.again(unit, step, reason)))]


# $give-contrast


async def _give(unit: UnitOfWork, call: Call, step: Resource) -> Rows:
    agent = parameters.required(parameters.concept(call, "agent"), "agent", "says which contrast agent")
    dose = parameters.required(parameters.quantity(call, "dose"), "dose", "says how much")
    person = await tracking.person(unit)
    performers = [str(to) for to in parameters.references(call, "performer", *_PEOPLE)] or ([person] if person else [])
    given: Resource = {
        "status": "completed",
        "medicationCodeableConcept": agent,
        "effectiveDateTime": arguments.moment(call, "at") or clock.instant(unit.now),
        "dosage": {"dose": dose} | ({"route": r} if (r := parameters.concept(call, "route")) else {}),
    }
    if moment(given["effectiveDateTime"]) > unit.now + tracking.CLOCKS_DIFFER:
        raise fail("business-rule", "what is given is told when it is given: this time is to come", "Parameters.parameter")
    if performers:
        given["performer"] = [{"actor": {"reference": p}} for p in performers]
    if why := arguments.one(call, "override-reason"):
        given["extension"] = [{"url": contrast.OVERRIDE, "valueString": why}]
    return [("medication-administration", _name(await contrast.give(unit, step, given)))]


def _name(resource: Resource) -> str:
    return str(ref(resource)["reference"])


_DONE: Final = frozenset({"start", "end", "performer", "protocol", "series", "images", "note"})
_PERFORMS: Final = {"Task": "u", "Procedure": "cu"}
OPERATIONS: Final = (
    _StepOperation("track", frozenset({"state", "at"}), {"Task": "u"}, _track),
    _StepOperation("start", frozenset({"at"}), _PERFORMS, _start),
    _StepOperation("complete", _DONE, _PERFORMS, _complete),
    _StepOperation("stop", _DONE | {"reason", "repeat"}, _PERFORMS, _stop),
    _StepOperation("repeat", frozenset({"reason", "images", "new-step"}), {"Task": "cu"}, _repeat),
    _StepOperation(
        "give-contrast",
        frozenset({"agent", "dose", "route", "at", "performer", "override-reason"}),
        {"Task": "u", "MedicationAdministration": "c"},
        _give,
    ),
)


def register(registry: Registry) -> None:
    """Offer them."""
    levels = frozenset[Level]({"instance"})
    for one in OPERATIONS:
        definition = f"urn:fhir-ris:OperationDefinition/{one.name}"
        registry.operation(Operation(one.name, definition, levels, one, frozenset({"Task"}), affects_state=True))
