"""An exam as it is now: what stands above its timeline, with the screens that handle each part."""

from dataclasses import dataclass
from datetime import datetime

from console.formats import concept, human_name, identifier, moment
from console.screens.exam import words
from console.screens.exam.record import Exam
from console.visit import Visit
from fhir_server.elements import codings
from fhir_server.registry import Resource
from resources import terms
from resources.device import name as device_name
from resources.report_section import decoded, is_plain_text
from smart_auth.scopes import Action

_OID = "urn:oid:"


@dataclass(frozen=True, slots=True)
class Step:
    """A scheduled step: `procedure` is what it is part of; `path` leads to it in the rooms, for who works there."""

    procedure: str
    status: str
    station: str
    start: datetime | None
    path: str


@dataclass(frozen=True, slots=True)
class Part:
    """An appointment, study, report or charge: its name, state (with the chip's kind), facts, and the screen for it."""

    name: str
    status: str
    chip: str
    start: datetime | None = None
    facts: tuple[str, ...] = ()
    path: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """All of it. `procedures`: names and states; `numbers`: of the order, by the codes of v2-0203."""

    procedures: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    appointments: tuple[Part, ...]
    studies: tuple[Part, ...]
    readings: tuple[Part, ...]
    reports: tuple[Part, ...]
    charges: tuple[Part, ...]
    requester: str
    numbers: tuple[tuple[str, str], ...]
    reason: str


def of(visit: Visit, exam: Exam) -> Summary:
    """The state of an exam, as far as its reader may see it."""
    order = exam.order
    numbers = [(code, identifier(order, code)) for code in ("ACSN", "PLAC", "FILL")]
    reasons = [concept(c) for c in order.get("reasonCode", ())]
    return Summary(
        tuple((concept(p.get("code")), words.status(visit.t, p)) for p in exam.procedures),
        tuple(_step(visit, exam, s) for s in exam.steps),
        tuple(_appointment(visit, exam, a) for a in exam.of("Appointment")),
        tuple(_study(visit, s) for s in exam.of("ImagingStudy")),
        tuple(_reading(visit, exam, r) for r in exam.readings),
        tuple(_report(visit, exam, r) for r in exam.of("DiagnosticReport")),
        tuple(_charge(visit, c) for c in exam.of("ChargeItem")),
        _person(exam, order.get("requester")),
        tuple((code, value) for code, value in numbers if value != "–"),
        ", ".join(reasons),
    )


def works_at(visit: Visit, screen: str) -> bool:
    """Whether the reader gets to a screen."""
    from console.screens import SCREENS

    needs = next(s.needs for s in SCREENS if s.name == screen)
    return not needs or visit.can(needs)


def may(visit: Visit, resource_type: str, action: Action = "s") -> bool:
    """Whether parts of this type are shown to the reader at all."""
    return visit.allows(resource_type, action)


def _person(exam: Exam, reference: Resource | None) -> str:
    """The name of who is referred to."""
    found = exam.found.of(reference)
    if found is not None and found["resourceType"] == "PractitionerRole":
        found = exam.found.of(found.get("practitioner")) or found
    if found is not None and "name" in found:
        return human_name(found) if isinstance(found["name"], list) else str(found["name"])
    return str((reference or {}).get("display", ""))


def _station(exam: Exam, reference: Resource | None) -> str:
    return device_name(exam.found.of(reference)) or str((reference or {}).get("display", ""))


def _step(visit: Visit, exam: Exam, step: Resource) -> Step:
    procedure = exam.found.of(step.get("focus")) or step
    period = step.get("executionPeriod") or step.get("restriction", {}).get("period", {})
    path = f"/rooms/steps/{step['id']}" if works_at(visit, "rooms") else ""
    start = moment(period.get("start"))
    return Step(concept(procedure.get("code")), step["status"], _station(exam, step.get("owner")), start, path)


def _part(visit: Visit, resource: Resource, name: str, facts: list[str], path: str = "", text: str = "") -> Part:
    start = moment(
        resource.get("start") or resource.get("started") or resource.get("issued") or resource.get("occurrenceDateTime")
    )
    shown = tuple(f for f in facts if f and f != "–")
    return Part(name, words.status(visit.t, resource), words.chip(resource), start, shown, path, text)


def _appointment(visit: Visit, exam: Exam, appointment: Resource) -> Part:
    start = moment(appointment.get("start"))
    day = start.astimezone(visit.zone).date().isoformat() if start else ""
    path = f"/schedule?day={day}&order={exam.id}" if day and works_at(visit, "schedule") else ""
    actors = [p.get("actor", {}) for p in appointment.get("participant", ())]
    stations = [_station(exam, a) for a in actors if str(a.get("reference", "")).startswith("Device/")]
    return _part(visit, appointment, visit.t("exam.part.Appointment"), stations, path)


def _study(visit: Visit, study: Resource) -> Part:
    uids = [str(i["value"]).removeprefix(_OID) for i in study.get("identifier", ()) if i.get("system") == terms.DICOM_UID]
    series = study.get("numberOfSeries", len(study.get("series", ())))
    images = study.get("numberOfInstances") or sum(s.get("numberOfInstances", 0) for s in study.get("series", ()))
    facts = [visit.t("exam.size", series=series, images=images)] if series else []
    return _part(visit, study, next(iter(uids), ""), facts)


def _reading(visit: Visit, exam: Exam, reading: Resource) -> Part:
    path = f"/reading/{reading['id']}" if works_at(visit, "reading") else ""
    return _part(visit, reading, visit.t("exam.part.reading"), [_person(exam, reading.get("owner"))], path)


def _report(visit: Visit, exam: Exam, report: Resource) -> Part:
    path = f"/reading/reports/{report['id']}" if works_at(visit, "reading") else ""
    text = next((decoded(f) for f in report.get("presentedForm", ()) if is_plain_text(f)), report.get("conclusion", ""))
    people = [_person(exam, r) for r in report.get("resultsInterpreter", ())]
    return _part(visit, report, concept(report.get("code")), people, path, text)


def _charge(visit: Visit, charge: Resource) -> Part:
    name, code = concept(charge.get("code")), next((str(c.get("code", "")) for c in codings(charge.get("code"))), "")
    return _part(visit, charge, name, [code if code != name else "", *(concept(e) for e in charge.get("reason", ()))])
