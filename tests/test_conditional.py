"""Conditional create, update, patch and delete, alone and in Bundles: judged where they are done, and race-proof."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fhir_server.store import Store
from tests.fhir_app import FhirApp, entry, issues, load, patient, post, serving, unused

Resource = dict[str, Any]
PATCH = "application/json-patch+json"


def known(**elements: Any) -> tuple[Resource, str]:
    """A patient with an identifier that no other has, and the search that finds it."""
    value = unused("id-")
    return patient(identifier=[{"system": "urn:x", "value": value}], **elements), f"identifier=urn:x|{value}"


def together(work: Any, times: int) -> list[Any]:
    """Do something many times at the very same time."""
    ready = threading.Barrier(times)

    def one(n: int) -> Any:
        ready.wait()
        return work(n)

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(one, range(times)))


# Create


def test_a_conditional_create_makes_a_resource_once(app: FhirApp) -> None:
    sent, criteria = known()
    first = app.send("POST", "Patient", sent, If_None_Exist=criteria)
    assert first.status_code == 201
    for written in (criteria, f"?{criteria}", f"Patient?{criteria}", criteria.replace("|", "%7C")):
        again = app.send("POST", "Patient", sent | {"gender": "male"}, If_None_Exist=written)
        assert (again.status_code, load(again)) == (200, load(first))
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["etag"] == first.headers["etag"]
    assert len(app.ids(f"Patient?{criteria}")) == 1


def test_of_50_conditional_creates_at_the_same_time_one_makes_the_resource(app: FhirApp) -> None:
    sent, criteria = known()
    answers = together(lambda _: app.send("POST", "Patient", sent, If_None_Exist=criteria), 50)
    assert sorted(a.status_code for a in answers) == [200] * 49 + [201]
    assert len({load(a)["id"] for a in answers}) == 1
    assert len(app.ids(f"Patient?{criteria}")) == 1


def test_conditional_creates_of_several_processes_make_one_resource_too(app: FhirApp, mongodb_uri: str) -> None:
    """What one process knows of its own turns is no help here: two servers over one database."""
    sent, criteria = known()
    with serving(mongodb_uri, core=False) as other:
        shared, trail = Store(other.db.client[app.db.name]), other.store.trail
        other.store.db, other.store.trail = shared.db, shared.trail
        bodies = together(lambda n: (app, other)[n % 2].send("POST", "Patient", sent, If_None_Exist=criteria), 16)
        other.store.db, other.store.trail = other.db, trail
    assert sorted(a.status_code for a in bodies) == [200] * 15 + [201]
    assert len(app.ids(f"Patient?{criteria}")) == 1


def test_several_matches_refuse_a_conditional_create(app: FhirApp) -> None:
    sent, criteria = known()
    app.create(sent)
    app.create(sent)
    answer = app.send("POST", "Patient", sent, If_None_Exist=criteria)
    assert (answer.status_code, issues(answer)[0][0]) == (412, "multiple-matches")


@pytest.mark.parametrize(
    "criteria", ["", "?", "Patient?", "nonsense=x", "_count=1", "_sort=name", "_format=json", "birthdate=yesterday"]
)
def test_a_condition_must_be_a_search_that_is_understood(app: FhirApp, criteria: str) -> None:
    assert app.send("POST", "Patient", patient(), If_None_Exist=criteria).status_code == 400
    assert app.send("PUT", f"Patient?{criteria.removeprefix('Patient?')}", patient()).status_code == 400
    assert app.send("DELETE", f"Patient?{criteria.removeprefix('Patient?').replace('_count=1', '')}").status_code == 400


def test_an_unknown_parameter_is_refused_in_a_condition_whatever_leniency_is_asked_for(app: FhirApp) -> None:
    headers = {"Prefer": "handling=lenient"}
    assert app.send("DELETE", "Patient?nonsense=x", **headers).status_code == 400
    assert app.send("POST", "Patient", patient(), If_None_Exist="nonsense=x", **headers).status_code == 400


def test_our_own_address_in_a_condition_means_what_is_here(app: FhirApp) -> None:
    found = app.create(patient())
    note = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": f"Patient/{found['id']}"},
    }
    app.create(note)
    answer = app.send("POST", "Observation", note, If_None_Exist=f"subject={app.base_url}/fhir/Patient/{found['id']}")
    assert answer.status_code == 200


# Update


def test_a_conditional_update_creates_or_updates_what_matches(app: FhirApp) -> None:
    sent, criteria = known()
    created = app.send("PUT", f"Patient?{criteria}", sent)
    assert created.status_code == 201
    id_ = load(created)["id"]
    updated = app.send("PUT", f"Patient?{criteria}", sent | {"gender": "male"})
    assert (updated.status_code, load(updated)["id"], load(updated)["meta"]["versionId"]) == (200, id_, "2")
    assert updated.headers["location"] == f"{app.base_url}/fhir/Patient/{id_}/_history/2"
    with_id = app.send("PUT", f"Patient?{criteria}", sent | {"id": id_, "gender": "other"})
    assert (with_id.status_code, load(with_id)["meta"]["versionId"]) == (200, "3")
    same = app.send("PUT", f"Patient?{criteria}", sent | {"gender": "other"})
    assert (same.status_code, load(same)["meta"]["versionId"]) == (200, "3")


def test_the_id_in_the_body_of_a_conditional_update_must_agree_with_what_matches(app: FhirApp) -> None:
    sent, criteria = known()
    name = unused("chosen-")
    created = app.send("PUT", f"Patient?{criteria}", sent | {"id": name})
    assert (created.status_code, load(created)["id"]) == (201, name)
    other = app.send("PUT", f"Patient?{criteria}", sent | {"id": "another"})
    assert (other.status_code, issues(other)) == (400, [("value", "Patient.id")])
    taken = app.send("PUT", "Patient?identifier=urn:x|nobody-has-this", patient(id=name))
    assert (taken.status_code, issues(taken)) == (409, [("conflict", "Patient.id")])
    app.create(sent)
    assert app.send("PUT", f"Patient?{criteria}", sent).status_code == 412


def test_a_conditional_update_minds_if_match_and_if_none_match(app: FhirApp) -> None:
    sent, criteria = known()
    assert app.send("PUT", f"Patient?{criteria}", sent, If_Match='W/"1"').status_code == 412
    assert app.send("PUT", f"Patient?{criteria}", sent, If_None_Match="*").status_code == 201
    assert app.send("PUT", f"Patient?{criteria}", sent | {"gender": "male"}, If_None_Match="*").status_code == 412
    assert app.send("PUT", f"Patient?{criteria}", sent | {"gender": "male"}, If_Match='W/"2"').status_code == 412
    assert app.send("PUT", f"Patient?{criteria}", sent | {"gender": "male"}, If_Match='W/"1"').status_code == 200


def test_parallel_conditional_updates_make_one_resource_and_versions_without_gaps(app: FhirApp) -> None:
    sent, criteria = known()
    answers = together(lambda n: app.send("PUT", f"Patient?{criteria}", sent | {"birthDate": f"19{n:02}"}), 20)
    assert sorted(a.status_code for a in answers) == [200] * 19 + [201]
    (id_,) = app.ids(f"Patient?{criteria}")
    history = load(app.get(f"Patient/{id_}/_history"))
    assert [e["response"]["etag"] for e in history["entry"]] == [f'W/"{n}"' for n in range(20, 0, -1)]


# Patch and delete


def test_a_conditional_patch_changes_the_one_that_matches(app: FhirApp) -> None:
    sent, criteria = known(gender="male")
    patch = b'[{"op":"replace","path":"/gender","value":"other"}]'
    assert app.send("PATCH", f"Patient?{criteria}", patch, Content_Type=PATCH).status_code == 404
    made = app.create(sent)
    answer = app.send("PATCH", f"Patient?{criteria}", patch, Content_Type=PATCH)
    assert (answer.status_code, load(answer)["gender"], load(answer)["id"]) == (200, "other", made["id"])
    app.create(sent)
    assert app.send("PATCH", f"Patient?{criteria}", patch, Content_Type=PATCH).status_code == 412


def test_a_conditional_delete_takes_the_one_that_matches_and_several_only_when_told(app: FhirApp) -> None:
    sent, criteria = known()
    assert app.send("DELETE", f"Patient?{criteria}").status_code == 204
    app.create(sent)
    assert app.send("DELETE", f"Patient?{criteria}").status_code == 204
    assert app.ids(f"Patient?{criteria}") == []
    for _ in range(5):
        app.create(sent)
    assert app.send("DELETE", f"Patient?{criteria}").status_code == 412
    assert len(app.ids(f"Patient?{criteria}")) == 5
    some = app.send("DELETE", f"Patient?{criteria}&_count=3")
    assert (some.status_code, load(some)["issue"][0]["diagnostics"]) == (200, "3 Patient deleted; more match: ask again")
    rest = app.send("DELETE", f"Patient?{criteria}&_count=3")
    assert load(rest)["issue"][0]["diagnostics"] == "2 Patient deleted"
    assert app.ids(f"Patient?{criteria}") == []
    for nonsense in ("0", "x", "501", "1&_count=2"):
        assert app.send("DELETE", f"Patient?{criteria}&_count={nonsense}").status_code == 400


def test_a_conditional_delete_of_several_is_done_whole_or_not_at_all(app: FhirApp) -> None:
    sent, criteria = known()
    app.create(sent)
    kept = app.create(sent)
    app.create(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": f"Patient/{kept['id']}"},
        }
    )
    assert app.send("DELETE", f"Patient?{criteria}&_count=10").status_code == 409
    assert len(app.ids(f"Patient?{criteria}")) == 2


# Rights


@pytest.mark.parametrize(
    ("method", "scope"),
    [
        ("POST", "system/Patient.c"),
        ("POST", "system/Patient.s"),
        ("PUT", "system/Patient.cu"),
        ("PUT", "system/Patient.cs"),
        ("PUT", "system/Patient.us"),
        ("PATCH", "system/Patient.u"),
        ("DELETE", "system/Patient.d"),
    ],
)
def test_whoever_may_not_search_may_not_act_on_a_search(app: FhirApp, method: str, scope: str) -> None:
    sent, criteria = known()
    headers = {"If_None_Exist": criteria} if method == "POST" else {"Content_Type": PATCH} if method == "PATCH" else {}
    path = "Patient" if method == "POST" else f"Patient?{criteria}"
    body = b"[]" if method == "PATCH" else None if method == "DELETE" else sent
    assert app.send(method, path, body, scope=scope, **headers).status_code == 403
    full = app.send(method, path, body, scope="system/Patient.cuds", **headers).status_code
    assert full == {"POST": 201, "PUT": 201, "PATCH": 404, "DELETE": 204}[method]


# In Bundles


def test_a_conditional_create_in_a_transaction_stands_for_what_is_there(app: FhirApp) -> None:
    sent, criteria = known()
    there = app.create(sent)
    fresh, others = known()
    answer = app.bundle(
        "transaction",
        entry("POST", "Patient", sent, "urn:uuid:1", ifNoneExist=criteria),
        entry("POST", "Patient", fresh, "urn:uuid:2", ifNoneExist=others),
        entry("POST", "Patient", fresh, "urn:uuid:3", ifNoneExist=others),
        post(patient(link=[{"type": "seealso", "other": {"reference": f"urn:uuid:{n}"}} for n in (1, 2, 3)])),
    )
    got = load(answer)["entry"]
    assert [e["response"]["status"] for e in got] == ["200", "201", "200", "201"]
    assert got[0]["resource"] == there
    assert got[2]["resource"]["id"] == got[1]["resource"]["id"]
    links = [link["other"]["reference"] for link in got[3]["resource"]["link"]]
    assert links == [f"Patient/{there['id']}", *[f"Patient/{got[1]['resource']['id']}"] * 2]


def test_conditional_update_patch_and_delete_work_in_both_kinds_of_bundle(app: FhirApp) -> None:
    for kind in ("transaction", "batch"):
        changed, patched, gone, new = [known() for _ in range(4)]
        ids = [app.create(r)["id"] for r, _ in (changed, patched, gone)]
        operation = {
            "name": "operation",
            "part": [{"name": "type", "valueCode": "add"}, {"name": "path", "valueString": "Patient"}],
        }
        operation["part"] += [{"name": "name", "valueString": "active"}, {"name": "value", "valueBoolean": True}]  # type: ignore[operator]
        answer = app.bundle(
            kind,
            entry("PUT", f"Patient?{changed[1]}", changed[0] | {"gender": "male"}),
            entry("PATCH", f"Patient?{patched[1]}", {"resourceType": "Parameters", "parameter": [operation]}),
            entry("DELETE", f"Patient?{gone[1]}"),
            entry("PUT", f"Patient?{new[1]}", new[0]),
        )
        got = load(answer)["entry"]
        assert [e["response"]["status"] for e in got] == ["200", "200", "204", "201"], answer.text
        assert [e["resource"]["id"] for e in got[:2]] == ids[:2]
        assert got[0]["resource"]["gender"] == "male"
        assert got[1]["resource"]["active"] is True
        assert app.get(f"Patient/{ids[2]}").status_code == 410


def test_entries_that_turn_out_to_be_about_the_same_resource_are_refused(app: FhirApp) -> None:
    sent, criteria = known()
    id_ = app.create(sent)["id"]
    pairs = [
        (entry("PUT", f"Patient?{criteria}", sent), entry("PUT", f"Patient/{id_}", sent | {"id": id_})),
        (entry("DELETE", f"Patient?{criteria}"), entry("DELETE", f"Patient/{id_}")),
        (entry("PUT", f"Patient?{criteria}", sent), entry("PUT", f"Patient?{criteria}&gender:missing=true", sent)),
        (entry("PATCH", f"Patient/{id_}", {"resourceType": "Parameters"}), entry("PUT", f"Patient?{criteria}", sent)),
    ]
    for pair in pairs:
        answer = app.bundle("transaction", *pair)
        assert answer.status_code == 400, answer.text
        assert issues(answer)[0][1] in {"Bundle.entry[0].request.url", "Bundle.entry[1].request.url"}
    assert load(app.get(f"Patient/{id_}"))["meta"]["versionId"] == "1"


def test_what_a_transaction_deletes_a_condition_does_not_find(app: FhirApp) -> None:
    sent, criteria = known()
    id_ = app.create(sent)["id"]
    answer = app.bundle(
        "transaction", entry("POST", "Patient", sent, ifNoneExist=criteria), entry("DELETE", f"Patient?{criteria}")
    )
    assert [e["response"]["status"] for e in load(answer)["entry"]] == ["201", "204"]
    assert app.get(f"Patient/{id_}").status_code == 410
    assert len(app.ids(f"Patient?{criteria}")) == 1


def test_a_condition_with_several_matches_refuses_the_transaction_with_its_place(app: FhirApp) -> None:
    sent, criteria = known()
    app.create(sent)
    app.create(sent)
    for bad in (
        entry("POST", "Patient", sent, ifNoneExist=criteria),
        entry("PUT", f"Patient?{criteria}", sent),
        entry("DELETE", f"Patient?{criteria}"),
    ):
        answer = app.bundle("transaction", post(patient()), bad)
        assert (answer.status_code, issues(answer)[0][0]) == (412, "multiple-matches")
        assert (issues(answer)[0][1] or "").startswith("Bundle.entry[1]")


def test_transactions_that_create_the_same_at_the_same_time_make_it_once(app: FhirApp) -> None:
    (one, first), (two, second) = known(), known()
    pair = (entry("POST", "Patient", one, ifNoneExist=first), entry("POST", "Patient", two, ifNoneExist=second))
    answers = together(lambda n: app.bundle("transaction", *(pair if n % 2 else pair[::-1])), 12)
    assert {a.status_code for a in answers} == {200}
    statuses = [e["response"]["status"] for a in answers for e in load(a)["entry"]]
    assert sorted(statuses) == ["200"] * 22 + ["201"] * 2
    assert len(app.ids(f"Patient?{first}")) == len(app.ids(f"Patient?{second}")) == 1


# Conditional references


def observation(subject: str) -> Resource:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": subject}}


def test_a_conditional_reference_becomes_the_one_that_matches(app: FhirApp) -> None:
    sent, criteria = known()
    there = app.create(sent)
    fresh, others = known()
    answer = app.bundle(
        "transaction",
        post(observation(f"Patient?{criteria}")),
        post(observation(f"Patient?{others}")),
        post(fresh),
    )
    got = [e["resource"] for e in load(answer)["entry"]]
    assert got[0]["subject"]["reference"] == f"Patient/{there['id']}"
    assert got[1]["subject"]["reference"] == f"Patient/{got[2]['id']}"
    assert app.ids(f"Observation?subject=Patient/{there['id']}") == [got[0]["id"]]


def test_conditional_references_may_lead_to_what_has_some_itself(app: FhirApp) -> None:
    sent, criteria = known()
    encounter = {
        "resourceType": "Encounter",
        "status": "planned",
        "class": {"code": "AMB"},
        "identifier": [{"system": "urn:x", "value": unused("visit-")}],
        "subject": {"reference": f"Patient?{criteria}"},
    }
    visit = f"Encounter?identifier=urn:x|{encounter['identifier'][0]['value']}"  # type: ignore[index]
    note = observation(f"Patient?{criteria}") | {"encounter": {"reference": visit}}
    answer = app.bundle("transaction", post(note), post(encounter), post(sent))
    got = [e["resource"] for e in load(answer)["entry"]]
    assert got[0]["encounter"]["reference"] == f"Encounter/{got[1]['id']}"
    assert got[0]["subject"] == got[1]["subject"] == {"reference": f"Patient/{got[2]['id']}"}


def test_a_conditional_reference_without_its_one_match_refuses_the_whole(app: FhirApp) -> None:
    sent, criteria = known()
    unique = unused("kept-out-")
    for matches, code in ((0, "not-found"), (2, "multiple-matches")):
        for _ in range(matches):
            app.create(sent)
        answer = app.bundle(
            "transaction",
            post(patient(identifier=[{"system": "urn:x", "value": unique}])),
            post(observation(f"Patient?{criteria}")),
        )
        assert (answer.status_code, issues(answer)) == (412, [(code, "Bundle.entry[1].resource.subject")])
    assert app.ids(f"Patient?identifier=urn:x|{unique}") == []
    for nonsense in ("Patient?nonsense=1", "Nonsense?x=1"):
        answer = app.bundle("transaction", post(observation(nonsense)))
        assert (answer.status_code, issues(answer)[0][1]) == (400, "Bundle.entry[0].resource.subject")
    assert (
        app.bundle("transaction", post(observation(f"Patient?{criteria}")), scope="system/Observation.cruds").status_code == 403
    )


def test_a_conditional_reference_that_the_transaction_itself_makes_ambiguous_is_refused(app: FhirApp) -> None:
    sent, criteria = known()
    app.create(sent)
    answer = app.bundle("transaction", post(observation(f"Patient?{criteria}")), post(sent))
    assert (answer.status_code, issues(answer)) == (412, [("multiple-matches", "Bundle.entry[0].resource.subject")])
    late = sent | {"generalPractitioner": [{"reference": "Practitioner?identifier=urn:x|doctor"}]}
    doctor = {"resourceType": "Practitioner", "identifier": [{"system": "urn:x", "value": "doctor"}]}
    answer = app.bundle("transaction", post(observation(f"Patient?{criteria}")), post(late), post(doctor))
    assert (answer.status_code, issues(answer)) == (412, [("multiple-matches", "Bundle.entry[0].resource.subject")])


def test_a_transaction_of_2600_entries_with_conditions_takes_seconds(app: FhirApp) -> None:
    name = unused("many-")
    entries = [
        entry(
            "POST",
            "Patient",
            patient(identifier=[{"system": "urn:x", "value": f"{name}-{n}"}]),
            f"urn:uuid:{name}-{n}",
            ifNoneExist=f"identifier=urn:x|{name}-{n}",
        )
        for n in range(300)
    ]
    entries += [post(observation(f"urn:uuid:{name}-{n % 300}")) for n in range(2000)]
    entries += [post(observation(f"Patient?identifier=urn:x|{name}-{n}")) for n in range(300)]
    answer = app.bundle("transaction", *entries)
    assert {e["response"]["status"] for e in load(answer)["entry"]} == {"201"}
