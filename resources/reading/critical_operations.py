"""`DiagnosticReport/[id]/$critical`: somebody must be told. `CommunicationRequest/[id]/$acknowledge`: it was understood.

$critical     `category` (valueCode: the RadLex code), `finding` (valueString), `recipient` (valueReference; else who ordered),
              `found` (valueInstant, from when the time runs; else now)
$acknowledge  `by` (valueReference to a named person; a referrer acknowledges for itself), `medium` (valueCode of v3
              ParticipationMode: PHONE, FACE, WRITTEN), `read-back` (valueBoolean), `at` (valueInstant; else now)
"""

from collections.abc import Callable
from datetime import datetime
from html import escape
from typing import Any, Final

from fhir_server import audit, clock
from fhir_server.elements import concept
from fhir_server.operations import Answer, Call, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target, ref
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation
from resources.department_operation import reference, seen
from resources.reading import critical_request, readers
from resources.reading.critical_request import ACTIONABLE
from resources.reading.offering import offer
from resources.security_labels import labelled

_PEOPLE: Final = ("Practitioner", "PractitionerRole", "Patient", "RelatedPerson")
_MODES: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationMode"
_MEDIA: Final = {
    "PHONE": "telephone",
    "FACE": "face-to-face",
    "WRITTEN": "written",
    "ELECTRONIC": "electronic data",
    "VIDEOCONF": "videoconferencing",
}
_ACKNOWLEDGED: Final = {"CommunicationRequest": "u", "Communication": "c"}
_UNTOLD: Final = frozenset({"cancelled", "entered-in-error"})


async def critical(call: Call) -> Answer:
    """The CommunicationRequest (201). FhirError 400 for what isn't known, 409 for a report that is withdrawn."""
    arguments.check_body("critical", call.body, frozenset({"category", "finding", "recipient", "found"}))
    await department_operation.require(call, "critical", {"DiagnosticReport": "u", "CommunicationRequest": "c"})
    grade, finding = arguments.one(call, "category"), arguments.one(call, "finding")
    if grade not in ACTIONABLE:
        raise fail("value", f"category is one of {', '.join(ACTIONABLE)} (RadLex)", "Parameters.parameter", status=400)
    if not finding:
        raise fail("required", "finding says what must be told", "Parameters.parameter", status=400)
    to, found = reference(call, "recipient", *_PEOPLE, "Organization"), _moment(call, "found")

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        report = await seen(unit, Target("DiagnosticReport", str(call.id)), "u")
        if report["status"] in _UNTOLD:
            raise fail("conflict", f"the report is {report['status']}", "DiagnosticReport.status")
        if to is not None and await unit.seen(to.type, to.id, "r") is None:
            raise fail("value", f"there is no {to}", "CommunicationRequest.recipient", status=422)
        with unit.as_department():
            known = await critical_request.of_grade(unit, report, grade)
            if known is not None and known["status"] != "completed":
                raise fail("conflict", f"this is under way: CommunicationRequest/{known['id']}", "DiagnosticReport.extension")
            recipient = {"reference": str(to)} if to else None
            made = await critical_request.open_request(unit, report, grade, finding, recipient, found or unit.now)
            await unit.update(critical_request.on_report(report, made))
        return lambda: unit.final(made)

    named = audit.seen([f"DiagnosticReport/{call.id}"])
    return Answer((await call.interactions.transact(call.access, call.act, work, named))(), status=201)


