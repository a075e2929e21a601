"""The timeline of an exam: what came and went, what was written, what people were asked and told, in the order of time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any, Final

from bridges.dicom.mpps_records import DATA_SET
from console.screens.exam import words
from console.screens.exam.messages import MessageRow, made_by
from console.screens.exam.record import Exam
from console.screens.exam.versions import Version, together
from console.visit import Visit
from fhir_server.elements import extension
from fhir_server.registry import Resource
from resources.imaging_series import availability

KINDS: Final = ("received", "sent", "dicom", "change", "work", "provenance")
_PAGE: Final = 100
# Which of what was written together the event is named after: the first of these that is among it.
_FIRST: Final = (
    "DiagnosticReport", "Procedure", "Appointment", "ServiceRequest", "Task", "ImagingStudy", "MedicationAdministration",
    "ChargeItem", "Communication", "CommunicationRequest", "QuestionnaireResponse", "DetectedIssue", "Observation", "Binary",
)  # fmt: skip
_WORK: Final = frozenset({"item", "Communication", "CommunicationRequest", "DetectedIssue"})
_MESSAGE: Final = "urn:fhir-ris:message"


@dataclass(frozen=True, slots=True)
class Line:
    """One version of one part: what it is, what became of its status, and which elements changed; `path` leads to it."""

    what: str
    status: str
    elements: str
    path: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `path`: the end of the address of its details; `state`: a chip's text and kind.

    `told`, `elements`: of a change, what became of the status, and what else changed. `lines`: what was written with it.
    """

    at: datetime
    kind: str
    title: str
    path: str = ""
    state: tuple[str, str] | None = None
    facts: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    told: str = ""
    elements: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The events to be shown by their days, how many there are of each kind, and the numbers of the pages before and after."""

    days: Sequence[tuple[date, list[Event]]]
    counts: dict[str, int]
    kind: str
    oldest_first: bool
    earlier: int = 0
    later: int = 0


def page(visit: Visit, events: Iterable[Event]) -> Page:
    """What the address asks for: `kind`, `sort=oldest`, `page`."""
    every = sorted(events, key=lambda e: e.at)
    counts = Counter(e.kind for e in every)
    kind = visit.asked("kind") if visit.asked("kind") in KINDS else ""
    wanted = [e for e in every if kind in ("", e.kind)]
    oldest_first = visit.asked("sort") == "oldest"
    if not oldest_first:
        wanted.reverse()
    asked = visit.asked("page", "1")
    number = max(1, int(asked)) if asked.isascii() and asked.isdecimal() and len(asked) < 4 else 1
    begin = (number - 1) * _PAGE
    later = number + 1 if len(wanted) > begin + _PAGE else 0
    shown = {"": len(every)} | {k: counts[k] for k in KINDS if counts[k]}
    days = groupby(wanted[begin : begin + _PAGE], key=lambda e: e.at.astimezone(visit.zone).date())
    return Page([(day, list(found)) for day, found in days], shown, kind, oldest_first, number - 1, later)


def of_messages(visit: Visit, rows: Iterable[MessageRow]) -> list[Event]:
    """An event for each message, with what became of it."""
    found = []
    for row in rows:
        title = visit.t("exam.sent" if row.sent else "exam.received", type=row.type.replace("^", " "), partner=row.partner)
        facts = list(row.told)
        if row.sent and row.attempts > 1:
            facts.insert(0, visit.t.count("exam.attempts", row.attempts))
        state = (visit.t.code("exam.outcome", row.state), row.chip)
        found.append(Event(row.at, "sent" if row.sent else "received", title, f"messages/{row.id}", state, tuple(facts)))
    return found


def of_versions(visit: Visit, exam: Exam, versions: Iterable[Version], messages: Sequence[MessageRow]) -> list[Event]:
    """An event for each transaction that wrote parts of the exam."""
    data_sets = {str(e["valueReference"]["reference"]) for p in exam.of("Procedure") if (e := extension(p, DATA_SET)) is not None}
    received = [row for row in messages if not row.sent]
    return [_written(visit, group, received, data_sets) for group in together(versions)]


def _written(visit: Visit, group: list[Version], messages: Sequence[MessageRow], data_sets: set[str]) -> Event:
    group = sorted(group, key=_rank)
    message = next((row for row in messages if any(made_by(v, row) for v in group)), None)
    facts = (visit.t("exam.by-message", type=message.type.replace("^", " "), partner=message.partner),) if message else ()
    main, title, kind = group[0], "", "change"
    if by_scanner := [v for v in group if v.reference in data_sets]:
        main, title, kind = by_scanner[0], _mpps(visit, by_scanner[0], group), "dicom"
    elif images := _images(visit, group):
        (main, title), kind = images, "dicom"
    elif all(words.kind(v.resource or v.before or {}) in _WORK for v in group):
        kind = "work"
    first = _line(visit, main)
    lines = tuple(_line(visit, v) for v in group if v is not main)
    if title:
        return Event(main.at, kind, title, first.path, facts=facts, lines=lines)
    return Event(main.at, kind, first.what, first.path, facts=facts, lines=lines, told=first.status, elements=first.elements)


def _mpps(visit: Visit, data_set: Version, group: list[Version]) -> str:
    """What a scanner told: that it began, goes on, is done, or stopped."""
    status = next((v.resource["status"] for v in group if v.type == "Procedure" and v.resource), "")
    if data_set.created:
        return visit.t("exam.mpps-create")
    return visit.t(f"exam.mpps-{status}" if status in {"completed", "stopped"} else "exam.mpps-set")


def _rank(version: Version) -> tuple[int, int, str]:
    """What tells most comes first: a status that changed, then the types in their order; a plan before the work about it."""
    resource = version.resource or {}
    was = (version.before or {}).get("status")
    by_type = _FIRST.index(version.type) if version.type in _FIRST else len(_FIRST)
    telling = version.type != "Observation" and resource.get("status") != was and words.kind(resource) not in _WORK
    return (0 if telling else 1, by_type, version.id)


def _line(visit: Visit, version: Version) -> Line:
    resource = version.resource
    what = words.name(visit.t, resource or version.before or {"resourceType": version.type})
    if resource is None:
        return Line(what, visit.t("exam.deleted"), "", "")
    status, was = (words.status(visit.t, r) if r else "" for r in (resource, version.before))
    if version.before is None:
        told = visit.t("exam.made") if version.created else ""
        return Line(what, " · ".join(x for x in (told, status) if x), "", version.path)
    changed = version.changed
    told = f"{was} → {status}" if "status" in changed or was != status else ""
    elements = ", ".join(name for name in changed if name not in {"status", "text"})
    return Line(what, told, elements, version.path)


def _images(visit: Visit, group: list[Version]) -> tuple[Version, str] | None:
    """What a PACS has said (IAN, QIDO): the images of a study can be had, or not any more."""
    for version in group:
        if version.type == "ImagingStudy" and version.resource and version.before:
            now, was = (_there(study) for study in (version.resource, version.before))
            if now != was:
                return version, visit.t("exam.images", series=str(now[0]), images=str(now[1]))
    return None


def _there(study: Resource) -> tuple[int, int]:
    """How many series, and images in them, the PACS has said that it has."""
    told = [s for s in study.get("series", ()) if availability(s) not in {"ANNOUNCED", "UNAVAILABLE"}]
    return len(told), sum(s.get("numberOfInstances", 0) for s in told)


def of_provenance(visit: Visit, found: Iterable[Resource]) -> list[Event]:
    """An event for each Provenance, but for those of messages, which tell of themselves."""
    return [
        Event(datetime.fromisoformat(p["recorded"]), "provenance", _activity(visit, p), facts=tuple(_said(p)))
        for p in found
        if not any(e.get("what", {}).get("identifier", {}).get("system") == _MESSAGE for e in p.get("entity", ()))
    ]


def _activity(visit: Visit, provenance: Resource) -> str:
    activity = provenance.get("activity", {})
    told: list[Any] = [activity.get("text"), *(c.get("display") or c.get("code") for c in activity.get("coding", ()))]
    name = next((str(text) for text in told if text), "")
    return visit.t("exam.provenance", what=visit.t.code("exam.activity", name))


def _said(provenance: Resource) -> list[str]:
    """Who had a hand in it, and why."""
    agents = [a.get("who", {}) for a in provenance.get("agent", ())]
    who = [str(a.get("display") or a.get("reference") or "") for a in agents]
    return [text for text in (*who, *(r.get("text", "") for r in provenance.get("reason", ()))) if text]
