"""`$merge` and `$unmerge` of a Patient over FHIR."""

from collections.abc import Iterator

import pytest

from tests.fhir_app import FhirApp, load, outcome, patient, serving, unused


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, core=False) as running:
        yield running


def two(app: FhirApp) -> tuple[str, str, str]:
    """The ids of a survivor, of a prior record, and of an Observation that is the prior's."""
    survivor, prior = (app.create(patient(identifier=[{"system": "urn:example:mrn", "value": unused("p")}])) for _ in range(2))
    subject = {"reference": f"Patient/{prior['id']}"}
    made = app.create({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": subject})
    return survivor["id"], prior["id"], made["id"]


def subject(app: FhirApp, id_: str) -> str:
    found: str = load(app.get(f"Observation/{id_}"))["subject"]["reference"]
    return found


def test_a_merge_and_its_end_over_fhir(app):
    survivor, prior, observation = two(app)
    answer = app.send("POST", f"Patient/{survivor}/$merge?prior={prior}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["link"][0]["other"]["reference"] == f"Patient/{prior}"
    assert subject(app, observation) == f"Patient/{survivor}"
    assert load(app.get(f"Patient/{prior}"))["active"] is False
    again = app.send("POST", f"Patient/{survivor}/$merge?prior={prior}")
    assert again.status_code == 422
    assert "merged already" in outcome(again)["issue"][0]["diagnostics"]
    answer = app.send("POST", f"Patient/{prior}/$unmerge")
    assert answer.status_code == 200, answer.text
    assert "link" not in answer.json()
    assert subject(app, observation) == f"Patient/{prior}"
    assert "link" not in load(app.get(f"Patient/{survivor}"))
    assert app.send("POST", f"Patient/{prior}/$unmerge").status_code in {409, 422}


def test_what_can_t_be_merged_is_refused(app):
    survivor, prior, _ = two(app)
    assert app.send("POST", f"Patient/{survivor}/$merge").status_code == 400
    assert app.send("POST", f"Patient/{survivor}/$merge?prior={survivor}").status_code == 422
    assert app.send("POST", f"Patient/{survivor}/$merge?prior=nobody").status_code == 404
    assert app.send("GET", f"Patient/{survivor}/$merge?prior={prior}").status_code == 405


def test_who_may_not_update_patients_may_not_merge_them(app):
    survivor, prior, observation = two(app)
    answer = app.send("POST", f"Patient/{survivor}/$merge?prior={prior}", scope="system/*.rs")
    assert answer.status_code == 403
    assert subject(app, observation) == f"Patient/{prior}"
