"""Lists by a key and in order of a date: found by one index, and the same as by any other way."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_server.database import Document
from fhir_server.search import paging
from fhir_server.search.dates import LATEST
from fhir_server.search.explain import explain
from fhir_server.search.index import LISTED, index, searchable
from fhir_server.search.query import compile_query
from tests.fhir_app import FhirApp, serving

ENDS = {datetime(2026, 3, 16), datetime(2026, 3, 1), LATEST}  # noqa: DTZ001 - of all that last, as MongoDB keeps them
STORED = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 56
CODE = {"coding": [{"system": "http://loinc.org", "code": "24627-2"}]}
OTHER = {"coding": [{"system": "http://loinc.org", "code": "36643-5"}]}


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, strict=False) as running:
        running.run(_fill(running))
        yield running


async def _fill(app: FhirApp) -> None:
    """Observations of two codes and two patients, at a moment; every tenth is a Period of weeks, and a few have a Period without
    end, a month, or no date."""
    documents: list[Document] = []
    for n in range(DAYS * 8):
        day = f"2026-{n // 8 % DAYS // 28 + 1:02d}-{n // 8 % 28 + 1:02d}"
        when: dict[str, Any] = {"effectiveDateTime": f"{day}T{n % 8 + 8:02d}:00:00Z"}
        if n % 10 == 0:
            when = {"effectivePeriod": {"start": day, "end": "2026-03-15"}}
        if n % 50 == 7:
            when = {}
        if n % 50 == 13:
            when = {"effectiveDateTime": "2026-02"}
        if n % 50 == 27:
            when = {"effectivePeriod": {"start": day}}
        observation = {
            "resourceType": "Observation", "id": f"o{n:04d}", "status": "final", "code": CODE if n % 2 else OTHER,
            "subject": {"reference": f"Patient/{'a' if n % 3 else 'b'}"}, **when,
        }  # fmt: skip
        stored = {"_id": observation["id"], "version": 1, "method": "PUT", "updated": STORED}
        documents.append({**stored, "resource": observation, "search": index(observation)})
    await app.store.ensure("Observation")
    await app.db["Observation"].insert_many(documents)


LISTS = [
    "code=http://loinc.org|24627-2",
    "code=24627-2,36643-5",
    "patient=Patient/a",
    "patient=a&code=24627-2",
    "subject=Patient/b&status=final",
    "code=24627-2&patient=nobody",
]
DATES = ["", "ge2026-01-10", "lt2026-02-03", "ge2026-01-10&date=lt2026-02-03", "2026-01-17", "ne2026-01-17", "sa2026-01-20",
         "eb2026-01-20",
         "le2026-01-05", "gt2026-02-20", "2026-01-05,2026-02-05", "ap2026-02-01", "2026"]  # fmt: skip


@pytest.mark.parametrize("by", LISTS)
def test_a_list_is_the_same_as_by_any_other_way(app: FhirApp, by: str) -> None:
    for date in DATES:
        asked = f"Observation?{by}" + (f"&date={date}" if date else "")
        listed = [id_ for page in app.pages(f"{asked}&_sort=-date&_count=50") for id_ in page]
        assert listed == [id_ for page in app.pages(f"{asked}&_sort=-date,-_id&_count=50") for id_ in page], date
        assert len(listed) == len(set(listed)) == app.search(f"{asked}&_summary=count")["total"]


@pytest.mark.parametrize("code", ["24627-2", "24627-2,36643-5"])
@pytest.mark.parametrize("date", ["", "ge2026-01-10&lt2026-02-03"])
def test_one_index_leads_to_each_page_of_the_newest_of_a_key(app: FhirApp, code: str, date: str) -> None:
    """No more is looked at than is shown, but for those of one end that come before the page."""
    parameters = [("code", code), ("_sort", "-date"), ("_count", "5"), *(("date", v) for v in date.split("&") if v)]
    query = compile_query("Observation", parameters)
    place: list[Any] | None = None
    for _ in range(12):
        how = app.run(explain(app.store, query, place))
        assert how["order"] == "index"
        assert {one["name"] for one in how["indexes"]} == {"search.by_1_search.to_1__id_1_search.from_1"}
        found = app.run(app.store.find(query, limit=6, place=place))
        if place is None or place[0] not in ENDS:
            assert how["documents"] <= len(found) + 1
        if len(found) < 6:
            break
        place = paging.place(query, found[4])


def test_what_is_no_list_goes_as_before() -> None:
    for parameters in (
        [("code", "x"), ("_sort", "date")],
        [("code", "x"), ("_sort", "-_lastUpdated")],
        [("code", "x")],
        [("_sort", "-date")],
        [("code:not", "x"), ("_sort", "-date")],
        [("code", "http://loinc.org|"), ("_sort", "-date")],
        [("status", "final"), ("_sort", "-date")],
    ):
        assert "search.by" not in str(compile_query("Observation", parameters).filter)


@pytest.mark.parametrize("resource_type", LISTED)
def test_lists_are_by_what_can_be_searched_for(resource_type: str) -> None:
    date, names = LISTED[resource_type]
    known = searchable(resource_type)
    assert known[date] == "date"
    assert {known[name] for name in names} <= {"token", "reference"}
    query = compile_query(resource_type, [(names[0], f"{resource_type}/x"), ("_sort", f"-{date}")])
    assert "search.by" in str(query.filter)
