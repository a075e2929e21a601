"""Coverage and authorization: an insured patient with an order for what needs an authorization."""

from bridges.payer.client import Payers
from bridges.payer.delivery import PayerDelivery
from tests.fhir_app import Resource
from tests.operation_setups import Stage
from tests.payer import paying

_PET = {"coding": [{"system": "http://loinc.org", "code": "44139-4"}]}


def _to(resource: Resource) -> Resource:
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}


def submit(stage: Stage) -> dict[str, str]:
    """With a payer that answers, and the worker that asks it."""
    create = stage.app.create
    payer = stage.ends.enter_context(paying())
    worker = PayerDelivery(stage.app.interactions, Payers()).running()
    stage.app.run(worker.__aenter__())
    stage.ends.callback(lambda: stage.app.run(worker.__aexit__(None, None, None)))
    kind = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7-fhir-rest"}
    endpoint = create(
        {"resourceType": "Endpoint", "status": "active", "connectionType": kind, "address": f"{payer.base}/grants"}
        | {"payloadType": [{"text": "eligibility"}]}
    )
    patient = stage.patient()
    insurer = create({"resourceType": "Organization", "name": "Example Health", "endpoint": [_to(endpoint)]})
    coverage = create({"resourceType": "Coverage", "status": "active", "beneficiary": _to(patient), "payor": [_to(insurer)]})
    request = create(
        {"resourceType": "CoverageEligibilityRequest", "status": "active", "purpose": ["benefits"], "created": "2026-08-30"}
        | {"patient": _to(patient), "insurer": _to(insurer), "insurance": [{"coverage": _to(coverage)}]}
    )
    made = {"patient": patient, "insurer": insurer, "coverage": coverage, "order": stage.order(patient), "request": request}
    return {name: resource["id"] for name, resource in made.items()}


def override_authorization(stage: Stage) -> dict[str, str]:
    stage.app.create(
        {
            "resourceType": "ActivityDefinition",
            "status": "active",
            "identifier": [{"system": "http://loinc.org", "value": "44139-4"}],
            "code": _PET,
            "extension": [{"url": "urn:fhir-ris:authorization-required", "valueBoolean": True}],
        }
    )
    return {"order": stage.order(stage.patient(), code=_PET)["id"]}
