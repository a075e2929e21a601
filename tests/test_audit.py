"""The audit trail: an event for every act, with who did it and to what; and nobody changes it."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

import pytest

from fhir_server import audit
from fhir_server.audit import Act
from fhir_server.search.index import index
from fhir_server.validation import validate
from smart_auth.access import Access
from tests.fhir_app import FhirApp, entry, issues, load, patient, post, put, serving, unused

Resource = dict[str, Any]
FORM = "application/x-www-form-urlencoded"


def event_of(app: FhirApp, method: str, path: str, body: Any = None, **options: Any) -> Resource:
    """The one AuditEvent of a request."""
    before = len(app.audit())
    app.send(method, path, body, **options)
    (event,) = app.audit(before)
    return event


def entities(event: Resource) -> dict[str, str | None]:
    return {e["what"]["reference"]: e.get("description") for e in event.get("entity", ()) if "what" in e}


def summary(event: Resource) -> tuple[str, str, str]:
    """(interaction, action, outcome)"""
    return event["subtype"][0]["code"], event["action"], event["outcome"]


def test_every_act_is_recorded_once_with_who_did_it_and_to_what(app: FhirApp) -> None:
    name = unused("act-")
    this = f"Patient/{name}"
    acts: list[tuple[str, str, Any, tuple[str, str, str], dict[str, str | None]]] = [
        ("PUT", this, patient(id=name), ("update", "U", "0"), {this: "created"}),
        ("PUT", this, patient(id=name, gender="male"), ("update", "U", "0"), {this: "updated"}),
        ("PUT", this, patient(id=name, gender="male"), ("update", "U", "0"), {this: None}),
        ("GET", this, None, ("read", "R", "0"), {this: None}),
        ("HEAD", this, None, ("read", "R", "0"), {this: None}),
        ("GET", f"{this}/_history/1", None, ("vread", "R", "0"), {this: None}),
        ("GET", f"{this}/_history", None, ("history-instance", "R", "0"), {this: None}),
        ("GET", f"Patient?_id={name}", None, ("search-type", "E", "0"), {this: None}),
        ("GET", "Patient?_id=nobody", None, ("search-type", "E", "0"), {}),
        ("DELETE", this, None, ("delete", "D", "0"), {this: "deleted"}),
        ("DELETE", this, None, ("delete", "D", "0"), {this: None}),
        ("GET", this, None, ("read", "R", "0"), {this: None}),
    ]
    for method, path, body, expected, what in acts:
        event = event_of(app, method, path, body)
        assert (summary(event), entities(event)) == (expected, what), (method, path)
        assert event["agent"][0]["who"]["identifier"] == {"system": "urn:fhir-ris:client", "value": "client-0"}
        assert event["agent"][0]["network"]["address"] == "127.0.0.1"
        assert event["agent"][0]["requestor"] is True
        assert validate(event) == []


def test_whose_data_it_was_is_recorded_too(app: FhirApp) -> None:
    person = app.create(patient())
    this = f"Patient/{person['id']}"
    note = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": this}}
    event = event_of(app, "POST", "Observation", note)
    made = next(r for r in entities(event) if r.startswith("Observation/"))
    assert entities(event) == {made: "created", this: "patient"}
    for path in (made, f"{made}/_history", f"Observation?subject={this}"):
        assert entities(event_of(app, "GET", path)) == {made: None, this: "patient"}
    participants = [{"actor": {"reference": this}, "status": "accepted"}]
    booking = app.create({"resourceType": "Appointment", "status": "proposed", "participant": participants})
    assert entities(app.audit()[-1])[this] == "patient"
    assert f"Appointment/{booking['id']}" in entities(app.audit()[-1])
    events = app.search(f"AuditEvent?patient={person['id']}&_count=100")["entry"]
    assert len(events) == 6


def test_a_search_is_recorded_as_it_was_asked_with_all_that_it_showed(app: FhirApp) -> None:
    mark = unused("shown-")
    made = [put(patient(id=f"{mark}-{n}", identifier=[{"value": mark}])) for n in range(300)]
    assert app.bundle("transaction", *made).status_code == 200
    shown = {f"Patient/{mark}-{n}" for n in range(300)}
    assert set(entities(app.audit()[-1])) == shown
    event = event_of(app, "GET", f"Patient?identifier={mark}&_count=1000")
    assert set(entities(event)) == shown
    query = next(e["query"] for e in event["entity"] if "query" in e)
    assert parse_qsl(base64.b64decode(query).decode()) == [("identifier", mark), ("_count", "1000")]
    event = event_of(app, "POST", "Patient/_search", f"identifier={mark}".encode(), Content_Type=FORM)
    assert summary(event)[0] == "search-type"
    assert len(entities(event)) == 20


def test_a_transaction_is_one_act_and_a_batch_as_many_as_it_has_entries(app: FhirApp) -> None:
    kept, gone = app.create(patient()), app.create(patient())
    entries = [
        post(patient()),
        put(kept | {"gender": "male"}),
        entry("DELETE", f"Patient/{gone['id']}"),
        entry("GET", f"Patient/{kept['id']}"),
    ]
    before = len(app.audit())
    answer = app.bundle("transaction", *entries)
    (event,) = app.audit(before)
    assert summary(event) == ("transaction", "E", "0")
    made = f"Patient/{load(answer)['entry'][0]['resource']['id']}"
    assert entities(event) == {made: "created", f"Patient/{kept['id']}": "updated", f"Patient/{gone['id']}": "deleted"}
    app.bundle("transaction", entry("GET", f"Patient/{kept['id']}"))
    assert entities(app.audit()[-1]) == {f"Patient/{kept['id']}": None}
    before = len(app.audit())
    app.bundle("batch", *entries)
    events = app.audit(before)
    assert [summary(e)[0] for e in events] == ["create", "update", "delete", "read"]
    assert {e["agent"][0]["network"]["address"] for e in events} == {"127.0.0.1"}


def test_what_the_reactions_did_is_in_the_event_of_what_caused_it(app: FhirApp) -> None:
    person = app.create(patient())
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": {"text": "CT"}}
    event = event_of(app, "POST", "ServiceRequest", order | {"subject": {"reference": f"Patient/{person['id']}"}})
    types = sorted(r.partition("/")[0] for r in entities(event))
    assert types == ["ImagingStudy", "Patient", "ServiceRequest", "ServiceRequest", "Task"]


@pytest.mark.parametrize(
    ("method", "path", "event"),
    [
        ("GET", "Patient/x", "read"),
        ("GET", "Patient/x/_history/1", "vread"),
        ("GET", "Patient/x/_history", "history-instance"),
        ("GET", "Patient?name=x", "search-type"),
        ("POST", "Patient/_search", "search-type"),
        ("POST", "Patient", "create"),
        ("PUT", "Patient/x", "update"),
        ("DELETE", "Patient/x", "delete"),
    ],
)
def test_a_refused_access_is_recorded_once(app: FhirApp, method: str, path: str, event: str) -> None:
    body = b"name=x" if "_search" in path else patient(id="x") if method in {"POST", "PUT"} else None
    options = {"Content_Type": FORM} if "_search" in path else {}
    found = event_of(app, method, path, body, scope="system/Observation.cruds", **options)
    assert summary(found) == (event, found["action"], "4")
    assert "no scope" in found["outcomeDesc"]
    assert validate(found) == []


def test_a_refusal_inside_a_bundle_is_recorded(app: FhirApp) -> None:
    before = len(app.audit())
    app.bundle("transaction", post(patient()), scope="system/Observation.cruds")
    app.bundle("batch", post(patient()), entry("GET", "Observation/x"), scope="system/Observation.cruds")
    assert [summary(e) for e in app.audit(before)] == [("transaction", "E", "4"), ("create", "C", "4")]


def test_what_fails_otherwise_leaves_no_event(app: FhirApp) -> None:
    before = len(app.audit())
    app.send("POST", "Patient", patient(gender="x"))
    app.get("Patient/nobody")
    app.get("Patient?nonsense=1")
    app.send("GET", "Patient/x", scope=None)
    app.bundle("transaction", post(patient()), post(patient(gender="x")))
    assert app.audit(before) == []


def test_of_parallel_reads_none_goes_unrecorded(app: FhirApp) -> None:
    made = [app.create(patient())["id"] for _ in range(5)]
    before = len(app.audit())
    with ThreadPoolExecutor(20) as threads:
        assert set(threads.map(lambda n: app.get(f"Patient/{made[n % 5]}").status_code, range(100))) == {200}
    events = app.audit(before)
    assert len(events) == 100
    assert [sum(f"Patient/{m}" in entities(e) for e in events) for m in made] == [20] * 5


def test_nobody_changes_or_deletes_an_event(app: FhirApp) -> None:
    app.create(patient())
    event = app.audit()[-1]
    url = f"AuditEvent/{event['id']}"
    assert load(app.get(url)) == event
    changed = json.loads(json.dumps(event)) | {"outcome": "8"}
    for answer in (
        app.put(changed),
        app.send("DELETE", url),
        app.bundle("transaction", put(changed)),
        app.bundle("transaction", entry("DELETE", url)),
    ):
        assert (answer.status_code, issues(answer)[0][0]) == (422, "business-rule")
    assert load(app.get(url)) == event
    assert load(app.get(f"{url}/_history"))["total"] == 1


def test_what_an_event_is_about_can_still_be_deleted(app: FhirApp) -> None:
    made = app.create(patient())
    app.get(f"Patient/{made['id']}")
    assert app.send("DELETE", f"Patient/{made['id']}").status_code == 204
    assert len(app.ids(f"AuditEvent?entity=Patient/{made['id']}")) == 3


def test_what_can_not_be_recorded_is_not_done(mongodb_uri: str) -> None:
    with serving(mongodb_uri, core=False) as app:
        made = app.create(patient(name=[{"family": "Verborgen"}]))
        app.run(app.db.command("collMod", "AuditEvent", validator={"nothing": "passes"}))
        before = app.counts()
        answers = [
            app.get(f"Patient/{made['id']}"),
            app.get("Patient?name=verborgen"),
            app.get(f"Patient/{made['id']}/_history"),
            app.send("POST", "Patient", patient()),
            app.send("DELETE", f"Patient/{made['id']}"),
            app.bundle("transaction", post(patient())),
            app.send("GET", "Patient/x", scope="system/Observation.r"),
        ]
        assert {a.status_code for a in answers} == {500}
        assert "Verborgen" not in "".join(a.text for a in answers)
        assert app.counts() | {"counters": 0} == before | {"counters": 0}  # a number may have been taken


def test_the_index_of_an_event_is_what_any_resource_would_get() -> None:
    entities = [{"what": {"reference": r}, "description": "x"} for r in ("Patient/1", "Task/2", "Patient/1")]
    for act in (Act("read", peer="127.0.0.1"), Act("search-type", query="name=x"), Act("ADT^A01", source="v2", detail="x")):
        for failed in (None, "no"):
            event = audit.audit_event(act, Access.system("someone"), entities, failed=failed)
            assert audit.search_index(event) == index(event)


def test_an_event_names_the_person_and_the_app(app: FhirApp) -> None:
    who = Access("viewer", (), "f" * 64, user="Practitioner/7", user_name="roentgen", role="radiologist", purpose="BTG")
    event = audit.audit_event(Act("read", peer="192.0.2.7"), who, ())
    person, client = event["agent"]
    assert (person["who"]["reference"], person["who"]["display"]) == ("Practitioner/7", "roentgen")
    assert (person["requestor"], client["requestor"]) == (True, False)
    assert person["purposeOfUse"][0]["coding"][0]["code"] == "BTG"
    assert client["who"]["identifier"]["value"] == "viewer"
    assert client["policy"] == [f"urn:fhir-ris:token:{'f' * 32}"], "so that what was done with a token can be found"
    assert client["network"]["address"] == "192.0.2.7"
    assert validate(event) == []
    assert audit.search_index(event) == index(event)
    app.run(app.interactions.reads.write(event))
    for query in ("agent=Practitioner/7", "agent-name=roentgen", "agent-role=radiologist", f"policy={client['policy'][0]}"):
        assert app.ids(f"AuditEvent?{query}") == [event["id"]], query
