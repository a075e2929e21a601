"""History of a resource, a type and the whole system: what it shows, in pages that stay as they are while others write."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server import history
from tests.fhir_app import FhirApp, entry, issues, load, patient, post, put, unused

Resource = dict[str, Any]


def versions(bundle: Resource) -> list[str]:
    """What a history shows, as `Type/id/version`."""
    return [f"{e['fullUrl'].split('/fhir/')[1]}/{e['response']['etag'][3:-1]}" for e in bundle.get("entry", ())]


def walk(app: FhirApp, url: str, between: Any = None) -> list[list[str]]:
    """The pages of a history."""
    pages = []
    following: str | None = url
    while following:
        answer = app.get(following)
        assert answer.status_code == 200, answer.text
        pages.append(versions(load(answer)))
        following = next((link["url"] for link in load(answer)["link"] if link["relation"] == "next"), None)
        if between:
            between()
    return pages


def now() -> str:
    """A moment between what was done and what comes."""
    time.sleep(0.003)
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    time.sleep(0.003)
    return moment.replace("+00:00", "Z")


def only(app: FhirApp, path: str, ids: set[str]) -> list[str]:
    """The entries about these resources."""
    return [v for page in walk(app, path) for v in page if v.split("/")[1] in ids]


# One resource


def test_the_history_of_a_resource_shows_how_each_version_came_about(app: FhirApp) -> None:
    name = unused("story-")
    app.put(patient(id=name))
    app.put(patient(id=name, gender="male"))
    app.send("DELETE", f"Patient/{name}")
    app.put(patient(id=name, gender="other"))
    answer = load(app.get(f"Patient/{name}/_history"))
    assert (answer["type"], answer["total"]) == ("history", 4)
    assert versions(answer) == [f"Patient/{name}/{n}" for n in (4, 3, 2, 1)]
    assert [e["request"]["method"] for e in answer["entry"]] == ["PUT", "DELETE", "PUT", "PUT"]
    assert [e["response"]["status"] for e in answer["entry"]] == ["201", "204", "200", "201"]
    assert [e.get("resource", {}).get("gender") for e in answer["entry"]] == ["other", None, "male", None]
    in_all = [e["response"]["status"] for e in load(app.get("Patient/_history"))["entry"] if name in e["fullUrl"]]
    assert in_all == ["201", "204", "200", "201"]
    made = app.create(patient())
    (first,) = load(app.get(f"Patient/{made['id']}/_history"))["entry"]
    assert first["request"] == {"method": "POST", "url": "Patient"}
    assert first["response"]["lastModified"] == made["meta"]["lastUpdated"]


def test_since_and_at_choose_versions_of_a_resource(app: FhirApp) -> None:
    name = unused("times-")
    before = now()
    app.put(patient(id=name, birthDate="2001"))
    first = now()
    app.put(patient(id=name, birthDate="2002"))
    app.put(patient(id=name, birthDate="2003"))
    third = now()
    app.send("DELETE", f"Patient/{name}")
    gone = now()
    path = f"Patient/{name}/_history"

    def shown(query: str) -> list[str]:
        return [v.rpartition("/")[2] for page in walk(app, f"{path}?{query}") for v in page]

    assert shown(f"_since={before}") == ["4", "3", "2", "1"]
    assert shown(f"_since={first}") == ["4", "3", "2"]
    assert shown(f"_since={first}&_count=1") == ["4", "3", "2"]
    assert shown(f"_since={gone}") == []
    assert shown(f"_at={before}") == []
    assert shown(f"_at={first}") == ["1"]
    assert shown(f"_at={third}") == ["3"]
    assert shown(f"_at={gone}") == []  # it wasn't there
    assert shown(f"_at={third[:10]}") == ["4", "3", "2", "1"]
    assert shown(f"_at={third[:10]}&_count=2") == ["4", "3", "2", "1"]
    exact = load(app.get(f"{path}/2"))["meta"]["lastUpdated"]
    assert "2" in shown(f"_since={exact}")
    assert "2" in shown(f"_at={exact}")
    assert shown(f"_since={exact.replace('Z', '+00:00')}") == shown(f"_since={exact}")
    assert "total" not in load(app.get(f"{path}?_since={first}"))


@pytest.mark.parametrize(
    "query",
    [
        *("_since=yesterday", "_at=2026-13", "_since=2026&_at=2026", "_count=x", "_count=-1", "_count=1&_count=2"),
        *("_sort=x", "name=x", "_page=x", "_type=Patient", "_summary=count", "_elements=,"),
    ],
)
def test_a_history_refuses_what_it_does_not_know(app: FhirApp, query: str) -> None:
    app.put(patient(id="known"))
    answer = app.get(f"Patient/known/_history?{query}")
    assert answer.status_code == 400
    assert issues(answer)[0][0] == "invalid"


def test_summary_and_elements_are_kept_from_page_to_page(app: FhirApp) -> None:
    name = unused("short-")
    for n in range(3):
        app.put(patient(id=name, birthDate=f"200{n}", gender="male"))
    url: str | None = f"Patient/{name}/_history?_count=1&_elements=birthDate"
    shown = []
    while url:
        page = load(app.get(url))
        shown += [e["resource"] for e in page["entry"]]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    assert [r["birthDate"] for r in shown] == ["2002", "2001", "2000"]
    assert all("gender" not in r and r["meta"]["tag"][0]["code"] == "SUBSETTED" for r in shown)


def test_a_page_link_is_ours_and_of_this_history_only(app: FhirApp) -> None:
    a, b = unused("link-"), unused("link-")
    for name in (a, b):
        for n in range(3):
            app.put(patient(id=name, birthDate=f"200{n}"))
    link = next(x["url"] for x in load(app.get(f"Patient/{a}/_history?_count=1"))["link"] if x["relation"] == "next")
    text = link.partition("_page=")[2]
    assert a not in text
    assert app.get(link).status_code == 200
    for path in (f"Patient/{b}/_history", "Patient/_history", "_history"):
        assert app.get(f"{path}?_page={text}").status_code == 400
    assert app.get(f"{link[:-3]}xyz").status_code == 400
    assert app.get(f"{link}&_count=2").status_code == 400


# A type and everything


def test_the_history_of_a_type_is_in_order_and_its_pages_lose_and_repeat_nothing_while_others_write(app: FhirApp) -> None:
    names = [unused("t-") for _ in range(7)]
    began = now()
    for n in range(3):
        for name in names:
            app.put({"resourceType": "Basic", "id": name, "code": {"text": str(n)}})
    app.send("DELETE", f"Basic/{names[0]}")
    app.bundle("transaction", *[put({"resourceType": "Basic", "id": n, "code": {"text": "all at once"}}) for n in names[1:]])
    expected = [v for page in walk(app, f"Basic/_history?_since={began}&_count=1000") for v in page]
    assert len(expected) == len(set(expected)) == 7 * 3 + 1 + 6
    assert expected[-7:] == [f"Basic/{name}/1" for name in reversed(names)]

    writes = iter(range(1000))

    def write() -> None:
        """What others do between two pages: change what was shown already, and what is still to be shown."""
        n = next(writes)
        app.put({"resourceType": "Basic", "id": names[1 + n % 6], "code": {"text": f"later {n}"}})

    for count in (1, 2, 5):
        pages = walk(app, f"Basic/_history?_since={began}&_count={count}", write)
        shown = [v for page in pages for v in page]
        assert len(shown) == len(set(shown))
        assert [v for v in shown if v in set(expected)] == expected
        assert all(len(page) == count for page in pages[:-1])


def test_the_history_of_a_type_tells_the_total_only_where_it_is_known(app: FhirApp) -> None:
    app.create({"resourceType": "Flag", "status": "active", "code": {"text": "x"}, "subject": {"display": "x"}})
    app.create({"resourceType": "Flag", "status": "active", "code": {"text": "y"}, "subject": {"display": "x"}})
    assert load(app.get("Flag/_history"))["total"] == 2
    assert "total" not in load(app.get("Flag/_history?_count=1"))
    assert load(app.get("VisionPrescription/_history")).get("entry") is None
    assert load(app.get("Flag/_history?_count=0")).get("entry") is None


def test_at_shows_a_type_as_it_was(app: FhirApp) -> None:
    names = [unused("at-") for _ in range(4)]
    a, b, c, d = names

    def goal(name: str, text: str) -> Resource:
        return {"resourceType": "Library", "id": name, "status": "draft", "type": {"text": text}}

    for name in (a, b, c):
        app.put(goal(name, "1"))
    moment = now()
    app.put(goal(b, "2"))
    app.send("DELETE", f"Library/{c}")
    app.put(goal(d, "1"))
    later = now()
    app.put(goal(a, "2"))
    for count in (1, 2, 100):
        assert sorted(only(app, f"Library/_history?_at={moment}&_count={count}", set(names))) == sorted(
            f"Library/{n}/1" for n in (a, b, c)
        )
        assert sorted(only(app, f"Library/_history?_at={later}&_count={count}", set(names))) == sorted(
            [f"Library/{a}/1", f"Library/{b}/2", f"Library/{d}/1"]
        )
    whole_day = only(app, f"Library/_history?_at={moment[:10]}", set(names))
    assert len(whole_day) == 7


def test_at_looks_at_a_bounded_number_of_versions_a_page(app: FhirApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may be short, or empty; its link leads on."""
    monkeypatch.setattr(history, "_MAX_LOOKED_AT", 5)
    monkeypatch.setattr(history, "_CHUNK", 5)
    name, busy = unused("quiet-"), unused("busy-")
    app.put({"resourceType": "Media", "id": name, "status": "completed", "content": {"title": "x"}})
    for n in range(12):
        app.put({"resourceType": "Media", "id": busy, "status": "completed", "content": {"title": str(n)}})
    pages = walk(app, f"Media/_history?_at={now()}&_count=2")
    assert len(pages) > 2
    assert [v for page in pages for v in page] == [f"Media/{busy}/12", f"Media/{name}/1"]


