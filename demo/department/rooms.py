"""The department's rooms: scanners, where they stand, their hours, what can be ordered, and whom it exchanges messages with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from demo.apps import App

Resource = dict[str, Any]
DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
LOINC: Final = "http://loinc.org"
_DAYS: Final = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


@dataclass(frozen=True, slots=True)
class Station:
    """A scanner: AE title, modality, what people call it, its room, its hours of a day, and how many minutes its slots have."""

    title: str
    modality: str
    name: str
    room: str
    opens: str = "00:00:00"
    closes: str = "23:59:00"
    minutes: int = 10

    @property
    def id(self) -> str:
        return self.title.lower()


@dataclass(frozen=True, slots=True)
class Examination:
    """An entry of the catalogue: LOINC code, name, modality, minutes, and the codes of its technical and professional charge."""

    code: str
    name: str
    modality: str
    minutes: int
    charge: str
    rules: tuple[Resource, ...] = ()


STATIONS: Final = (
    Station("CT1", "CT", "CT 1", "Room 1"),
    Station("CT2", "CT", "CT 2", "Room 2"),
    Station("MR1", "MR", "MRI", "Room 3"),
    Station("DX1", "DX", "X-ray", "Room 4"),
    Station("US1", "US", "Ultrasound", "Room 5"),
)
_HELD: Final = (
    {"url": "urn:fhir-ris:reason-required", "valueBoolean": True},
    {
        "url": "urn:fhir-ris:intake-rule",
        "extension": [{"url": "finding", "valueCode": "missing-reason"}, {"url": "rule", "valueCode": "hold"}],
    },
)
EXAMINATIONS: Final = {
    e.code: e
    for e in (
        Examination("24627-2", "CT Chest", "CT", 30, "71250"),
        Examination("79103-8", "CT Abdomen W contrast IV", "CT", 30, "74160", _HELD),
        Examination("24725-4", "CT Head", "CT", 20, "70450"),
        Examination("24590-2", "MR Brain", "MR", 40, "70551"),
        Examination("24802-1", "MR Knee", "MR", 30, "73721"),
        Examination("36643-5", "XR Chest 2 Views", "DX", 10, "71046"),
        Examination("24558-9", "US Abdomen", "US", 20, "76700"),
    )
}


async def furnish(app: App, ehr_port: int, nobody_port: int, stations: Sequence[Station] = STATIONS) -> None:
    """Store all of it, and make the slots of the stations. `nobody_port`: where a PACS should listen, and doesn't."""
    department: Resource = {
        "resourceType": "Location",
        "id": "radiology",
        "name": "Radiology",
        "status": "active",
        "mode": "instance",
    }
    there = [department]
    for station in stations:
        there += [_room(station), _device(station), _hours(station), _schedule(station)]
    there += [_entry(e) for e in EXAMINATIONS.values()]
    there += [
        endpoint("billing", "Billing", ehr_port, "DFT^P03"),
        endpoint("pacs", "PACS", nobody_port, "OMI^O23", "ADT^A08", "ADT^A40"),
    ]
    await app.put(there)
    for station in stations:
        await app.ok("POST", f"Schedule/{station.id}/$generate-slots")


def _room(station: Station) -> Resource:
    return {
        "resourceType": "Location",
        "id": f"room-{station.id}",
        "name": station.room,
        "status": "active",
        "mode": "instance",
        "partOf": {"reference": "Location/radiology"},
    }


def _device(station: Station) -> Resource:
    return {
        "resourceType": "Device",
        "id": station.id,
        "identifier": [{"system": "urn:fhir-ris:ae-title", "value": station.title}],
        "status": "active",
        "deviceName": [{"name": station.name, "type": "user-friendly-name"}],
        "type": {"coding": [{"system": DCM, "code": station.modality}]},
        "location": {"reference": f"Location/room-{station.id}", "display": station.room},
    }


def _hours(station: Station) -> Resource:
    open_ = {"daysOfWeek": _DAYS, "availableStartTime": station.opens, "availableEndTime": station.closes}
    return {
        "resourceType": "HealthcareService",
        "id": f"hours-{station.id}",
        "name": f"Hours of {station.name}",
        "availableTime": [open_],
    }


def _schedule(station: Station) -> Resource:
    slots = [{"url": "minutes", "valuePositiveInt": station.minutes}, {"url": "days", "valuePositiveInt": 7}]
    return {
        "resourceType": "Schedule",
        "id": station.id,
        "actor": [{"reference": f"Device/{station.id}"}, {"reference": f"HealthcareService/hours-{station.id}"}],
        "extension": [{"url": "urn:fhir-ris:slot-generation", "extension": slots}],
    }


def _entry(examination: Examination) -> Resource:
    # The play before this one has entered the CT of the chest under a name of its own.
    name = "ct-chest" if examination.code == "24627-2" else f"e{examination.code}"
    minutes = {"value": examination.minutes, "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"}
    return {
        "resourceType": "ActivityDefinition",
        "id": name,
        "identifier": [{"system": LOINC, "value": examination.code}],
        "status": "active",
        "kind": "ServiceRequest",
        "title": examination.name,
        "code": {"coding": [{"system": LOINC, "code": examination.code, "display": examination.name}]},
        "topic": [{"coding": [{"system": DCM, "code": examination.modality}]}],
        "timingDuration": minutes,
        "extension": [*(charge(part, examination.charge) for part in ("technical", "professional")), *examination.rules],
    }


def charge(component: str, code: str) -> Resource:
    """What a catalogue entry says of a charge: `technical` or `professional`."""
    coded = {"coding": [{"system": "urn:example:charges", "code": f"{component[0].upper()}{code}"}]}
    parts: list[Resource] = [{"url": "component", "valueCode": component}, {"url": "code", "valueCodeableConcept": coded}]
    return {"url": "urn:fhir-ris:charge", "extension": parts}


def endpoint(id_: str, name: str, port: int, *kinds: str) -> Resource:
    """A partner that listens on this port of loopback, and wants these messages."""
    return {
        "resourceType": "Endpoint",
        "id": id_,
        "status": "active",
        "connectionType": {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"},
        "name": name,
        "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": kind}]} for kind in kinds],
        "address": f"mllp://127.0.0.1:{port}",
        "header": [f"receiving-application: {id_.upper()}", "receiving-facility: EXAMPLEHOSP"],
    }
