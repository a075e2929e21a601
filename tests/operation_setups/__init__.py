"""What must be there before an example of docs/operations.md can be run: a module an area, a function an operation.

A function `validate`, `meta_add` and so on (the operation's name, `-` as `_`) takes the stage and gives the ids that stand for
`{names}` in the example. Of an operation that several types have, it is `appointment_hold`. What isn't there, needs nothing.
"""

from dataclasses import dataclass
from typing import Any

from tests.fhir_app import FhirApp, Resource, unused
from tests.smart_world import Caller, World

CT_CHEST = {"coding": [{"system": "http://loinc.org", "code": "24627-2", "display": "CT Chest"}]}
DCM = "http://dicom.nema.org/resources/ontology/DCM"


@dataclass
class Stage:
    """A server, and who calls: a backend client with all scopes unless `caller` is set to somebody else."""

    app: FhirApp
    world: World
    caller: Caller

    def patient(self) -> Resource:
        return self.app.create(
            {"resourceType": "Patient", "active": True, "identifier": [{"system": "urn:example:mrn", "value": unused("OP")}]}
        )

    def order(self, patient: Resource, **elements: Any) -> Resource:
        """An accepted order for a CT."""
        return self.app.create(
            {
                "resourceType": "ServiceRequest",
                "status": "active",
                "intent": "order",
                "code": CT_CHEST,
                "subject": {"reference": f"Patient/{patient['id']}"},
                "orderDetail": [{"coding": [{"system": DCM, "code": "CT"}]}],
            }
            | elements
        )