def test_the_history_of_everything_is_one_order_over_all_types(app: FhirApp) -> None:
    began = now()
    a = app.create(patient())
    b = app.create({"resourceType": "Organization", "name": "x"})
    app.put(a | {"gender": "male"})
    made = load(app.bundle("transaction", post(patient()), post({"resourceType": "Location", "name": "x"})))
    c, d = sorted([f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in made["entry"]], reverse=True)
    expected = [f"{c}/1", f"{d}/1", f"Patient/{a['id']}/2", f"Organization/{b['id']}/1", f"Patient/{a['id']}/1"]
    for count in (1, 2, 100):
        pages = walk(app, f"_history?_since={began}&_type=Patient,Organization,Location&_count={count}")
        assert [v for page in pages for v in page] == expected
    everything = [v for page in walk(app, f"_history?_since={began}") for v in page]
    assert [v for v in everything if not v.startswith("AuditEvent/")] == expected
    assert app.get("_history?_type=Nonsense").status_code == 400


def test_a_history_needs_the_right_to_search_what_it_shows(app: FhirApp) -> None:
    began = now()
    app.create(patient())
    app.create({"resourceType": "Organization", "name": "x"})
    seen = load(app.send("GET", f"_history?_since={began}", scope="system/Patient.rs"))
    assert {v.split("/")[0] for v in versions(seen)} == {"Patient"}
    assert app.send("GET", "Patient/_history", scope="system/Patient.r").status_code == 403
    assert app.send("GET", "Patient/_history", scope="system/Patient.s").status_code == 200
    assert app.send("GET", "Patient/_history", scope="system/Organization.rs").status_code == 403
    assert app.send("GET", "_history", scope="system/Patient.r").status_code == 403
    assert app.send("GET", "_history?_type=Patient,Organization", scope="system/Patient.rs").status_code == 403


