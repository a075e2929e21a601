"""Searching as a client sees it: every kind of parameter, order, pages, includes; and that no search scans a collection."""

import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_server.page_links import PageLinks
from fhir_server.search import paging, resolve
from fhir_server.search.dates import of_text
from fhir_server.search.explain import explain
from fhir_server.search.index import searchable
from fhir_server.search.query import compile_query
from tests.fhir_app import FhirApp, issues, load, outcome, patient, put, serving, unused

FORM = "application/x-www-form-urlencoded"
Resource = dict[str, Any]


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, core=True) as running:
        yield running


@pytest.fixture(scope="module")
def people(app: FhirApp) -> str:
    """A few patients, told from all others by an identifier; their ids are a, b, c, d after it."""
    mark = unused("people-")
    said: dict[str, Resource] = {
        "a": {
            "name": [{"family": "Müller-Lüdenscheidt", "given": ["Änne", "Marie"]}],
            "gender": "female",
            "birthDate": "1950-05-17",
        },
        "b": {"name": [{"family": "Muller", "text": "Dr. B  Muller"}], "gender": "male", "birthDate": "1950-05"},
        "c": {"name": [{"family": "STRASSE"}], "gender": "other", "birthDate": "1950", "active": False},
        "d": {"name": [{"family": "straße"}], "active": True},
    }
    for letter, elements in said.items():
        identifiers = [
            {"system": "urn:mark", "value": mark},
            {"system": "urn:x:mrn", "value": f"{mark}|{letter}, first"},
            {"value": f"{mark}\\{letter}"},
        ]
        answer = app.put(patient(id=f"{mark}-{letter}", identifier=identifiers, **elements))
        assert answer.status_code == 201, answer.text
    return mark


def letters(app: FhirApp, mark: str, query: str) -> str:
    """Which of the people a query finds, such as "ab"."""
    return "".join(sorted(i[-1] for i in app.ids(f"Patient?identifier=urn:mark|{mark}&{query}")))


# Kinds of parameters


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("gender=male", "b"),
        ("gender=male,female", "ab"),
        ("gender=|male", "b"),
        ("gender=http://hl7.org/fhir/administrative-gender|male", "b"),
        ("gender=http://hl7.org/fhir/administrative-gender|", "abc"),
        ("gender=http://example.org/genders|male", ""),
        ("gender=MALE", ""),
        ("gender:not=male", "acd"),
        ("gender:not=male,female", "cd"),
        ("gender:not=male&gender:not=female", "cd"),
        ("gender:not=http://hl7.org/fhir/administrative-gender|male", "acd"),
        ("gender=male&gender=female", ""),
        ("active=true", "d"),
        ("active=false", "c"),
        ("_id={mark}-a,{mark}-c", "ac"),
        ("_id:not={mark}-a,{mark}-c", "bd"),
        ("name=mul", "ab"),
        ("name=MÜL", "ab"),
        ("family=strasse", "cd"),
        ("family=Stra%C3%9Fe", "cd"),
        ("family:exact=straße", "d"),
        ("family:exact=Muller", "b"),
        ("family:exact=Mull", ""),
        ("given=mar", "a"),
        ("given=arie", ""),
        ("name=dr. b muller", "b"),
        ("birthdate=1950", "abc"),
        ("birthdate=1950-05", "ab"),
        ("birthdate=1950-05-17", "a"),
        ("birthdate=1950-05-17,1950-05", "ab"),
        ("birthdate=1951", ""),
        ("identifier=urn:x:mrn|", "abcd"),
        ("identifier={mark}\\|a\\, first", "a"),
        ("identifier=urn:x:mrn|{mark}\\|a\\, first", "a"),
        ("identifier=urn:x:mrn|{mark}\\|a\\, first,urn:x:mrn|{mark}\\|b\\, first", "ab"),
        ("identifier=urn:x:mrn|{mark}|a\\, first", "a"),
        ("identifier=|{mark}\\\\a", "a"),
        ("identifier={mark}\\\\a,{mark}\\\\b", "ab"),
        ("identifier=|{mark}", ""),
        ("identifier=urn:other|{mark}", ""),
    ],
)
def test_tokens_strings_and_dates(app: FhirApp, people: str, query: str, found: str) -> None:
    assert letters(app, people, query.replace("{mark}", people)) == found


def test_a_string_goes_on_after_characters_of_any_plane(app: FhirApp) -> None:
    made = app.create(patient(name=[{"family": "Zeichen\U0001f600x"}]))
    assert app.ids("Patient?family=zeichen") == [made["id"]]


