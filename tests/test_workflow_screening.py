"""$screening: what a patient is asked before an examination; and that nobody writes over what they haven't seen."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.examinations import Examinations, coded, parameters
from tests.fhir_app import load, serving

REQUIRED = {"url": "urn:fhir-ris:screening-required", "valueBoolean": True}


@pytest.fixture(scope="module")
def ward(mongodb_uri: str) -> Iterator[Examinations]:
    with serving(mongodb_uri) as app:
        yield Examinations(app)


def asked(ward: Examinations, procedure: dict[str, Any]) -> dict[str, dict[str, Any]]:
    answer = ward.technologist.send("GET", f"ServiceRequest/{procedure['id']}/$screening")
    assert answer.status_code == 200, answer.text
    rows = [{p["name"]: next(v for k, v in p.items() if k != "name") for p in r["part"]} for r in load(answer)["parameter"]]
    return {row["url"].removeprefix("urn:fhir-ris:questionnaire:"): row for row in rows}


def test_what_is_asked_follows_from_examination_and_patient(ward: Examinations) -> None:
    of_woman = ward.order(ward.patient(), "MR")
    of_man = ward.order(ward.patient(gender="male"), "MR")
    assert set(asked(ward, of_woman)) == {"mri-safety", "pregnancy", "needs"}
    assert set(asked(ward, of_man)) == {"mri-safety", "needs"}
    assert not any(row["required"] or row["counts"] or "response" in row for row in asked(ward, of_man).values())


def test_the_answers_that_were_given_are_told_and_whether_they_must_be(ward: Examinations) -> None:
    patient = ward.patient()
    procedure = ward.order(patient, code=ward.entry("MR", REQUIRED))
    given = load(ward.answer(patient, "mri-safety"))
    rows = asked(ward, procedure)
    assert rows["mri-safety"] == {
        "url": "urn:fhir-ris:questionnaire:mri-safety",
        "version": "1.0.0",
        "response": {"reference": f"QuestionnaireResponse/{given['id']}"},
        "counts": True,
        "required": True,
    }
    assert (rows["pregnancy"]["counts"], rows["pregnancy"]["required"]) == (False, True)
    assert rows["needs"]["required"] is False


def test_screening_is_for_those_who_deal_with_the_patient(ward: Examinations) -> None:
    procedure = ward.order(ward.patient(), "MR")
    referrer = ward.world.person("referrer", grant="g-screening")
    assert referrer.send("GET", f"ServiceRequest/{procedure['id']}/$screening").status_code == 403
    assert ward.technologist.send("GET", "ServiceRequest/nobody/$screening").status_code == 404


def test_an_operation_on_another_version_than_was_seen_is_refused(ward: Examinations) -> None:
    procedure = ward.order(ward.patient())
    step = ward.booked(procedure)
    match = f'W/"{step["meta"]["versionId"]}"'
    path, said = f"Task/{step['id']}/$track", parameters(state="arrived")
    assert ward.technologist.send("POST", path, said, If_Match=match).status_code == 200
    assert ward.technologist.send("POST", path, said, If_Match=match).status_code == 412
    seen = f'W/"{procedure["meta"]["versionId"]}"'
    protocol = parameters(protocol=coded("urn:example:protocols", "a", "A"))
    path = f"ServiceRequest/{procedure['id']}/$protocol"
    assert ward.radiologist.send("POST", path, protocol, If_Match=seen).status_code == 200
    assert ward.radiologist.send("POST", path, protocol, If_Match=seen).status_code == 412