def test_a_history_is_on_record_with_what_it_showed(app: FhirApp) -> None:
    name = unused("audited-")
    began = now()
    app.put(patient(id=name))
    before = len(app.audit())
    app.get(f"Patient/_history?_since={began}")
    (event,) = app.audit(before)
    assert event["subtype"][0]["code"] == "history-type"
    assert f"Patient/{name}" in [e["what"]["reference"] for e in event["entity"] if "what" in e]


def test_no_history_scans_a_collection(app: FhirApp) -> None:
    """What MongoDB looks at is what a page shows, however much there is."""
    for n in range(3):
        app.bundle("transaction", *[put(patient(id=f"scan-{i}", birthDate=f"200{n}")) for i in range(100)])
    answer = load(app.get("Patient/_history?_count=5&_at=2100"))
    place = history.Key(datetime(2100, 1, 1), "Patient", "x", 1).place  # noqa: DTZ001 - as MongoDB keeps it
    for query in (
        history.HistoryQuery("Patient", None, 5),
        history.HistoryQuery("Patient", None, 5, since=datetime(2020, 1, 1)),  # noqa: DTZ001
        history.HistoryQuery("Patient", None, 5, period=(datetime(2020, 1, 1), datetime(2090, 1, 1))),  # noqa: DTZ001
    ):
        for at in (None, place):
            for name, pipeline in history._branches(app.store, "Patient", query, at, 6):
                command = {"aggregate": name, "pipeline": pipeline, "cursor": {}}
                found = app.run(app.db.command("explain", command, verbosity="executionStats"))
                plan = found.get("stages", [{"$cursor": found}])[0]["$cursor"]
                chosen = str(plan["queryPlanner"]["winningPlan"])
                assert "COLLSCAN" not in chosen
                assert "SORT" not in chosen
                assert plan["executionStats"]["totalKeysExamined"] <= 20, (name, query, at)
    assert answer["type"] == "history"