DATED = {
    "y": "2026",
    "m": "2026-03",
    "d": "2026-03-10",
    "s": "2026-03-10T12:00:00Z",
    "z": "2026-03-10T23:30:00-02:00",
    "f": "2026-03-10T12:00:00.500Z",
}


@pytest.fixture(scope="module")
def dated(app: FhirApp) -> str:
    mark = unused("dated-")
    for name, value in DATED.items():
        app.put(report(f"{mark}-{name}", mark, effectiveDateTime=value))
    app.put(report(f"{mark}-p", mark, effectivePeriod={"start": "2026-03-09", "end": "2026-03-10"}))
    app.put(report(f"{mark}-o", mark, effectivePeriod={"start": "2026-03-09"}))
    app.put(report(f"{mark}-n", mark))
    return mark


def report(id_: str, mark: str, **elements: Any) -> Resource:
    about = {"identifier": [{"system": "urn:mark", "value": mark}], "code": {"text": "x"}, "status": "registered"}
    return {"resourceType": "DiagnosticReport", "id": id_, **about, **elements}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2026", "dfmpsyz"),
        ("eq2026-03", "dfmpsz"),
        ("2026-03-10", "dfs"),
        ("2026-03-11", "z"),
        ("2026-03-11T01:30:00Z", "z"),
        ("2026-03-11T02:30:00%2B01:00", "z"),
        ("2026-03-10T12:00", "fs"),
        ("2026-03-10T12:00:00Z", "fs"),
        ("2026-03-10T12:00:00.5Z", "f"),
        ("gt2026-03-10", "moyz"),
        ("ge2026-03-10", "dfmosyz"),
        ("lt2026-03-10", "mopy"),
        ("le2026-03-10", "dfmopsy"),
        ("sa2026-03-10", "z"),
        ("eb2026-03-10", ""),
        ("eb2026-03-11", "dfps"),
        ("sa2026-03-08", "dfopsz"),
        ("gt2025", "dfmopsyz"),
        ("lt2025", ""),
        ("ge2026-03-09&date=lt2026-03-11", "dfmopsy"),
        ("ge2027,lt2026-03-09", "moy"),
    ],
)
def test_dates_by_prefix_and_precision(app: FhirApp, dated: str, value: str, found: str) -> None:
    ids = app.ids(f"DiagnosticReport?identifier=urn:mark|{dated}&date={value}")
    assert "".join(sorted(i[-1] for i in ids)) == found


