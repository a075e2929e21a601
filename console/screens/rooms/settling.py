"""What was acquired and isn't settled: performed steps and studies without their order, and what else somebody is asked about.

A person compares what the scanner told with the orders that it may be, and says which it is (`$reconcile`).
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from starlette.responses import Response

from bridges.dicom import mpps_data, mpps_records, mpps_steps
from bridges.dicom.dicom_json import Attributes, text
from console.asking import Found, reference
from console.formats import NONE, concept, human_name, identifier, moment
from console.screens.rooms import said
from console.visit import Visit
from fhir_server.elements import codes, extension, has_code
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Resource
from fhir_server.search.values import escaped
from resources import candidates, order_numbers, reconciliation, service_request, task, terms
from resources.device import name as device_name

# What technologists are asked about beside whose it was: a look at it is the answer.
_LOOKED_AT: Final = (
    "performed-step-incomplete", "performed-step-abandoned", "examination-stopped", "started-despite-stop",
    "contrast-despite-stop", "study-to-be-split", "images-unavailable",
)  # fmt: skip
_KINDS: Final = ("Procedure", "ImagingStudy")
_ABOUT: Final = frozenset({*_KINDS, "Task", "MedicationAdministration"})
_CODES: Final = ",".join(f"{terms.TASK_CODE}|{c}" for c in (*reconciliation.ANSWERED, *_LOOKED_AT))
_MOST_FOUND: Final = 10
_NUMBERS: Final = frozenset({"active", "on-hold"})


@dataclass(frozen=True, slots=True)
class Item:
    """Something that somebody is asked about. `path`: where it is settled, or looked at."""

    task: Resource
    kind: str
    patient: str
    path: str
    answered: bool  # by $reconcile


@dataclass(slots=True)
class Candidate:
    """An order that it may be: its requested procedure, with the points and what they are for."""

    procedure: Resource
    order: Resource | None
    patient: Resource | None
    steps: list[Resource]
    points: int | None = None
    reasons: str = ""
    now: bool = False  # it belongs to it at present
    cells: dict[str, tuple[str, bool]] = field(default_factory=dict)  # value, and whether it differs from what was told


async def count(visit: Visit) -> int:
    """How much there is to settle."""
    return len(await _open(visit))


async def _open(visit: Visit) -> list[Resource]:
    found = await visit.desk.search("Task", code=_CODES, status="requested", _sort="-authored-on", _count="200")
    return [t for t in found if _about(t).partition("/")[0] in _ABOUT]


def _about(item: Resource) -> str:
    return str(item.get("focus", {}).get("reference", ""))


async def show(visit: Visit) -> Response:
    """The list."""
    found = await _open(visit)
    focused = [_about(t).rpartition("/")[2] for t in found if _about(t).startswith("Procedure/")]
    whose = {t["for"]["reference"].rpartition("/")[2] for t in found if "for" in t}
    performed, patients = await visit.desk.together(
        visit.desk.search("Procedure", _id=",".join(focused) or "-"),
        visit.desk.search("Patient", _id=",".join(sorted(whose)) or "-"),
    )
    return visit.page("rooms/settle.html", items=[_item(visit, t, performed, patients) for t in found])


def _item(visit: Visit, item: Resource, performed: Found, patients: Found) -> Item:
    kind = next(iter(codes(item.get("code"), terms.TASK_CODE)), "")
    about = _about(item)
    patient = patients.of(item.get("for"))
    told = (performed.of(about) or {}).get("subject", {}).get("display", "")
    answered = kind in reconciliation.ANSWERED and about.partition("/")[0] in _KINDS
    path = f"/rooms/settle/{about}" if answered and visit.calls("reconcile") else ""
    if about.startswith("Task/") and visit.calls("start"):
        path = f"/rooms/steps/{about.partition('/')[2]}"
    return Item(item, kind, human_name(patient) if patient else told, path, answered)


async def done_with(visit: Visit) -> Response:
    """A work item was looked at: nobody need be asked any more."""
    change = {"op": "replace", "path": "/status", "value": "completed"}
    await visit.desk.patch(f"Task/{visit.id()}", change, if_match=visit.form.get("version"))
    return visit.to("/rooms/settle", "rooms-looked-at")


# One of them, beside the orders that it may be


async def compare(visit: Visit) -> Response:
    """What was told, beside the orders; also with more of them, by a number or name that was typed, or `?order=`."""
    what, items = await _what(visit)
    told, data = await _told(visit, what)
    chosen = [r["reference"] for r in what.get("basedOn", ()) if str(r.get("reference", "")).startswith("ServiceRequest/")]
    points = {i["valueReference"]["reference"]: i for t in items for i in t.get("input", ()) if _is_candidate(i)}
    ids = [r.rpartition("/")[2] for r in dict.fromkeys([*chosen, *points])]
    asked = [visit.desk.search("ServiceRequest", _id=",".join(ids), **_WITH)] if ids else []
    if visit.asked("order"):
        name = f"ServiceRequest/{visit.asked('order')}"
        asked += [visit.desk.search("ServiceRequest", _id=visit.asked("order"), **_WITH)]
        asked += [visit.desk.search("ServiceRequest", based_on=name, **_WITH)]
    found: list[Candidate] = []
    if query := visit.form.get("q"):
        asked += [_by_text(visit, query)]
    more = 0
    for one in await visit.desk.together(*asked):
        added = [c for c in _candidates(one) if c.procedure["id"] not in {f.procedure["id"] for f in found}]
        found, more = [*found, *added], len(added)
    stations = await _stations(visit, found)
    for candidate in found:
        name = f"ServiceRequest/{candidate.procedure['id']}"
        candidate.now = name in chosen
        if name in points:
            candidate.points = (extension(points[name], candidates.SCORE) or {}).get("valueInteger")
            candidate.reasons = points[name]["type"].get("text", "").partition(": ")[2]
        candidate.cells = _cells(visit, candidate, told, data, stations)
    found.sort(key=lambda c: (c.now, -(c.points or 0)))
    return visit.page(
        "rooms/compare.html",
        what=what,
        path=f"/rooms/settle/{what['resourceType']}/{what['id']}",
        items=items,
        told=told,
        candidates=found,
        typed=visit.form.text("q"),
        more=more,
    )


async def settle(visit: Visit) -> Response:
    """`$reconcile`: it belongs to this order."""
    what, _ = await _what(visit)
    order, step = visit.form.get("order"), visit.form.get("step")
    await visit.desk.operation(
        f"{what['resourceType']}/{what['id']}/$reconcile",
        order=reference(f"ServiceRequest/{order}") if order else None,
        step=reference(f"Task/{step}") if step else None,
    )
    return visit.to("/rooms/settle", "rooms-settled")


_WITH: Final[dict[str, Any]] = {
    "intent": "filler-order",
    "_include": ["ServiceRequest:patient", "ServiceRequest:based-on"],
    "_revinclude": "Task:based-on",
    "_count": str(_MOST_FOUND),
}


async def _what(visit: Visit) -> tuple[Resource, list[Resource]]:
    """The performed step or study of the address, and the open questions about it."""
    kind = visit.id("kind")
    if kind not in _KINDS:
        raise fail("not-found", "a performed step or a study is settled")
    about = f"{kind}/{visit.id()}"
    what, items = await visit.desk.together(
        visit.desk.read(about), visit.desk.search("Task", focus=about, code=_CODES, status="requested")
    )
    return what, list(items)


def _is_candidate(detail: Resource) -> bool:
    return has_code(detail.get("type"), terms.TASK_DETAIL, "candidate") and "valueReference" in detail


async def _by_text(visit: Visit, query: str) -> Found:
    """Orders by accession or order number, or of the patient with this number or name: those that are open."""
    typed = escaped(query[:100])
    ways = [
        {"identifier": typed},
        {"patient.identifier": typed},
        {"patient.name": typed},
        {"based-on:ServiceRequest.identifier": typed},
    ]
    asked = [visit.desk.search("ServiceRequest", *way.items(), ("status", ",".join(sorted(_NUMBERS))), **_WITH) for way in ways]
    together = Found([])
    for one in await visit.desk.together(*asked):
        together.by_reference.update(one.by_reference)
        known = {m["id"] for m in together.matches}
        together.matches += [m for m in one if m["id"] not in known]
    together.matches = together.matches[:_MOST_FOUND]
    return together


def _is_over(step: Resource) -> bool:
    return step["status"] not in task.OPEN


def _candidates(found: Found) -> list[Candidate]:
    steps = [t for t in found.included("Task") if task.is_step(t) and t["status"] not in {"cancelled", "entered-in-error"}]
    made = []
    for one in found:
        if service_request.is_procedure(one):
            focus = f"ServiceRequest/{one['id']}"
            own = sorted((s for s in steps if s.get("focus", {}).get("reference") == focus), key=_is_over)
            order = next((o for r in one.get("basedOn", ()) if (o := found.of(r))), None)
            made.append(Candidate(one, order, found.of(one.get("subject")), own))
    return made


# What was told, and how an order differs


async def _told(visit: Visit, what: Resource) -> tuple[dict[str, str], Attributes]:
    """What the scanner or the PACS says, by the names of the rows, and the scanner's data set where it can be seen."""
    data: Attributes = {}
    kept = (extension(what, mpps_records.DATA_SET) or {}).get("valueReference")
    if kept and visit.allows("Binary", "r"):
        try:
            data = mpps_records.content(await visit.desk.read(kept["reference"]))
        except FhirError:
            data = {}
    subject = what.get("subject", {})
    scheduled = mpps_data.scheduled(data)
    series = what.get("series", ())
    began = what.get("performedPeriod", {}).get("start") or what.get("started", "")
    accession = next((i.accession for i in scheduled if i.accession), "") or identifier(what, "ACSN")
    told = {
        "name": mpps_data.readable_name(text(data, "PatientName")) or subject.get("display", ""),
        "patient-id": text(data, "PatientID") or subject.get("identifier", {}).get("value", ""),
        "born": _date(text(data, "PatientBirthDate")),
        "sex": {"M": "male", "F": "female", "O": "other"}.get(text(data, "PatientSex"), ""),
        "accession": "" if accession == NONE else accession,
        "exam": concept(what["code"]) if "code" in what else what.get("description", ""),
        "modality": text(data, "Modality") or next((s["modality"]["code"] for s in series if "modality" in s), ""),
        "time": began,
        "station": await _station(visit, what),
        "status": visit.t.code("rooms.procedure", what["status"]),
    }
    if "reference" in subject and not told["name"]:
        patient = await visit.desk.read(subject["reference"])
        told |= {"name": human_name(patient), "patient-id": identifier(patient), "born": patient.get("birthDate", "")}
        told["sex"] = patient.get("gender", "")
    return told, data


