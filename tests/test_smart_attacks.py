"""The attacks X1 to X35: an app with the rights of patient A (patient/*.rs, unless said) tries to get at patient B.

What is hidden must look exactly like what isn't there: each test asks for both, and compares the answers.
"""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from bridges.v2.receivers import MESSAGES
from smart_auth.circumstances import MOST
from tests.fhir_app import JSON, FhirApp, Resource, entry, post, put, unused
from tests.smart_world import ABSENT, LOINC, Caller, World, label, observation, order, ref, report, resource

OF_B = {
    "Patient": "b",
    "Encounter": "eb",
    "ServiceRequest": "srb",
    "Observation": "ob",
    "DiagnosticReport": "drb",
    "Coverage": "covb",
    "Task": "tb",
    "ImagingStudy": "isb",
    "List": "lb",
    "Binary": "binb",
    "Provenance": "prb",
}


@pytest.fixture(scope="module")
def a(world: World) -> Caller:
    """The app of patient A that reads and searches everything of A."""
    return world.patient()


@pytest.fixture(scope="module")
def writer(world: World) -> Caller:
    """The app of patient A that may do everything to A's data."""
    return world.patient("patient/*.cruds")


def plain(answer: httpx.Response, *ids: str) -> tuple[int, str]:
    """Status and body of an answer, the ids that were asked for taken out."""
    return answer.status_code, re.sub(rf"(?<![\w-])({'|'.join(map(re.escape, ids))})(?![\w-])", "ID", answer.text)


def alike(hidden: httpx.Response, absent: httpx.Response, *names: str) -> None:
    """That the two answers can't be told apart, but for the names that were asked for."""
    ids = [name.rpartition("/")[2] for name in names]
    assert plain(hidden, *ids, ABSENT) == plain(absent, *ids, ABSENT)
    assert {n for n in hidden.headers if n != "content-length"} == {n for n in absent.headers if n != "content-length"}


def of_b(references: list[str]) -> list[str]:
    """What of B is among them."""
    return [
        r for r in references if r in {f"{t}/{i}" for t, i in OF_B.items()} | {"Observation/ob-vital", "Observation/ob-focus"}
    ]


@pytest.mark.parametrize("kind", OF_B)
def test_x1_reading_what_is_anothers_is_like_reading_what_is_not_there(a: Caller, kind: str) -> None:
    id_ = OF_B[kind]
    for path in ("{}", "{}/_history", "{}/_history/1", "{}/_history?_count=1"):
        hidden, absent = a.get(f"{kind}/{path.format(id_)}"), a.get(f"{kind}/{path.format(ABSENT)}")
        assert hidden.status_code == 404
        alike(hidden, absent, f"{kind}/{id_}", f"{kind}/{ABSENT}")


def test_x1_what_was_deleted_or_was_anothers_before_is_hidden_too(world: World, a: Caller) -> None:
    world.app.put(observation("gone-a", "a"))
    world.app.put(observation("gone-b", "b"))
    for id_ in ("gone-a", "gone-b"):
        assert world.app.send("DELETE", f"Observation/{id_}").status_code == 204
    assert a.get("Observation/gone-a").status_code == 410
    alike(a.get("Observation/gone-b"), a.get(f"Observation/{ABSENT}"), "gone-b")
    alike(a.get("Observation/gone-b/_history/2"), a.get(f"Observation/{ABSENT}/_history/2"), "gone-b")
    # Made anew for B: the tombstone between says nothing of it.
    world.app.put(observation("gone-a", "b"))
    alike(a.get("Observation/gone-a"), a.get(f"Observation/{ABSENT}"), "gone-a")
    alike(a.get("Observation/gone-a/_history"), a.get(f"Observation/{ABSENT}/_history"), "gone-a")
    # Once B's, now A's: the versions of B's time stay hidden, and uncounted.
    world.app.put(observation("moved", "b"))
    world.app.put(observation("moved", "a"))
    history = a.get("Observation/moved/_history").json()
    assert [e["response"]["etag"] for e in history["entry"]] == ['W/"2"']
    assert "total" not in history
    alike(a.get("Observation/moved/_history/1"), a.get("Observation/moved/_history/9"), "1", "9")


def test_x2_includes_bring_nothing_of_another(a: Caller, world: World) -> None:
    world.app.put(
        resource(
            "Coverage",
            "both",
            status="active",
            beneficiary=ref("Patient/a"),
            subscriber=ref("Patient/b"),
            payor=[ref("Organization/org")],
        )
    )
    for query in (
        "Coverage?_include=Coverage:subscriber",
        "DiagnosticReport?_include=DiagnosticReport:result",
        "List?_include=List:item",
        "Patient?_include=Patient:link",
        "Observation?_include=Observation:focus",
    ):
        found = a.found(query)
        assert found
        assert of_b(found) == []


def test_x3_reverse_includes_bring_nothing_of_another(a: Caller) -> None:
    for query in (
        "Observation?_revinclude=DiagnosticReport:result",
        "Observation?_revinclude=List:item",
        "Patient?_revinclude=Observation:focus",
        "Patient?_revinclude=Patient:link",
        "Patient?_revinclude=*",
    ):
        found = a.found(query)
        assert found
        assert of_b(found) == []