@given(
    st.sampled_from("eq gt lt ge le sa eb".split()),
    st.sampled_from(
        ["2026", "2026-03", "2026-03-09", "2026-03-10", "2026-03-10T12:00Z", "2026-03-10T12:00:00.500Z", "2025-12-31"]
    ),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dates_agree_with_the_definition_of_their_prefixes(app: FhirApp, dated: str, prefix: str, value: str) -> None:
    start, end = of_text(value)
    spans = {name: of_text(text) for name, text in DATED.items()}
    spans["p"] = (of_text("2026-03-09")[0], of_text("2026-03-10")[1])
    meant: Any = {
        "eq": lambda s, e: start <= s and e <= end,
        "gt": lambda _, e: e > end,
        "lt": lambda s, _: s < start,
        "ge": lambda s, e: e > end or (start <= s and e <= end),
        "le": lambda s, e: s < start or (start <= s and e <= end),
        "sa": lambda s, _: s >= end,
        "eb": lambda _, e: e <= start,
    }[prefix]
    ids = app.ids(f"DiagnosticReport?identifier=urn:mark|{dated}&date={prefix}{value}")
    assert {i[-1] for i in ids} - {"o"} == {name for name, span in spans.items() if meant(*span)}


def test_of_several_dates_one_must_be_meant(app: FhirApp) -> None:
    """A list of events in a Timing is one span; the periods of a resource's parts are several."""
    mark = unused("several-")
    events = [{"period": {"start": "2020-01-01", "end": "2020-01-02"}}, {"period": {"start": "2024-01-01", "end": "2024-01-02"}}]
    made = app.create(
        {
            "resourceType": "Composition",
            "status": "final",
            "type": {"text": mark},
            "date": "2026",
            "author": [{"display": "x"}],
            "title": mark,
            "event": events,
        }
    )
    for value, found in {"2020": True, "2024": True, "2022": False, "gt2023": True, "lt2022": True, "sa2025": False}.items():
        assert (app.ids(f"Composition?title={mark}&period={value}") == [made["id"]]) is found, value
    assert app.ids(f"Composition?title={mark}&period=ge2021&period=le2023") == [made["id"]]  # as FHIR has it: by different events


@pytest.mark.parametrize(
    "value",
    ["2026-13", "2026-02-30", "26", "x", "2026-1-1", "2026-01-01T25:00", "2026-01-01T10:00:00 01:00", "2026-01-01\n", "", "gt"],
)
def test_what_is_no_date_is_refused(app: FhirApp, value: str) -> None:
    for parameter in ("birthdate", "_lastUpdated"):
        answer = app.get(f"Patient?{parameter}={quote(value)}")
        assert (answer.status_code, issues(answer)[0][0]) == (400, "invalid")


@pytest.mark.parametrize(
    "moment", ["9999-12-31", "9999-12-31T23:59:59.999-12:00", "0001-01-01T00:00:00+14:00", "2016-12-31T23:59:60Z"]
)
def test_dates_at_the_ends_of_time_are_stored_and_found(app: FhirApp, moment: str) -> None:
    mark = unused("edge-")
    app.put(report(mark, mark, effectiveDateTime=moment))
    for value in (moment[:4], f"ge{moment[:4]}", f"le{moment[:4]}"):
        expected = [] if moment.startswith("9999-12-31T") and value == "9999" else [mark]
        assert app.ids(f"DiagnosticReport?identifier=urn:mark|{mark}&date={value}") in (expected, [mark])


def test_last_updated(app: FhirApp) -> None:
    mark = unused("updated-")
    made = [app.create(patient(identifier=[{"value": mark}])) for _ in range(3)]
    moment = made[1]["meta"]["lastUpdated"]
    for prefix, expected in {"": [1], "ge": [1, 2], "le": [0, 1], "gt": [2], "lt": [0], "sa": [2], "eb": [0]}.items():
        found = app.ids(f"Patient?identifier={mark}&_lastUpdated={prefix}{moment}")
        assert sorted(found) == sorted(made[n]["id"] for n in expected), prefix
    assert len(app.ids(f"Patient?identifier={mark}&_lastUpdated=ge{moment[:10]}")) == 3


@pytest.fixture(scope="module")
def orders(app: FhirApp) -> str:
    mark = unused("orders-")
    for name in ("1", "2"):
        app.put(patient(id=f"{mark}-p{name}", name=[{"family": f"{mark}{name}"}], gender="male" if name == "1" else "female"))
    app.put({"resourceType": "Practitioner", "id": f"{mark}-p1", "name": [{"family": f"{mark}1"}]})
    requests: dict[str, Resource] = {
        "a": {"subject": {"reference": f"Patient/{mark}-p1"}, "requester": {"reference": f"Practitioner/{mark}-p1"}},
        "b": {"subject": {"reference": f"Patient/{mark}-p2/_history/1"}, "priority": "stat"},
        "c": {"subject": {"identifier": {"system": "urn:x", "value": f"{mark}-c"}}, "priority": "urgent"},
        "d": {"subject": {"reference": f"https://elsewhere.example/fhir/Patient/{mark}-p1"}, "priority": "asap"},
    }
    for name, about in requests.items():
        request = {"resourceType": "ServiceRequest", "id": f"{mark}-{name}", "status": "draft", "intent": "plan", **about}
        answer = app.put(request | {"identifier": [{"system": "urn:mark", "value": mark}]})
        assert answer.status_code == 201, answer.text
    return mark


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("subject=Patient/{mark}-p1", "a"),
        ("subject={mark}-p1", "a"),
        ("patient={mark}-p1", "a"),
        ("subject:Patient={mark}-p1", "a"),
        ("subject:Patient=Patient/{mark}-p1", "a"),
        ("subject:Group={mark}-p1", ""),
        ("subject={base}/fhir/Patient/{mark}-p1", "a"),
        ("patient={base}/fhir/Patient/{mark}-p2", "b"),
        ("subject=https://elsewhere.example/fhir/Patient/{mark}-p1", "d"),
        ("subject=Patient/{mark}-p1,Patient/{mark}-p2", "ab"),
        ("subject:identifier=urn:x|{mark}-c", "c"),
        ("subject:identifier={mark}-c", "c"),
        ("requester=Practitioner/{mark}-p1", "a"),
        ("requester=Patient/{mark}-p1", ""),
        ("subject:Patient.name={mark}", "ab"),
        ("patient.name={mark}1", "a"),
        ("patient.gender:not=male&patient.name={mark}", "b"),
        ("subject:Patient.gender:not=male", "b"),
        ("patient._id={mark}-p2", "b"),
        ("patient.name=nobody", ""),
        ("patient.name={mark}1&requester:Practitioner.name={mark}1", "a"),
        ("priority=stat,urgent", "bc"),
        ("intent=http://hl7.org/fhir/request-intent|plan", "abcd"),
    ],
)
def test_references_and_chains(app: FhirApp, orders: str, query: str, found: str) -> None:
    query = query.replace("{mark}", orders).replace("{base}", app.base_url)
    assert "".join(i[-1] for i in app.ids(f"ServiceRequest?identifier=urn:mark|{orders}&{query}")) == found


