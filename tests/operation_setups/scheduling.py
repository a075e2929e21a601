"""Scheduling: a scanner with its slots, proposed and booked times."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server import clock
from tests.fhir_app import Resource, unused
from tests.operation_setups import DCM, Stage


def _schedule(stage: Stage) -> tuple[str, str]:
    """A CT open at all hours, with its slots: its Device and Schedule."""
    app = stage.app
    scanner = app.create({"resourceType": "Device", "status": "active", "type": {"coding": [{"system": DCM, "code": "CT"}]}})
    hours = app.create({"resourceType": "HealthcareService", "name": unused("hours"), "availableTime": [{"allDay": True}]})
    made = [{"url": "minutes", "valuePositiveInt": 30}, {"url": "days", "valuePositiveInt": 2}]
    actors = [{"reference": f"Device/{scanner['id']}"}, {"reference": f"HealthcareService/{hours['id']}"}]
    generation = {"url": "urn:fhir-ris:slot-generation", "extension": made}
    schedule = app.create({"resourceType": "Schedule", "actor": actors, "extension": [generation]})
    return scanner["id"], schedule["id"]


def _call(stage: Stage, path: str, *parameters: Resource) -> dict[str, Any]:
    answer = stage.caller.send("POST", path, {"resourceType": "Parameters", "parameter": list(parameters)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def generate_slots(stage: Stage) -> dict[str, str]:
    return {"schedule": _schedule(stage)[1]}


def find(stage: Stage) -> dict[str, str]:
    _call(stage, f"Schedule/{_schedule(stage)[1]}/$generate-slots")
    return {"order": stage.order(stage.patient())["id"]}


def hold_of_an_appointment(stage: Stage) -> dict[str, str]:
    order = {"name": "order", "valueReference": {"reference": f"ServiceRequest/{find(stage)['order']}"}}
    found = _call(stage, "Appointment/$find", order, {"name": "minutes", "valuePositiveInt": 30})
    return {"proposed": found["entry"][0]["resource"]["id"]}


book = hold_of_an_appointment


def reschedule(stage: Stage) -> dict[str, str]:
    proposed = {"name": "appointment-reference", "valueReference": {"reference": f"Appointment/{book(stage)['proposed']}"}}
    return {"booked": _call(stage, "Appointment/$book", proposed)["entry"][0]["resource"]["id"]}


cancel_of_an_appointment = reschedule


def no_show(stage: Stage) -> dict[str, str]:
    order, scanner, now = stage.order(stage.patient()), _schedule(stage)[0], datetime.now(UTC)
    booked = stage.app.create(
        {
            "resourceType": "Appointment",
            "status": "booked",
            "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
            "start": clock.instant(now - timedelta(minutes=40)),
            "end": clock.instant(now),
            "participant": [
                {"actor": order["subject"], "status": "accepted"},
                {"actor": {"reference": f"Device/{scanner}"}, "status": "accepted"},
            ],
        }
    )
    return {"missed": booked["id"]}


check_in = no_show
