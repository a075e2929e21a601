"""Which authorization a requested procedure is booked on, and how many of its units are left."""

from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final

from fhir_server.elements import extension
from fhir_server.references import ref, target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, charge_item, service_request
from resources.coverage import marks
from resources.coverage.authorization import TYPES, Code, Terms, coded, is_authorization, terms

# Extension of a catalogue entry (boolean): the procedure is booked with the payer's authorization only.
REQUIRED: Final = "urn:fhir-ris:authorization-required"
_LOOKED_AT: Final = 200  # answers of payers about one patient, the newest
_MOST_PROCEDURES: Final = 500  # of one patient
_NEVER_DONE: Final = frozenset({"revoked", "entered-in-error"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A procedure that needs an authorization.

    procedure: the requested procedure, or the order where it has none yet
    codes: what payers may know it by: its own codes, those of the catalogue and what is charged for it
    """

    procedure: Resource
    order: Resource | None
    codes: frozenset[Code]

    @property
    def requests(self) -> list[str]:
        """The references of the procedure and its order."""
        return [ref(r)["reference"] for r in (self.procedure, self.order) if r is not None]


@dataclass(frozen=True, slots=True)
class Found:
    """The authorization that holds; else why there is none, for people. Without patient data."""

    terms: Terms | None
    why_not: str = ""


async def wanted(unit: UnitOfWork, procedure: Resource) -> Wanted | None:
    """What must be authorized of a requested procedure (or order); None when the catalogue says nothing of the kind."""
    entry = await activity_definition.catalogue_entry(unit, procedure)
    if not (extension(entry or {}, REQUIRED) or {}).get("valueBoolean"):
        return None
    assert entry is not None
    known = {*coded(procedure.get("code")), *coded(entry.get("code"))}
    charges = [e for e in entry.get("extension", ()) if e.get("url") == charge_item.CHARGE]
    known |= {c for e in charges for part in e.get("extension", ()) for c in coded(part.get("valueCodeableConcept"))}
    return Wanted(procedure, await service_request.order_of(unit, procedure), frozenset(known))


async def find(unit: UnitOfWork, of: Wanted, moment: datetime, zone: tzinfo, *, besides: str = "") -> Found:
    """The authorization for the procedure at that moment; the one it has first, then the one that ends first.

    besides: one that doesn't count
    """
    has = marks.bound(of.procedure)
    possible = [t for t in await candidates(unit, of) if t.of != besides]
    reasons: list[str] = []
    for one in sorted(possible, key=lambda t: (t.of != has, t.ends or "9999", t.of)):
        if not one.begun(moment, zone):
            reasons.append(f"one begins on {one.begins[:10]}")
        elif one.over(moment, zone):
            reasons.append(f"one ends on {one.ends[:10]}")
        elif await left(unit, one, of.procedure) == 0:
            reasons.append(f"one, for {one.units}, is used up")
        else:
            return Found(one)
    return Found(None, "; ".join(dict.fromkeys(reasons)))


async def candidates(unit: UnitOfWork, of: Wanted) -> list[Terms]:
    """What payers have authorized of this procedure, whenever that holds.

    It is for this order when the order (or procedure) names it in its insurance, when the request that it answers names the
    order, or when it lists the procedure and its request names no order. Of an order that says who pays, another payer's doesn't
    count.
    """
    patient = str(of.procedure["subject"].get("reference"))
    insurance = [str(r.get("reference")) for s in (of.procedure, of.order) for r in (s or {}).get("insurance", ())]
    coverages = {r for r in insurance if r.startswith("Coverage/")}
    found = []
    for answer in await _answers(unit, patient):
        named = ref(answer)["reference"] in insurance
        orders, asked = await _asked(unit, answer)
        one = terms(answer, of.codes, asked)
        if one is None or not (named or orders & set(of.requests) or (one.listed and not orders)):
            continue
        payers = {str(i.get("coverage", {}).get("reference")) for i in answer.get("insurance", ())}
        if named or not coverages or not payers or payers & coverages:
            found.append(one)
    return found


async def _answers(unit: UnitOfWork, patient: str) -> list[Resource]:
    found = [a for kind in TYPES for a in await unit.some(kind, _LOOKED_AT, patient=patient, status="active")]
    return [a for a in found if is_authorization(a)]


async def _asked(unit: UnitOfWork, answer: Resource) -> tuple[set[str], set[Code]]:
    """The orders that the request of an answer names (CoverageEligibilityRequest.item.detail, Claim.referral), and the codes."""
    request = await unit.get(answer.get("request"))
    if request is None:
        return set(), set()
    items = request.get("item", [])
    details = [request.get("referral"), *(d for i in items for d in i.get("detail", ()) if "reference" in d)]
    found = (target(d) for d in details)
    codes = {c for i in items for c in coded(i.get("productOrService"))}
    return {str(t) for t in found if t and t.type == "ServiceRequest"}, codes


# Units


async def left(unit: UnitOfWork, one: Terms, procedure: Resource | None = None) -> int | None:
    """How many units are left for this procedure, which may hold one itself; None where there is no limit."""
    if one.units is None:
        return None
    await unit.lock(f"authorization:{one.of}")
    holders = [p for p in await booked_on(unit, one.of) if procedure is None or p["id"] != procedure["id"]]
    return max(0, one.units - len(holders))


async def booked_on(unit: UnitOfWork, reference: str) -> list[Resource]:
    """The requested procedures that an authorization's units are taken by: booked once, and not revoked since."""
    answer = await unit.get(reference)
    if answer is None:
        return []
    procedures = await unit.some(
        "ServiceRequest", _MOST_PROCEDURES, patient=answer["patient"]["reference"], intent="filler-order"
    )
    return [p for p in procedures if marks.bound(p) == reference and p["status"] not in _NEVER_DONE]
