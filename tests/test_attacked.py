"""What people who attacked the server found, and how it answers now."""

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fhir_server.loading import sources
from fhir_server.start_error import StartError
from tests.fhir_app import FhirApp, entry, issues, load, patient, put, serving, unused

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, rules=lambda _: None) as running:
        yield running


@pytest.mark.parametrize("misspelt", ["IfMatch", "ifmatch", "if-match", "foo"])
def test_a_misspelt_condition_in_a_bundle_is_refused(app: FhirApp, misspelt: str) -> None:
    name = unused("misspelt-")
    app.put(patient(id=name))
    answer = app.bundle("transaction", put(patient(id=name, active=True), **{misspelt: 'W/"99"'}))
    assert (answer.status_code, issues(answer)) == (400, [("structure", f"Bundle.entry[0].request.{misspelt}")])
    assert app.get(f"Patient/{name}").headers["ETag"] == 'W/"1"'
    wrong = app.send("POST", "", {"resourceType": "Bundle", "type": "transaction", "foo": 1, "entry": []})
    assert issues(wrong) == [("structure", "Bundle.foo")]
    wrong = app.bundle("batch", {"foo": {}, "request": {"method": "GET", "url": f"Patient/{name}"}})
    assert wrong.json()["entry"][0]["response"]["status"] == "400"


def test_part_of_a_resource_does_not_replace_the_whole(app: FhirApp) -> None:
    name = unused("part-")
    app.put(patient(id=name, name=[{"family": "Ganz"}], birthDate="1950-01-01"))
    part = load(app.get(f"Patient/{name}?_elements=birthDate"))
    answer = app.put(part)
    assert (answer.status_code, issues(answer)[0][0]) == (422, "business-rule")
    assert app.get(f"Patient/{name}").json()["name"] == [{"family": "Ganz"}]


@pytest.mark.parametrize(
    "query",
    [
        "Patient?name:contains=a%00b",
        "Observation?patient.name:contains=%00",
        "Patient?name=%ff",
        "Patient?_elements=nope",
        "Patient?_elements=name,nope",
        "Patient?_elements=",
        "Patient?_list=$current-allergies",
        "Patient?_type=Observation",
        "Patient?_count=1&_count=2",
        "Patient?_summary=count&_summary=true",
        "Patient?" + "&".join(["name=a"] * 101),
        "Patient?identifier=" + ",".join("a" * 1001),
    ],
)
def test_what_means_nothing_is_refused(app: FhirApp, query: str) -> None:
    resource_type, _, parameters = query.partition("?")
    answer = app.send("POST", f"{resource_type}/_search", parameters.encode(), Content_Type=FORM)
    assert answer.status_code == 400, answer.text
    if len(query) < 1000:
        assert app.get(query).status_code == 400


def test_a_read_has_no_unknown_elements(app: FhirApp) -> None:
    name = unused("elements-")
    app.put(patient(id=name))
    assert app.get(f"Patient/{name}?_elements=nope").status_code == 400
    assert app.get(f"Patient/{name}?_elements=birthDate").status_code == 200


def test_a_page_link_is_taken_as_it_is(app: FhirApp) -> None:
    mark = unused("link-")
    for _ in range(2):
        app.create(patient(identifier=[{"value": mark}]))
    link = next(x["url"] for x in app.search(f"Patient?identifier={mark}&_count=1")["link"] if x["relation"] == "next")
    assert app.get(link).status_code == 200
    assert app.get(link + "=").status_code == 400


def test_the_answer_to_a_batch_has_an_end(app: FhirApp) -> None:
    name = unused("big-")
    app.put({"resourceType": "Binary", "id": name, "contentType": "application/octet-stream", "data": "AAAA" * 1_000_000})
    answer = app.bundle("batch", *[entry("GET", f"Binary/{name}")] * 20).json()["entry"]
    statuses = [e["response"]["status"] for e in answer]
    assert statuses[:10] == ["200"] * 10
    assert statuses[-1] == "413"


def test_one_very_large_resource_does_not_stop_the_others(app: FhirApp) -> None:
    name = unused("waits-")
    app.put(patient(id=name))
    large = patient(name=[{"family": f"a{n}"} for n in range(60_000)])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(app.send, "POST", "Patient", large)
        served = 0
        while not writing.done():
            assert app.get(f"Patient/{name}").status_code == 200
            served += 1
    assert writing.result().status_code in {201, 413}
    assert served > 3


def test_a_damaged_file_is_told_in_one_line(tmp_path: Path) -> None:
    fake, cut = tmp_path / "fake.json.gz", tmp_path / "cut.json.gz"
    fake.write_bytes(b"no gzip")
    cut.write_bytes(gzip.compress(b'{"resourceType": "Patient"}' * 1000)[:-10])
    for path in (fake, cut):
        with pytest.raises(StartError, match="can't be read"):
            sources.open_file(path, "http://ris.example/fhir", lambda _: None)


def test_everything_shows_only_what_the_token_may_search(app: FhirApp) -> None:
    name = unused("all-")
    about: dict[str, Any] = {"status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{name}"}}
    app.put(patient(id=name))
    app.put({"resourceType": "Observation", "id": name, **about})
    for scope, shown in (
        ("system/*.r", 1),
        ("system/Patient.r system/Observation.r", 1),
        ("system/Patient.r system/Observation.rs", 2),
    ):
        answer = app.send("GET", f"Patient/{name}/$everything", scope=scope).json()["entry"]
        assert sum(e["search"]["mode"] == "match" for e in answer) == shown, scope
