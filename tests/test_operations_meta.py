"""`$meta`, `$meta-add` and `$meta-delete` see and change profiles, security labels and tags, and nothing else."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fhir_app import FhirApp, entry, load, patient, serving
from tests.operation_calls import operate

CONFIDENTIAL = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
TAG = {"system": "urn:x:tags", "code": "research"}


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, core=False) as running:
        yield running


def sent(**meta: Any) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": meta}]}


def meta_of(resource: dict[str, Any]) -> dict[str, Any]:
    (parameter,) = resource["parameter"]
    assert parameter["name"] == "return"
    meta: dict[str, Any] = parameter["valueMeta"]
    return meta


def test_meta_is_shown_as_it_is_stored(app: FhirApp) -> None:
    stored = app.create(patient(meta={"tag": [TAG]}))
    answer = operate(app, "GET", f"Patient/{stored['id']}/$meta")
    assert (answer.status, meta_of(answer.resource)) == (200, stored["meta"])
    assert answer.headers["ETag"] == 'W/"1"'


def test_adding_makes_a_version_that_is_found_by_the_new_tag(app: FhirApp) -> None:
    stored = app.create(patient(gender="female", meta={"tag": [TAG]}))
    path = f"Patient/{stored['id']}"
    answer = operate(
        app, "POST", f"{path}/$meta-add", sent(tag=[{"code": "new"}, TAG], security=[CONFIDENTIAL], profile=["urn:x:p"])
    )
    meta = meta_of(answer.resource)
    assert (meta["tag"], meta["security"], meta["profile"]) == ([TAG, {"code": "new"}], [CONFIDENTIAL], ["urn:x:p"])
    assert meta["versionId"] == "2"
    now = load(app.get(path))
    assert {k: v for k, v in now.items() if k != "meta"} == {k: v for k, v in stored.items() if k != "meta"}
    assert app.ids(f"Patient?_tag=new&_id={stored['id']}") == [stored["id"]]
    assert load(app.get(f"{path}/_history/1"))["meta"]["tag"] == [TAG], "the version before is as it was"


def test_adding_what_is_there_makes_no_version(app: FhirApp) -> None:
    stored = app.create(patient(meta={"tag": [TAG]}))
    answer = operate(app, "POST", f"Patient/{stored['id']}/$meta-add", sent(tag=[TAG | {"display": "another word"}]))
    assert meta_of(answer.resource) == stored["meta"]


def test_deleting_takes_away_what_has_the_same_system_and_code(app: FhirApp) -> None:
    others = [{"code": TAG["code"]}, {"system": TAG["system"], "code": "other"}]
    stored = app.create(patient(meta={"tag": [TAG, *others], "security": [CONFIDENTIAL], "profile": ["urn:x:p"]}))
    path = f"Patient/{stored['id']}"
    answer = operate(app, "POST", f"{path}/$meta-delete", sent(tag=[TAG, {"code": "absent"}], profile=["urn:x:p"]))
    meta = meta_of(answer.resource)
    assert (meta["tag"], meta["security"], "profile" in meta) == (others, [CONFIDENTIAL], False)


def test_what_the_server_sets_is_not_for_others_to_set(app: FhirApp) -> None:
    stored = app.create(patient())
    answer = operate(
        app, "POST", f"Patient/{stored['id']}/$meta-add", sent(versionId="77", source="urn:x", lastUpdated="2001-01-01T00:00:00Z")
    )
    assert meta_of(answer.resource) == stored["meta"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"resourceType": "Patient"},
        {"resourceType": "Parameters"},
        {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueString": "x"}]},
        {"resourceType": "Parameters", "parameter": [{"name": "other", "valueString": "x"}]},
        sent(tag="research"),
        sent(tag=[{"codes": "x"}]),
        sent(colour="blue"),
    ],
)
def test_a_body_that_is_no_meta_is_refused(app: FhirApp, body: Any) -> None:
    stored = app.create(patient())
    assert operate(app, "POST", f"Patient/{stored['id']}/$meta-add", body).status == 400
    assert load(app.get(f"Patient/{stored['id']}")) == stored


def test_who_may_not_write_may_not_tag(app: FhirApp) -> None:
    stored = app.create(patient())
    path = f"Patient/{stored['id']}"
    before = len(app.audit())
    assert operate(app, "POST", f"{path}/$meta-add", sent(tag=[TAG]), scope="system/*.rs").status == 403
    assert operate(app, "GET", f"{path}/$meta", scope="system/*.u").status == 403
    assert [e["outcome"] for e in app.audit(before)] == ["4", "4"]
    assert operate(app, "GET", f"{path}/$meta", scope="system/*.rs").status == 200


def test_each_is_on_record(app: FhirApp) -> None:
    stored = app.create(patient())
    before = len(app.audit())
    operate(app, "POST", f"Patient/{stored['id']}/$meta-add", sent(tag=[TAG]))
    operate(app, "GET", f"Patient/{stored['id']}/$meta")
    added, read = app.audit(before)
    assert (added["outcomeDesc"], read["outcomeDesc"]) == ("$meta-add", "$meta")
    assert {"what": {"reference": f"Patient/{stored['id']}"}, "description": "updated"} in added["entity"]


def test_changing_by_get_is_not_possible_and_what_is_not_there_has_no_meta(app: FhirApp) -> None:
    answer = operate(app, "GET", "Patient/x/$meta-add")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert operate(app, "GET", "Patient/nobody/$meta").status == 404
    assert operate(app, "POST", "Patient/nobody/$meta-add", sent(tag=[TAG])).status == 404
    for path in ("$meta", "Patient/$meta"):
        assert operate(app, "GET", path).status == 404, "only one resource at a time"


def test_in_a_batch_if_match_is_heeded_too(app: FhirApp) -> None:
    path = f"Patient/{app.create(patient())['id']}"
    added = sent(tag=[TAG])
    answer = app.bundle("batch", *(entry("POST", f"{path}/$meta-add", added, ifMatch=f'W/"{n}"') for n in (77, 1)))
    assert [e["response"]["status"] for e in load(answer)["entry"]] == ["412", "200"]
    assert load(app.get(path))["meta"]["versionId"] == "2"


def test_if_match_does_not_tell_the_version_of_what_one_may_not_read(app: FhirApp) -> None:
    path = f"Patient/{app.create(patient())['id']}"
    answer = app.send("POST", f"{path}/$meta-add", sent(tag=[TAG]), scope="system/Patient.u?gender=male", if_match='W/"1"')
    assert answer.status_code == 412
    assert "does not exist" in answer.text


def test_of_two_who_have_seen_the_same_version_one_adds(app: FhirApp) -> None:
    path = f"Patient/{app.create(patient())['id']}"
    with ThreadPoolExecutor(8) as pool:
        tags = [sent(tag=[TAG | {"code": f"n{n}"}]) for n in range(8)]
        statuses = list(pool.map(lambda t: app.send("POST", f"{path}/$meta-add", t, if_match='W/"1"').status_code, tags))
    assert sorted(statuses) == [200] + [412] * 7
