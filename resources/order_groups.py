"""Orders that have to do with each other: one takes the place of another (`replaces`), several share a `requisition`."""

from collections.abc import Iterable
from typing import Final

from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import status_reason
from resources.identifiers import escaped, token

_ENDED: Final = frozenset({"revoked", "entered-in-error"})
_LOOKED_AT: Final = 20  # orders of a requisition: one of another patient among them is enough


def takes_place(change: Change, order: Resource) -> bool:
    """Whether an order, with this change, takes the place of others: a draft doesn't yet."""
    if order["status"] not in {"active", "on-hold"} or not order.get("replaces"):
        return False
    before = change.before or {}
    return before.get("status") not in {"active", "on-hold"} or before.get("replaces") != order["replaces"]


async def replace(unit: UnitOfWork, order: Resource) -> None:
    """End the orders that this one takes the place of. FhirError when one is done, has begun, or has another heir; or
    when it is no imaging order, or not the caller's to end."""
    from resources import service_request  # which calls this

    for reference in order["replaces"]:
        old = await unit.get(reference)
        if old is None or old["resourceType"] != "ServiceRequest":
            continue
        if old["id"] == order["id"] or not service_request.is_order(old):
            raise fail("business-rule", "an imaging order replaces other imaging orders", "ServiceRequest.replaces")
        if old["subject"].get("reference") != order["subject"].get("reference"):
            raise fail("business-rule", "an order replaces one of the same patient", "ServiceRequest.replaces")
        heirs = await unit.search("ServiceRequest", replaces=f"ServiceRequest/{old['id']}", intent="order")
        if any(h["id"] != order["id"] and h["status"] not in _ENDED | {"draft"} for h in heirs):
            raise fail("duplicate", "the order that it replaces has been replaced already", "ServiceRequest.replaces")
        if old["status"] == "completed":
            raise fail("business-rule", "the order that it replaces is completed", "ServiceRequest.replaces")
        if old["status"] not in _ENDED:
            if not await unit.seen("ServiceRequest", old["id"], "u", copy=False):
                raise fail("forbidden", "this order may not end the order that it replaces", "ServiceRequest.replaces")
            await unit.update(status_reason.put(old, {"text": "replaced by another order"}) | {"status": "revoked"})


async def check_requisition(unit: UnitOfWork, change: Change, order: Resource) -> None:
    """Orders that share a requisition are of one patient. FhirError `business-rule`."""
    requisition = order.get("requisition", {})
    if not (requisition.get("system") and requisition.get("value")) or requisition == (change.before or {}).get("requisition"):
        return
    wanted = token(requisition["system"], requisition["value"])
    for other in await unit.some("ServiceRequest", _LOOKED_AT, requisition=wanted, intent="order"):
        others = other["subject"].get("reference") != order["subject"].get("reference")
        if others and other["status"] != "entered-in-error":
            text = "the requisition is another patient's: orders that share one are of one patient"
            raise fail("business-rule", text, "ServiceRequest.requisition")


async def group(unit: UnitOfWork, order: Resource) -> list[Resource]:
    """The orders of an order's requisition that the caller may see, itself the first."""
    requisition = order.get("requisition", {})
    if "value" not in requisition:
        return [order]
    system, value = requisition.get("system"), requisition["value"]
    wanted = token(system, value) if system else escaped(value)
    found = await unit.search("ServiceRequest", requisition=wanted, intent="order", subject=order["subject"]["reference"])
    same = [o for o in found if (o["requisition"].get("system"), o["requisition"].get("value")) == (system, value)]
    others = [o for o in same if o["id"] != order["id"] and o["status"] != "entered-in-error"]
    return [order, *[o for o in others if await unit.seen("ServiceRequest", o["id"], "r", copy=False)]]


async def follow(unit: UnitOfWork, change: Change) -> None:
    """The orders of a RequestGroup share its groupIdentifier as their requisition, unless they have another."""
    plan = change.after or {}
    identifier = plan.get("groupIdentifier")
    if not identifier:
        return
    for reference in _resources(plan.get("action", ())):
        order = await unit.get(reference)
        if order is not None and order["resourceType"] == "ServiceRequest" and "requisition" not in order:
            await unit.update(order | {"requisition": identifier})


def _resources(actions: Iterable[Resource]) -> list[Resource]:
    """What the actions of a RequestGroup name, those of their parts too."""
    found: list[Resource] = []
    for action in actions:
        found += [action["resource"]] if "resource" in action else []
        found += _resources(action.get("action", ()))
    return found


def register(registry: Registry) -> None:
    registry.reaction("RequestGroup", follow)
