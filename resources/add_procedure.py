"""`$add-procedure` on an accepted order: what turns out to be needed too, under the same accession number.

POST ServiceRequest/[id]/$add-procedure with Parameters:
    code      valueCodeableConcept: the procedure, of the catalogue where there is one
    bodySite  valueCodeableConcept, where the procedure isn't clear without it
    reason    why: valueCodeableConcept, valueCoding or valueString
It answers Parameters: `procedure`, `step` and `imaging-study`, each a valueReference.
"""

from typing import Any

from fhir_server import audit
from fhir_server.elements import codings
from fhir_server.operations import Answer, Call, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import ref
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation, order_operations, order_panel, order_plan, service_request, task
from resources.order_plan import PlannedProcedure


async def add_procedure(call: Call) -> Answer:
    """FhirError 403 for who may not, 404 for what isn't there, 422 and 409 for what can't be added."""
    arguments.check_body("add-procedure", call.body, frozenset({"code", "bodySite", "reason"}))
    await department_operation.require(call, "order-add-procedure", {"ServiceRequest": "u"})
    code, reason = _concept(call, "code"), order_operations.reason_of(call)
    if code is None or reason is None:
        raise fail("required", "$add-procedure needs the code of the procedure, and a reason", "Parameters.parameter", status=400)
    site = _concept(call, "bodySite")

    async def work(unit: UnitOfWork) -> Resource:
        order = await order_operations.the_order(unit, call)
        with unit.as_department():
            return await _add(unit, order, code, [site] if site else [], reason)

    named = audit.seen([f"ServiceRequest/{call.id}"])
    return Answer(await call.interactions.transact(call.access, call.act, work, named))


async def _add(unit: UnitOfWork, order: Resource, code: Resource, sites: list[Resource], reason: Resource) -> Resource:
    if order["status"] not in {"active", "on-hold"}:
        text = f"the order is {order['status']}: a procedure is added to one that is accepted"
        raise fail("business-rule", text, "ServiceRequest.status")
    await unit.lock(f"procedures-of:{order['id']}")  # of two who add the same at once, one must see the other's
    before = await service_request.procedures_of(unit, order["id"])
    if not before:
        text = "the order is held, and what it orders is not planned yet: accept it first"
        raise fail("business-rule", text, "ServiceRequest.status")
    if any(p["status"] in {"active", "on-hold"} and _alike(p, code, sites) for p in before):
        raise fail("duplicate", "the order has this procedure already", "Parameters.parameter")
    if not await order_panel.entries(unit, {"code": code}) and await unit.matching(
        "ActivityDefinition", "status=active", limit=1
    ):
        raise fail("code-invalid", "the procedure is not in the department's catalogue", "Parameters.parameter")
    details = [d for d in order.get("orderDetail", ()) if not order_panel.names_modality(d)]
    reasons = [*order.get("reasonCode", ()), reason]
    elements = {"code": code, "bodySite": sites or None, "orderDetail": details or None, "reasonCode": reasons}
    await order_plan.plan(unit, order, [PlannedProcedure(elements)], added=True)
    await unit.react()
    added = [p for p in await service_request.procedures_of(unit, order["id"]) if p["id"] not in {b["id"] for b in before}]
    rows = [("procedure", p) for p in added] + [("step", s) for s in await task.steps_of(unit, *(p["id"] for p in added))]
    for procedure in added:
        studies = await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}")
        rows += [("imaging-study", study) for study in studies]
    return department_operation.answer((name, ref(found)["reference"]) for name, found in rows)


def _alike(procedure: Resource, code: Resource, sites: list[Resource]) -> bool:
    mine, other = ({(c.get("system"), c.get("code")) for c in codings(one)} for one in (code, procedure.get("code")))
    where, there = ({(c.get("system"), c.get("code")) for c in codings(one)} for one in (sites, procedure.get("bodySite")))
    return bool(mine & other) and where == there


def _concept(call: Call, name: str) -> Resource | None:
    given: list[dict[str, Any]] = list(arguments.parts(call.body, name))
    if not given:
        return None
    found = given[0].get("valueCodeableConcept")
    if len(given) > 1 or not isinstance(found, dict) or not any("code" in c for c in codings(found)):
        raise fail("value", f"{name} is one valueCodeableConcept with a code", "Parameters.parameter", status=400)
    if not all(isinstance(c.get(e, ""), str) for c in codings(found) for e in ("system", "code")):
        raise fail("value", f"system and code of {name} are strings", "Parameters.parameter", status=400)
    return found


def register(registry: Registry) -> None:
    """Offer it."""
    definition = "urn:fhir-ris:OperationDefinition/ServiceRequest-add-procedure"
    instance, types = order_operations.INSTANCE, order_operations.TYPES
    registry.operation(Operation("add-procedure", definition, instance, add_procedure, types, affects_state=True))
