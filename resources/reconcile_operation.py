"""`$reconcile` on a Procedure or an ImagingStudy: a person says which order it belongs to (`reconciliation.py`).

POST Procedure/[id]/$reconcile or ImagingStudy/[id]/$reconcile with Parameters:
    order  valueReference to a ServiceRequest: the order, or one of its requested procedures
    step   valueReference to a Task: the scheduled step that was performed, where it matters which
It answers Parameters: `order`, `step`, `procedure`, `imaging-study` and `closed` (work items), each a valueReference.

It is for people in the roles that may (`smart_auth/roles.py`), with the scopes to update both types, and for backend clients
with these scopes.
"""

from fhir_server import audit
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target, target
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import reconciliation
from resources.reconciliation import Settled
from smart_auth.access import Access
from smart_auth.roles import role

_TYPES = frozenset({"Procedure", "ImagingStudy"})


def register(registry: Registry) -> None:
    """Offer it."""
    definition = "urn:fhir-ris:OperationDefinition/reconcile"
    levels = frozenset[Level]({"instance"})
    registry.operation(Operation("reconcile", definition, levels, reconcile, _TYPES, affects_state=True))


async def reconcile(call: Call) -> Answer:
    """FhirError 403 for who may not, 404 for what isn't there, 422 and 409 for what can't be."""
    arguments.check_body("reconcile", call.body, frozenset({"order", "step"}))
    await _require_right(call)
    order, step = _reference(call, "order", "ServiceRequest"), _reference(call, "step", "Task")
    if order is None:
        raise fail("required", "order says which ServiceRequest it belongs to", "Parameters.parameter", status=400)

    async def work(unit: UnitOfWork) -> Settled:
        what = await _seen(unit, Target(str(call.resource_type), str(call.id)))
        request = await _seen(unit, order)
        performed = await _seen(unit, step) if step else None
        with unit.as_department():
            return await reconciliation.settle(unit, what, request, performed, call.access.user)

    named = audit.seen([f"{call.resource_type}/{call.id}", str(order)])
    settled = await call.interactions.transact(call.access, call.act, work, named)
    return Answer(_answer(settled))


async def _require_right(call: Call) -> None:
    if not _may(call.access):
        text = "reconciling is for technologists and administrators, with scopes to update Procedure and ImagingStudy"
        await call.interactions.store.ensure("AuditEvent")
        await call.interactions.reads.write(audit.audit_event(call.act, call.access, (), failed=text))
        raise fail("forbidden", text)


def _may(access: Access) -> bool:
    if not access.person:
        return access.internal or (all(access.allows(t, "u") for t in _TYPES) and access.allows("ServiceRequest", "r"))
    known = role(access.role)
    levels = [s for s in access.scopes if s.level == "user"]
    return known is not None and known.reconciles and all(any(s.covers(t, "u") for s in levels) for t in _TYPES)


def _reference(call: Call, name: str, resource_type: str) -> Target | None:
    given = list(arguments.parts(call.body, name))
    if not given:
        return None
    to = target(given[0].get("valueReference"), call.base_url)
    if len(given) > 1 or to is None or to.type != resource_type:
        raise fail("value", f"{name} is one valueReference to a {resource_type}", "Parameters.parameter", status=400)
    return to


async def _seen(unit: UnitOfWork, to: Target) -> Resource:
    found = await unit.seen(to.type, to.id, "r")
    if found is None:
        raise fail("not-found", f"there is no {to}")
    return found


def _answer(settled: Settled) -> Resource:
    rows = [("order", settled.order), *(("step", s) for s in settled.steps), *(("procedure", p) for p in settled.procedures)]
    rows += [("imaging-study", settled.study)] if settled.study else []
    rows += [("closed", c) for c in settled.closed]
    return {
        "resourceType": "Parameters",
        "parameter": [{"name": name, "valueReference": {"reference": reference}} for name, reference in rows],
    }
