"""Who may look for times and book them, over REST with the tokens of people and apps."""

from typing import Any

import pytest

from tests.fhir_app import Resource
from tests.operation_setups import Stage, scheduling
from tests.smart_world import Caller


def body(**parameters: Any) -> Resource:
    rows = [{"name": name.replace("_", "-")} | value for name, value in parameters.items()]
    return {"resourceType": "Parameters", "parameter": rows}


def test_each_role_does_its_part(app, world):
    stage = Stage(app, world, Caller(app, app.token()))
    order, half_an_hour = scheduling.find(stage)["order"], {"valuePositiveInt": 30}
    asked = body(order={"valueReference": {"reference": f"ServiceRequest/{order}"}}, minutes=half_an_hour)
    found = {
        r: world.person(r).send("POST", "Appointment/$find", asked).status_code for r in ("technologist", "referrer", "auditor")
    }
    assert found == {"technologist": 200, "referrer": 403, "auditor": 403}
    scheduler = world.person("scheduler")
    proposed = scheduler.send("POST", "Appointment/$find", asked).json()["entry"][0]["resource"]
    named = body(appointment_reference={"valueReference": {"reference": f"Appointment/{proposed['id']}"}})
    for refused in (
        world.person("technologist"),
        world.person("scheduler", "user/Appointment.rs"),
        world.patient("patient/*.rs"),
    ):
        assert refused.send("POST", "Appointment/$book", named).status_code == 403
    assert scheduler.send("POST", "Appointment/$hold", named).json()["entry"][0]["resource"]["status"] == "pending"
    booked = scheduler.send("POST", "Appointment/$book", named).json()["entry"][0]["resource"]
    assert booked["status"] == "booked"
    assert [e["url"] for e in booked["extension"]] == ["urn:fhir-ris:booked-by"]
    assert booked["extension"][0]["valueReference"]["display"]
    late = scheduler.send("POST", "Appointment/$book", named)
    assert (late.status_code, late.json()["resourceType"]) == (409, "OperationOutcome")
    assert (
        world.person("technologist")
        .send("POST", f"Appointment/{proposed['id']}/$cancel", body(reason={"valueString": "x"}))
        .status_code
        == 403
    )


def test_what_isnt_seen_isnt_booked(app, world):
    stage = Stage(app, world, Caller(app, app.token()))
    scheduling.find(stage)
    hidden = stage.order(
        stage.patient(), meta={"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}
    )
    asked = body(order={"valueReference": {"reference": f"ServiceRequest/{hidden['id']}"}}, minutes={"valuePositiveInt": 30})
    assert world.person("scheduler").send("POST", "Appointment/$find", asked).status_code == 404
    wanted = {
        "resourceType": "Appointment",
        "status": "pending",
        "basedOn": [{"reference": f"ServiceRequest/{hidden['id']}"}],
        "start": "2031-03-03T09:00:00Z",
        "end": "2031-03-03T09:30:00Z",
        "participant": [{"actor": hidden["subject"], "status": "accepted"}],
    }
    assert (
        world.person("scheduler").send("POST", "Appointment/$book", body(appointment_resource={"resource": wanted})).status_code
        == 404
    )


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [
        ("$find", body(minutes={"valuePositiveInt": 30}), 400),
        ("$find", body(modality={"valueCode": "CT"}), 422),
        ("$find", body(specialty={"valueString": "x|y"}), 400),
        ("$find", body(modality={"valueCode": "CT"}, minutes={"valuePositiveInt": 0}), 400),
        ("$find", body(modality={"valueCode": "CT"}, end={"valueDateTime": "2020-01-01T00:00:00Z"}), 400),
        ("$find", body(visit_type={"valueString": "urn:x|nothing"}), 400),
        ("$find", body(order={"valueReference": {"reference": "ServiceRequest/nobody"}}), 404),
        ("$hold", body(), 400),
        ("$hold", body(appointment_reference={"valueReference": {"reference": "Appointment/nobody"}}), 404),
        ("$book", body(appointment_resource={"resource": {"resourceType": "Patient"}}), 400),
        ("$book", body(appointment_resource={"resource": {"resourceType": "Appointment", "status": "pending"}}), 400),
        ("nobody/$reschedule", body(), 400),
        ("nobody/$check-in", body(), 404),
        ("nobody/$cancel", body(reason={"valueString": "x"}, code={"valueCode": "whatever"}), 400),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(app, path, sent, status):
    answer = app.send("POST", f"Appointment/{path}", sent)
    assert (answer.status_code, answer.json()["resourceType"]) == (status, "OperationOutcome"), answer.text
