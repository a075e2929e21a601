"""`$move` on a ServiceRequest or an ImagingStudy: it was made on the wrong patient (`move.py`).

POST ServiceRequest/[id]/$move or ImagingStudy/[id]/$move with Parameters:
    patient         valueReference to the right Patient
    reason          string: why
    correctReports  boolean, of a radiologist: signed reports go along, withdrawn from the one patient and corrected for the other
It answers Parameters of `moved` (valueReference), as far as the caller sees it.
"""

from typing import Final

from fhir_server import audit
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.registry import Registry
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation
from resources.moving.move import move

_TYPES: Final = frozenset({"ServiceRequest", "ImagingStudy"})
_NEEDS: Final = {"Patient": "r", "ServiceRequest": "u"}
_NAMES: Final = frozenset({"patient", "reason", "correctReports"})


def register(registry: Registry) -> None:
    """Offer it."""
    definition = "urn:fhir-ris:OperationDefinition/move"
    levels = frozenset[Level]({"instance"})
    registry.operation(Operation("move", definition, levels, run, _TYPES, affects_state=True, parameters={"reason": "string"}))


async def run(call: Call) -> Answer:
    """FhirError 400 for a bad call, 403 for who may not, 404 for what isn't there, 409, 412 and 422 for what can't be."""
    arguments.check_body("move", call.body, _NAMES)
    await department_operation.require(call, "move", _NEEDS | {str(call.resource_type): "u"})
    whose, reason = department_operation.reference(call, "patient", "Patient"), arguments.one(call, "reason")
    if whose is None or not reason:
        raise fail("required", "$move needs the right patient and a reason", "Parameters.parameter", status=400)
    flags = [part.get("valueBoolean") for part in arguments.parts(call.body, "correctReports")]
    if any(not isinstance(flag, bool) for flag in flags):
        raise fail("value", "correctReports is a boolean", "Parameters.parameter", status=400)
    to = Target(str(call.resource_type), str(call.id))

    async def work(unit: UnitOfWork) -> list[Target]:
        what = await department_operation.seen(unit, to, "u")
        patient = await department_operation.seen(unit, whose)
        with unit.as_department():
            found = await move(unit, what, patient, reason, correct_reports=True in flags)
        return [one for one in found if await unit.seen(one.type, one.id, "r", copy=False)]

    named = audit.seen([str(to), str(whose)])
    moved = await call.interactions.transact(call.access, call.act, work, named)
    return Answer(department_operation.answer(("moved", str(one)) for one in moved))
