"""What else than a CT of the chest can be ordered, and the scanners that do it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from benchmarks.department.stage import CODE, DCM, LOINC, Resource, Stage
from demo.department import rooms
from demo.scanner import Scanner


@dataclass(frozen=True, slots=True)
class Examination:
    """`station`: its place among the stage's scanners."""

    code: str
    name: str
    modality: str
    station: int

    @property
    def coded(self) -> Resource:
        return {"coding": [{"system": LOINC, "code": self.code, "display": self.name}]}


CT_CHEST: Final = Examination(CODE, "CT Chest", "CT", 0)
_CT_ABDOMEN: Final = Examination("79103-8", "CT Abdomen W contrast IV", "CT", 0)
_MR_HEAD: Final = Examination("24590-2", "MR Brain", "MR", 3)
_MR_KNEE: Final = Examination("24802-1", "MR Knee", "MR", 3)
BY_NAME: Final = {
    "a CT of the chest": CT_CHEST,
    "a CT of the abdomen with contrast": _CT_ABDOMEN,
    "an MRI of the head": _MR_HEAD,
    "an MRI of the knee": _MR_KNEE,
}
EXAMINATIONS: Final = "|".join(BY_NAME)
_HELD: Final = {"url": "urn:fhir-ris:reason-required", "valueBoolean": True}
_RULE: Final = {
    "url": "urn:fhir-ris:intake-rule",
    "extension": [{"url": "finding", "valueCode": "missing-reason"}, {"url": "rule", "valueCode": "hold"}],
}
_AUTHORIZED: Final = {"url": "urn:fhir-ris:authorization-required", "valueBoolean": True}


async def furnish(stage: Stage) -> None:
    """The catalogue's other entries, an MR scanner, and the hours in which it and a CT can be found free."""
    stage.scanners.append(Scanner("MR1", stage.server.dicom_port))
    there = [
        _entry(_CT_ABDOMEN, _HELD, _RULE),
        _entry(_MR_HEAD),
        _entry(_MR_KNEE, _AUTHORIZED),
        _scanner(),
        _hours(),
        _schedule("ct3"),
        _schedule("mr1"),
    ]
    await stage.app.put(there)
    for name in ("ct3", "mr1"):
        await stage.app.ok("POST", f"Schedule/{name}/$generate-slots")


def _entry(examination: Examination, *rules: Resource) -> Resource:
    return {
        "resourceType": "ActivityDefinition",
        "id": f"e{examination.code}",
        "identifier": [{"system": LOINC, "value": examination.code}],
        "status": "active",
        "kind": "ServiceRequest",
        "title": examination.name,
        "code": examination.coded,
        "topic": [{"coding": [{"system": DCM, "code": examination.modality}]}],
        "timingDuration": {"value": 15, "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"},
        "extension": [*(rooms.charge(c, examination.code) for c in ("technical", "professional")), *rules],
    }


def _scanner() -> Resource:
    return {
        "resourceType": "Device",
        "id": "mr1",
        "identifier": [{"system": "urn:fhir-ris:ae-title", "value": "MR1"}],
        "status": "active",
        "deviceName": [{"name": "MR scanner 1", "type": "user-friendly-name"}],
        "type": {"coding": [{"system": DCM, "code": "MR"}]},
    }


def _hours() -> Resource:
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    open_ = {"daysOfWeek": days, "availableStartTime": "13:00:00", "availableEndTime": "14:00:00"}
    return {"resourceType": "HealthcareService", "id": "hours", "name": "Afternoons", "availableTime": [open_]}


def _schedule(device: str) -> Resource:
    made: list[Any] = [{"url": "minutes", "valuePositiveInt": 15}, {"url": "days", "valuePositiveInt": 70}]
    return {
        "resourceType": "Schedule",
        "id": device,
        "actor": [{"reference": f"Device/{device}"}, {"reference": "HealthcareService/hours"}],
        "extension": [{"url": "urn:fhir-ris:slot-generation", "extension": made}],
    }


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
