"""What a charge must be, by whichever door it comes."""

from typing import Any, Final

from fhir_server.elements import extension
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import charge_item
from resources.charge_item import COMPONENT, MODIFIER, RELEASED, STANDS, VOIDED, WITHDRAWN
from resources.charging import catalogue, review
from resources.lifecycle import check_unchanged

# What of a charge is on the bill.
_BILLED: Final = ("code", "quantity", "priceOverride", "factorOverride", "occurrenceDateTime", "reason")


async def check(unit: UnitOfWork, change: Change) -> None:
    """Nothing is charged twice, what is on a bill doesn't change, and what is to be looked at doesn't go out unseen."""
    charge, before = change.after, change.before
    if charge is None:
        return
    check_unchanged(change, "subject", "supportingInformation")
    procedure = await charge_item.procedure_of(unit, charge) if before is None else None
    if procedure is not None and procedure["subject"].get("reference") != charge["subject"].get("reference"):
        raise fail("business-rule", "the charge is for another patient than what was done", "ChargeItem.subject")
    if unit.is_callers and unit.access.person and _decided(before) != _decided(charge):
        raise fail("forbidden", "a charge is released and taken back by $release and $void", "ChargeItem.extension")
    if before and before["status"] == charge["status"] == "billed" and _content(before) != _content(charge):
        raise fail("business-rule", "a charge that is billed is changed by $correct", "ChargeItem.status")
    if charge["status"] in STANDS and (before is None or before["status"] not in STANDS or before["code"] != charge["code"]):
        await _check_single(unit, change.id, charge)
    why: list[str] = []
    if charge["status"] in {"planned", "billable"} and not (before and before["status"] in {"billable", "billed"}):
        why = await review.reasons(unit, charge)
    coded = "no-charge-code" not in why  # without a code nobody can bill it, whoever has released it
    if charge["status"] == "billable" and why and not (coded and extension(charge, RELEASED)):
        if before is not None:
            raise review.refusal(why)
        charge["status"] = "planned"
    tagged = review.tagged(charge, why)
    charge.clear()
    charge.update(tagged)


def _decided(charge: Resource | None) -> list[Any]:
    """What people have decided about a charge."""
    return [e for e in (charge or {}).get("extension", ()) if e.get("url") in {RELEASED, VOIDED, WITHDRAWN}]


def _content(charge: Resource) -> list[Any]:
    extensions = [e for e in charge.get("extension", ()) if e.get("url") in {COMPONENT, MODIFIER}]
    return [*(charge.get(element) for element in _BILLED), extensions]


async def _check_single(unit: UnitOfWork, own_id: str, charge: Resource) -> None:
    """One charge stands for a code of a component of a requested procedure; how often, its quantity says."""
    procedure, codes = charge_item.procedure_id(charge), catalogue.keys(charge["code"])
    if not procedure or not codes:
        return
    await unit.lock(f"charges:{procedure}")
    await unit.flush()
    same = {"search.t": f">ServiceRequest/{procedure}", "_id": {"$ne": own_id}}
    async for row in unit.db["ChargeItem"].find(same, {"_id": 1}, session=unit.session):
        other = await unit.read("ChargeItem", row["_id"])
        if (
            other is not None
            and other["status"] in STANDS
            and charge_item.component(other) == charge_item.component(charge)
            and catalogue.keys(other["code"]) == codes
        ):
            name = await unit.named("ChargeItem", other["id"])
            raise fail("duplicate", f"this is charged already: {name}", "ChargeItem.code")


def register(registry: Registry) -> None:
    registry.rule("ChargeItem", check)
