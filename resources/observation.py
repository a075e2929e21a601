"""Observation: what a report says in parts. Under a signed report it changes only with the report, so that readers are told."""

from fhir_server.elements import same
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork

_SIGNED = frozenset({"final", "amended", "corrected", "appended"})
_WITHDRAWN = frozenset({"entered-in-error", "cancelled"})
_SAID = (
    "subject focus code category component interpretation referenceRange note dataAbsentReason method bodySite hasMember".split()
)
_MAX_DEPTH = 8  # of panels in panels


def says_else(change: Change) -> bool:
    """Whether an Observation says something else than it did before, or nothing any more: it is taken back."""
    before, after = change.before, change.after
    if before is None or after is None or change.redirected:
        return False
    said = {*_SAID, *(e for r in (before, after) for e in r if e.startswith(("value", "effective")))}
    return change.became("status", *_WITHDRAWN) or any(not same(before.get(e), after.get(e)) for e in said)


async def reports_of(unit: UnitOfWork, observation_id: str) -> list[Resource]:
    """The reports that have an Observation as a result, or a panel that has it."""
    found = {f"Observation/{observation_id}"}
    panels = found
    for _ in range(_MAX_DEPTH):
        above = await unit.search("Observation", has_member=",".join(sorted(panels)))
        panels = {f"Observation/{o['id']}" for o in above} - found
        if not panels:
            break
        found = found | panels
    return await unit.search("DiagnosticReport", result=",".join(sorted(found)))


async def follow(unit: UnitOfWork, change: Change) -> None:
    """Refused where a signed report would change without saying so."""
    if not says_else(change):
        return
    changed = {c.id: c for c in unit.changes() if c.type == "DiagnosticReport"}
    for report in await reports_of(unit, change.id):
        if report["status"] not in _SIGNED:
            continue
        own = changed.get(report["id"])
        before = own.before if own else report
        if own is None or (before and before.get("status") == report["status"] == "final"):
            text = (
                f"Observation/{change.id} is part of a signed report: it changes in one transaction with DiagnosticReport/"
                f"{report['id']}, which becomes amended, corrected or appended, or is issued again"
            )
            raise fail("business-rule", text, "Observation")


def register(registry: Registry) -> None:
    registry.reaction("Observation", follow)