# What is refused


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("Patient?nonsense=1", "invalid", "birthdate"),
        ("Patient?Name=x", "invalid", "name"),
        ("Patient?_content=x", "invalid", ""),
        ("Patient?_text=x", "invalid", ""),
        ("Patient?phonetic=x", "invalid", ""),
        ("Patient?name", "invalid", "empty"),
        ("Patient?name=", "invalid", "empty"),
        ("Patient?name=%20", "invalid", "empty"),
        ("Patient?name=%CC%81", "invalid", "empty"),
        ("Patient?gender=male,", "invalid", "empty"),
        ("Patient?identifier=|", "invalid", "empty"),
        ("Patient?gender:exact=x", "not-supported", ":exact"),
        ("Patient?birthdate:not=1950", "not-supported", ":not"),
        ("Patient?_lastUpdated:not=1950", "not-supported", ":not"),
        ("Patient?_count=x", "invalid", "_count"),
        ("Patient?_count=-1", "invalid", "_count"),
        ("Patient?_count=99999999999999999999999999", "invalid", "_count"),
        ("Patient?name:missing=yes", "invalid", "true or false"),
        ("Patient?name:contains=" + "x" * 101, "invalid", "100 characters"),
        ("Patient?_sort=priority", "invalid", "birthdate"),
        ("Patient?_sort=", "invalid", "birthdate"),
        ("Patient?_sort=--birthdate", "invalid", "birthdate"),
        ("Observation?_sort=value-quantity", "invalid", "date"),
        ("Observation?value-quantity=x", "invalid", "number"),
        ("Observation?value-quantity=1|mg", "invalid", "number||code"),
        ("Observation?value-quantity=1|http://unitsofmeasure.org|", "invalid", "number||code"),
        ("RiskAssessment?probability=gtx", "invalid", "number"),
        ("RiskAssessment?probability=1_0", "invalid", "number"),
        ("RiskAssessment?probability=Infinity", "invalid", "number"),
        ("RiskAssessment?probability=1e99999999999", "invalid", "number"),
        ("Observation?code-value-quantity=x", "invalid", "code$value-quantity"),
        ("Observation?code-value-quantity=x$", "invalid", "code$value-quantity"),
        ("Patient?identifier:of-type=a|b", "invalid", "system|code|value"),
        ("Observation?code:in=http://example.org/nothing", "not-found", "not known"),
        ("Observation?code:below=http://example.org/nothing|x", "not-supported", "hierarchy"),
        ("Patient?organization:below=Organization/1", "not-supported", "no hierarchy"),
        ("Location?near=x", "invalid", "latitude"),
        ("Location?near=91|0", "invalid", "no such place"),
        ("Location?near=1|2|3|parsec", "invalid", "latitude"),
        ("Patient?_explain=maybe", "invalid", "_explain"),
        ("Patient?_list:not=1", "invalid", "_list"),
        ("Patient?_sort=_id,-_id", "invalid", "twice"),
        ("Patient?_total=many", "invalid", "_total"),
        ("Patient?_summary=some", "invalid", "_summary"),
        ("Patient?_has:Observation:patient=x", "invalid", "_has:Type:parameter:search"),
        ("Patient?_has:Nonsense:patient:code=x", "invalid", "_has:Type:parameter:search"),
        ("Patient?_has:Observation:device:code=x", "invalid", "refers to Patient"),
        ("Patient?_has:Observation:patient:nonsense=x", "invalid", "value-quantity"),
        ("Patient?" + "_has:Patient:link:" * 9 + "name=x", "too-costly", "links"),
        ("Patient?_include=Patient:name", "invalid", "no reference parameter"),
        ("Patient?_include=Observation:subject", "invalid", "Patient"),
        ("Patient?_include=Patient:link:Device", "invalid", "does not refer"),
        ("Patient?_revinclude=Patient:organization", "invalid", "does not refer"),
        ("Patient?_revinclude=Nonsense:subject", "invalid", "Type:parameter"),
        ("Observation?subject.name=x", "invalid", "say which"),
        ("Observation?subject:Nonsense.name=x", "invalid", "does not refer"),
        ("Observation?subject:Patient.nonsense=x", "invalid", "birthdate"),
        ("Observation?subject:Patient.=x", "invalid", ""),
        ("Observation?status.name=x", "invalid", "no reference"),
        ("Observation?patient:Device=x", "invalid", "does not refer"),
        ("Observation?subject:Patient=Device/x", "invalid", "can't be"),
        ("Patient?_page=x", "invalid", "page link"),
        ("Patient?_page=bnVsbA", "invalid", "page link"),
        ("Patient?_page=WyJQYXRpZW50ICIsIFtdXQ", "invalid", "page link"),
        ("Patient?_page=%ff%fe", "structure", "UTF-8"),
    ],
)
def test_what_is_not_understood_is_refused_and_told(app: FhirApp, query: str, code: str, said: str) -> None:
    answer = app.get(query)
    assert (answer.status_code, issues(answer)[0][0]) == (400, code)
    assert said in outcome(answer)["issue"][0]["diagnostics"]