def test_x4_iterated_and_wildcard_includes_check_each_step(a: Caller) -> None:
    for query in (
        "DiagnosticReport?_include=*",
        "DiagnosticReport?_include=DiagnosticReport:result&_include:iterate=Observation:*",
        "Patient?_revinclude=*&_revinclude:iterate=*&_include:iterate=*",
    ):
        found = a.found(query)
        assert "Observation/oa" in found
        assert of_b(found) == []


def test_x4_a_page_with_includes_followed_by_another_shows_what_that_one_may_see(world: World, a: Caller) -> None:
    clinician = world.person("radiologist")
    first = clinician.get("Observation?_count=1&_include=Observation:focus&_include=Observation:subject").json()
    following = next(link["url"] for link in first["link"] if link["relation"] == "next")
    assert of_b(clinician.found(following))
    assert of_b(a.found(following)) == []


def test_x5_being_mentioned_elsewhere_makes_nothing_the_patients(a: Caller) -> None:
    assert a.found("Observation?focus=Patient/a") == []
    assert "Observation/ob-focus" not in a.found("Observation")
    alike(a.get("Observation/ob-focus"), a.get(f"Observation/{ABSENT}"), "ob-focus")
    assert "Observation/ob-focus" not in a.found("Patient/a/Observation")


@pytest.mark.parametrize(
    "query",
    [
        f"Patient?_has:Observation:patient:code={LOINC}|24627-2",
        "Patient?_has:Observation:patient:code-value-quantity=24627-2$gt5",
        "Patient?_has:Observation:patient:_has:DiagnosticReport:result:status=final",
        "Encounter?_has:Observation:encounter:value-quantity=gt1",
        "Patient?_list=lb",
    ],
)
def test_x6_a_chain_over_a_type_without_scope_is_refused(world: World, query: str) -> None:
    caller = world.patient("patient/Patient.rs patient/Encounter.rs patient/Observation.r")
    for asked in (query, f"{query}&_id=none", query.replace("Patient?", "Patient?_has:Encounter:patient:_id=none&")):
        assert caller.get(asked).status_code == 403


def test_x7_chains_look_at_the_callers_part_only(a: Caller) -> None:
    assert a.found("Observation?subject:Patient.name=Muster")
    for query in (
        "Observation?subject:Patient.name=Beispiel",
        "Observation?subject:Patient.identifier=urn:example:mrn|MRN-b",
        "Observation?focus:Patient.name=Beispiel",
        "DiagnosticReport?result.subject:Patient.name=Beispiel",
        "Patient?link:Patient.name=Beispiel",
        "DiagnosticReport?result:Observation._id=ob",
        "Patient?_has:Observation:focus:_id=ob-focus",
        "Observation?_list=lb",
    ):
        assert a.found(query) == []
        assert a.total(f"{query}&_summary=count") == 0


def test_x8_no_way_of_writing_a_reference_reaches_another(a: Caller) -> None:
    base = a.app.base_url
    for value in (
        "Patient/b",
        f"{base}/fhir/Patient/b",
        "Patient/b/_history/1",
        "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0",
        "b",
    ):
        for hidden in (f"Observation?subject={value}", f"Observation?patient={value}", f"Observation?subject:Patient={value}"):
            answers = a.get(hidden), a.get(hidden.replace("Patient/b", f"Patient/{ABSENT}"))
            assert [r.json().get("entry") for r in answers if r.status_code == 200] in ([None, None], [])
            assert answers[0].status_code == answers[1].status_code
    assert a.found("Observation?subject:identifier=urn:example:mrn|MRN-b") == []
    assert set(a.found("Observation?patient=b,a")) == set(a.found("Observation?patient=a"))
    assert a.found("Patient?_id=b,a") == ["Patient/a"]


@pytest.mark.parametrize("path", ["{}/Observation", "{}/*", "{}/Observation?_summary=count", "{}/Observation?code=24627-2"])
def test_x9_the_compartment_of_another_is_not_there(a: Caller, path: str) -> None:
    hidden, absent = a.get("Patient/" + path.format("b")), a.get("Patient/" + path.format(ABSENT))
    assert hidden.status_code == 404
    alike(hidden, absent, "Patient/b", f"Patient/{ABSENT}")
    hidden, absent = a.get("Encounter/" + path.format("eb")), a.get("Encounter/" + path.format(ABSENT))
    alike(hidden, absent, "Encounter/eb", f"Encounter/{ABSENT}")
    assert of_b(a.found("Practitioner/other/*")) == []
    assert a.get("Patient/a/Practitioner").status_code in {403, 404}


def test_x10_a_posted_search_has_the_same_filter_and_overrides_are_ignored(world: World, a: Caller) -> None:
    form = "application/x-www-form-urlencoded"
    answer = a.send("POST", "Observation/_search?subject=Patient/b", b"_id=ob", Content_Type=form)
    assert answer.json().get("entry") is None
    answer = a.send("POST", "Patient/_search", f"access_token={world.patient(patient='b').bearer}".encode(), Content_Type=form)
    assert answer.status_code == 400
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        answer = a.send("GET", "Observation/oa", **{header: "DELETE"})
        assert (answer.status_code, answer.json()["id"]) == (200, "oa")
    assert a.get("Observation/oa?_method=DELETE").status_code == 400


