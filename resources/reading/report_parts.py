"""What a person says in a report, as parameters of an operation, and putting it into the report.

    section          parts `code` (valueCode: LOINC, or valueCoding) and `text` (valueString); without text the section goes.
                     It takes the place of all sections with its code
    finding          an Observation: a structured finding. What it is of (patient, order, time) the report says for it
    remove-finding   valueReference to one of its structured findings, which goes; where no other report has it, it was an error
    comparison       valueReference to an ImagingStudy or DiagnosticReport that this one was compared with; without a value: none.
                     Those that name no resource here can't be said so, and stay
    conclusion-code  valueCodeableConcept
What is not mentioned stays. The text of the impression is the conclusion as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import codings, concept, same
from fhir_server.operations import Call, arguments
from fhir_server.outcome import FhirError, fail
from fhir_server.references import Target, ref, target, walk
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.report_section import (
    ADDENDUM,
    FINDINGS,
    IMPRESSION,
    TITLES,
    decoded,
    is_generated,
    is_plain_text,
    is_section,
    loinc,
    section,
)
from resources.security_labels import labelled

PARTS: Final = frozenset({"section", "finding", "remove-finding", "comparison", "conclusion-code"})
# IHE Radiology, Imaging Diagnostic Report (draft): a study or report that was used in reading.
COMPARED: Final = "https://profiles.ihe.net/RAD/IDR/StructureDefinition/associatedStudy"
_ORDER: Final = list(TITLES)
_SHARED: Final = ("subject", "encounter", "basedOn", "effectiveDateTime", "effectivePeriod")


@dataclass(slots=True)
class Said:
    """sections: (code, text), an empty text takes one away; None where nothing was said of comparisons or codes."""

    sections: list[tuple[Resource, str]] = field(default_factory=list)
    findings: list[Resource] = field(default_factory=list)
    removed: list[Target] = field(default_factory=list)
    comparisons: list[Target] | None = None
    conclusion_codes: list[Resource] | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.sections or self.findings or self.removed) and self.comparisons is None and self.conclusion_codes is None


def said(call: Call) -> Said:
    """FhirError 400 for what can't be understood."""
    found = Said([_section(part) for part in arguments.parts(call.body, "section")])
    for part in arguments.parts(call.body, "finding"):
        finding = part.get("resource")
        if not isinstance(finding, dict) or finding.get("resourceType") != "Observation":
            raise _bad("finding holds an Observation as its resource")
        found.findings.append(finding)
    for part in arguments.parts(call.body, "remove-finding"):
        gone = target(part.get("valueReference"), call.base_url)
        if gone is None or gone.type != "Observation":
            raise _bad("remove-finding is a valueReference to an Observation")
        found.removed.append(gone)
    for part in arguments.parts(call.body, "comparison"):
        found.comparisons = found.comparisons or []
        if part.keys() == {"name"}:
            continue
        to = target(part.get("valueReference"), call.base_url)
        if to is None or to.type not in {"ImagingStudy", "DiagnosticReport"}:
            raise _bad("comparison is a valueReference to an ImagingStudy or a DiagnosticReport")
        found.comparisons.append(to)
    for part in arguments.parts(call.body, "conclusion-code"):
        code = part.get("valueCodeableConcept")
        if not isinstance(code, dict):
            raise _bad("conclusion-code is a valueCodeableConcept")
        found.conclusion_codes = [*(found.conclusion_codes or ()), code]
    return found


def _section(part: Resource) -> tuple[Resource, str]:
    rows = part.get("part", [])
    parts = {row.get("name"): row for row in rows if isinstance(row, dict)} if isinstance(rows, list) else {}
    if not parts.keys() <= {"code", "text"} or "code" not in parts:
        raise _bad("section has the parts code and text")
    coding = parts["code"].get("valueCoding") or {"system": terms.LOINC, "code": parts["code"].get("valueCode")}
    if not isinstance(coding, dict) or not isinstance(coding.get("code"), str):
        raise _bad("the code of a section is a valueCode of LOINC, or a valueCoding")
    text = parts.get("text", {}).get("valueString", "")
    if not isinstance(text, str):
        raise _bad("the text of a section is a valueString")
    return section_code(coding), text.strip("\n")


def section_code(coding: Resource) -> Resource:
    """The code of a section with its title."""
    known = TITLES.get(coding["code"]) if coding.get("system") == terms.LOINC else None
    title = coding.get("display") or known
    return {"coding": [coding | ({"display": title} if title else {})]} | ({"text": title} if title else {})