def test_an_unknown_parameter_is_told_which_there_are(app: FhirApp) -> None:
    text = outcome(app.get("Patient?nonsense=1"))["issue"][0]["diagnostics"]
    assert all(name in text for name in searchable("Patient"))


def test_a_page_link_belongs_to_its_search(app: FhirApp, people: str) -> None:
    search = f"Patient?identifier=urn:mark|{people}&_count=1"
    link = next(x["url"] for x in app.search(search)["link"] if x["relation"] == "next")
    page = link.partition("?_page=")[2]
    assert people not in link
    assert app.get(f"Patient?_page={page}").status_code == 200
    refused = [f"{search}&_page={page}", f"Patient?_page={page}&_sort=birthdate", f"Practitioner?_page={page}"]
    refused += [
        f"Patient?_page={page[:-2]}{'A' if page[-2] != 'A' else 'B'}{page[-1]}",
        f"Patient?_page={page}x",
        "Patient?_page=" + "A" * 10_000,
    ]
    for query in refused:
        answer = app.get(query)
        assert (answer.status_code, issues(answer)[0][0]) == (400, "invalid"), query


# Search by POST


def test_a_search_by_post_is_the_same_search(app: FhirApp, people: str) -> None:
    body = f"identifier=urn:mark|{people}&name=m%C3%BCl".encode()
    found = load(app.send("POST", "Patient/_search", body, Content_Type=FORM))
    assert [e["resource"]["id"] for e in found["entry"]] == app.ids(f"Patient?identifier=urn:mark|{people}&name=mül")
    both = app.send("POST", "Patient/_search?gender=male", body, Content_Type=f"{FORM}; charset=utf-8")
    assert [e["resource"]["id"] for e in load(both)["entry"]] == [f"{people}-b"]
    assert app.send("POST", "Patient/_search", b"name=%ff", Content_Type=FORM).status_code == 400
    assert app.send("POST", "Patient/_search", b"name=\xff", Content_Type=FORM).status_code == 400
    assert app.send("POST", "Patient/_search", b"x" * 2_000_000, Content_Type=FORM).status_code == 413
    assert app.send("POST", "Patient/_search", b"", Content_Type=FORM).status_code == 200


# Pages, order, totals


def test_total_and_summary_count_all_matches(app: FhirApp, people: str) -> None:
    search = f"Patient?identifier=urn:mark|{people}"
    assert "total" not in app.search(search)
    for more in ("_total=accurate&_count=1", "_summary=count", "_count=0", "_total=estimate"):
        assert app.search(f"{search}&{more}")["total"] == 4
    assert "entry" not in app.search(f"{search}&_summary=count")
    assert app.search(f"{search}&gender:not=male&_summary=count")["total"] == 3
    everything = app.search("Patient?_summary=count")["total"]
    assert (
        app.search("Patient?gender:not=male&_summary=count")["total"]
        == everything - app.search("Patient?gender=male&_summary=count")["total"]
    )
    assert app.search("Patient?_count=2000&_total=accurate")["total"] == everything


@pytest.fixture(scope="module")
def steps(app: FhirApp) -> str:
    """45 tasks with few different dates and priorities, and some without."""
    mark = unused("steps-")
    priorities = itertools.cycle([None, "routine", "stat", "urgent", "asap"])
    days = itertools.cycle([None, "2026-01-01", "2026-01-02", "2026-01-02"])
    entries = []
    for n, priority, day in zip(range(45), priorities, days, strict=False):
        task: Resource = {"resourceType": "Task", "id": f"{mark}-{n:02}", "status": "requested", "intent": "proposal"}
        task["identifier"] = [{"system": "urn:mark", "value": mark}]
        task |= {"priority": priority} if priority else {}
        task |= {"authoredOn": day} if day else {}
        entries.append(put(task))
    assert app.bundle("transaction", *entries).status_code == 200
    return mark


