"""Transactions are all or nothing, batches each for itself; links among the entries lead to what they mean."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fhir_app import ALL, FhirApp, entry, issues, load, patient, post, put, serving, unused

Resource = dict[str, Any]


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, core=True) as running:
        yield running


def done(answer: httpx.Response) -> list[Resource]:
    """The entries of a response."""
    assert answer.status_code == 200, answer.text
    return list(load(answer).get("entry", []))


def statuses(answer: httpx.Response) -> list[str]:
    return [e["response"]["status"] for e in done(answer)]


def observation(subject: str, **elements: Any) -> Resource:
    reference = {"reference": subject}
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": reference, **elements}


# Transactions


def test_each_entry_is_answered_in_its_place_whatever_the_order_of_processing(app: FhirApp) -> None:
    a, b, c = (app.create(patient()) for _ in range(3))
    answer = app.bundle(
        "transaction",
        entry("GET", f"Patient/{a['id']}"),
        put(a | {"gender": "male"}),
        post(patient(birthDate="2000")),
        entry("DELETE", f"Patient/{b['id']}"),
        put(patient(id=unused("new-"))),
        entry("GET", f"Patient/{c['id']}"),
        entry("DELETE", "Patient/nobody"),
    )
    assert load(answer)["type"] == "transaction-response"
    assert statuses(answer) == ["200", "200", "201", "204", "201", "200", "204"]
    got = done(answer)
    assert got[0]["resource"]["gender"] == "male"  # reading comes last
    assert got[1]["response"]["location"] == f"Patient/{a['id']}/_history/2"
    assert got[1]["response"]["etag"] == 'W/"2"'
    assert got[2]["response"]["lastModified"] == got[2]["resource"]["meta"]["lastUpdated"]
    assert load(app.get(f"Patient/{got[2]['resource']['id']}")) == got[2]["resource"]
    assert app.get(f"Patient/{b['id']}").status_code == 410


def test_links_among_entries_lead_to_what_is_made_wherever_they_stand(app: FhirApp) -> None:
    urns = {n: f"urn:uuid:{n * 8}-{n * 4}-4{n * 3}-8{n * 3}-{n * 12}" for n in "abc"}
    div = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{urns["a"]}">x</a> {urns["a"]} <img src=\'{urns["b"]}\'/></div>'
    note = {
        "resourceType": "Observation",
        "contained": [{"resourceType": "Organization", "id": "o", "name": "x", "partOf": {"reference": urns["c"]}}],
        "text": {"status": "generated", "div": div},
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": urns["a"]}],
        "status": "final",
        "code": {"text": urns["a"]},
        "subject": {"reference": urns["a"], "display": urns["a"]},
        "performer": [{"reference": "#o"}, {"reference": urns["b"]}],
        "extension": [
            {"url": "http://example.org/r", "valueReference": {"reference": urns["a"]}},
            {"url": "http://example.org/u", "valueUri": urns["a"]},
            {"url": "http://example.org/c", "valueCanonical": urns["a"]},
            {"url": "http://example.org/s", "valueString": urns["a"]},
        ],
        "_effectiveDateTime": {"extension": [{"url": "http://example.org/u", "valueUri": urns["b"]}]},
    }
    answer = app.bundle(
        "transaction",
        post(note),
        post({"resourceType": "Practitioner"}, urns["b"]),
        post(patient(), urns["a"]),
        post({"resourceType": "Organization", "name": "x"}, urns["c"]),
    )
    made, practitioner, person, organization = [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in done(answer)]
    found = load(app.get(made))
    assert found["subject"] == {"reference": person, "display": urns["a"]}
    assert found["performer"] == [{"reference": "#o"}, {"reference": practitioner}]
    assert found["contained"][0]["partOf"]["reference"] == organization
    assert found["text"]["div"] == div.replace(f'href="{urns["a"]}"', f'href="{person}"').replace(urns["b"], practitioner)
    assert found["identifier"][0]["value"] == found["code"]["text"] == urns["a"]
    values = [v for e in found["extension"] for k, v in e.items() if k != "url"]
    assert values == [{"reference": person}, person, urns["a"], urns["a"]]
    assert found["_effectiveDateTime"]["extension"][0]["valueUri"] == practitioner
    assert app.ids(f"Observation?subject={person}") == [found["id"]]


def test_entries_may_be_named_by_addresses_of_elsewhere_or_here(app: FhirApp) -> None:
    name = unused("here-")
    answer = app.bundle(
        "transaction",
        entry("POST", "Observation", observation("Patient/7"), "https://old.example/fhir/Observation/1"),
        entry("POST", "Patient", patient(), "https://old.example/fhir/Patient/7"),
        entry("POST", "Observation", observation(f"{app.base_url}/fhir/Patient/{name}")),
        entry("PUT", f"Patient/{name}", patient(id=name), f"{app.base_url}/fhir/Patient/{name}"),
        entry("POST", "Observation", observation("https://old.example/fhir/Patient/7"), "urn:uuid:1"),
    )
    got = [e["resource"] for e in done(answer)]
    assert [g["subject"]["reference"] for g in (got[0], got[2], got[4])] == [
        f"Patient/{got[1]['id']}",
        f"Patient/{name}",
        f"Patient/{got[1]['id']}",
    ]


def test_a_link_to_an_entry_that_is_not_there_is_refused(app: FhirApp) -> None:
    answer = app.bundle("transaction", post(patient(), "urn:uuid:1"), post(observation("urn:uuid:2"), "urn:uuid:3"))
    assert (answer.status_code, issues(answer)) == (422, [("value", "Bundle.entry[1].resource.subject")])


def test_a_conditional_reference_outside_of_a_transaction_is_refused_rather_than_kept_as_it_is(app: FhirApp) -> None:
    for answer in (
        app.bundle("batch", post(observation("Patient?identifier=urn:x|1"))),
        app.send("POST", "Observation", observation("Patient?identifier=urn:x|1")),
    ):
        assert "not-supported" in answer.text
        assert answer.status_code == 422 or statuses(answer) == ["422"]


def test_resources_of_one_transaction_may_refer_to_each_other_in_a_circle(app: FhirApp) -> None:
    def linked(to: str) -> Resource:
        return patient(link=[{"type": "seealso", "other": {"reference": to}}])

    answer = app.bundle("transaction", post(linked("urn:uuid:2"), "urn:uuid:1"), post(linked("urn:uuid:1"), "urn:uuid:2"))
    first, second = [e["resource"] for e in done(answer)]
    assert first["link"][0]["other"]["reference"] == f"Patient/{second['id']}"
    assert second["link"][0]["other"]["reference"] == f"Patient/{first['id']}"
    assert app.send("DELETE", f"Patient/{first['id']}").status_code == 409
    both = app.bundle("transaction", *[entry("DELETE", f"Patient/{r['id']}") for r in (first, second)])
    assert statuses(both) == ["204", "204"]


def test_what_still_refers_may_stop_doing_so_in_the_same_transaction(app: FhirApp) -> None:
    a, b = app.create(patient()), app.create(patient())
    note = app.create(observation(f"Patient/{a['id']}"))
    changed = note | {"subject": {"reference": f"Patient/{b['id']}"}}
    assert statuses(app.bundle("transaction", entry("DELETE", f"Patient/{a['id']}"), put(changed))) == ["204", "200"]
    answer = app.bundle("transaction", entry("DELETE", f"Patient/{b['id']}"), post(observation(f"Patient/{b['id']}")))
    assert (answer.status_code, issues(answer)) == (422, [("value", "Bundle.entry[1].resource.subject")])
    answer = app.bundle("transaction", post(patient()), entry("DELETE", f"Patient/{b['id']}"))
    assert (answer.status_code, issues(answer)) == (409, [("conflict", "Bundle.entry[1]")])


def test_if_match_is_judged_inside_the_transaction(app: FhirApp) -> None:
    a, b = app.create(patient()), app.create(patient())
    answer = app.bundle("transaction", put(a | {"gender": "male"}), put(b | {"gender": "male"}, ifMatch='W/"2"'))
    assert (answer.status_code, issues(answer)) == (412, [("conflict", "Bundle.entry[1].resource")])
    assert load(app.get(f"Patient/{a['id']}")) == a
    answer = app.bundle("transaction", entry("DELETE", f"Patient/{a['id']}", ifMatch='W/"2"'))
    assert (answer.status_code, issues(answer)) == (412, [("conflict", "Bundle.entry[0]")])
    answer = app.bundle("transaction", put(a, ifMatch="2"))
    assert (answer.status_code, issues(answer)) == (400, [("value", "Bundle.entry[0].request.ifMatch")])
    assert statuses(app.bundle("transaction", put(b | {"gender": "male"}, ifMatch='W/"1"'))) == ["200"]


BAD_LAST = {
    "invalid": (post({"resourceType": "Patient", "gender": "x"}), 422, "Bundle.entry[3].resource.gender"),
    "dangling": (post(observation("Patient/nobody")), 422, "Bundle.entry[3].resource.subject"),
    "not there": (entry("GET", "Patient/nobody"), 404, "Bundle.entry[3]"),
    "stale": (put(patient(id="nobody"), ifMatch='W/"1"'), 412, "Bundle.entry[3].resource"),
    "against a rule": (
        post({"resourceType": "Appointment", "status": "booked", "participant": [{"status": "accepted"}]}),
        (400, 422),
        None,
    ),
    "forbidden": (post({"resourceType": "Basic", "code": {"text": "x"}}), 403, None),
    "unknown type": (entry("POST", "Order", {"resourceType": "Order"}), 400, "Bundle.entry[3].request.url"),
    "too large": (post({"resourceType": "Binary", "contentType": "x/y", "data": "AAAA" * 4_400_000}), 413, None),
}


@pytest.mark.parametrize("what", BAD_LAST)
def test_when_one_entry_fails_nothing_of_the_others_is_left(app: FhirApp, what: str) -> None:
    bad, status, expression = BAD_LAST[what]
    kept, gone = app.create(patient()), app.create(patient())
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": {"text": "CT"}}
    before = app.counts()
    answer = app.bundle(
        "transaction",
        post(order | {"subject": {"reference": f"Patient/{kept['id']}"}}),
        put(kept | {"gender": "male"}),
        entry("DELETE", f"Patient/{gone['id']}"),
        bad,
        scope=" ".join(f"system/{t}.cruds" for t in "Patient Observation ServiceRequest Appointment Binary".split()),
    )
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    if expression:
        assert issues(answer)[0][1] == expression
    after = app.counts()
    audited = 1 if status == 403 else 0  # that somebody was refused is on record
    assert after == before | {"AuditEvent": before["AuditEvent"] + audited, "counters": after["counters"]}
    assert load(app.get(f"Patient/{kept['id']}")) == kept


@pytest.mark.parametrize(
    ("entries", "expression"),
    [
        ([put(patient(id="twice")), put(patient(id="twice", gender="male"))], "Bundle.entry[1].request.url"),
        ([put(patient(id="twice")), entry("DELETE", "Patient/twice")], "Bundle.entry[1].request.url"),
        ([post(patient(), "urn:uuid:1"), post(patient(), "urn:uuid:1")], "Bundle.entry[1].fullUrl"),
        ([{"resource": patient()}], "Bundle.entry[0].request"),
        ([5], "Bundle.entry[0].request"),
        ([{"request": "GET Patient/1"}], "Bundle.entry[0].request"),
        ([entry("PATCH", "Patient/1", patient())], "Bundle.entry[0].resource"),
        ([entry("PATCH", "Patient", {"resourceType": "Parameters"})], "Bundle.entry[0].request.url"),
        ([{"request": {"method": ["GET"], "url": "Patient/1"}}], "Bundle.entry[0].request.method"),
        ([entry("POST", "Patient/1", patient())], "Bundle.entry[0].request.url"),
        ([entry("PUT", "Patient", patient())], "Bundle.entry[0].request.url"),
        ([entry("PUT", "Patient?_count=1", patient())], "Bundle.entry[0].request.url"),
        ([entry("PUT", "Patient?nonsense=x", patient())], "Bundle.entry[0].resource"),
        ([entry("DELETE", "Patient")], "Bundle.entry[0].request.url"),
        ([entry("GET", "Patient?nonsense=x")], "Bundle.entry[0]"),
        ([entry("GET", "Patient/1/Nonsense")], "Bundle.entry[0].request.url"),
        ([entry("GET", "Order/1")], "Bundle.entry[0].request.url"),
        ([entry("GET", "metadata")], "Bundle.entry[0].request.url"),
        ([entry("GET", "Patient/$everything")], "Bundle.entry[0].request.url"),
        ([entry("POST", "", {"resourceType": "Bundle"})], "Bundle.entry[0].request.url"),
        ([entry("POST", "Patient/_search", patient())], "Bundle.entry[0].request.url"),
        ([{"request": {"method": "GET", "url": 5}}], "Bundle.entry[0].request.url"),
        ([entry("PUT", "Patient/1", patient(id="2"))], "Bundle.entry[0].resource.id"),
        ([entry("PUT", "Patient/1", patient())], "Bundle.entry[0].resource.id"),
        ([entry("PUT", "Patient/1")], "Bundle.entry[0].resource"),
        ([entry("POST", "Patient", {"resourceType": "Observation"})], "Bundle.entry[0].resource"),
        ([entry("POST", "Patient", patient(), ifNoneExist="")], "Bundle.entry[0].request.ifNoneExist"),
        ([entry("POST", "Patient", patient(), ifNoneExist="_count=1")], "Bundle.entry[0].request.ifNoneExist"),
        (
            [{**post(patient()), "request": {"method": "POST", "url": "Patient", "ifNoneExist": 5}}],
            "Bundle.entry[0].request.ifNoneExist",
        ),
        ([entry("PUT", "Patient/1", patient(id="1"), ifMatch="1")], "Bundle.entry[0].request.ifMatch"),
        ([{**post(patient()), "fullUrl": 5}], "Bundle.entry[0].fullUrl"),
    ],
)
def test_entries_that_make_no_sense_are_refused_with_their_place(app: FhirApp, entries: list[Any], expression: str) -> None:
    answer = app.bundle("transaction", *entries)
    assert answer.status_code == 400
    assert issues(answer)[0][1] == expression


def test_a_bundle_must_be_one(app: FhirApp) -> None:
    for bundle, expression in (
        ({"type": "transaction", "entry": {}}, "Bundle.entry"),
        ({"type": "transaction", "entry": None}, "Bundle.entry"),
        ({"type": "collection"}, "Bundle.type"),
        ({"type": ["transaction"]}, "Bundle.type"),
        ({}, "Bundle.type"),
    ):
        answer = app.send("POST", "", {"resourceType": "Bundle", **bundle})
        assert (answer.status_code, issues(answer)[0][1]) == (400, expression)
    for kind in ("transaction", "batch"):
        assert load(app.bundle(kind)).keys() == {"resourceType", "id", "meta", "type"}


def test_reactions_run_once_for_the_whole_transaction(app: FhirApp) -> None:
    """An order made together with its patient is planned as any other, and its number is in the answer."""
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": {"text": "CT"}}
    answer = app.bundle("transaction", post(order | {"subject": {"reference": "urn:uuid:1"}}), post(patient(), "urn:uuid:1"))
    made = done(answer)[0]["resource"]
    assert made == load(app.get(f"ServiceRequest/{made['id']}"))
    assert any(c["code"] == "ACSN" for i in made["identifier"] for c in i["type"]["coding"])
    assert len(app.ids(f"ServiceRequest?based-on=ServiceRequest/{made['id']}")) == 1


def test_a_bundle_of_5000_entries_is_done_and_one_more_is_refused(app: FhirApp) -> None:
    name = unused("big-")
    app.put(patient(id=name))
    entries = [post(observation(f"Patient/{name}", valueInteger=n), f"urn:uuid:{name}-{n}") for n in range(5000)]
    began = time.monotonic()
    assert set(statuses(app.bundle("transaction", *entries))) == {"201"}
    assert time.monotonic() - began < 30
    assert app.search(f"Observation?subject=Patient/{name}&_summary=count")["total"] == 5000
    answer = app.bundle("transaction", *entries, entries[0])
    assert (answer.status_code, issues(answer)) == (413, [("too-costly", "Bundle.entry")])
    assert app.bundle("batch", *entries, entries[0]).status_code == 413


# Scopes


def test_a_transaction_needs_all_its_scopes_and_a_batch_each_entrys_own(app: FhirApp) -> None:
    found = app.create(patient())
    entries = [
        post(patient()),
        put(found | {"gender": "male"}),
        entry("DELETE", "Patient/x"),
        entry("GET", f"Patient/{found['id']}"),
    ]
    for missing in "cudr":
        scope = f"system/Patient.{''.join(a for a in 'cruds' if a != missing)}"
        before = app.counts()["Patient"]
        assert app.bundle("transaction", *entries, scope=scope).status_code == 403
        assert app.counts()["Patient"] == before
        answers = statuses(app.bundle("batch", *entries, scope=scope))
        expected = ["403" if a == missing else s for a, s in zip("cudr", ("201", "200", "204", "200"), strict=True)]
        assert answers == expected
    new = put(patient(id=unused("n-")))
    assert app.bundle("transaction", new, scope="system/Patient.u").status_code == 403
    assert statuses(app.bundle("batch", new, scope="system/Patient.u")) == ["403"]


# Batches


def test_the_entries_of_a_batch_do_not_mind_one_another(app: FhirApp) -> None:
    a = app.create(patient())
    answer = app.bundle(
        "batch",
        post(patient(gender="nonsense")),
        post(patient(gender="male")),
        {"request": {"method": "FETCH", "url": "x"}},
        entry("GET", f"Patient/{a['id']}"),
        entry("GET", "Patient/nobody"),
        put(a | {"gender": "male"}, ifMatch='W/"9"'),
        put(a | {"gender": "female"}, ifMatch='W/"1"'),
        post(observation("Patient/nobody")),
        entry("DELETE", f"Patient/{a['id']}"),
        entry("GET", f"Patient/{a['id']}"),
        7,
    )
    assert load(answer)["type"] == "batch-response"
    assert statuses(answer) == ["422", "201", "400", "200", "404", "412", "200", "422", "204", "410", "400"]
    outcomes = [e["response"].get("outcome") for e in done(answer)]
    assert outcomes[0]["issue"][0]["expression"] == ["Patient.gender"]
    assert [o is None for o in outcomes] == [s < "300" for s in statuses(answer)]
    assert all(o is None or o["resourceType"] == "OperationOutcome" for o in outcomes)


# Many at once


def test_transactions_that_take_two_resources_in_opposite_order_both_come_through(app: FhirApp) -> None:
    a, b = unused("one-"), unused("two-")
    app.bundle("transaction", put(patient(id=a)), put(patient(id=b)))

    def work(n: int) -> int:
        entries = [put(patient(id=name, birthDate=f"{1900 + n}")) for name in (a, b)]
        return app.bundle("transaction", *(entries if n % 2 else reversed(entries))).status_code

    with ThreadPoolExecutor(10) as threads:
        codes = list(threads.map(work, range(20)))
    assert set(codes) <= {200, 409}
    assert codes.count(200) >= 15
    histories = [load(app.get(f"Patient/{name}/_history"))["entry"] for name in (a, b)]
    dates = [[e["resource"].get("birthDate") for e in h] for h in histories]
    assert dates[0] == dates[1]  # what is written together is seen together
    assert len(dates[0]) == codes.count(200) + 1


def test_no_update_is_lost_when_bundles_carry_if_match(app: FhirApp) -> None:
    """Each adds one to a number that it has read; what they are told was done must add up."""
    name = unused("count-")
    app.put(patient(id=name, multipleBirthInteger=0))

    def add(_: int) -> int:
        for _attempt in itertools.count():
            seen = load(app.get(f"Patient/{name}"))
            more = seen | {"multipleBirthInteger": seen["multipleBirthInteger"] + 1}
            answer = app.bundle("transaction", put(more, ifMatch=f'W/"{seen["meta"]["versionId"]}"'))
            if answer.status_code == 200:
                return 1
            assert answer.status_code in {409, 412}, answer.text
        return 0

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(add, range(12))) == 12
    assert load(app.get(f"Patient/{name}"))["multipleBirthInteger"] == 12


def test_an_id_that_two_transactions_create_at_once_is_made_by_one(app: FhirApp) -> None:
    name = unused("raced-")

    def work(n: int) -> list[str]:
        return statuses(app.bundle("transaction", put(patient(id=name, birthDate=f"{1900 + n}")), post(patient()), scope=ALL))

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(work, range(8)))
    assert sorted(r[0] for r in results) == ["200"] * 7 + ["201"]
    assert load(app.get(f"Patient/{name}"))["meta"]["versionId"] == "8"