def test_x11_counts_sorts_and_plans_are_of_what_is_visible(a: Caller, world: World) -> None:
    mine = len(a.found("Observation?subject=Patient/a"))
    assert a.total("Observation?_total=accurate") == mine
    assert a.total("Observation?_summary=count") == mine
    assert a.total("Observation?_count=0") == mine
    assert a.total("Observation?value-quantity=7&_total=accurate&_elements=id") == mine - 1
    assert a.total("Observation?value-quantity=9&_sort=-date,code&_total=accurate") == 1
    assert of_b(a.found("Observation?_sort=code,-_lastUpdated&_count=1")) == []
    assert a.total("?_type=Observation,Patient&_total=accurate") == mine + 1
    answer = a.get("Observation?code=24627-2&_explain=true")
    assert answer.status_code == 403
    assert world.app.get("Observation?code=24627-2&_explain=true").status_code == 200


@pytest.mark.parametrize(
    "path", ["Observation/_history", "_history", "_history?_type=Observation", "Patient/_history?_since=2020-01-01"]
)
def test_x12_histories_of_all_are_refused_to_who_sees_a_part(a: Caller, world: World, path: str) -> None:
    for caller in (a, world.person("radiologist"), world.caller("system/*.rs?status=final")):
        assert caller.get(path).status_code == 403
    assert world.caller("system/Observation.r").get("Observation/_history").status_code == 403


def test_x13_each_entry_of_a_bundle_is_judged(a: Caller, writer: Caller) -> None:
    answer = a.bundle(
        "batch",
        entry("GET", "Patient/a"),
        entry("GET", "Patient/b"),
        entry("GET", f"Patient/{ABSENT}"),
        entry("GET", "Observation?subject=Patient/b"),
        entry("GET", "Practitioner/rad"),
        put(observation("oa", "a")),
        entry("GET", "Observation/_history"),
        entry("GET", "Patient/b/_history/1"),
    )
    assert [e["response"]["status"] for e in answer.json()["entry"]] == ["200", "404", "404", "200", "403", "403", "403", "404"]
    assert "entry" not in answer.json()["entry"][3]["resource"]
    for hidden, absent in (
        ("Patient/b", f"Patient/{ABSENT}"),
        ("Patient/b/_history/1", f"Patient/{ABSENT}/_history/1"),
        ("Patient/b/_history", f"Patient/{ABSENT}/_history"),
    ):
        answers = [a.bundle("transaction", entry("GET", "Patient/a"), entry("GET", url)) for url in (hidden, absent)]
        assert answers[0].status_code == 404
        alike(answers[0], answers[1], "b")
    assert a.bundle("transaction", entry("GET", "Patient/a"), entry("GET", "Practitioner/rad")).status_code == 403
    # All or nothing.
    mine, id_ = observation("x", "a"), unused("urn:example:")
    del mine["id"]
    mine["identifier"] = [{"system": "urn:example", "value": id_}]
    answer = writer.bundle("transaction", post(mine), post({**observation("x", "b"), "id": "y"}))
    assert answer.status_code == 403
    assert a.found(f"Observation?identifier={id_}") == []


def test_x13_references_in_a_bundle_reach_what_the_caller_sees(writer: Caller) -> None:
    def sent(subject: str, focus: str | None = None) -> Resource:
        made = observation("x", "a") | {"subject": ref(subject)} | ({"focus": [ref(focus)]} if focus else {})
        return {k: v for k, v in made.items() if k != "id"}

    assert writer.bundle("transaction", post(sent("Patient?identifier=urn:example:mrn|MRN-a"))).status_code == 200
    hidden = writer.bundle("transaction", post(sent("Patient?identifier=urn:example:mrn|MRN-b")))
    absent = writer.bundle("transaction", post(sent("Patient?identifier=urn:example:mrn|MRN-x")))
    assert hidden.status_code == 412
    alike(hidden, absent, "MRN-b", "MRN-x")
    # By the id of an entry: what is written there is judged itself.
    urn = "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"
    answer = writer.bundle("transaction", post(sent("Patient/a", urn)), post(sent("Patient/a"), urn))
    assert answer.status_code == 200
    # Named as if it were to be written or deleted in the same Bundle.
    for others in ([entry("DELETE", "Patient/b")], [put(resource("Patient", "b"))], []):
        hidden = writer.bundle("transaction", post(sent("Patient/a", "Patient/b")), *others)
        for e in others:
            e["request"]["url"] = f"Patient/{ABSENT}"
            if "resource" in e:
                e["resource"]["id"] = ABSENT
        absent = writer.bundle("transaction", post(sent("Patient/a", f"Patient/{ABSENT}")), *others)
        assert hidden.status_code in {404, 422}
        alike(hidden, absent, "Patient/b", f"Patient/{ABSENT}")
    assert writer.get("Patient/b").status_code == 404