RANK = {"routine": 0, "urgent": 1, "asap": 2, "stat": 3}


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("", lambda _: 0),
        ("_id", lambda t: t["id"]),
        ("-_id", lambda t: [-ord(c) for c in t["id"]]),
        ("_lastUpdated", lambda _: 0),
        ("authored-on", lambda t: t.get("authoredOn", "9")),
        ("-authored-on", lambda t: -int(t.get("authoredOn", "0").replace("-", ""))),
        ("priority", lambda t: RANK.get(t.get("priority"), 9)),
        ("-priority", lambda t: -RANK.get(t.get("priority"), -9)),
        ("-priority,authored-on", lambda t: (-RANK.get(t.get("priority"), -9), t.get("authoredOn", "9"))),
        ("authored-on,-priority", lambda t: (t.get("authoredOn", "9"), -RANK.get(t.get("priority"), -9))),
        (
            "-_lastUpdated,priority,-authored-on",
            lambda t: (RANK.get(t.get("priority"), 9), -int(t.get("authoredOn", "0").replace("-", ""))),
        ),
    ],
)
def test_sorted_pages_hold_each_match_once_and_in_order(app: FhirApp, steps: str, sort: str, key: Any) -> None:
    search = f"Task?identifier=urn:mark|{steps}" + (f"&_sort={sort}" if sort else "")
    whole = [e["resource"] for e in app.search(f"{search}&_count=100")["entry"]]
    assert len({t["id"] for t in whole}) == 45
    assert [key(t) for t in whole] == sorted(key(t) for t in whole)
    for count in (7, 45, 44):
        pages = list(app.pages(f"{search}&_count={count}"))
        assert [len(p) for p in pages[:-1]] == [count] * (len(pages) - 1)
        assert list(itertools.chain(*pages)) == [t["id"] for t in whole]


def test_pages_of_resources_with_several_dates_hold_each_once(app: FhirApp) -> None:
    mark = unused("several-")
    for n, years in enumerate([(2000, 2009), (2001, 2002), (2001, 2008), (2005,), (2003, 2005, 2007), ()]):
        events = [{"period": {"start": f"{year}-01-01", "end": f"{year}-06-01"}} for year in years]
        composition: Resource = {
            "resourceType": "Composition",
            "id": f"{mark}-{n}",
            "status": "final",
            "type": {"text": "x"},
            "date": "2026",
        }
        composition |= {"author": [{"display": "x"}], "title": mark} | ({"event": events} if events else {})
        assert app.put(composition).status_code == 201
    for sort, expected in (("period", "012435"), ("-period", "024315")):
        pages = list(app.pages(f"Composition?title={mark}&_sort={sort}&_count=1"))
        assert "".join(page[0][-1] for page in pages) == expected


def test_who_walks_while_others_write_sees_what_stays_exactly_once(app: FhirApp) -> None:
    mark = unused("walk-")
    made = [app.create(patient(identifier=[{"value": mark}]))["id"] for _ in range(12)]
    for sort in ("", "&_sort=-_lastUpdated", "&_sort=_id"):
        seen: list[str] = []
        for n, page in enumerate(app.pages(f"Patient?identifier={mark}&_count=3{sort}")):
            seen += page
            app.create(patient(identifier=[{"value": f"{mark}"}], birthDate=f"19{n:02}"))
        assert [seen.count(id_) for id_ in made] == [1] * 12


def test_the_self_link_says_what_was_searched(app: FhirApp, people: str) -> None:
    found = app.search(f"Patient?identifier=urn:mark|{people}&identifier=urn:x:mrn|{people}%5C|a%5C, first&_count=1&_total=none")
    assert len(found["entry"]) == 1
    link = found["link"][0]["url"]
    assert app.ids(link) == [f"{people}-a"]
    assert found["entry"][0]["fullUrl"] == f"{app.base_url}/fhir/Patient/{people}-a"


def test_count_is_limited(app: FhirApp, steps: str) -> None:
    assert len(app.ids(f"Task?identifier=urn:mark|{steps}&_count=999999999")) == 45
    assert len(app.ids(f"Task?identifier=urn:mark|{steps}")) == 20


# Includes


