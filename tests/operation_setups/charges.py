"""Charges, and orders on the wrong patient."""

from tests.fhir_app import Resource
from tests.operation_setups import Stage

CPT = "http://www.ama-assn.org/go/cpt"
COUGH = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "R05"}]}


def _charge(stage: Stage, **elements: object) -> Resource:
    base = {
        "resourceType": "ChargeItem",
        "status": "billable",
        "code": {"coding": [{"system": CPT, "code": "71250"}]},
        "subject": {"reference": f"Patient/{stage.patient()['id']}"},
    }
    return stage.app.create(base | elements)


def release_of_a_chargeitem(stage: Stage) -> dict[str, str]:
    """A charge that is held: it has no diagnosis."""
    return {"held": _charge(stage)["id"]}


def correct_of_a_chargeitem(stage: Stage) -> dict[str, str]:
    return {"charge": _charge(stage, reason=[COUGH])["id"]}


void = correct_of_a_chargeitem


def charge(stage: Stage) -> dict[str, str]:
    return {"order": stage.order(stage.patient())["id"]}


def move(stage: Stage) -> dict[str, str]:
    return {"order": stage.order(stage.patient())["id"], "right": stage.patient()["id"]}