def test_x14_conditions_search_the_callers_part(world: World, writer: Caller) -> None:
    identifier = [{"system": "urn:example", "value": "of-b"}]
    world.app.put(observation("cond-b", "b", identifier=identifier))
    mine = {k: v for k, v in observation("x", "a", identifier=identifier).items() if k != "id"}
    made = writer.post(mine, If_None_Exist="identifier=urn:example|of-b")
    assert made.status_code == 201
    assert writer.post(mine, If_None_Exist="identifier=urn:example|of-b").status_code == 200
    changed = writer.send("PUT", "Observation?identifier=urn:example|of-b", mine | {"status": "amended"})
    assert (changed.status_code, changed.json()["id"]) == (200, made.json()["id"])
    patch = {
        "resourceType": "Parameters",
        "parameter": [
            {
                "name": "operation",
                "part": [
                    {"name": "type", "valueCode": "replace"},
                    {"name": "path", "valueString": "Observation.status"},
                    {"name": "value", "valueCode": "final"},
                ],
            }
        ],
    }
    assert writer.send("PATCH", "Observation?identifier=urn:example|of-b", patch).status_code == 200
    hidden, absent = (writer.send("PATCH", f"Observation?_id={i}", patch) for i in ("cond-b", ABSENT))
    alike(hidden, absent, "cond-b")
    assert (
        writer.send("DELETE", "Observation?identifier=urn:example|of-b&_count=9")
        .json()["issue"][0]["diagnostics"]
        .startswith("1 ")
    )
    assert writer.send("DELETE", "Observation?identifier=urn:example|of-b").status_code == 204
    kept = world.app.get("Observation/cond-b").json()
    assert (kept["meta"]["versionId"], kept["status"]) == ("1", "final")
    hidden, absent = (
        writer.send("PUT", f"Observation?identifier=urn:example|none-{i}", mine | {"id": i}) for i in ("cond-b", ABSENT)
    )
    assert hidden.status_code == 404
    alike(hidden, absent, "cond-b")


def test_x14_a_condition_needs_the_scope_to_search(world: World) -> None:
    caller = world.patient("patient/Observation.cud")
    mine = {k: v for k, v in observation("x", "a").items() if k != "id"}
    assert caller.post(mine, If_None_Exist="identifier=x").status_code == 403
    assert caller.send("PUT", "Observation?identifier=x", mine).status_code == 403
    assert caller.send("DELETE", "Observation?identifier=x").status_code == 403
    assert caller.bundle("transaction", entry("DELETE", "Observation?identifier=x")).status_code == 403


def test_x15_nothing_is_written_into_or_out_of_another_compartment(world: World, writer: Caller) -> None:
    for subject in ("b", ABSENT):
        answer = writer.post({k: v for k, v in observation("x", subject).items() if k != "id"})
        assert answer.status_code == 403
    id_ = writer.post({k: v for k, v in observation("x", "a").items() if k != "id"}).json()["id"]
    assert writer.put(observation(id_, "b")).status_code == 403
    json_patch = json.dumps([{"op": "replace", "path": "/subject/reference", "value": "Patient/b"}]).encode()
    assert writer.send("PATCH", f"Observation/{id_}", json_patch, Content_Type="application/json-patch+json").status_code == 403
    assert world.app.get(f"Observation/{id_}").json()["subject"] == ref("Patient/a")
    for hidden, absent in (("ob", ABSENT),):
        alike(writer.put(observation(hidden, "a")), writer.put(observation(absent, "a")), hidden)
        assert writer.put(observation(hidden, "a")).status_code == 404
        alike(
            writer.put(observation(hidden, "a"), If_Match='W/"1"'), writer.put(observation(absent, "a"), If_Match='W/"1"'), hidden
        )
        alike(
            writer.put(observation(hidden, "a"), If_None_Match="*"),
            writer.put(observation(absent, "a"), If_None_Match="*"),
            hidden,
        )
        patches = [
            writer.send("PATCH", f"Observation/{i}", json_patch, Content_Type="application/json-patch+json")
            for i in (hidden, absent)
        ]
        alike(*patches, hidden)
        alike(writer.send("DELETE", f"Observation/{hidden}"), writer.send("DELETE", f"Observation/{absent}"), hidden)
    assert world.app.get("Observation/ob").json()["meta"]["versionId"] == "1"


def test_x15_a_write_never_hands_its_resource_to_two_patients(writer: Caller) -> None:
    """Being A's by one parameter does not let it name B by another."""
    shared = resource("Communication", "x", status="completed", subject=ref("Patient/a"), recipient=[ref("Patient/b")])
    hidden = writer.post({k: v for k, v in shared.items() if k != "id"})
    absent = writer.post({k: v for k, v in shared.items() if k != "id"} | {"recipient": [ref(f"Patient/{ABSENT}")]})
    assert hidden.status_code == 422
    alike(hidden, absent, "Patient/b", f"Patient/{ABSENT}")