def test_includes_bring_what_is_referred_to_once(app: FhirApp, orders: str) -> None:
    search = f"ServiceRequest?identifier=urn:mark|{orders}"
    found = included(app, f"{search}&_include=ServiceRequest:subject&_include=ServiceRequest:patient")
    assert found == [f"Patient/{orders}-p1", f"Patient/{orders}-p2"]
    assert included(app, f"{search}&_include=ServiceRequest:requester:Practitioner") == [f"Practitioner/{orders}-p1"]
    assert included(app, f"{search}&_include=ServiceRequest:requester:Device") == []
    assert included(app, f"{search}&_include=ServiceRequest:subject&_count=1") == [f"Patient/{orders}-p1"]
    found = included(app, f"Patient?_id={orders}-p1,{orders}-p2&_revinclude=ServiceRequest:subject")
    assert found == [f"ServiceRequest/{orders}-a", f"ServiceRequest/{orders}-b"]
    assert included(app, f"Patient?_id={orders}-p1&_revinclude=ServiceRequest:patient:Patient") == [f"ServiceRequest/{orders}-a"]
    assert included(app, f"Patient?_id=nobody-{orders}&_revinclude=ServiceRequest:patient") == []


def included(app: FhirApp, query: str) -> list[str]:
    entries = app.search(query).get("entry", ())
    return sorted(f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in entries if e["search"]["mode"] == "include")


def test_includes_that_are_cut_off_say_so(app: FhirApp) -> None:
    name = unused("much-")
    app.put(patient(id=name))
    about = {"status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{name}"}}
    entries = [put({"resourceType": "Observation", "id": f"{name}-{n}", **about}) for n in range(1001)]
    assert app.bundle("transaction", *entries).status_code == 200
    found = app.search(f"Patient?_id={name}&_revinclude=Observation:subject")
    assert [e["search"]["mode"] for e in found["entry"]] == ["match", *["include"] * 1000, "outcome"]
    assert found["entry"][-1]["resource"]["issue"][0]["severity"] == "warning"
    answer = app.get("Patient?link:Patient.name=x")
    assert answer.status_code == 200


def test_a_chain_that_is_too_wide_is_refused(app: FhirApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "CHAIN_LIMIT", 20)
    app.bundle("transaction", *[put(patient(id=f"viele-{n}", name=[{"family": "Viele"}])) for n in range(21)])
    answer = app.get("Observation?patient.family=viele")
    assert (answer.status_code, issues(answer)[0][0]) == (422, "too-costly")
    assert app.get("Observation?patient._id=viele-1").status_code == 200


# Speed


USED = {
    "Patient": "identifier=x|1 name=x family=x given:exact=x birthdate=1950 gender=male telecom=1 _id=1 "
    "general-practitioner=Practitioner/1",
    "ServiceRequest": "identifier=x|1 based-on=ServiceRequest/1 subject=Patient/1 patient=1 status=active,draft intent=order "
    "code=x|1 category=x encounter=Encounter/1 requester=Practitioner/1 priority=stat authored=ge2026 occurrence=lt2026",
    "ImagingStudy": "identifier=x|1 basedon=ServiceRequest/1 patient=1 status=registered started=2026-01-01 modality=CT",
    "Task": "identifier=x|1 based-on=ServiceRequest/1 focus=ImagingStudy/1 status=ready,accepted owner=Device/1 patient=1 "
    "code=x|1 business-status=x authored-on=gt2026 modified=le2026 period=eb2026 intent=plan priority=stat",
    "Appointment": "identifier=x|1 based-on=ServiceRequest/1 actor=Device/1 patient=1 status=booked date=ge2026 slot=Slot/1",
    "Procedure": "identifier=x|1 based-on=ServiceRequest/1 patient=1 status=completed date=sa2026",
    "DiagnosticReport": "identifier=x|1 based-on=ServiceRequest/1 patient=1 status=final issued=ge2026 date=2026 media=Media/1",
    "Observation": "patient=1 code=x|1 date=ge2026 status=final based-on=ServiceRequest/1",
    "ChargeItem": "subject=Patient/1 code=x occurrence=2026",
    "Coverage": "beneficiary=Patient/1 status=active",
    "Encounter": "identifier=x patient=1 date=2026 status=planned",
    "Communication": "patient=1 sent=2026 part-of=Task/1",
    "AuditEvent": "date=ge2026 entity=Patient/1 patient=1 agent=Device/1 subtype=read type=rest outcome=4",
    "Provenance": "target=Patient/1 recorded=ge2026 agent=Practitioner/1",
    "Endpoint": "status=active connection-type=hl7v2-mllp",
    "Device": "identifier=urn:fhir-ris:ae-title|CT1 type=CT status=active",
    "Slot": "schedule=Schedule/1 start=ge2026 status=free",
    "ActivityDefinition": "identifier=x url=http://example.org/x status=active date=2026 topic=x",
}
SORTS = {"Task": ["-priority", "priority", "authored-on", "-period"], "AuditEvent": ["-date", "date"], "Patient": ["birthdate"]}


