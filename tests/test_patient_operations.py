"""`$merge` and `$unmerge` of a Patient over FHIR."""

from collections.abc import Iterator
from typing import Any

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


def test_only_what_the_merge_moved_goes_back(app):
    """A resource may name both records: a mother's insurance for her child, one who speaks for the other."""
    mother, child, _ = two(app)
    a, b = ({"reference": f"Patient/{p}"} for p in (mother, child))
    coverage = {"status": "active", "beneficiary": b, "subscriber": a, "policyHolder": a, "payor": [{"display": "Payer"}]}
    measured = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    made = [
        app.create({"resourceType": "Coverage"} | coverage),
        app.create(measured | {"subject": b, "focus": [a], "performer": [a]}),
        app.create(measured | {"subject": a, "performer": [b]}),
        app.create({"resourceType": "Group", "type": "person", "actual": True, "member": [{"entity": a}, {"entity": b}]}),
    ]
    assert app.send("POST", f"Patient/{mother}/$merge?prior={child}").status_code == 200
    assert app.send("POST", f"Patient/{child}/$unmerge").status_code == 200
    for resource in made:
        assert content(load(app.get(f"{resource['resourceType']}/{resource['id']}"))) == content(resource)


def test_what_has_changed_since_a_merge_goes_back_as_far_as_it_can_be_told_apart(app):
    survivor, prior, _ = two(app)
    a, b = ({"reference": f"Patient/{p}"} for p in (survivor, prior))

    def observation(*performers: dict[str, str]) -> dict[str, Any]:
        code = {"text": "x"}
        made = {"resourceType": "Observation", "status": "final", "code": code, "subject": b, "performer": list(performers)}
        return app.create(made)

    grown, shrunk, moved_on = observation({"display": "Ward"}, b), observation(b, b), observation(a, b)
    assert app.send("POST", f"Patient/{survivor}/$merge?prior={prior}").status_code == 200
    for made, performers in ((grown, [b, a]), (shrunk, [b]), (moved_on, [a])):
        now = [a if p == b else p for p in performers]
        app.put(load(app.get(f"Observation/{made['id']}")) | {"performer": now, "note": [{"text": "since"}]})
    assert app.send("POST", f"Patient/{prior}/$unmerge").status_code == 200
    for made, performers in ((grown, [a, a]), (shrunk, [b]), (moved_on, [a])):
        stored = load(app.get(f"Observation/{made['id']}"))
        assert stored["performer"] == performers
        assert stored["subject"] == b
        assert stored["note"] == [{"text": "since"}]


def test_a_merge_that_was_made_before_places_were_kept_is_taken_back_by_the_history(app):
    survivor, prior, observation = two(app)
    theirs = app.create({
        "resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{survivor}"},
        "performer": [{"reference": f"Patient/{prior}"}],
    })  # fmt: skip
    assert app.send("POST", f"Patient/{survivor}/$merge?prior={prior}").status_code == 200
    app.put(load(app.get(f"Observation/{theirs['id']}")) | {"note": [{"text": "since"}]})
    app.run(app.db["merge_moves"].update_many({}, {"$unset": {"places": ""}}))
    assert app.send("POST", f"Patient/{prior}/$unmerge").status_code == 200
    assert subject(app, observation) == f"Patient/{prior}"
    stored = load(app.get(f"Observation/{theirs['id']}"))
    assert stored["subject"] == theirs["subject"]
    assert stored["performer"] == theirs["performer"]


def content(resource: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in resource.items() if k != "meta"}


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


def patched(app: FhirApp, id_: str, *operations: dict[str, Any]) -> Any:
    return app.send("PATCH", f"Patient/{id_}", list(operations), Content_Type="application/json-patch+json")


def test_a_merged_record_is_given_back_by_unmerge_alone(app):
    """By no other door, whoever asks, so that nothing is ordered for it meanwhile."""
    survivor, prior, _ = two(app)
    third = app.create(patient())["id"]
    assert app.send("POST", f"Patient/{survivor}/$merge?prior={prior}").status_code == 200
    merged = load(app.get(f"Patient/{prior}"))
    other = [{"other": {"reference": f"Patient/{third}"}, "type": "replaced-by"}]
    attempts = [
        patched(app, prior, {"op": "replace", "path": "/active", "value": True}),
        patched(app, prior, {"op": "remove", "path": "/active"}),
        patched(app, prior, {"op": "remove", "path": "/link"}),
        app.send("PUT", f"Patient/{prior}", {k: v for k, v in merged.items() if k != "link"} | {"active": True}),
        app.send("PUT", f"Patient/{prior}", merged | {"link": other}),
    ]
    for answer in attempts:
        assert answer.status_code == 422, answer.text
        assert "$unmerge" in outcome(answer)["issue"][0]["diagnostics"]
    assert content(load(app.get(f"Patient/{prior}"))) == content(merged)
    assert patched(app, prior, {"op": "add", "path": "/gender", "value": "female"}).status_code == 200
    assert app.send("POST", f"Patient/{prior}/$unmerge").json()["active"] is True


def test_what_is_replaced_is_merged_whatever_active_says(app):
    survivor = app.create(patient())["id"]
    replaced = [{"other": {"reference": f"Patient/{survivor}"}, "type": "replaced-by"}]
    prior = app.create(patient(active=True, link=replaced))["id"]
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": {"text": "CT"}}
    answer = app.send("POST", "ServiceRequest", order | {"subject": {"reference": f"Patient/{prior}"}})
    assert answer.status_code == 422
    assert f"was merged into Patient/{survivor}" in outcome(answer)["issue"][0]["diagnostics"]


def test_a_link_that_a_system_wrote_is_taken_away_by_unmerge_and_moves_nothing(app):
    survivor, prior, observation = two(app)
    whose = {"reference": f"Patient/{survivor}"}
    mine = app.create({"resourceType": "Flag", "status": "active", "code": {"text": "x"}, "subject": whose})
    replaced = [{"other": {"reference": f"Patient/{survivor}"}, "type": "replaced-by"}]
    app.put(load(app.get(f"Patient/{prior}")) | {"active": False, "link": replaced})
    answer = app.send("POST", f"Patient/{prior}/$unmerge")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["active"], "link" in answer.json()) == (True, False)
    assert subject(app, observation) == f"Patient/{prior}"
    assert load(app.get(f"Flag/{mine['id']}"))["subject"] == mine["subject"]


def test_records_without_any_identifier_are_merged_and_taken_apart(app):
    survivor, prior = app.create(patient())["id"], app.create(patient())["id"]
    assert app.send("POST", f"Patient/{survivor}/$merge?prior={prior}").status_code == 200
    answer = app.send("POST", f"Patient/{prior}/$unmerge")
    assert answer.status_code == 200, answer.text
