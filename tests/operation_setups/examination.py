"""Protocols, safety, tracking, and what people say of an examination."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fhir_app import unused
from tests.operation_setups import DCM, Stage


def _booked(stage: Stage) -> dict[str, str]:
    """A step at a scanner of its own, and its requested procedure."""
    patient = stage.patient()
    order = stage.order(patient)
    scanner = stage.app.create(
        {
            "resourceType": "Device",
            "status": "active",
            "identifier": [{"system": "urn:fhir-ris:ae-title", "value": unused("EX")}],
            "type": {"coding": [{"system": DCM, "code": "CT"}]},
        }
    )
    begin = datetime(2027, 3, 1, 8, tzinfo=UTC)
    actors = (f"Patient/{patient['id']}", f"Device/{scanner['id']}")
    stage.app.create(
        {
            "resourceType": "Appointment",
            "status": "booked",
            "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
            "start": begin.isoformat(),
            "end": (begin + timedelta(minutes=30)).isoformat(),
            "participant": [{"actor": {"reference": a}, "status": "accepted"} for a in actors],
        }
    )
    (procedure,) = stage.app.ids(f"ServiceRequest?based-on=ServiceRequest/{order['id']}")
    (step,) = stage.app.ids(f"Task?based-on=ServiceRequest/{procedure}&intent=plan")
    return {"patient": patient["id"], "procedure": procedure, "step": step}


def _call(stage: Stage, step: str, operation: str, *parameters: dict[str, Any]) -> None:
    answer = stage.caller.send("POST", f"Task/{step}/${operation}", {"resourceType": "Parameters", "parameter": [*parameters]})
    assert answer.status_code == 200, answer.text


protocol = screening = track = start = complete = _booked


def clear_safety(stage: Stage) -> dict[str, str]:
    names = _booked(stage)
    pregnant = {"coding": [{"system": "http://snomed.info/sct", "code": "77386006"}]}
    whose = {"reference": f"Patient/{names['patient']}"}
    stage.app.create({"resourceType": "Condition", "subject": whose, "code": pregnant})
    stage.caller = stage.world.person("radiologist", grant=unused("grant"))
    return names


def stop(stage: Stage) -> dict[str, str]:
    names = _booked(stage)
    _call(stage, names["step"], "start")
    return names


repeat = stop


def give_contrast(stage: Stage) -> dict[str, str]:
    names = _booked(stage)
    _call(stage, names["step"], "track", {"name": "state", "valueString": "in-room"})
    return names
