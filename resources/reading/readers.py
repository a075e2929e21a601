"""Who may sign: residents write preliminary reports, and an attending finalises them.

A resident is a Practitioner with an active PractitionerRole of SNOMED CT 405277009 (resident physician) and none of 405279007
(attending physician).
"""

from typing import Final

from fhir_server.elements import codes
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms

RESIDENT: Final = "405277009"
ATTENDING: Final = "405279007"
SIGNED: Final = frozenset({"final", "amended", "corrected", "appended"})


async def is_resident(unit: UnitOfWork, person: object) -> bool:
    """Whether a Practitioner (reference, of itself or of one of its PractitionerRoles) is a resident."""
    to = target(person)
    if to is not None and to.type == "PractitionerRole":
        role = await unit.read(to.type, to.id)
        to = target((role or {}).get("practitioner")) or to
        roles = [role] if role and to.type == "PractitionerRole" else []
    else:
        roles = []
    if to is not None and to.type == "Practitioner":
        roles = await unit.search("PractitionerRole", practitioner=str(to))
    said = {code for r in roles if r.get("active", True) for code in codes(r.get("code"), terms.SNOMED)}
    return RESIDENT in said and ATTENDING not in said


async def name(unit: UnitOfWork, person: object) -> str:
    """How a person is called in a document: of a role, the Practitioner in it."""
    found = await unit.get(person)
    if found is not None and found["resourceType"] == "PractitionerRole":
        found = await unit.get(found.get("practitioner"))
    human: Resource = next(iter((found or {}).get("name", ())), {})
    if human:
        parts = (*human.get("prefix", ()), *human.get("given", ()), human.get("family", ""), *human.get("suffix", ()))
        return str(human.get("text") or " ".join(p for p in parts if p))
    return str(person.get("display", "")) if isinstance(person, dict) else ""


async def check(unit: UnitOfWork, change: Change) -> None:
    """A resident signs nothing, and withdraws nothing signed; of the readers that a signed report names, one is no resident."""
    report = change.after
    signed, was_signed = ((r or {}).get("status") in SIGNED for r in (report, change.before))
    if report is None or not (signed or was_signed) or _same(change.before, report):
        return
    if unit.access.person and unit.access.user and await is_resident(unit, unit.access.user):
        text = "a resident's report is preliminary: an attending finalises it, and changes or withdraws one that is final"
        raise fail("forbidden", text, "DiagnosticReport.status")
    readers = report.get("resultsInterpreter", [])
    if signed and readers and all([await is_resident(unit, reader) for reader in readers]):
        text = "a signed report names an attending among its readers, not residents alone"
        raise fail("business-rule", text, "DiagnosticReport.resultsInterpreter")


def _same(before: Resource | None, report: Resource) -> bool:
    """Whether it says the same; that somebody must be told of it, anybody may add."""
    return before is not None and _said(before) == _said(report)


def _said(report: Resource) -> Resource:
    own = [e for e in report.get("extension", ()) if e.get("url") != terms.CRITICAL_RESULT]
    return {k: v for k, v in report.items() if k != "meta"} | {"extension": own}


def register(registry: Registry) -> None:
    registry.rule("DiagnosticReport", check)
