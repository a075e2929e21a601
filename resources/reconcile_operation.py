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
from fhir_server.references import Target
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation, reconciliation
from resources.department_operation import reference, seen
from resources.reconciliation import Settled

_TYPES = frozenset({"Procedure", "ImagingStudy"})
_NEEDS = {"Procedure": "u", "ImagingStudy": "u", "ServiceRequest": "r"}


def register(registry: Registry) -> None:
    """Offer it."""
    definition = "urn:fhir-ris:OperationDefinition/reconcile"
    levels = frozenset[Level]({"instance"})
    registry.operation(Operation("reconcile", definition, levels, reconcile, _TYPES, affects_state=True))


async def reconcile(call: Call) -> Answer:
    """FhirError 403 for who may not, 404 for what isn't there, 422 and 409 for what can't be."""
    arguments.check_body("reconcile", call.body, frozenset({"order", "step"}))
    await department_operation.require(call, "reconcile", _NEEDS)
    order, step = reference(call, "order", "ServiceRequest"), reference(call, "step", "Task")
    if order is None:
        raise fail("required", "order says which ServiceRequest it belongs to", "Parameters.parameter", status=400)

    async def work(unit: UnitOfWork) -> Settled:
        what = await seen(unit, Target(str(call.resource_type), str(call.id)), "u")
        request = await seen(unit, order)
        performed = await seen(unit, step) if step else None
        with unit.as_department():
            return await reconciliation.settle(unit, what, request, performed, call.access.user)

    named = audit.seen([f"{call.resource_type}/{call.id}", str(order)])
    settled = await call.interactions.transact(call.access, call.act, work, named)
    return Answer(_answer(settled))


def _answer(settled: Settled) -> Resource:
    rows = [("order", settled.order), *(("step", s) for s in settled.steps), *(("procedure", p) for p in settled.procedures)]
    rows += [("imaging-study", settled.study)] if settled.study else []
    rows += [("closed", c) for c in settled.closed]
    return department_operation.answer(rows)