def _bad(text: str) -> FhirError:
    return fail("value", text, "Parameters.parameter", status=400)


async def results_of(unit: UnitOfWork, report: Resource) -> list[Resource]:
    """The Observations of a report, in their order."""
    return [r for x in report.get("result", ()) if (r := await unit.get(x)) is not None]


async def sectioned(unit: UnitOfWork, report: Resource, status: str) -> Resource:
    """The report without plain text of others: its sections say it, or that text is its findings from here on."""
    forms = report.get("presentedForm", [])
    written = [f for f in forms if is_plain_text(f) and not is_generated(f)]
    if not written:
        return report
    changed = {k: v for k, v in report.items() if k != "presentedForm"}
    if rest := [f for f in forms if f not in written]:
        changed["presentedForm"] = rest
    if any(is_section(o) and loinc(o["code"]) != ADDENDUM for o in await results_of(unit, report)):
        return changed
    code = section_code({"system": terms.LOINC, "code": FINDINGS})
    text = "\n\n".join(map(decoded, written))
    findings = await unit.create(_observation(unit, report, section(code, text), status))
    return changed | {"result": [ref(findings), *report.get("result", ())]}


async def put(unit: UnitOfWork, report: Resource, what: Said, status: str) -> Resource:
    """The report with what is said put in; its Observations are written, with this status where they change. It isn't stored."""
    report = await sectioned(unit, report, status)
    had = await results_of(unit, report)
    kept: dict[str, list[Resource]] = {}
    for observation in filter(is_text, had):
        kept.setdefault(_key(observation["code"]), []).append(observation)
    others = await _without(unit, report, [o for o in had if not is_text(o)], what.removed)
    for code, text in what.sections:
        await _put_section(unit, report, kept, (code, text), status)
    for finding in what.findings:
        await _check_references(unit, finding)
    others += [await unit.create(_observation(unit, report, finding, status)) for finding in what.findings]
    sections = [o for alike in kept.values() for o in alike]
    sections.sort(key=lambda o: _ORDER.index(loinc(o["code"])) if loinc(o["code"]) in _ORDER else len(_ORDER))
    elsewhere = [x for x in report.get("result", ()) if await unit.get(x) is None]
    changed = {k: v for k, v in report.items() if k not in {"result", "conclusion"}}
    if result := [*map(ref, (*sections, *others)), *elsewhere]:
        changed["result"] = result
    conclusion = "\n\n".join(o["valueString"] for o in sections if loinc(o["code"]) == IMPRESSION)
    if not conclusion and not any(loinc(c) == IMPRESSION for c, _ in what.sections):
        conclusion = report.get("conclusion", "")
    if conclusion:
        changed["conclusion"] = conclusion
    if what.conclusion_codes is not None:
        changed["conclusionCode"] = what.conclusion_codes
    return changed if what.comparisons is None else await _compared(unit, changed, what.comparisons)


def is_text(observation: Resource) -> bool:
    """Whether an Observation is a section that says something: by its text, and not by an error."""
    return is_section(observation) and "valueString" in observation and observation["status"] != "entered-in-error"


async def _without(unit: UnitOfWork, report: Resource, findings: list[Resource], removed: Iterable[Target]) -> list[Resource]:
    """The structured findings that stay. FhirError 422 for one to remove that is none of them."""
    known = {str(o["id"]): o for o in findings}
    for gone in removed:
        if gone.id not in known:
            raise fail("business-rule", f"{gone} is no structured finding of this report", "DiagnosticReport.result", status=422)
        await withdraw(unit, report, [known.pop(gone.id)])
    return list(known.values())


async def withdraw(unit: UnitOfWork, report: Resource, observations: Iterable[Resource]) -> None:
    """What of these only this report says, is said no more."""
    for observation in observations:
        if observation["status"] != "entered-in-error" and await _is_alone(unit, report, observation):
            await unit.update(observation | {"status": "entered-in-error"})


async def _is_alone(unit: UnitOfWork, report: Resource, observation: Resource) -> bool:
    """Whether no other report has this Observation."""
    having = await unit.search("DiagnosticReport", result=f"Observation/{observation['id']}")
    return all(r["id"] == report["id"] for r in having)


