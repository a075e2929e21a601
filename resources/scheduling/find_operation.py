"""`Appointment/$find` (IHE ITI-115): times at which everything that an examination, or a visit of several, needs is free."""

from datetime import datetime, timedelta
from typing import Final

from fhir_server import audit, clock
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import FhirError, Issue, fail, operation_outcome
from fhir_server.references import target
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation
from resources.identifiers import escaped, token
from resources.scheduling import finding
from resources.scheduling.finding import Found
from resources.scheduling.question import Question

_NEEDS: Final = {"Appointment": "s", "Slot": "s"}
_IN_ADDRESS: Final = {
    "start": "dateTime",
    "end": "dateTime",
    "visit-type": "string",
    "modality": "code",
    "minutes": "positiveInt",
    "wait": "positiveInt",
    "_count": "integer",
}
_NAMES: Final = frozenset(
    {
        *_IN_ADDRESS,
        "order",
        "referral-identifier",
        "patient-reference",
        "practitioner",
        "location-reference",
        "device",
        "appointment",
    }
)
_AHEAD: Final = timedelta(days=30)
_FARTHEST: Final = timedelta(days=366)
_MOST: Final = 100


def register(registry: Registry) -> None:
    definition = "https://profiles.ihe.net/ITI/Scheduling/OperationDefinition/appointment-find"
    registry.operation(
        Operation("find", definition, frozenset[Level]({"type"}), find, frozenset({"Appointment"}), parameters=_IN_ADDRESS)
    )


async def find(call: Call) -> Answer:
    """A searchset of Appointments in status `proposed`, the first free ones first."""
    arguments.check_body("find", call.body, _NAMES)
    await department_operation.require(call, "appointment-find", _NEEDS)

    async def work(unit: UnitOfWork) -> Found:
        question = await _question(unit, call)
        with unit.as_department():
            return await finding.find(unit, question)

    return Answer(bundle(call, await call.interactions.transact(call.access, call.act, work)))


def bundle(call: Call, found: Found) -> Resource:
    """The searchset; a visit's Appointments follow each other. What nothing suits is told in an OperationOutcome."""
    shown = [appointment for visit in found.visits for appointment in visit]
    entries = [{"fullUrl": f"{call.base_url}/Appointment/{a['id']}", "resource": a, "search": {"mode": "match"}} for a in shown]
    if found.lacking:
        issues = [Issue("informational", f"there is no Schedule of {what}", severity="information") for what in found.lacking]
        entries.append({"resource": operation_outcome(*issues), "search": {"mode": "outcome"}})
    return {"resourceType": "Bundle", "type": "searchset", "total": len(shown)} | ({"entry": entries} if entries else {})


async def _question(unit: UnitOfWork, call: Call) -> Question:
    start, end = _period(call)
    orders = await _orders(unit, call)
    moved = department_operation.reference(call, "appointment", "Appointment")
    if moved is not None:
        booking = await department_operation.seen(unit, moved)
        orders = orders or [to.id for r in booking.get("basedOn", ()) if (to := target(r)) and to.type == "ServiceRequest"]
    codes, modalities = tuple(arguments.given(call, "visit-type")), tuple(arguments.given(call, "modality"))
    if not (orders or codes or modalities):
        raise fail("required", "say for what: order, referral-identifier, visit-type or modality", status=400)
    patient = department_operation.reference(call, "patient-reference", "Patient")
    if patient is not None:
        await department_operation.seen(unit, patient)
    count = _number(call, "_count", _MOST)
    return Question(
        start,
        end,
        orders=tuple(orders),
        codes=codes,
        modalities=modalities,
        patient=str(patient) if patient else None,
        moved=moved.id if moved else None,
        devices=_references(call, "device", "Device"),
        people=_references(call, "practitioner", "Practitioner"),
        locations=_references(call, "location-reference", "Location"),
        minutes=_number(call, "minutes", 24 * 60),
        **{name: n for name, n in (("wait", _number(call, "wait", 12 * 60)), ("count", count)) if n is not None},
    )


async def _orders(unit: UnitOfWork, call: Call) -> list[str]:
    """The orders that are named, by reference or by an identifier. FhirError 404 for one that the caller doesn't see."""
    named = [to for ref in _references(call, "order", "ServiceRequest") if (to := target(ref))]
    found = [(await department_operation.seen(unit, to))["id"] for to in named]
    for part in arguments.parts(call.body, "referral-identifier"):
        identifier = part.get("valueIdentifier")
        system, value = (identifier.get("system", ""), identifier.get("value")) if isinstance(identifier, dict) else (None, None)
        if not (isinstance(system, str) and isinstance(value, str)):
            text = "referral-identifier is a valueIdentifier with its value"
            raise fail("value", text, "Parameters.parameter", status=400)
        wanted = token(system, value) if system else escaped(value)
        matches = await unit.search("ServiceRequest", identifier=wanted, intent="order") if value else []
        visible = [order for order in matches if await unit.seen("ServiceRequest", order["id"], "r")]
        if len(visible) != 1:
            raise fail("not-found", "there is no one order with this identifier", "Parameters.parameter")
        found.append(visible[0]["id"])
    return found


def _period(call: Call) -> tuple[datetime, datetime]:
    """From when to when; of what isn't said, the next 30 days."""
    now = clock.now()
    start = department_operation.moment(call, "start") or now
    end = department_operation.moment(call, "end") or min(max(start, now), now + _FARTHEST) + _AHEAD
    if not start < end or end > now + _FARTHEST:
        raise fail("value", "the end is after the start, within a year from now", "Parameters.parameter", status=400)
    return start, end


def _number(call: Call, name: str, most: int) -> int | None:
    said = arguments.one(call, name)
    if said is None:
        return None
    if not (said.isascii() and said.isdecimal() and len(said) < 6 and 0 < int(said) <= most):
        raise fail("value", f"{name} is a number from 1 to {most}", "Parameters.parameter", status=400)
    return int(said)


def _references(call: Call, name: str, resource_type: str) -> tuple[str, ...]:
    found = []
    for part in arguments.parts(call.body, name):
        to = target(part.get("valueReference"), call.base_url)
        if to is None or to.type != resource_type:
            raise fail("value", f"{name} is a valueReference to a {resource_type}", "Parameters.parameter", status=400)
        found.append(str(to))
    return tuple(found)


async def next_free(call: Call, question: Question) -> Found:
    """What is free now, for whoever came too late. Empty when the question has no answer any more."""

    async def work(unit: UnitOfWork) -> Found:
        with unit.as_department():
            return await finding.find(unit, question)

    try:
        return await call.interactions.transact(call.access, audit.Act("find", detail="next free"), work)
    except FhirError:
        return Found([], [])