@pytest.mark.parametrize("kind", ["List", "Provenance", "Composition"])
def test_x16_what_points_to_another_can_not_be_written_and_does_not_lead_there(writer: Caller, a: Caller, kind: str) -> None:
    def sent(to: str) -> Resource:
        made: dict[str, Resource] = {
            "List": {"status": "current", "mode": "working", "subject": ref("Patient/a"), "entry": [{"item": ref(to)}]},
            "Provenance": {
                "target": [ref("Patient/a"), ref(to)],
                "recorded": "2026-01-01T00:00:00Z",
                "agent": [{"who": {"display": "app"}}],
            },
            "Composition": {
                "status": "final",
                "type": {"text": "note"},
                "subject": ref("Patient/a"),
                "date": "2026-01-01",
                "title": "note",
                "author": [ref("Patient/a")],
                "section": [{"title": "all", "entry": [ref(to)]}],
            },
        }
        return {"resourceType": kind, **made[kind]}

    assert writer.post(sent("Observation/oa")).status_code == 201
    hidden, absent = writer.post(sent("Observation/ob")), writer.post(sent(f"Observation/{ABSENT}"))
    assert hidden.status_code == 422
    alike(hidden, absent, "Observation/ob", f"Observation/{ABSENT}")
    # What others have written so (List/la) leads nowhere either.
    assert of_b(a.found("Patient/a/$everything")) == []
    assert of_b(a.found("List?_id=la&_include=List:item")) == []


def test_x17_operations_stay_within_the_patient_and_the_scopes(world: World, a: Caller, writer: Caller) -> None:
    everything = a.found("Patient/a/$everything")
    assert {"Patient/a", "Observation/oa", "DiagnosticReport/dra"} <= set(everything)
    assert of_b(everything) == []
    for name in ("$everything", "$meta"):
        alike(a.get(f"Patient/b/{name}"), a.get(f"Patient/{ABSENT}/{name}"), "Patient/b")
    narrow = world.patient("patient/Patient.rs patient/Observation.rs?category=vital-signs patient/DiagnosticReport.r")
    assert set(narrow.found("Patient/a/$everything")) == {"Patient/a", "Observation/oa-vital"}
    assert narrow.get("Patient/a/$everything?_type=DiagnosticReport").status_code == 403
    assert world.patient("patient/Observation.rs").get("Patient/a/$everything").status_code == 403
    for path in (
        "Observation/{}/$validate?mode=delete",
        "Observation/{}/$validate?mode=profile&profile=http://example.org/p",
        "Observation/{}/$validate",
    ):
        body: Any = {"resourceType": "Parameters"} if path.endswith("delete") else None
        answers = [writer.send("POST" if body else "GET", path.format(i), body) for i in ("ob", ABSENT)]
        alike(answers[0], answers[1], "ob")
    alike(*(writer.send("POST", f"Observation/{i}/$validate?mode=update", observation(i, "a")) for i in ("ob", ABSENT)), "ob")
    tag: Resource = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "x"}]}}]}
    for name in ("$meta-add", "$meta-delete"):
        alike(*(writer.send("POST", f"Observation/{i}/{name}", tag) for i in ("ob", ABSENT)), "ob")
    for name in ("Patient/b/$expunge", "Observation/$lastn", "Observation/ob/$graph", "Composition/x/$document"):
        assert a.get(name).status_code == 404


def test_x18_there_is_no_graphql(a: Caller) -> None:
    """Refused: GraphQL is not offered, so there is nothing to nest, alias or deepen."""
    for path in ("$graphql?query={PatientList{id}}", "Patient/b/$graphql?query={id}"):
        answer = a.get(path)
        assert (answer.status_code, answer.json()["issue"][0]["code"]) == (404, "not-supported")


def test_x19_there_is_no_bulk_export(a: Caller, world: World) -> None:
    """Refused: bulk export is not offered, so there are no jobs and no files."""
    for caller in (a, world.person("radiologist"), world.caller("system/*.cruds")):
        for path in ("$export", "Patient/$export", "Group/x/$export"):
            assert caller.get(path, Prefer="respond-async").status_code == 404


def test_x20_a_subscription_delivers_nothing(writer: Caller, world: World) -> None:
    """Subscriptions are not delivered yet; no patient's app and no role may so much as store one."""
    wanted = {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "x",
        "criteria": "Observation?subject=Patient/b",
        "channel": {"type": "rest-hook", "endpoint": "https://example.org/hook"},
    }
    for caller in (writer, *(world.person(role) for role in ("radiologist", "admin", "interface-admin"))):
        assert caller.post(wanted).status_code == 403


def test_x21_a_page_link_gives_its_follower_its_own_rights(world: World, a: Caller) -> None:
    clinician = world.person("radiologist")
    for query in (
        "Observation?_count=2&subject=Patient/b",
        "Patient?_count=1",
        "Patient/b/$everything?_count=2",
        "Patient/b/Observation?_count=1",
        "?_type=Patient,Observation&_count=3",
    ):
        first = clinician.get(query).json()
        following = next(link["url"] for link in first["link"] if link["relation"] == "next")
        assert clinician.get(following).status_code == 200
        answer = a.get(following)
        assert answer.status_code in {200, 404}
        shown = [f"{e['resource']['resourceType']}/{e['resource'].get('id')}" for e in answer.json().get("entry", ())]
        assert of_b(shown) == []
        assert world.patient("patient/Encounter.rs").get(following).status_code in {403, 404}
    world.app.put(observation("pages", "a"))
    world.app.put(observation("pages", "a", value=8))
    assert a.get("Observation/pages/_history?_page=forged").status_code == 400