async def _station(visit: Visit, what: Resource) -> str:
    """The scanner that performed it, as it is called."""
    actors = [p.get("actor", {}) for p in what.get("performer", ())]
    first: Resource = next((a for a in actors if "Device/" in a.get("reference", "") or "identifier" in a), {})
    if "reference" in first:
        found = await visit.desk.search("Device", _id=first["reference"].rpartition("/")[2])
        return next((device_name(d) for d in found), "")
    return str(first.get("display") or first.get("identifier", {}).get("value", ""))


def _date(dicom: str) -> str:
    plain = dicom.replace(".", "")
    return f"{plain[:4]}-{plain[4:6]}-{plain[6:]}" if len(plain) == 8 else ""


async def _stations(visit: Visit, found: list[Candidate]) -> dict[str, str]:
    """What the scanners of the candidates are called, by reference."""
    owners = {s["owner"]["reference"].rpartition("/")[2] for c in found for s in c.steps if "owner" in s}
    devices = await visit.desk.search("Device", _id=",".join(sorted(owners))) if owners else ()
    return {f"Device/{d['id']}": device_name(d) for d in devices}


def _cells(
    visit: Visit, one: Candidate, told: dict[str, str], data: Attributes, stations: dict[str, str]
) -> dict[str, tuple[str, bool]]:
    """What an order says in each row. Whether a patient differs, is judged as when the scanner told of it."""
    patient = one.patient or {}
    differs = set(mpps_steps.contradictions(data, patient)) if data and patient else set()
    names_differ = any("name" in d for d in differs)
    step: Resource = next(iter(one.steps), {})
    begins, began = said.begin(step), moment(told["time"])
    number = order_numbers.accession_number(one.order or one.procedure) or ""
    modality = task.modality(step) or ""
    return {
        "name": (human_name(patient), names_differ),
        "patient-id": (identifier(patient), "patient id" in differs),
        "born": (patient.get("birthDate", ""), "birth date" in differs),
        "sex": (patient.get("gender", ""), "sex" in differs),
        "accession": (number, bool(number and told["accession"] and number != told["accession"])),
        "exam": (concept(one.procedure.get("code")), False),
        "modality": (modality, bool(modality and told["modality"] and modality != told["modality"])),
        "time": (begins.isoformat() if begins else "", _another_day(visit, begins, began)),
        "station": (stations.get(step.get("owner", {}).get("reference", ""), ""), False),
        "status": (visit.t.code("state.step", step.get("status")), False),
    }


def _another_day(visit: Visit, one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and one.astimezone(visit.zone).date() != other.astimezone(visit.zone).date()
