"""Orders that have to do with each other: one takes the place of another (`replaces`), several share a `requisition`."""

from typing import Final

from fhir_server.outcome import fail
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import status_reason
from resources.identifiers import escaped, token

_ENDED: Final = frozenset({"revoked", "entered-in-error"})
_LOOKED_AT: Final = 20


def takes_place(change: Change, order: Resource) -> bool:
    """Whether an order, with this change, takes the place of others: a draft doesn't yet."""
    if order["status"] not in {"active", "on-hold"} or not order.get("replaces"):
        return False
    before = change.before or {}
    return before.get("status") not in {"active", "on-hold"} or before.get("replaces") != order["replaces"]


async def replace(unit: UnitOfWork, order: Resource) -> None:
    """End the orders that this one takes the place of. FhirError when one is done, has begun, or has another heir."""
    for reference in order["replaces"]:
        old = await unit.get(reference)
        if old is None or old["resourceType"] != "ServiceRequest":
            continue
        if old["subject"].get("reference") != order["subject"].get("reference"):
            raise fail("business-rule", "an order replaces one of the same patient", "ServiceRequest.replaces")
        heirs = await unit.search("ServiceRequest", replaces=f"ServiceRequest/{old['id']}", intent="order")
        if any(h["id"] != order["id"] and h["status"] not in _ENDED | {"draft"} for h in heirs):
            raise fail("duplicate", "the order that it replaces has been replaced already", "ServiceRequest.replaces")
        if old["status"] == "completed":
            raise fail("business-rule", "the order that it replaces is completed", "ServiceRequest.replaces")
        if old["status"] not in _ENDED:
            await unit.update(status_reason.put(old, {"text": "replaced by another order"}) | {"status": "revoked"})


async def check_requisition(unit: UnitOfWork, change: Change, order: Resource) -> None:
    """Orders that share a requisition are of one patient. FhirError `business-rule`."""
    requisition = order.get("requisition", {})
    if not (requisition.get("system") and requisition.get("value")) or requisition == (change.before or {}).get("requisition"):
        return
    for other in await of_requisition(unit, requisition):
        if other["subject"].get("reference") != order["subject"].get("reference"):
            text = "the requisition is another patient's: orders that share one are of one patient"
            raise fail("business-rule", text, "ServiceRequest.requisition")


async def of_requisition(unit: UnitOfWork, requisition: Resource) -> list[Resource]:
    """The orders that share a requisition, the newest twenty; what was entered in error is none."""
    system, value = requisition.get("system"), requisition["value"]
    wanted = token(system, value) if system else escaped(value)
    found = await unit.some("ServiceRequest", _LOOKED_AT, requisition=wanted, intent="order")
    same = [o for o in found if o.get("requisition", {}).get("system") == system]
    return [o for o in same if o["status"] != "entered-in-error" and o["requisition"].get("value") == value]


async def group(unit: UnitOfWork, order: Resource) -> list[Resource]:
    """The orders of an order's requisition, itself the first."""
    if "value" not in order.get("requisition", {}):
        return [order]
    others = await of_requisition(unit, order["requisition"])
    same_patient = [o for o in others if o["subject"].get("reference") == order["subject"].get("reference")]
    return [order, *(o for o in same_patient if o["id"] != order["id"])]
