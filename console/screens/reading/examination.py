"""What is read and reported: the examination, its report as it stands, and what is known of the patient beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from babel.numbers import get_decimal_symbol

from console.asking import Found, found
from console.formats import NONE, concept, full_as
from console.texts import Texts
from console.visit import Visit
from fhir_server.elements import codes
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Resource
from resources import imaging_study, terms
from resources.reading import worklist
from resources.reading.readers import SIGNED
from resources.reading.report_parts import is_text
from resources.reading.values import Manner, in_words, plain_number
from resources.report_section import TITLES, decoded, is_generated, is_plain_text, loinc, title
from resources.safety.findings import stands

_PRIORS: Final = "10"
READING: Final = terms.READING
WITHDRAWN: Final = frozenset({"cancelled", "entered-in-error"})
_OF_PROCEDURE: Final = ["ServiceRequest:based-on", "ServiceRequest:requester", "PractitionerRole:practitioner"]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a report: its LOINC code (or ""), how it is called, what it says, and since when."""

    code: str
    title: str
    text: str
    issued: str = ""
    author: str = ""

    def shown(self, t: Texts) -> str:
        """Its title: as its template or its sender says, else in the reader's language."""
        if self.title and self.title != TITLES.get(self.code):
            return self.title
        return t.code("reading.section", self.code)