def test_x22_each_scope_gives_its_own_actions_only(world: World) -> None:
    mixed = world.patient("patient/Observation.r patient/Condition.s")
    assert mixed.get("Observation/oa").status_code == 200
    assert mixed.get("Observation").status_code == 403
    assert mixed.get("Condition").status_code == 200
    assert mixed.get("Condition/x").status_code == 403
    assert mixed.get("Condition?_include=Condition:evidence-detail").status_code == 200
    creator = world.patient("patient/Observation.c")
    made = creator.post({k: v for k, v in observation("x", "a").items() if k != "id"})
    assert (made.status_code, made.content) == (201, b"")
    assert creator.get(made.headers["Location"]).status_code == 403
    updater = world.patient("patient/Observation.u")
    answer = updater.put(observation(made.headers["Location"].split("/")[-3], "a", value=8))
    assert (answer.status_code, answer.content) == (200, b"")


QUERY = "patient/Observation.cruds?category=laboratory"


def test_x23_a_scope_with_a_query_holds_on_every_path(world: World) -> None:
    caller = world.patient(f"{QUERY} patient/DiagnosticReport.rs patient/Patient.rs")
    world.app.put(report("lab-only", "a", result=[ref("Observation/oa"), ref("Observation/oa-vital")]))
    assert "Observation/oa-vital" not in caller.found("Observation")
    assert caller.found("Observation?category=vital-signs") == []
    assert caller.total("Observation?category=vital-signs&_summary=count") == 0
    for path in ("{}", "{}/_history", "{}/_history/1"):
        alike(caller.get("Observation/" + path.format("oa-vital")), caller.get("Observation/" + path.format(ABSENT)), "oa-vital")
    shown = caller.found("DiagnosticReport?_id=lab-only&_include=DiagnosticReport:result")
    assert shown == ["DiagnosticReport/lab-only", "Observation/oa"]
    assert caller.found("DiagnosticReport?result:Observation._id=oa-vital") == []
    assert "Observation/oa-vital" not in caller.found("Patient/a/$everything")
    # A change from one category to the other, either way, and one without any.
    id_ = caller.post({k: v for k, v in observation("x", "a").items() if k != "id"}).json()["id"]
    assert caller.put(observation(id_, "a", "vital-signs")).status_code == 403
    assert caller.put({k: v for k, v in observation(id_, "a").items() if k != "category"}).status_code == 403
    alike(caller.put(observation("oa-vital", "a")), caller.put(observation(ABSENT, "a")), "oa-vital")
    assert caller.post({k: v for k, v in observation("x", "a", "vital-signs").items() if k != "id"}).status_code == 403
    alike(caller.send("DELETE", "Observation/oa-vital"), caller.send("DELETE", f"Observation/{ABSENT}"), "oa-vital")
    assert world.app.get("Observation/oa-vital").status_code == 200
    # A version from before it came into the category stays hidden.
    world.app.put(observation("turned", "a", "vital-signs"))
    world.app.put(observation("turned", "a"))
    assert len(caller.get("Observation/turned/_history").json()["entry"]) == 1


@pytest.mark.parametrize(
    "scope",
    [
        "patient/Observation.read-only",
        "patient/Observation.rsXYZ",
        "patient/Observation.rs?active",
        "patient/Observation.sr",
        "patient/Observation.rs?category:in=x",
        "patient/Observation.rs?subject.name=x",
        "patient/Observation.rs?nonsense=x",
        "patient/Observation.rs?date=2026",
        "patient/Observation.rs?_id=oa",
        "patient/Observation.rs?category=a&category=b",
    ],
)
def test_x24_a_scope_that_is_not_wholly_understood_gives_nothing(world: World, scope: str) -> None:
    caller = world.patient(scope)
    assert caller.get("Observation").status_code == 403
    assert caller.get("Observation/oa").status_code == 403


def test_x25_scopes_of_several_levels_never_lose_their_limits(world: World) -> None:
    mixed = world.person("radiologist", "patient/Observation.rs user/DiagnosticReport.rs system/Encounter.rs", patient="a")
    assert of_b(mixed.found("Observation")) == []
    assert {"DiagnosticReport/dra", "DiagnosticReport/drb"} <= set(mixed.found("DiagnosticReport"))
    # system/ is for machines: in the token of a person it counts for nothing.
    assert mixed.get("Encounter").status_code == 403
    # A person's own rights are an upper limit for patient/ scopes too.
    assert world.person("scheduler", "patient/*.rs", patient="a").get("DiagnosticReport").status_code == 403
    assert of_b(world.person("scheduler", "patient/*.rs", patient="a").found("Patient")) == []
    # user/ without anybody, and both levels of a backend client.
    backend = world.caller("user/Observation.rs system/Encounter.rs patient/DiagnosticReport.rs", patient="a")
    assert backend.get("Observation").status_code == 403
    assert "Encounter/eb" in backend.found("Encounter")
    assert of_b(backend.found("DiagnosticReport")) == []