async def _check_references(unit: UnitOfWork, finding: Resource) -> None:
    """FhirError 422 where a finding refers to what isn't there for the caller (the report says what it is of)."""
    for path, element in walk({k: v for k, v in finding.items() if k not in _SHARED}, "Observation"):
        to = target(element)
        if to is not None and await unit.seen(to.type, to.id, "r", copy=False) is None:
            raise fail("value", f"{to} does not exist", path, status=422)


def _key(code: Resource) -> str:
    """What tells sections apart: the LOINC code, else another's, else how they are called."""
    others = (f"{c.get('system')}|{c['code']}" for c in codings(code) if "code" in c)
    return loinc(code) or next(others, str(code.get("text")))


async def _put_section(
    unit: UnitOfWork, report: Resource, kept: dict[str, list[Resource]], said_: tuple[Resource, str], status: str
) -> None:
    """Have this said in place of what is kept with its code."""
    code, text = said_
    alike = kept.setdefault(_key(code), [])
    first = alike[0] if alike else None
    made: list[Resource] = []
    if text and first is not None and first["valueString"] == text:
        made = [first]
    elif text and first is not None and await _is_alone(unit, report, first):
        made = [await unit.update(first | {"valueString": text, "status": status})]
    elif text:
        made = [await unit.create(_observation(unit, report, section(code, text), status))]
    stay = {o["id"] for o in made}
    await withdraw(unit, report, [o for o in alike if o["id"] not in stay])
    alike[:] = made


async def add_section(unit: UnitOfWork, report: Resource, code: Resource, text: str, status: str) -> Resource:
    """The report with one more section, even where it has one of this code; it isn't stored."""
    made = await unit.create(_observation(unit, report, section(code, text), status))
    return report | {"result": [*report.get("result", ()), ref(made)]}


def _observation(unit: UnitOfWork, report: Resource, observation: Resource, status: str) -> Resource:
    """An Observation of this report, by whoever writes it now."""
    shared = {e: report[e] for e in _SHARED if e in report}
    if any(e.startswith("effective") for e in observation):
        shared = {e: v for e, v in shared.items() if not e.startswith("effective")}
    imaging = concept("http://terminology.hl7.org/CodeSystem/observation-category", "imaging")
    made = {"category": [imaging]} | observation | shared | {"status": status, "issued": clock.instant(unit.now)}
    if unit.access.user:
        made["performer"] = [{"reference": unit.access.user}]
    return labelled({k: v for k, v in made.items() if k not in {"id", "meta", "text"}}, report)


async def _compared(unit: UnitOfWork, report: Resource, with_: Iterable[Target]) -> Resource:
    """The report with these comparisons. FhirError 422 for a new one that isn't there for the caller, or is another patient's."""
    had = {to: e for e in report.get("extension", ()) if (to := _compares(e)) is not None}
    itself = {Target("DiagnosticReport", str(report.get("id"))), *map(target, report.get("imagingStudy", ()))}
    found: list[Any] = []
    for to in with_:
        if to in itself:
            raise fail("business-rule", "a report is compared with others than itself", "DiagnosticReport.extension", status=422)
        prior = None if to in had else await unit.seen(to.type, to.id, "r")
        if to not in had and (prior is None or not same(_whose(prior), _whose(report))):
            raise fail("business-rule", f"{to} is no examination of this patient", "DiagnosticReport.extension", status=422)
        found.append(had.get(to) or {"url": COMPARED, "valueReference": {"reference": str(to)}})
    others = [e for e in report.get("extension", ()) if _compares(e) is None]
    kept = {k: v for k, v in report.items() if k != "extension"}
    return kept | ({"extension": [*others, *found]} if others or found else {})


def _compares(extension: Resource) -> Target | None:
    """What an extension of a report says that it was compared with, where that is a resource here."""
    return target(extension.get("valueReference")) if extension.get("url") == COMPARED else None


def compared_with(report: Resource) -> list[str]:
    """The references to what a report was compared with, of what is here."""
    return [str(to) for e in report.get("extension", ()) if (to := _compares(e)) is not None]


def _whose(resource: Resource) -> str | None:
    subject: Resource = resource.get("subject", {})
    return subject.get("reference")


async def settle(unit: UnitOfWork, report: Resource, status: str) -> None:
    """Bring the Observations of a report to the status that it has now (FHIR R4: those of a final report are final)."""
    for observation in await results_of(unit, report):
        if observation["status"] in {"registered", "preliminary"} and observation["status"] != status:
            await unit.update(observation | {"status": status})
