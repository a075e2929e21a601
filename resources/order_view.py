"""An order with all that hangs on it, as a Bundle (imaging-service-request-ig, OrderBundle): as much as the caller may see."""

from collections.abc import Iterable

from fhir_server.references import Target, target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import service_request, task


async def bundle(unit: UnitOfWork, order: Resource, base_url: str) -> Resource:
    """Patient, visit, order, requested procedures, their steps, studies and stations, as they are in this transaction."""
    procedures = await service_request.procedures_of(unit, order["id"])
    steps = await task.steps_of(unit, *(p["id"] for p in procedures))
    studies = [s for p in procedures for s in await unit.search("ImagingStudy", basedon=f"ServiceRequest/{p['id']}")]
    wanted = [target(order["subject"]), target(order.get("encounter")), Target("ServiceRequest", order["id"])]
    wanted += [Target(r["resourceType"], r["id"]) for r in (*procedures, *steps, *studies)]
    wanted += [target(step.get("owner")) for step in steps]
    entries: list[Resource] = [
        {"fullUrl": f"{base_url}/{found['resourceType']}/{found['id']}", "resource": found}
        for to in _once(wanted)
        if unit.access.allows(to.type, "r") and (found := await unit.seen(to.type, to.id, "r"))
    ]
    unit.shown.extend(f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in entries)
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def _once(targets: Iterable[Target | None]) -> list[Target]:
    return list(dict.fromkeys(to for to in targets if to is not None))