def test_x26_without_a_patient_or_a_person_the_scope_gives_nothing(world: World) -> None:
    callers = [
        world.caller("patient/*.cruds"),
        world.caller("patient/*.cruds", patient="a/../b"),
        world.caller("user/*.cruds"),
        world.caller("user/*.cruds", role="radiologist", user_name="somebody"),
        world.caller("user/*.cruds", user="Practitioner/rad"),
        world.caller("user/*.cruds", user="Practitioner/rad", user_name="somebody", role="no-such-role"),
        world.caller("patient/*.cruds", user="Practitioner/rad", user_name="somebody", patient="a"),
    ]
    for caller in callers:
        for path in ("Patient/a", "Patient", "Observation?code=x", "Patient/a/$everything", "Patient/_history", "Patient/a/*"):
            assert caller.get(path).status_code == 403
        assert caller.post({"resourceType": "Patient"}).status_code == 403


def test_x27_links_between_records_and_contained_resources_lead_nowhere(world: World, a: Caller, writer: Caller) -> None:
    world.app.put(resource("Patient", "old"))
    world.app.put(observation("of-old", "old"))
    world.app.put(resource("Patient", "old", active=False, link=[{"other": ref("Patient/a"), "type": "replaced-by"}]))
    assert a.found("Patient?link=Patient/a") == []
    alike(a.get("Patient/old"), a.get(f"Patient/{ABSENT}"), "Patient/old")
    alike(a.get("Observation/of-old"), a.get(f"Observation/{ABSENT}"), "of-old")
    merged = world.patient(patient="old")
    assert merged.found("Patient") == ["Patient/old"]
    assert merged.found("Observation") == ["Observation/of-old"]
    mine = world.app.get("Patient/a").json()
    assert writer.put(mine | {"link": [{"other": ref("Patient/a"), "type": "seealso"}]}).status_code == 403
    assert writer.put({k: v for k, v in mine.items() if k != "link"}).status_code == 403
    inside = observation("x", "a") | {"contained": [{"resourceType": "Patient", "id": "p"}], "subject": ref("#p")}
    assert writer.post({k: v for k, v in inside.items() if k != "id"}).status_code == 403


def test_x28_refusals_say_nothing_of_what_is_hidden(world: World, writer: Caller) -> None:
    mine = {k: v for k, v in observation("x", "a").items() if k != "id"}
    for element, hidden in (("encounter", "Encounter/eb"), ("specimen", "Specimen/x"), ("basedOn", "ServiceRequest/srb")):
        value = [ref(hidden)] if element == "basedOn" else ref(hidden)
        other = [ref(f"{hidden.split('/')[0]}/{ABSENT}")] if element == "basedOn" else ref(f"{hidden.split('/')[0]}/{ABSENT}")
        alike(
            writer.post(mine | {element: value}), writer.post(mine | {element: other}), hidden, f"{hidden.split('/')[0]}/{ABSENT}"
        )
    # The department's rules look at what is referred to (a report is of its study's patient): only at what the caller sees.
    made = {k: v for k, v in report("x", "a", "preliminary").items() if k != "id"}
    answers = [writer.post(made | {"imagingStudy": [ref(f"ImagingStudy/{i}")]}) for i in ("isb", ABSENT)]
    alike(answers[0], answers[1], "ImagingStudy/isb", f"ImagingStudy/{ABSENT}")
    # What is in the way is not named.
    world.app.put(
        resource(
            "ImagingStudy",
            "of-b",
            status="available",
            subject=ref("Patient/b"),
            identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:2.25.4711"}],
        )
    )
    study = {
        "resourceType": "ImagingStudy",
        "status": "available",
        "subject": ref("Patient/a"),
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:2.25.4711"}],
    }
    refused = writer.post(study)
    assert refused.status_code == 409
    assert "of-b" not in refused.text
    world.app.put(observation("held", "a"))
    world.app.put(observation("holder", "b", derivedFrom=[ref("Observation/held")]))
    refused = writer.send("DELETE", "Observation/held")
    assert refused.status_code == 409
    assert "holder" not in refused.text
    for method in ("PUT", "DELETE"):
        body = observation("ob", "a") if method == "PUT" else None
        hidden_answer = writer.send(method, "Observation/ob", body, If_Match='W/"1"')
        absent_answer = writer.send(method, f"Observation/{ABSENT}", body and body | {"id": ABSENT}, If_Match='W/"1"')
        alike(hidden_answer, absent_answer, "ob")
    alike(writer.get("Observation/ob", If_None_Match='W/"1"'), writer.get(f"Observation/{ABSENT}", If_None_Match='W/"1"'), "ob")


def test_x29_value_sets_and_excesses_are_bounded(world: World, a: Caller) -> None:
    assert a.get("Observation?code:in=http://example.org/vs").status_code == 403
    own = world.patient("patient/*.rs patient/ValueSet.cruds")
    assert own.post({"resourceType": "ValueSet", "status": "active", "url": "http://example.org/vs"}).status_code == 403
    assert len(a.get("Observation?_count=1000000000").json().get("entry", ())) < 1001
    assert a.get("Observation?_count=1e9").status_code == 400
    for query in (
        "Observation?code=" + "x," * 10_000,
        "Observation?subject:Patient." + "link:Patient." * 12 + "name=x",
        "Observation?_filter=code eq x",
    ):
        assert a.get(query).status_code in {400, 414, 422}
    for value in ("$where", "this.x=='b'||true", '{"$ne":null}', "^.*$"):
        assert a.get("Patient", Accept=JSON).status_code == 200
        assert a.found(f"Observation?code={httpx.QueryParams({'v': value})['v'].replace('=', '%3D').replace('|', '%7C')}") == []