class Finding(NamedTuple):
    """A structured finding: what it is called, its value in the reader's words, and its Observation."""

    name: str
    value: str
    id: str


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it stands. `forms`: its documents (presentedForm) with their places; `text`: what they say."""

    resource: Resource
    sections: Sequence[Section]
    findings: Sequence[Finding]
    forms: Sequence[tuple[int, Resource]]
    text: str
    readers: Sequence[Resource] = ()

    @property
    def id(self) -> str:
        return str(self.resource["id"])

    @property
    def version(self) -> str:
        return str(self.resource["meta"]["versionId"])

    @property
    def status(self) -> str:
        return str(self.resource["status"])

    @property
    def signed(self) -> bool:
        return self.status in SIGNED

    @property
    def draft(self) -> bool:
        """Whether it can still be written in."""
        return not self.signed and self.status not in WITHDRAWN


@dataclass(frozen=True, slots=True)
class Prior:
    """An earlier study, with its reports; `near` from 0 to 1."""

    study: Resource
    title: str
    modalities: str
    viewer: str
    near: float
    reports: Sequence[Report]


@dataclass(slots=True)
class Examination:
    """What a reading or a report is about; None for what there isn't, or what this person may not see."""

    reading: Resource | None = None
    procedure: Resource | None = None
    order: Resource | None = None
    study: Resource | None = None
    patient: Resource | None = None
    requester: Resource | None = None
    owner: Resource | None = None
    viewer: str = ""
    report: Report | None = None
    withdrawn: Sequence[Report] = ()
    allergies: Sequence[Resource] = ()
    conditions: Sequence[Resource] = ()
    contrast: Sequence[Resource] = ()
    priors: Sequence[Prior] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How the examination is called."""
        said = (self.report.resource if self.report else None, self.procedure, self.order)
        return next((concept(r["code"]) for r in said if r and "code" in r), "")


async def of_reading(visit: Visit, id_: str) -> Examination:
    """The examination of a reading. FhirError 404 where there is none."""
    tasks = await visit.desk.search(
        "Task",
        _id=id_,
        _include=["Task:patient", "Task:based-on", "Task:focus", "Task:owner"],
        _include__iterate=_OF_PROCEDURE,
    )
    reading = next((t for t in tasks if worklist.is_reading(t)), None)
    if reading is None:
        raise fail("not-found", f"there is no reading Task/{id_}")
    made = _about(tasks, reading.get("basedOn", ()))
    made.reading, made.owner = reading, person(tasks, reading.get("owner"))
    made.patient, made.study = tasks.of(reading.get("for")), tasks.of(reading.get("focus"))
    made.viewer = viewer(visit, made.study)
    return made


async def of_report(visit: Visit, id_: str) -> Examination:
    """The examination of a report. FhirError 404 where there is none."""
    reports = await visit.desk.search("DiagnosticReport", _id=id_, _include=[*_OF_REPORT, "DiagnosticReport:patient"], **_FURTHER)
    resource = next(iter(reports), None)
    if resource is None:
        raise fail("not-found", f"there is no DiagnosticReport/{id_}")
    made = _about(reports, resource.get("basedOn", ()))
    made.patient, made.report = reports.of(resource.get("subject")), report_of(visit, reports, resource)
    if made.procedure is not None and visit.allows("ImagingStudy", "s"):
        studies = await visit.desk.search("ImagingStudy", basedon=f"ServiceRequest/{made.procedure['id']}", _count="5")
        made.study = next(iter(studies), None)
        made.viewer = viewer(visit, made.study)
    return made


_OF_REPORT: Final = [f"DiagnosticReport:{name}" for name in ("result", "results-interpreter", "based-on")]
_FURTHER: Final[dict[str, Any]] = {
    "_include__iterate": [*_OF_PROCEDURE, "Observation:performer"],
}


def _about(among: Found, based_on: Iterable[Any]) -> Examination:
    procedure = next((p for r in based_on if (p := among.of(r)) is not None), None)
    order = next((o for r in (procedure or {}).get("basedOn", ()) if (o := among.of(r)) is not None), None)
    if order is None and procedure is not None and procedure.get("intent") == "order":
        order = procedure
    return Examination(procedure=procedure, order=order, requester=person(among, (order or {}).get("requester")))


def person(among: Found, reference: Any) -> Resource | None:
    """Who is referred to; of a role, the Practitioner in it. What only has a display is made to a resource with that name."""
    one = among.of(reference)
    if one is not None and one["resourceType"] == "PractitionerRole":
        one = among.of(one.get("practitioner")) or one
    if one is None and isinstance(reference, dict) and "display" in reference:
        return {"resourceType": "Practitioner", "name": [{"text": reference["display"]}]}
    return one


def viewer(visit: Visit, study: Resource | None) -> str:
    """Where the outside viewer shows a study; "" without one."""
    return visit.viewer(imaging_study.study_uid(study or {}) or "")


async def add_reports(visit: Visit, about: Examination) -> None:
    """The report of the examination, and those of it that were withdrawn."""
    if about.procedure is None:
        return
    based_on = f"ServiceRequest/{about.procedure['id']}"
    reports = await visit.desk.search(
        "DiagnosticReport", based_on=based_on, _sort="-_lastUpdated", _include=_OF_REPORT, **_FURTHER
    )
    made = [report_of(visit, reports, r) for r in reports]
    about.report = next((r for r in made if r.status not in WITHDRAWN), None)
    about.withdrawn = [r for r in made if r.status in WITHDRAWN]


async def add_history(visit: Visit, about: Examination) -> None:
    """What is known of the patient: allergies, conditions, contrast that was given for this, and earlier studies."""
    patient = f"Patient/{(about.patient or {}).get('id', '-')}"
    about.allergies, about.conditions, about.contrast, about.priors = await visit.desk.together(
        _known(visit, "AllergyIntolerance", patient=patient),
        _known(visit, "Condition", patient=patient, clinical_status="active,recurrence,relapse"),
        _given(visit, patient, about),
        _priors(visit, about),
    )


async def _known(visit: Visit, resource_type: str, **asked: str) -> list[Resource]:
    """What holds: nothing that was refuted, or is over."""
    if not visit.allows(resource_type, "s"):
        return []
    return [r for r in await visit.desk.search(resource_type, _count="50", **asked) if stands(r)]


async def _given(visit: Visit, patient: str, about: Examination) -> list[Resource]:
    """What was given to the patient since the order, the latest first."""
    begun = (about.procedure or {}).get("authoredOn", "")[:10]
    if not begun or not visit.allows("MedicationAdministration", "s"):
        return []
    found = await visit.desk.search("MedicationAdministration", patient=patient, effective_time=f"ge{begun}", _count="20")
    return [m for m in found if m["status"] in {"completed", "in-progress"}]


async def _priors(visit: Visit, about: Examination) -> list[Prior]:
    of = about.reading or about.study
    if of is None or not visit.calls("priors"):
        return []
    try:
        bundle = await visit.desk.question(f"{of['resourceType']}/{of['id']}/$priors", _count=_PRIORS)
    except FhirError as error:
        if error.code == "business-rule":  # of no study, or of nobody
            return []
        raise
    made: list[Prior] = []
    for entry in bundle.get("entry", ()):
        resource = entry["resource"]
        if entry["search"]["mode"] == "match":
            made.append(_prior(visit, resource, float(entry["search"]["score"])))
        else:
            assert isinstance(made[-1].reports, list)
            made[-1].reports.append(report_of(visit, found({"entry": []}), resource))
    return made


def _prior(visit: Visit, study: Resource, near: float) -> Prior:
    modalities = _modalities(study)
    return Prior(study, study_title(study), modalities, viewer(visit, study), near, [])


def study_title(study: Resource) -> str:
    """How a study is called."""
    return str(study.get("description") or next((concept(c) for c in study.get("procedureCode", ())), _modalities(study)))


def _modalities(study: Resource) -> str:
    coded = [*study.get("modality", ()), *(s.get("modality", {}) for s in study.get("series", ()))]
    return ", ".join(dict.fromkeys(c["code"] for c in coded if "code" in c))


# A report


def report_of(visit: Visit, among: Found, resource: Resource) -> Report:
    """A report with what it says; its Observations and people are `among` what came with it."""
    results = [o for r in resource.get("result", ()) if (o := among.of(r)) is not None and o["status"] != "entered-in-error"]
    sections = [_section(among, o) for o in results if is_text(o)]
    say = _manner(visit)
    findings = [Finding(concept(o["code"]), in_words(o, say) or NONE, o["id"]) for o in results if not is_text(o)]
    forms = [(n, f) for n, f in enumerate(resource.get("presentedForm", ())) if "data" in f]
    texts = [decoded(f) for _, f in forms if is_plain_text(f)]
    text = "\n\n".join(texts) or "\n\n".join(f"{s.title}\n{s.text}" for s in sections) or resource.get("conclusion", "")
    readers = [p for r in resource.get("resultsInterpreter", ()) if (p := person(among, r)) is not None]
    return Report(resource, sections, findings, forms, text, readers)


def _manner(visit: Visit) -> Manner:
    """How values are told to who reads them: with all digits."""
    point = get_decimal_symbol(visit.t.locale)
    return Manner(
        number=lambda n: plain_number(n).replace(".", point),
        moment=lambda m: full_as(m, visit.t.locale, visit.zone),
        yes=visit.t("say.yes"),
        no=visit.t("say.no"),
    )


def _section(among: Found, section: Resource) -> Section:
    author = next((str(r.get("reference", "")) for r in section.get("performer", ())), "")
    name = next((p for r in section.get("performer", ()) if (p := person(among, r)) is not None), None)
    told = f"{section['issued']}" if "issued" in section else ""
    by = _called(name) or author
    return Section(loinc(section["code"]), title(section["code"]), section["valueString"], told, by)


def _called(who: Resource | None) -> str:
    """A name as it is spoken; "" for none."""
    name: Resource = next(iter((who or {}).get("name", ())), {})
    return " ".join((*name.get("given", ()), name.get("family", ""))).strip() or str(name.get("text", ""))


def by_code(report: Report) -> dict[str, Section]:
    """The sections that have a code, by it; several of one code as one, with the text of all."""
    found: dict[str, Section] = {}
    for one in (s for s in report.sections if s.code):
        had = found.get(one.code)
        found[one.code] = replace(had, text=f"{had.text}\n\n{one.text}") if had else one
    return found


def outside_text(report: Report) -> str:
    """The text of a report that came as one, and has no sections yet."""
    if report.sections:
        return ""
    return "\n\n".join(decoded(f) for _, f in report.forms if is_plain_text(f) and not is_generated(f))


def modality(about: Examination) -> str:
    """The modality that the request names, or the study."""
    procedure, study = about.procedure or {}, about.study or {}
    said = [c for element in ("orderDetail", "category") for c in codes(procedure.get(element), terms.DCM)]
    return next((c for c in [*said, *(m.get("code", "") for m in study.get("modality", ()))] if c), "")
