"""The requested procedure (ServiceRequest, intent `filler-order`): its steps, study and reading follow it."""

from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import task, terms

_INTENT = "filler-order"
_OVER = frozenset({"revoked", "completed", "entered-in-error"})
_SIGNED = "final,amended,corrected,appended"


async def _procedures(unit: UnitOfWork, request: Resource) -> list[Resource]:
    """Those of an order; a requested procedure is its own."""
    if request.get("intent") == _INTENT:
        return [request]
    return await unit.search("ServiceRequest", based_on=f"ServiceRequest/{request['id']}", intent=_INTENT)


# What rows of the lifecycles of orders and requested procedures need


async def nothing_open(unit: UnitOfWork, change: Change) -> None:
    """None of its steps is still to be done."""
    request = change.after or {}
    steps = await task.steps_of(unit, *(p["id"] for p in await _procedures(unit, request)))
    if any(s["status"] in task.OPEN for s in steps):
        text = f"it can't become {request['status']}: steps of it are still to be done"
        raise fail("business-rule", text, "ServiceRequest.status")


async def reported(unit: UnitOfWork, change: Change) -> None:
    """A requested procedure has a signed report; of an order, all are over, and one is completed. The RIS itself knows."""
    if not unit.is_callers:
        return
    request = change.after or {}
    procedures = await _procedures(unit, request)
    if request.get("intent") == _INTENT:
        orders = [r["reference"] for r in request.get("basedOn", ()) if "reference" in r]
        about = ",".join([f"ServiceRequest/{request['id']}", *orders])
        enough = bool(await unit.search("DiagnosticReport", based_on=about, status=_SIGNED))
    else:
        ends = {p["status"] for p in procedures}
        enough = "completed" in ends and ends <= _OVER
    if not enough:
        raise fail("business-rule", "it is completed by its final report", "ServiceRequest.status")


async def order_goes_on(unit: UnitOfWork, change: Change) -> None:
    """Its order isn't on hold, and not over."""
    for reference in (change.after or {}).get("basedOn", ()):
        order = await unit.get(reference)
        if order is not None and order["resourceType"] == "ServiceRequest" and order["status"] in {"on-hold", *_OVER}:
            raise fail("business-rule", f"its order is {order['status']}", "ServiceRequest.status")


# Reaction


async def follow(unit: UnitOfWork, change: Change) -> None:
    """Its steps are held, go on, or are called off with it. FhirError `conflict` when one is under way."""
    request, before = change.after, change.before
    if request is None or before is None or request.get("intent") != _INTENT:
        return
    steps = await task.steps_of(unit, request["id"])
    if change.became("status", "revoked", "entered-in-error"):
        if any(s["status"] == "in-progress" for s in steps):
            raise fail("conflict", f"the examination has been started: it can't be {request['status']}", "ServiceRequest.status")
        for step in steps:
            if step["status"] in task.BEFORE_START:
                await unit.update(step | {"status": "cancelled"})
        await end_study(unit, request)
        await end_readings(unit, request)
    elif change.became("status", "on-hold"):
        for step in steps:
            if step["status"] in task.BEFORE_START - {"on-hold"}:
                await unit.update(step | {"status": "on-hold"})
    elif before.get("status") == "on-hold" and request.get("status") == "active":
        for step in steps:
            if step["status"] == "on-hold":
                await unit.update(await task.released(unit, step))


async def end_study(unit: UnitOfWork, request: Resource) -> None:
    """Its study to be is not to be any more."""
    for study in await unit.search("ImagingStudy", basedon=f"ServiceRequest/{request['id']}"):
        if study["status"] == "registered" and "series" not in study:
            await unit.update(study | {"status": "cancelled"})


async def end_readings(unit: UnitOfWork, request: Resource) -> None:
    """There is nothing to read for it."""
    for reading in await unit.search("Task", based_on=f"ServiceRequest/{request['id']}", code=terms.READING):
        if reading["status"] in task.OPEN:
            await unit.update(reading | {"status": "cancelled"})


def register(registry: Registry) -> None:
    registry.reaction("ServiceRequest", follow)