# In Bundles


def test_histories_and_versions_can_be_read_in_bundles(app: FhirApp) -> None:
    name = unused("inside-")
    app.put(patient(id=f"{name}-other"))
    app.put(patient(id=name, gender="male"))
    for kind in ("batch", "transaction"):
        answer = app.bundle(
            kind,
            entry("GET", f"Patient/{name}/_history?_count=1"),
            entry("GET", f"Patient/{name}/_history/1"),
            entry("GET", "Patient/_history?_count=2"),
            entry("GET", "_history?_type=Patient&_count=2"),
        )
        got = [e["resource"] for e in load(answer)["entry"]]
        assert versions(got[0]) == [f"Patient/{name}/1"]
        assert got[1]["gender"] == "male"
        assert len(versions(got[2])) == len(versions(got[3])) == 2


def test_a_history_in_a_transaction_shows_what_the_transaction_writes(app: FhirApp) -> None:
    name = unused("own-")
    app.put(patient(id=name))
    answer = app.bundle(
        "transaction",
        entry("GET", f"Patient/{name}/_history"),
        entry("GET", f"Patient/{name}/_history/2"),
        entry("GET", "Patient/_history?_count=1"),
        put(patient(id=name, gender="female")),
    )
    got = [e["resource"] for e in load(answer)["entry"]]
    assert versions(got[0]) == [f"Patient/{name}/2", f"Patient/{name}/1"]
    assert got[1]["gender"] == "female"
    assert versions(got[2]) == [f"Patient/{name}/2"]


def test_what_was_long_ago_is_found_by_since(app: FhirApp) -> None:
    app.create(patient())
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
    assert versions(load(app.get(f"Patient/_history?_since={future}"))) == []
    assert versions(load(app.get("Patient/_history?_since=2001&_count=1"))) != []
