"""DetectedIssue (FHIR R4 10.4): what speaks against an examination, for as long as it does; cleared by a mitigation.

One issue a requested procedure, rule, evidence and kinds of contrast agent: when other evidence comes, or an agent of another
kind, what was cleared before counts no longer.
    identifier  urn:fhir-ris:safety-issue | [requested procedure's id] [rule]
    extension   urn:fhir-ris:safety-effect: stop-booking, stop, flag
                urn:fhir-ris:safety-contrast: a kind of contrast agent that it speaks against, any number
    implicated  the requested procedure and its steps, so that `Task?...&_revinclude=DetectedIssue:implicated` brings them
    evidence    the answers, allergies, conditions and results that it is seen from
"""

from collections.abc import Iterable
from typing import Final

from fhir_server import clock
from fhir_server.elements import codings, extension, identifier_value
from fhir_server.outcome import fail
from fhir_server.references import ref
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import task
from resources.safety.findings import Examination, Finding
from resources.safety.questionnaires import translated
from resources.safety.tables import STOPS, UNKNOWN
from resources.security_labels import labelled

SYSTEM: Final = "urn:fhir-ris:safety-issue"
RULE: Final = "urn:fhir-ris:safety-rule"  # the code system of the rules' ids
EFFECT: Final = "urn:fhir-ris:safety-effect"
KIND: Final = "urn:fhir-ris:safety-contrast"  # extension: a kind of contrast agent that it is about
CLEARED: Final = "urn:fhir-ris:safety-clearance"  # the code system of the mitigation `cleared`


def effect(issue: Resource) -> str:
    """What it does: stop-booking, stop or flag."""
    return str((extension(issue, EFFECT) or {}).get("valueCode", ""))


def is_ours(issue: Resource) -> bool:
    """Whether it is one that these rules have made."""
    return identifier_value(issue, SYSTEM) is not None


def is_open(issue: Resource) -> bool:
    """Whether it stands, and nobody has cleared it."""
    return issue.get("status") == "final" and "mitigation" not in issue


def stops(issues: Iterable[Resource], *, booking: bool = False) -> list[Resource]:
    """Those that are open and stop the examination; with `booking`, those that stop that it is scheduled."""
    wanted = {"stop-booking"} if booking else STOPS
    return [i for i in issues if is_open(i) and effect(i) in wanted]


def told(issues: Iterable[Resource]) -> str:
    """In words, for refusals and work items."""
    return "; ".join(sorted(i.get("detail", "") for i in issues))


async def of_procedure(unit: UnitOfWork, procedure_id: str) -> list[Resource]:
    """The issues of a requested procedure that stand, cleared or not."""
    found = await unit.search("DetectedIssue", implicated=f"ServiceRequest/{procedure_id}")
    return [i for i in found if is_ours(i) and i.get("status") == "final"]


async def keep(unit: UnitOfWork, what: Examination, found: Iterable[Finding]) -> list[Resource]:
    """Bring the issues in line with what was found; those that stand."""
    found = list(found)
    if not found and not any(task.readiness(s) for s in what.steps):
        return []  # its steps would tell of one
    stand = {key_of(i): i for i in await of_procedure(unit, what.procedure["id"])}
    wanted = {(f.rule, f.evidence, f.contrast): f for f in found}
    if wanted.keys() != stand.keys():
        await unit.lock(f"safety:{what.procedure['id']}")  # who looks at the same time, makes none of these twice
    for key, issue in stand.items():
        if key not in wanted:
            await unit.update(issue | {"status": "cancelled"})
    kept: list[Resource] = []
    for key, finding in wanted.items():
        if key not in stand:
            kept.append(await unit.create(labelled(_issue(unit, what, finding), what.procedure)))
            continue
        issue = stand[key]
        missing = [r for r in _implicated(what) if r not in issue["implicated"]]
        kept.append(await unit.update(issue | {"implicated": [*issue["implicated"], *missing]}) if missing else issue)
    return kept


def key_of(issue: Resource) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The rule, the evidence and the kinds of contrast agent of an issue: what makes it this one."""
    rule = next((c["code"] for c in codings(issue.get("code")) if c.get("system") == RULE), "")
    evidence = (d.get("reference", "") for e in issue.get("evidence", ()) for d in e.get("detail", ()))
    kinds = (str(e.get("valueCode")) for e in issue.get("extension", ()) if e.get("url") == KIND)
    return rule, tuple(sorted(evidence)), tuple(sorted(kinds))


def clears(issue: Resource, finding: Finding) -> bool:
    """Whether a cleared issue clears a finding: also where it was cleared for an agent of any kind (`unknown`)."""
    rule, evidence, kinds = key_of(issue)
    return (rule, evidence) == (finding.rule, finding.evidence) and (UNKNOWN in kinds or set(finding.contrast) <= set(kinds))


def _implicated(what: Examination) -> list[Resource]:
    return [ref(what.procedure), *(ref(s) for s in what.steps)]


def _issue(unit: UnitOfWork, what: Examination, finding: Finding) -> Resource:
    issue: Resource = {
        "resourceType": "DetectedIssue",
        "extension": [
            {"url": EFFECT, "valueCode": finding.effect},
            *({"url": KIND, "valueCode": kind} for kind in finding.contrast),
        ],
        "identifier": [{"system": SYSTEM, "value": f"{what.procedure['id']} {finding.rule}"}],
        "status": "final",
        "code": {"coding": [{"system": RULE, "code": finding.rule}], "text": finding.en},
        "severity": "high" if finding.effect in STOPS else "moderate",
        "patient": ref(what.patient),
        "identifiedDateTime": clock.instant(unit.now),
        "implicated": _implicated(what),
        "detail": finding.en,
        "_detail": translated(finding.de),
    }
    if finding.evidence:
        issue["evidence"] = [{"detail": [{"reference": r} for r in finding.evidence]}]
    return issue


def cleared(unit: UnitOfWork, issue: Resource, reason: str, by: str | None) -> Resource:
    """The issue with a radiologist's decision that the examination takes place all the same."""
    action = {"coding": [{"system": CLEARED, "code": "cleared"}], "text": reason}
    mitigation: Resource = {"action": action, "date": clock.instant(unit.now)}
    if by is not None:
        mitigation["author"] = {"reference": by}
    return issue | {"mitigation": [mitigation]}


async def check(_unit: UnitOfWork, change: Change) -> None:
    """An issue of ours is cleared with a reason, and isn't deleted."""
    if change.after is None:
        if change.before is not None and is_ours(change.before):
            raise fail("business-rule", "what speaks against an examination is cleared, not deleted", "DetectedIssue.status")
        return
    if is_ours(change.after):
        for i, one in enumerate(change.after.get("mitigation", ())):
            if not one["action"].get("text", "").strip():
                raise fail("required", "clearing it needs the reason", f"DetectedIssue.mitigation[{i}].action.text")