def searches() -> Iterator[tuple[str, str]]:
    for resource_type, queries in USED.items():
        for query in queries.split():
            yield resource_type, query
        for sort in ["_id", "-_id", "_lastUpdated", "-_lastUpdated", *SORTS.get(resource_type, [])]:
            yield resource_type, f"_sort={sort}"


def test_no_search_scans_a_collection(app: FhirApp) -> None:
    bad = []
    for resource_type, query in searches():
        for extra in ("", "&_sort=-_lastUpdated"):
            if "_sort" in query and extra:
                continue
            pairs = [tuple(p.split("=", 1)) for p in (query + extra).split("&")]
            stages = app.run(explained(app, resource_type, pairs))
            if "COLLSCAN" in stages or not {"IXSCAN", "IDHACK"} & set(stages) or ("SORT" in stages and "_sort" in query):
                bad.append((resource_type, query, stages))
    assert not bad


def test_every_date_parameter_of_every_type_is_served_by_an_index(app: FhirApp) -> None:
    """By the plan alone: the collections of the other types need not exist for this."""
    for resource_type, kinds in ((t, searchable(t)) for t in ("Task", "AuditEvent", "Condition", "Appointment", "Slot")):
        app.run(app.store.ensure(resource_type))
        for name, kind in kinds.items():
            for prefix in "eq gt lt ge le sa eb".split() if kind == "date" else ():
                stages = app.run(explained(app, resource_type, [(name, f"{prefix}2026-01-01")]))
                assert "COLLSCAN" not in stages, (resource_type, name, prefix, stages)


@pytest.mark.parametrize("sort", ["authored-on", "-authored-on", "-priority", "priority", "-_lastUpdated", "_id", "-_id"])
def test_later_pages_are_served_by_the_index_too(app: FhirApp, steps: str, sort: str) -> None:
    assert steps
    url = f"Task?_sort={sort}&_count=10"
    for _ in range(3):
        found = app.search(url)
        url = next(link["url"] for link in found["link"] if link["relation"] == "next")
    place = app.run(PageLinks(app.db).open("search", url.partition("_page=")[2]))[3]
    stages = app.run(explained(app, "Task", [("_sort", sort), ("_count", "10")], place))
    assert "IXSCAN" in stages
    assert not {"COLLSCAN", "SORT"} & set(stages)


def test_counting_and_references_back_are_served_by_an_index(app: FhirApp) -> None:
    for query in ("status=final", "status:not=final", "_id=1", ""):
        pairs: Any = [tuple(p.split("=", 1)) for p in query.split("&") if p]
        compiled = compile_query("Observation", pairs)

        async def plan(where: Any = compiled.filter, hint: Any = None) -> list[str]:
            command: Resource = {"aggregate": "Observation", "pipeline": [{"$match": where}], "cursor": {}}
            found = await app.db.command("explain", command | ({"hint": hint} if hint else {}))
            return stage_names(found["queryPlanner"]["winningPlan"])

        counted = app.run(counts(app, compiled))
        assert "COLLSCAN" not in counted, query
        if query == "status=final":
            assert "COLLSCAN" not in app.run(plan({"search.t": ">Patient/1"}))


async def counts(app: FhirApp, query: Any) -> list[str]:
    """The stages of the plans that counting really used, from the profiler."""
    await app.db.command("profile", 2)
    try:
        await app.store.count(query)
    finally:
        await app.db.command("profile", 0)
    found = await app.db["system.profile"].find({"ns": f"{app.db.name}.Observation"}).to_list()
    await app.db["system.profile"].drop()
    assert found
    return [d["planSummary"].split(" ")[0] for d in found]


async def explained(app: FhirApp, resource_type: str, parameters: Any, place: Any = None) -> list[str]:
    """The stages of the winning plan for a search."""
    query = compile_query(resource_type, parameters)
    plan = await explain(app.store, query, paging.read(query, place) if place else None)
    stages: list[str] = plan["stages"]
    return stages


def stage_names(plan: Resource) -> list[str]:
    inner = [plan[k] for k in ("inputStage", "queryPlan", "thenStage", "elseStage") if k in plan] + plan.get("inputStages", [])
    return [plan["stage"]] * ("stage" in plan) + [s for p in inner for s in stage_names(p)]
