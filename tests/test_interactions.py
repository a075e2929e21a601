"""Create, read, vread, update, delete and history as a client sees them; references kept whole; what happens when many write."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fhir_server import transactions
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry
from fhir_server.unit_of_work import UnitOfWork
from tests.fhir_app import FhirApp, entry, issues, load, outcome, patient, post, put, serving, unused


@pytest.fixture(scope="module")
def lenient(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, strict=False, core=False) as running:
        yield running


def many(work: Any, inputs: Any, at_once: int = 30) -> list[Any]:
    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(work, inputs))


# Create, read, update, delete


def test_what_is_created_is_read_back_under_an_id_of_the_servers_own(app: FhirApp) -> None:
    sent = patient(id="mine", meta={"versionId": "7", "tag": [{"code": "t"}]}, name=[{"family": "Erfunden"}])
    answer = app.send("POST", "Patient", sent)
    created = load(answer)
    assert answer.status_code == 201
    assert created["id"] != "mine"
    assert created["meta"]["versionId"] == "1"
    assert created["meta"]["tag"] == [{"code": "t"}]
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["location"] == f"{app.base_url}/fhir/Patient/{created['id']}/_history/1"
    read = app.get(f"Patient/{created['id']}")
    assert (read.status_code, load(read)) == (200, created)
    assert read.headers["etag"] == 'W/"1"'
    assert read.headers["last-modified"].endswith(" GMT")


def test_each_update_makes_a_version_and_every_version_stays_readable(app: FhirApp) -> None:
    found = app.create(patient(gender="unknown"))
    for gender in ("male", "female"):
        answer = app.put(found | {"gender": gender})
        assert answer.status_code == 200
    assert load(answer)["meta"]["versionId"] == "3"
    read = [load(app.get(f"Patient/{found['id']}/_history/{n}")) for n in (1, 2, 3)]
    assert [r["gender"] for r in read] == ["unknown", "male", "female"]
    assert read[0] == found
    assert [r["meta"]["lastUpdated"] for r in read] == sorted(r["meta"]["lastUpdated"] for r in read)


@pytest.mark.parametrize("number", ["0", "01", "2", "-1", "x", "1.0", "99999999999999999999", "²", "٣"])
def test_a_version_that_never_was_is_not_found(app: FhirApp, number: str) -> None:
    found = app.create(patient())
    assert app.get(f"Patient/{found['id']}/_history/{number}").status_code == 404


def test_an_update_of_what_is_not_there_creates_it_and_needs_that_right(app: FhirApp) -> None:
    name = unused("new-")
    answer = app.put(patient(id=name), scope="system/Patient.u")
    assert answer.status_code == 403
    answer = app.put(patient(id=name))
    assert answer.status_code == 201
    assert answer.headers["location"].endswith(f"/Patient/{name}/_history/1")
    assert load(app.get(f"Patient/{name}/_history"))["entry"][0]["request"] == {"method": "PUT", "url": f"Patient/{name}"}


def test_an_update_that_changes_nothing_makes_no_version(app: FhirApp) -> None:
    found = app.create(patient(name=[{"family": "Gleich"}], meta={"tag": [{"code": "a"}]}))
    for same in (found, {k: v for k, v in found.items() if k != "meta"} | {"meta": {"tag": [{"code": "a"}]}}):
        answer = app.put(same)
        assert (answer.status_code, load(answer)) == (200, found)
    assert load(app.put(found | {"meta": {"tag": [{"code": "b"}]}}))["meta"]["versionId"] == "2"


def test_a_digit_more_in_a_decimal_is_a_change(app: FhirApp) -> None:
    sent = b'{"resourceType":"Patient","id":"%s","extension":[{"url":"http://example.org/x","valueDecimal":%s}]}'
    name = unused("decimal-").encode()
    for number, version in ((b"1.5", "1"), (b"1.50", "2"), (b"1.50", "2"), (b"150e-2", "2"), (b"1.500", "3")):
        answer = app.send("PUT", f"Patient/{name.decode()}", sent % (name, number))
        assert load(answer)["meta"]["versionId"] == version, number


@pytest.mark.parametrize(
    "number", ["1.50", "0.0100", "1e3", "-0.0", "0", "12345678901234567.8", "123456789012345678", "1.234567890123456789", "100"]
)
def test_decimals_come_back_digit_by_digit(app: FhirApp, number: str) -> None:
    sent = f'{{"resourceType":"Patient","extension":[{{"url":"http://example.org/x","valueDecimal":{number}}}]}}'
    created = app.send("POST", "Patient", sent.encode())
    id_ = load(created)["id"]
    for answer in (created, app.get(f"Patient/{id_}"), app.get(f"Patient/{id_}/_history"), app.get(f"Patient?_id={id_}")):
        assert f'"valueDecimal":{number}}}' in answer.text


def test_contained_resources_and_the_extensions_of_primitives_stay_as_they_are(app: FhirApp) -> None:
    extension = [{"url": "http://example.org/x", "valueString": "x"}]
    sent = patient(
        contained=[{"resourceType": "Organization", "id": "o", "name": "Erfunden"}],
        managingOrganization={"reference": "#o"},
        name=[{"given": ["A", None], "_given": [None, {"extension": extension}]}],
        _birthDate={"extension": extension},
    )
    created = app.create(sent)
    assert {k: v for k, v in created.items() if k not in {"id", "meta"}} == sent
    assert load(app.get(f"Patient/{created['id']}")) == created


def test_what_is_deleted_is_gone_but_its_versions_are_not(app: FhirApp) -> None:
    found = app.create(patient(gender="male"))
    url = f"Patient/{found['id']}"
    assert app.send("DELETE", url).status_code == 204
    assert (app.get(url).status_code, issues(app.get(url))[0][0]) == (410, "deleted")
    assert app.get(f"{url}/_history/2").status_code == 410
    assert load(app.get(f"{url}/_history/1")) == found
    assert app.ids(f"Patient?_id={found['id']}") == []
    history = load(app.get(f"{url}/_history"))
    assert history["total"] == 2
    assert [e["request"]["method"] for e in history["entry"]] == ["DELETE", "POST"]
    assert "resource" not in history["entry"][0]
    assert app.send("DELETE", url).status_code == 204
    assert load(app.get(f"{url}/_history"))["total"] == 2


def test_version_numbers_go_on_when_a_deleted_resource_is_made_again(app: FhirApp) -> None:
    found = app.create(patient(gender="male"))
    app.send("DELETE", f"Patient/{found['id']}")
    answer = app.put(found)
    assert (answer.status_code, load(answer)["meta"]["versionId"]) == (201, "3")
    answer = app.put(found | {"gender": "other"})
    assert (answer.status_code, load(answer)["meta"]["versionId"]) == (200, "4")
    versions = load(app.get(f"Patient/{found['id']}/_history"))["entry"]
    assert [e["response"]["etag"] for e in versions] == [f'W/"{n}"' for n in (4, 3, 2, 1)]


def test_the_history_comes_in_pages(app: FhirApp) -> None:
    name = unused("history-")
    for n in range(5):
        app.put(patient(id=name, birthDate=f"200{n}"))
    url: str | None = f"Patient/{name}/_history?_count=2"
    pages = []
    while url:
        page = load(app.get(url))
        pages.append([e["resource"]["meta"]["versionId"] for e in page["entry"]])
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    assert pages == [["5", "4"], ["3", "2"], ["1"]]
    assert load(app.get(f"Patient/{name}/_history?_count=0")).keys() == {"resourceType", "type", "link", "total"}
    assert app.get("Patient/nobody/_history").status_code == 404


def test_if_match_lets_through_only_who_has_seen_the_present_version(app: FhirApp) -> None:
    found = app.create(patient())
    assert app.put(found | {"gender": "male"}, If_Match='W/"1"').status_code == 200
    stale = app.put(found | {"gender": "other"}, If_Match='W/"1"')
    assert (stale.status_code, issues(stale)[0][0]) == (412, "conflict")
    assert app.put(found | {"gender": "other"}, If_Match='W/"3"').status_code == 412
    for malformed in ("2", "W/2", '""', "*", 'W/"2', 'W/"2", W/"3"'):
        assert app.put(found | {"gender": "other"}, If_Match=malformed).status_code == 400, malformed
    assert app.put(patient(id=unused("n-")), If_Match='W/"1"').status_code == 412
    assert app.send("DELETE", f"Patient/{found['id']}", If_Match='W/"1"').status_code == 412
    assert app.put(found | {"gender": "other"}, If_Match='"2"').status_code == 200
    assert app.send("DELETE", f"Patient/{found['id']}", If_Match='W/"3"').status_code == 204
    assert app.send("DELETE", f"Patient/{found['id']}", If_Match='W/"3"').status_code == 412
    assert app.put(found, If_Match='W/"4"').status_code == 412


# References


def test_a_reference_to_nothing_is_refused_with_its_place(app: FhirApp) -> None:
    answer = app.send("POST", "Observation", observation("Patient/nobody"))
    assert (answer.status_code, issues(answer)) == (422, [("value", "Observation.subject")])
    gone = app.create(patient())
    app.send("DELETE", f"Patient/{gone['id']}")
    sent = observation(f"Patient/{gone['id']}", performer=[{"reference": "Practitioner/nobody"}, {"display": "someone"}])
    answer = app.send("POST", "Observation", sent)
    assert issues(answer) == [("value", "Observation.subject"), ("value", "Observation.performer[0]")]
    inside: dict[str, Any] = {"resourceType": "Provenance", "id": "c", "recorded": "2026-01-01T00:00:00Z"}
    inside |= {"target": [{"reference": "Patient/nobody"}], "agent": [{"who": {"display": "x"}}]}
    assert app.send("POST", "Patient", patient(contained=[inside])).status_code == 422


def test_a_version_that_a_reference_names_must_be_there_too(app: FhirApp) -> None:
    made = app.create({"resourceType": "Organization", "name": "x"})
    path = f"Organization/{made['id']}"
    for number in ("99", "0", "01", "x", "2"):
        answer = app.send("POST", "Patient", patient(managingOrganization={"reference": f"{path}/_history/{number}"}))
        assert (answer.status_code, issues(answer)) == (422, [("value", "Patient.managingOrganization")])
        assert f"{path} has no version {number}" in answer.text
    app.create(patient(managingOrganization={"reference": f"{path}/_history/1"}))
    app.put(made | {"name": "y"})
    for number in ("1", "2"):
        app.create(patient(managingOrganization={"reference": f"{path}/_history/{number}"}))


def test_a_version_that_is_a_deletion_is_none_to_refer_to(app: FhirApp) -> None:
    path = f"Organization/{unused('o')}"
    organization = {"resourceType": "Organization", "id": path[13:], "name": "x"}
    app.put(organization)
    app.send("DELETE", path)
    app.put(organization)
    statuses = [
        app.send("POST", "Patient", patient(managingOrganization={"reference": f"{path}/_history/{n}"})).status_code
        for n in (1, 2, 3, 4)
    ]
    assert statuses == [201, 422, 201, 422]


def test_a_transaction_may_refer_to_the_version_that_it_makes(app: FhirApp) -> None:
    made = app.create({"resourceType": "Organization", "name": "x"})
    for number, status in ((2, 200), (4, 422)):
        refers = patient(managingOrganization={"reference": f"Organization/{made['id']}/_history/{number}"})
        answer = app.bundle("transaction", put(made | {"name": f"y{number}"}), post(refers))
        assert answer.status_code == status, answer.text


def test_references_that_are_not_local_are_no_business_of_ours(app: FhirApp) -> None:
    for reference in ("https://other.example/fhir/Patient/1", "urn:uuid:3f2f1b2e-8d5c-4a6f-9f0e-0123456789ab"):
        app.create(observation(reference))
    app.create({**observation(""), "subject": {"identifier": {"system": "urn:x", "value": "1"}}})


def test_our_own_address_in_a_reference_means_what_is_here(app: FhirApp) -> None:
    found = app.create(patient())
    made = app.create(observation(f"{app.base_url}/fhir/Patient/{found['id']}"))
    assert made["subject"]["reference"] == f"Patient/{found['id']}"
    answer = app.send("POST", "Observation", observation(f"{app.base_url}/fhir/Patient/nobody"))
    assert issues(answer) == [("value", "Observation.subject")]


def test_what_is_referred_to_can_not_be_deleted(app: FhirApp) -> None:
    found = app.create(patient())
    made = app.put(observation(f"Patient/{found['id']}/_history/1", id=found["id"]))  # of the same id, in another type
    assert made.status_code == 201
    answer = app.send("DELETE", f"Patient/{found['id']}")
    assert (answer.status_code, issues(answer)) == (409, [("conflict", "Patient")])
    assert app.get(f"Patient/{found['id']}").status_code == 200
    assert app.send("DELETE", f"Observation/{found['id']}").status_code == 204
    assert app.send("DELETE", f"Patient/{found['id']}").status_code == 204


def test_a_resource_that_refers_to_itself_can_be_made_and_deleted(app: FhirApp) -> None:
    name = unused("self-")
    assert app.put(patient(id=name, link=[{"type": "seealso", "other": {"reference": f"Patient/{name}"}}])).status_code == 201
    assert app.send("DELETE", f"Patient/{name}").status_code == 204


def test_a_stored_bundle_may_carry_references_that_lead_nowhere_here(app: FhirApp) -> None:
    app.create({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": observation("Patient/elsewhere")}]})


def test_where_integrity_is_lenient_neither_is_checked(lenient: FhirApp) -> None:
    found = lenient.create(patient())
    lenient.create(observation(f"Patient/{found['id']}"))
    assert lenient.send("DELETE", f"Patient/{found['id']}").status_code == 204
    lenient.create(observation("Patient/nobody"))


def observation(subject: str, **elements: Any) -> dict[str, Any]:
    code = {"text": "an observation"}
    return {"resourceType": "Observation", "status": "final", "code": code, "subject": {"reference": subject}, **elements}


# Many at once


def test_parallel_updates_leave_versions_without_gaps(app: FhirApp) -> None:
    name = unused("busy-")
    app.put(patient(id=name))
    answers = many(lambda n: app.put(patient(id=name, birthDate=f"19{n:02}")), range(30))
    done = [a for a in answers if a.status_code == 200]
    assert {a.status_code for a in answers} <= {200, 409}
    assert len(done) >= 25
    history = load(app.get(f"Patient/{name}/_history"))
    assert [int(e["resource"]["meta"]["versionId"]) for e in history["entry"]] == list(range(len(done) + 1, 0, -1))
    assert len({e["resource"].get("birthDate") for e in history["entry"]}) == len(done) + 1


def test_of_parallel_updates_with_the_same_if_match_one_wins(app: FhirApp) -> None:
    name = unused("busy-")
    app.put(patient(id=name))
    answers = many(lambda n: app.put(patient(id=name, birthDate=f"19{n:02}"), If_Match='W/"1"'), range(30))
    assert sorted(a.status_code for a in answers) == [200] + [412] * 29


def test_a_write_that_others_keep_from_being_done_ends_in_a_409_that_says_when_to_come_again(
    app: FhirApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "_PATIENCE", 0.2)
    name = unused("held-")
    app.put(patient(id=name))

    async def hold() -> Any:
        session = app.db.client.start_session()
        await session.start_transaction()
        await app.db["Patient"].update_one({"_id": name}, {"$set": {"held": True}}, session=session)
        return session

    session = app.run(hold())
    try:
        for answer in (
            app.put(patient(id=name, gender="male")),
            app.bundle("transaction", put(patient(id=name, gender="male")), post(patient())),
        ):
            assert (answer.status_code, issues(answer)[0][0]) == (409, "lock-error")
            assert answer.headers["retry-after"]
    finally:
        app.run(session.abort_transaction())
        app.run(session.end_session())
    assert app.put(patient(id=name, gender="male")).status_code == 200


def test_parallel_first_writes_of_a_type_that_has_no_collection_yet_all_succeed(mongodb_uri: str) -> None:
    with serving(mongodb_uri, core=False) as app:
        types = ("Basic", "Flag", "Goal", "List")
        sent = [{"resourceType": "Basic", "code": {"text": "x"}}, {"resourceType": "Patient"}, {"resourceType": "Person"}] * 7
        assert {a.status_code for a in many(lambda r: app.send("POST", r["resourceType"], r), sent)} == {201}
        assert len(app.ids("Basic")) == 7
        assert app.ids("Flag") == []  # looking for a type makes nothing
        assert not {t for t in types[1:] if t in app.counts()}
        entries = [post({"resourceType": t, **e}) for t, e in OTHERS.items()]
        answer = app.bundle("transaction", *entries)
        assert answer.status_code == 200, answer.text


OTHERS: dict[str, dict[str, Any]] = {
    **{t: {} for t in ("Person", "Organization", "Location", "Practitioner", "PractitionerRole", "HealthcareService", "Device")},
    **{t: {} for t in ("Medication", "Substance", "OrganizationAffiliation", "InsurancePlan", "Group", "Specimen")},
    "Organization": {"name": "x"},
    "InsurancePlan": {"name": "x"},
    "Group": {"type": "person", "actual": True},
    "Substance": {"code": {"text": "x"}},
    "Binary": {"contentType": "text/plain"},
    "Basic": {"code": {"text": "x"}},
    "Library": {"status": "draft", "type": {"text": "x"}},
}


def test_parallel_updates_as_create_make_one_resource(app: FhirApp) -> None:
    name = unused("raced-")
    answers = many(lambda n: app.put(patient(id=name, birthDate=f"19{n:02}")), range(20))
    assert {a.status_code for a in answers} <= {200, 201, 409}
    assert [a.status_code for a in answers].count(201) == 1
    assert int(load(app.get(f"Patient/{name}"))["meta"]["versionId"]) == sum(a.status_code < 300 for a in answers)


# Rules, reactions and projections


def hostile(registry: Registry) -> None:
    """What the rooms might do in the worst case: fail at every place, and write types that nobody has written yet."""

    async def rule(_unit: UnitOfWork, change: Change) -> None:
        said = (change.after or {}).get("description", "")
        if said == "rule":
            raise KeyError("status")
        if said == "complete" and change.after is not None:
            change.after["description"] = 5

    async def reaction(unit: UnitOfWork, change: Change) -> None:
        said = (change.after or {}).get("description", "")
        if said.startswith("write ") and change.after:
            await unit.create({"resourceType": said[6:], "code": {"text": "made by a reaction"}})
        if said == "back and forth" and change.after:
            other = await unit.update({"resourceType": "Basic", "id": "ping", "code": {"text": "1"}})
            assert [r["id"] for r in await unit.search("Basic", code="x") if r["id"] == "ping"] == []
            await unit.delete("Basic", "ping")
            assert await unit.read("Basic", "ping") is None
            await unit.search("Basic", code="x")
            await unit.update(other)
        if said == "finish" and change.after:
            await unit.update(change.after | {"description": "finished"})
        if said == "reaction":
            await unit.create({"resourceType": "Basic", "code": {"text": "must not stay"}})
            raise fail("business-rule", "the reaction does not want it", "Device.note")

    async def projection(unit: UnitOfWork, changes: list[Change]) -> None:
        await unit.db["rows"].insert_one({"of": [c.id for c in changes]}, session=unit.session)
        if any((c.after or {}).get("description") == "projection" for c in changes):
            raise RuntimeError("secret words of a projection")

    registry.rule("Endpoint", rule)
    registry.rule("ActivityDefinition", rule)
    registry.reaction("ActivityDefinition", reaction)
    registry.projection(projection)


@pytest.fixture(scope="module")
def odd(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, rules=hostile, core=False) as running:
        running.create(activity("fine"))
        yield running


def activity(description: str) -> dict[str, Any]:
    return {"resourceType": "ActivityDefinition", "status": "active", "description": description}


@pytest.mark.parametrize(("where", "status"), [("rule", 500), ("complete", 400), ("reaction", 422), ("projection", 500)])
def test_what_fails_on_the_way_leaves_nothing_behind(odd: FhirApp, where: str, status: int) -> None:
    before = odd.counts()
    odd.logs.clear()
    answer = odd.send("POST", "ActivityDefinition", activity(where))
    assert answer.status_code == status
    assert [e["event"] for e in odd.logs] == (["request failed"] if status == 500 else [])
    assert "secret" not in answer.text
    outcome(answer)
    answer = odd.bundle("transaction", post({"resourceType": "Patient"}), post(activity(where)))
    assert answer.status_code == status
    outcome(answer)
    after = odd.counts()
    assert {n: c for n, c in after.items() if c} == {n: c for n, c in before.items() if c} | {"catalog": after["catalog"]}


def test_an_entry_of_a_batch_that_fails_by_our_own_fault_takes_no_other_with_it(odd: FhirApp) -> None:
    answer = odd.bundle("batch", post(activity("rule")), post(activity("projection")), post(activity("fine")))
    responses = [e["response"] for e in load(answer)["entry"]]
    assert [r["status"] for r in responses] == ["500", "500", "201"]
    assert {r["outcome"]["issue"][0]["code"] for r in responses[:2]} == {"exception"}
    assert "secret" not in answer.text


def test_what_was_locked_once_is_not_kept_for_ever(app: FhirApp) -> None:
    patient = app.create({"resourceType": "Patient"})
    app.create({"resourceType": "Basic", "code": {"text": "x"}, "subject": {"reference": f"Patient/{patient['id']}"}})
    kept = [d["_id"] for d in app.run(app.db["locks"].find().to_list())]
    assert kept
    assert set(kept) < set(range(2**18))  # however many resources come and go


def test_a_reaction_may_write_a_type_that_has_no_collection_yet(odd: FhirApp) -> None:
    for kind in ("Basic", "Condition"):
        answer = odd.send("POST", "ActivityDefinition", activity(f"write {kind}"))
        if kind == "Condition":
            assert issues(answer) == [("required", "Condition.subject")]
        else:
            assert answer.status_code == 201
    assert len(odd.ids("Basic")) == 1
    answers = many(lambda _: odd.bundle("transaction", post(activity("write Media")), post(activity("write List"))), range(4))
    assert {a.status_code for a in answers} == {400}


def test_a_resource_may_come_and_go_within_one_transaction(odd: FhirApp) -> None:
    odd.put({"resourceType": "Basic", "id": "ping", "code": {"text": "0"}})
    for version in (2, 3, 4):
        assert odd.send("POST", "ActivityDefinition", activity("back and forth")).status_code == 201
        found = load(odd.get("Basic/ping"))
        assert (found["meta"]["versionId"], found["code"]["text"]) == (str(version), "1")
        assert len(load(odd.get("Basic/ping/_history"))["entry"]) == version
    assert odd.send("DELETE", "Basic/ping").status_code == 204
    assert odd.send("POST", "ActivityDefinition", activity("back and forth")).status_code == 201
    assert load(odd.get("Basic/ping"))["meta"]["versionId"] == "6"
    assert [e["request"]["method"] for e in load(odd.get("Basic/ping/_history"))["entry"]] == ["PUT", "DELETE", *["PUT"] * 4]


def test_the_answer_shows_what_the_reactions_made_of_it(odd: FhirApp) -> None:
    made = odd.create(activity("finish"))
    assert (made["description"], made["meta"]["versionId"]) == ("finished", "1")
    assert load(odd.get(f"ActivityDefinition/{made['id']}")) == made
    changed = load(odd.put(made | {"description": "finish", "status": "draft"}))
    assert (changed["description"], changed["meta"]["versionId"]) == ("finished", "2")
    answer = odd.bundle("transaction", post(activity("finish")), entry("GET", f"ActivityDefinition/{made['id']}"))
    assert [e["resource"]["description"] for e in load(answer)["entry"]] == ["finished", "finished"]


def test_rules_see_only_valid_resources(app: FhirApp) -> None:
    for resource_type in ("Appointment", "Task", "ServiceRequest", "DiagnosticReport", "ImagingStudy", "Procedure", "Device"):
        nonsenses: list[dict[str, Any]] = [
            {"identifier": "x"},
            {"identifier": [5]},
            {"status": []},
            {"participant": [1]},
            {"basedOn": "x"},
        ]
        for nonsense in nonsenses:
            answer = app.send("POST", resource_type, {"resourceType": resource_type, **nonsense})
            assert answer.status_code == 400, (resource_type, nonsense, answer.text)
            outcome(answer)


def test_more_changes_than_one_can_count_are_settled_in_one_transaction(app: FhirApp) -> None:
    name = unused("many-")
    entries = [put(patient(id=f"{name}-{n}", identifier=[{"system": "urn:x", "value": name}])) for n in range(1500)]
    answer = app.bundle("transaction", *entries, entry("GET", f"Patient/{name}-7"))
    assert answer.status_code == 200, answer.text
    assert app.search(f"Patient?identifier=urn:x|{name}&_summary=count")["total"] == 1500