async def acknowledge(call: Call) -> Answer:
    """The Communication (201). FhirError 409 for what is acknowledged already, 400 without a named person or a read-back."""
    arguments.check_body("acknowledge", call.body, frozenset({"by", "medium", "read-back", "at"}))
    await department_operation.require(call, "acknowledge", _ACKNOWLEDGED, person=True)
    by, medium, at = reference(call, "by", *_PEOPLE), arguments.one(call, "medium"), _moment(call, "at")
    own = call.access.role == "referrer"
    who = call.access.user if own else str(by) if by else None
    if who is None or (own and by is not None and str(by) != who):
        raise fail("required", "by names the person who has understood it", "Parameters.parameter", status=400)
    if medium is not None and medium not in _MEDIA:
        raise fail("value", f"medium is one of {', '.join(_MEDIA)}", "Parameters.parameter", status=400)
    read_back = own or next((p.get("valueBoolean") for p in arguments.parts(call.body, "read-back")), None)
    if read_back is not True:
        raise fail(
            "required", "read-back is true: the person has repeated what was understood", "Parameters.parameter", status=400
        )

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        request = await seen(unit, Target("CommunicationRequest", str(call.id)), "u")
        if not critical_request.is_critical(request):
            raise fail("business-rule", "this is not about a critical result", "CommunicationRequest.category")
        if own and not await _is_addressed(unit, request, who):
            raise fail("forbidden", "this is for somebody else to acknowledge", "CommunicationRequest.recipient")
        if request["status"] != "active":
            raise fail("conflict", f"this is {request['status']}", "CommunicationRequest.status")
        with unit.as_department():
            if not own and by is not None and await unit.seen(by.type, by.id, "r") is None:
                raise fail("value", f"there is no {who}", "Communication.recipient", status=422)
            made = await unit.create(
                await _communication(unit, call, request, who, medium or ("ELECTRONIC" if own else "PHONE"), at)
            )
        return lambda: unit.final(made)

    named = audit.seen([f"CommunicationRequest/{call.id}"])
    return Answer((await call.interactions.transact(call.access, call.act, work, named))(), status=201)


async def _is_addressed(unit: UnitOfWork, request: Resource, who: str) -> bool:
    """Whether a result is to be told to this person, in whatever role; what names nobody is for any who may see it."""
    named = request.get("recipient", [])
    roles = [r for one in named if (r := await unit.get(one)) is not None and r["resourceType"] == "PractitionerRole"]
    people = {str(one.get("reference")) for one in (*named, *(r.get("practitioner", {}) for r in roles))}
    return not named or who in people


async def _communication(unit: UnitOfWork, call: Call, request: Resource, who: str, medium: str, at: datetime | None) -> Resource:
    moment = clock.instant(at or unit.now)
    grade = ACTIONABLE[critical_request.category(request)]
    person = await readers.name(unit, {"reference": who}) or who
    sentence = f"Critical result ({grade}) told to {person} ({_MEDIA[medium]}), who has read it back, at {moment}."
    made: dict[str, Any] = {
        "resourceType": "Communication",
        "status": "completed",
        "basedOn": [ref(request)],
        "partOf": request.get("about", []),
        "category": request["category"][:2],
        "priority": request.get("priority", "stat"),
        "subject": request["subject"],
        "medium": [concept(_MODES, medium, _MEDIA[medium])],
        "sent": moment,
        "received": moment,
        "recipient": [{"reference": who}],
        "payload": request.get("payload", []),
        "note": [{"text": "Read back by the recipient", "time": moment}],
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{escape(sentence)}</div>'},
    }
    sender = {"reference": call.access.user} if call.access.user and call.access.user != who else request.get("requester")
    optional = {"sender": sender, "encounter": request.get("encounter")}
    return labelled(made | {k: v for k, v in optional.items() if v}, request)


def _moment(call: Call, name: str) -> datetime | None:
    """A moment that has been. FhirError 400 for one to come, or without a time zone."""
    text = arguments.moment(call, name)
    if text is None:
        return None
    found = datetime.fromisoformat(text) if "T" in text else None
    if found is None or found.tzinfo is None or found > clock.now():
        raise fail("value", f"{name} is a moment with its time zone, and not to come", "Parameters.parameter", status=400)
    return found


def register(registry: Registry) -> None:
    """Offer them."""
    offer(registry, "DiagnosticReport", {"critical": critical})
    offer(registry, "CommunicationRequest", {"acknowledge": acknowledge})
