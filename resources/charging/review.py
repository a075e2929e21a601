"""Charges that somebody is to look at before they go out: `planned`, with tags (meta.tag) that say why.

The review list is a search that one index serves: `ChargeItem?_tag=urn:fhir-ris:charge-review|held`. The codes beside `held`:
    no-charge-code   the catalogue has no code for it
    no-diagnosis     no coded reason on the order, and none in the report
    unusual-units    not as many units as the catalogue says
    no-coverage      nobody is known who pays (where the catalogue entry asks for it)
    discontinued     the examination was stopped, with images taken
"""

from typing import Final

from fhir_server.elements import codings
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, charge_item, zones
from resources.charging import catalogue, modifiers
from resources.charging.catalogue import REVIEW

HELD: Final = "held"
TEXTS: Final = {
    "no-charge-code": "the catalogue has no charge code for it",
    "no-diagnosis": "there is no coded diagnosis",
    "unusual-units": "the number of units is unusual",
    "no-coverage": "there is no coverage",
    "discontinued": "the examination was stopped",
}


async def reasons(unit: UnitOfWork, charge: Resource) -> list[str]:
    """Why somebody is to look at a charge, none for one that may go out."""
    procedure = await charge_item.procedure_of(unit, charge)
    entry = await activity_definition.catalogue_entry(unit, procedure) if procedure else None
    looked_at = catalogue.looked_at(entry)
    found = [] if catalogue.keys(charge.get("code", {})) else ["no-charge-code"]
    if "diagnosis" in looked_at and not any("code" in c for c in codings(charge.get("reason"))):
        found.append("no-diagnosis")
    if catalogue.is_unusual(_said(entry, charge), charge.get("quantity", {}).get("value", 1)):
        found.append("unusual-units")
    if "coverage" in looked_at and not await _is_covered(unit, charge, procedure):
        found.append("no-coverage")
    stopped = any(c.get("code") == modifiers.DISCONTINUED for c in codings(charge_item.modifiers(charge)))
    if stopped or "discontinued" in held_for(charge):
        found.append("discontinued")
    return found


def _said(entry: Resource | None, charge: Resource) -> catalogue.Said | None:
    """What the catalogue says of this charge, if it is one of its."""
    own = catalogue.keys(charge.get("code", {}))
    of = catalogue.of_component(entry, charge_item.component(charge))
    return next((s for s in of if catalogue.keys(s.code) & own), None)


async def _is_covered(unit: UnitOfWork, charge: Resource, procedure: Resource | None) -> bool:
    """Whether the order names who pays, or the patient has an active coverage on the day of the examination."""
    requests = [procedure, *[await unit.get(r) for r in (procedure or {}).get("basedOn", ())]]
    for reference in (r for request in requests if request for r in request.get("insurance", ())):
        named = await unit.get(reference)
        if named is not None and (named["resourceType"] != "Coverage" or _covers(named, charge)):
            return True
    found = await unit.search("Coverage", beneficiary=charge["subject"]["reference"], status="active")
    return any(_covers(c, charge) for c in found)


def _covers(coverage: Resource, charge: Resource) -> bool:
    moment = str(charge.get("occurrenceDateTime") or charge.get("enteredDate") or "")
    day = modifiers.day_of(moment, zones.department())[0].date().isoformat() if "T" in moment else moment
    period = coverage.get("period", {})
    starts, ends = str(period.get("start", ""))[:10], str(period.get("end", "9999"))[:10]
    active: bool = coverage.get("status") == "active"
    return active and (not day or (starts <= day and (day <= ends or day.startswith(ends))))


def held_for(charge: Resource) -> list[str]:
    """Why a charge is held, by its tags."""
    tags = charge.get("meta", {}).get("tag", ())
    return [t["code"] for t in tags if t.get("system") == REVIEW and "code" in t and t["code"] != HELD]


def tagged(charge: Resource, why: list[str]) -> Resource:
    """The charge with these reasons as its tags; without any where it isn't held."""
    meta = charge.get("meta", {})
    tags = [t for t in meta.get("tag", ()) if t.get("system") != REVIEW]
    if charge["status"] == "planned":
        tags += [{"system": REVIEW, "code": code} for code in (HELD, *why)]
    rest = {k: v for k, v in meta.items() if k != "tag"} | ({"tag": tags} if tags else {})
    return {k: v for k, v in charge.items() if k != "meta"} | ({"meta": rest} if rest else {})


async def look_again(unit: UnitOfWork, charge: Resource) -> Resource:
    """A held charge with these changes: it goes out by itself once nothing is wrong with it any more."""
    free = not await reasons(unit, charge)
    return await unit.update(charge | {"status": "billable" if free else "planned"})


def refusal(why: list[str]) -> Exception:
    text = f"the charge is held for review: {', '.join(TEXTS[code] for code in why)}. It is released with a reason"
    return fail("business-rule", text, "ChargeItem.status")


async def held_of(unit: UnitOfWork, patient: str, code: str) -> list[Resource]:
    """The charges of a patient ("Patient/1") that are held for this reason."""
    held = [("subject", patient), ("_tag", f"{REVIEW}|{code}")]
    return await unit.search_all("ChargeItem", held) if target(patient) else []
