"""Orders: accept, reject, hold, cancel, add a procedure; create and cancel as HL7's guide has it."""

from tests.fhir_app import unused
from tests.operation_setups import Stage


def _orders(stage: Stage) -> dict[str, str]:
    """An accepted order, and a draft for the same patient."""
    patient = stage.patient()
    return {"order": stage.order(patient)["id"], "draft": stage.order(patient, status="draft")["id"]}


def accept(stage: Stage) -> dict[str, str]:
    stage.caller = stage.world.person("scheduler", grant=unused("grant"))
    return _orders(stage)


reject = hold_of_a_servicerequest = cancel_of_a_servicerequest = add_procedure = cancel_order = _orders


def create_order(_stage: Stage) -> dict[str, str]:
    return {"mrn": unused("MRN")}
