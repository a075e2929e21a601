"""Modifiers of CPT and HCPCS codes that follow from what was done (AMA CPT Appendix A; CMS HCPCS Level II).

    LT, RT, 50   left, right, both sides (ServiceRequest.bodySite, SNOMED CT side)
    TC, 26       technical and professional component, where one code stands for both
    52, 53       reduced: a part was stopped and not repeated; discontinued: it was stopped
    76, 77       repeated on the same day by the same, by another person
Codes of other systems have none of these; what the catalogue says stays beside them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final

from fhir_server import clock
from fhir_server.elements import codes, concept
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import charge_item, task, terms, zones
from resources.charge_item import PROFESSIONAL, TECHNICAL
from resources.charging.catalogue import Said, keys
from resources.identifiers import token

CPT: Final = "http://www.ama-assn.org/go/cpt"
HCPCS: Final = "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
_LEFT, _RIGHT, _BOTH = "7771000", "24028007", "51440002"
DISCONTINUED: Final = "53"


@dataclass(frozen=True, slots=True)
class Done:
    """What a charge is for: its requested procedure, the steps as they have ended, the charge as far as it is made."""

    procedure: Resource
    steps: list[Resource]
    performers: list[Resource]
    at: str
    discontinued: bool = False


async def of(unit: UnitOfWork, said: Said, done: Done) -> list[Resource]:
    """The modifiers of a charge, those of the catalogue first."""
    found = list(said.modifiers)
    if any(system in {CPT, HCPCS} for system, _ in keys(said.code)):
        wanted = [*_side(done.procedure), *_component(said), *_ended(done), *await _repeated(unit, said, done)]
        known = {code for one in found for _, code in keys(one)}
        found += [one for one in wanted if not {code for _, code in keys(one)} & known]
    return found


def _side(procedure: Resource) -> list[Resource]:
    sides = set(codes(procedure.get("bodySite"), terms.SNOMED)) & {_LEFT, _RIGHT, _BOTH}
    if _BOTH in sides or len(sides) > 1:
        return [concept(CPT, "50")]
    return [concept(HCPCS, "LT" if side == _LEFT else "RT") for side in sides]


def _component(said: Said) -> list[Resource]:
    if not said.split:
        return []
    return [{TECHNICAL: concept(HCPCS, "TC"), PROFESSIONAL: concept(CPT, "26")}[said.component]]


def _ended(done: Done) -> list[Resource]:
    if done.discontinued:
        return [concept(CPT, DISCONTINUED)]
    complete = [_part(s) for s in done.steps if s["status"] == "completed"]
    stopped = [s for s in done.steps if s["status"] == "failed" and _part(s) not in complete]
    return [concept(CPT, "52")] if stopped else []


def _part(step: Resource) -> tuple[object, object]:
    """Which part of an examination a step is: another step for the same repeats it."""
    return step.get("code"), task.modality(step)


async def _repeated(unit: UnitOfWork, said: Said, done: Done) -> list[Resource]:
    """Whether another examination with this charge code was charged for the patient before, on this day of the department."""
    first, last = day_of(done.at, zones.department())
    code = ",".join(token(*key) for key in sorted(keys(said.code)))
    period = [("occurrence", f"ge{clock.instant(first)}"), ("occurrence", f"lt{clock.instant(last)}")]
    found = await unit.search_all("ChargeItem", [("subject", done.procedure["subject"]["reference"]), ("code", code), *period])
    before = [
        c for c in found
        if c["status"] in charge_item.STANDS
        and charge_item.component(c) == said.component
        and charge_item.procedure_id(c) != done.procedure["id"]
    ]  # fmt: skip
    if not before:
        return []
    own = _actors(done.performers)
    others = {a for c in before for a in _actors(c.get("performer", ()))}
    return [concept(CPT, "77" if own and others and not own & others else "76")]


def _actors(performers: Iterable[Resource]) -> set[str]:
    actors = (p.get("actor", {}) for p in performers)
    return {str(a.get("reference") or a.get("display")) for a in actors if a}


def day_of(moment: str, zone: tzinfo) -> tuple[datetime, datetime]:
    """The day of the department that a moment (FHIR dateTime) lies in: its begin, and that of the next."""
    at = datetime.fromisoformat(moment)
    local = at.replace(tzinfo=zone) if at.tzinfo is None else at.astimezone(zone)
    first = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return first, (first + timedelta(days=1)).replace(tzinfo=zone)