def test_x30_binaries_are_those_of_the_patient(a: Caller, world: World) -> None:
    """A Binary is its securityContext's. WADO is not offered: images are in the PACS."""
    assert a.get("Binary/bina").status_code == 200
    alike(a.get("Binary/binb"), a.get(f"Binary/{ABSENT}"), "binb")
    world.app.put(resource("Binary", "of-nobody", contentType="text/plain", data="dGV4dA=="))
    alike(a.get("Binary/of-nobody"), a.get(f"Binary/{ABSENT}"), "of-nobody")
    for path in ("/wado?requestType=WADO", "/dicomweb/studies", "/fhir/Binary/binb/$binary-access-read"):
        answer = httpx.get(world.app.base_url + path, headers={"Authorization": f"Bearer {a.bearer}"})
        assert answer.status_code == 404


def test_x31_there_is_no_query_by_v2(world: World) -> None:
    """Refused: the v2 door has no message that asks for data (QBP, QRY)."""
    assert not [kind for kind in map(str, MESSAGES) if kind.startswith(("QBP", "QRY", "('QBP", "('QRY"))]


def test_x32_only_an_auditor_reads_the_audit_trail(world: World) -> None:
    a = world.patient("patient/*.rs patient/AuditEvent.rs")
    clinicians = [world.person(r) for r in ("radiologist", "scheduler", "technologist", "referrer", "admin", "interface-admin")]
    for caller in (a, *clinicians):
        assert caller.get("AuditEvent").status_code == 403
        assert caller.get("AuditEvent/x").status_code == 403
    assert [r for r in a.found("Patient?_revinclude=AuditEvent:patient") if r.startswith("Audit")] == []
    assert not [r for r in a.found("Patient/a/$everything") if r.startswith("AuditEvent")]
    assert world.person("auditor").get("AuditEvent").status_code == 200


def test_x33_what_a_role_loses_its_tokens_lose(world: World) -> None:
    """Rights are those of this moment: what is labelled or denied meanwhile is gone for tokens that are older."""
    app, caller = world.app, world.person("scheduler")
    app.put(resource("Patient", "later"))
    assert caller.get("Patient/later").status_code == 200
    app.put(resource("Patient", "later", meta=label("V")))
    app.run(_forget(app))
    assert caller.get("Patient/later").status_code == 404
    app.run(app.db["oauth_tokens"].update_many({"user_name": "example-scheduler"}, {"$set": {"role": "auditor"}}))
    app.run(_forget(app))
    assert caller.get("Patient/a").status_code == 403
    app.run(app.db["oauth_tokens"].update_many({"user_name": "example-scheduler"}, {"$set": {"role": "scheduler"}}))


async def _forget(app: FhirApp) -> None:
    """What happens within a second by itself."""
    app.tokens._cache.clear()


def test_x34_answers_are_for_their_caller_only(world: World, a: Caller) -> None:
    clinician = world.person("radiologist")
    for path in ("Observation/ob", "Observation", "Patient/b/_history"):
        seen = clinician.get(path)
        assert "no-store" in seen.headers["Cache-Control"]
        tag = seen.headers.get("ETag", 'W/"1"')
        assert a.get(path, If_None_Match=tag).status_code in {200, 404}
    assert of_b(a.found("Observation")) == []
    assert clinician.get("Observation/ob", If_None_Match='W/"1"').status_code == 304
    assert of_b(a.found("Observation")) == []


def test_x35_hidden_and_absent_take_the_same_looks(world: World, a: Caller) -> None:
    """Not the clock, but what the database is asked: the same commands, one for one."""

    async def commands(path: str) -> list[tuple[str, str]]:
        await world.app.db["system.profile"].drop()
        await world.app.db.command("profile", 2)
        await asyncio.to_thread(a.get, path)
        await world.app.db.command("profile", 0)
        rows = world.app.db["system.profile"].find({"ns": {"$regex": r"\.(Observation|Patient)(_history)?$"}})
        # The look for labelled patients is the token's, once a second.
        return [(d["op"], d["ns"].partition(".")[2]) async for d in rows if d["command"].get("limit") != MOST + 1]

    for hidden, absent in (
        ("Observation/ob", f"Observation/{ABSENT}"),
        ("Observation/ob/_history/1", f"Observation/{ABSENT}/_history/1"),
        ("Observation?_id=ob", f"Observation?_id={ABSENT}"),
        ("Patient/b/*", f"Patient/{ABSENT}/*"),
    ):
        assert world.app.run(commands(hidden)) == world.app.run(commands(absent)) != []


def test_an_order_of_a_restricted_caller_follows_the_departments_rules(writer: Caller, world: World) -> None:
    """What the rules and reactions write in its wake is not the caller's write."""
    made = writer.post({k: v for k, v in order("x", "a", "ref").items() if k not in {"id", "requester"}})
    assert made.status_code == 201
    assert made.json()["subject"] == ref("Patient/a")
