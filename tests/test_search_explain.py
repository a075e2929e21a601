"""No search scans a collection: every parameter of the types of radiology, with every modifier and prefix, at 100,000 resources.

The plans are those that `_explain=true` shows. What else a search runs (counting, the steps of chains, further pages) is watched
by MongoDB's profiler, which writes down each operation that reads a whole collection.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_server.database import Document
from fhir_server.definitions import SearchParameter, search_parameters
from fhir_server.outcome import FhirError
from fhir_server.search.explain import explain
from fhir_server.search.index import index, searchable
from fhir_server.search.query import Query, compile_query
from fhir_server.search.resolve import Look, resolve
from smart_auth.access import Access
from smart_auth.circumstances import Circumstances
from smart_auth.denials import denials
from smart_auth.scopes import parse_scopes
from tests.fhir_app import FhirApp, serving
from tests.filled_resources import filled
from tests.search_terms import Term, terms

Resource = dict[str, Any]
Search = list[Term]
Explanation = dict[str, Any]

# DESIGN.md section 3, and the partners and places of section 2.5.
TYPES = [
    *"ServiceRequest ImagingStudy Task Appointment Procedure DiagnosticReport Observation ChargeItem Patient Encounter".split(),
    *"Coverage CoverageEligibilityRequest CoverageEligibilityResponse Communication CommunicationRequest AuditEvent".split(),
    *"Provenance Device Organization Location Practitioner PractitionerRole HealthcareService Schedule Slot".split(),
    *"ActivityDefinition Endpoint".split(),
]
BIG = "ServiceRequest"
IN_ORDER = {"_id", "_lastUpdated", "authored", "occurrence", "priority"}
"""What indexes have in order, of that type."""
COPIES = {BIG: 200, "Task": 4, "Patient": 4, "Observation": 4}
COPIED, OTHERS = 500, 200  # different resources of a type that is copied, and of the others
PAGE = 20
SLACK = 200  # documents that may be looked at beside ten times those that are returned
AT_ONCE = 6
ACCESS = Access.system("explain")
STORED = datetime(2026, 1, 1, tzinfo=UTC)
CONSENT = {
    "status": "active", "scope": {"coding": [{"code": "patient-privacy"}]},
    "provision": {"type": "deny", "securityLabel": [{"system": "http://example.org/labels", "code": "PSY"}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    """A server that has the profiler write down what reads a whole collection."""
    with serving(mongodb_uri, strict=False, core=False, rules=lambda _: None) as running:
        running.run(running.db.command("profile", 1, filter={"planSummary": {"$regex": "COLLSCAN"}}))
        yield running


@pytest.fixture
def stored(app: FhirApp, resource_type: str) -> Iterator[list[Resource]]:
    """The resources of a type that are stored, each as often as its type is copied."""
    resources = resources_of(resource_type)
    app.run(_store(app, resource_type, resources))
    yield resources
    app.run(app.db[resource_type].drop())


def resources_of(resource_type: str) -> list[Resource]:
    """Different resources of a type."""
    return [filled(resource_type, n, 0.25) for n in range(COPIED if resource_type in COPIES else OTHERS)]


async def _store(app: FhirApp, resource_type: str, resources: list[Resource]) -> None:
    """MongoDB makes the copies; the indexes come afterwards, which is quicker."""
    seed = app.db["seed"]
    common = {"version": 1, "method": "PUT", "updated": STORED}
    shown = {"resourceType": resource_type}
    await seed.insert_many([{"_id": r["id"], **common, "resource": shown, "search": index(r)} for r in resources])
    copied: list[Document] = [
        {"$set": {"copy": {"$range": [0, COPIES.get(resource_type, 1)]}}},
        {"$unwind": "$copy"},
        {"$set": {"_id": {"$concat": [{"$toString": "$copy"}, "-", "$_id"]}}},
        {"$set": {"resource.id": "$_id"}},
        {"$unset": "copy"},
        {"$out": resource_type},
    ]
    await (await seed.aggregate(copied)).to_list()
    await seed.drop()
    await app.store.ensure(resource_type)


# What is asked


def declared(resource_type: str) -> list[SearchParameter]:
    """The parameters that the server says it has, but for `near`, by HL7's definitions."""
    known = search_parameters(resource_type)
    return [known[name] for name, kind in searchable(resource_type).items() if kind != "special"]


def searches(resources: list[Resource], resource_type: str) -> list[Search]:
    """By each parameter, with each modifier and prefix, something that is there."""
    found: list[Search] = []
    for parameter in declared(resource_type):
        tried = (list(terms(resource, parameter)) for resource in resources)
        found += [[term] for term in next((t for t in tried if t), [])]
    found += [[("_lastUpdated", f"{prefix}2026-01-01")] for prefix in ("", *"ne gt lt ge le sa eb ap".split())]
    return [*found, [("near", "48|16|500|km")]] if resource_type == "Location" else found


def sorts(resource_type: str) -> list[Search]:
    """By each parameter that can be sorted by (those that join two others can't), alone, both ways."""
    kinds = {"date", "string", "token", "reference", "uri", "number"}
    names = [p.name for p in declared(resource_type) if p.type in kinds and not p.name.startswith("combo-")]
    return [[("_sort", direction + name)] for name in names for direction in ("", "-")]


def explained(app: FhirApp, resource_type: str, asked: list[Search]) -> list[tuple[Search, Explanation]]:
    """How each search is run, and (`total`) how many matches there are; `refused` with the code of the refusal."""

    async def one(search: Search) -> Explanation:
        # To count nearly all of the many takes long, and is done in the same way where there are few.
        total = "none" if resource_type == BIG and is_broad(search) else "accurate"
        whole = [*search, ("_count", str(PAGE)), ("_explain", "true"), ("_total", total)]
        try:
            found = await app.interactions.search(ACCESS, resource_type, whole)
        except FhirError as error:
            return {"refused": error.code}
        assert found.explanation is not None
        return found.explanation | {"total": found.total or 0}

    async def some(searches: list[Search]) -> list[Explanation]:
        return await asyncio.gather(*(one(search) for search in searches))

    answers = [how for start in range(0, len(asked), AT_ONCE) for how in app.run(some(asked[start : start + AT_ONCE]))]
    return list(zip(asked, answers, strict=True))


def callers(resources: list[Resource]) -> list[Access]:
    """Those who see a part: an app of one patient, a radiologist with many patients that are hidden, a referrer with a few."""
    named = {k.partition("Patient/")[2] for r in resources for k in index(r)["t"] if k.startswith(("subject>P", "patient>P"))}
    some = frozenset([*sorted(named)[:40], *(f"n{n}" for n in range(200))])
    denied = denials([CONSENT | {"patient": {"reference": f"Patient/{i}"}} for i in sorted(some)[:50]], frozenset(), STORED)
    person = {"user": "Practitioner/x", "user_name": "x"}
    return [
        Access("app", parse_scopes("patient/*.rs"), "t", patient=min(some), circumstances=Circumstances()),
        Access(
            "app", parse_scopes("user/*.rs"), "t", role="radiologist", circumstances=Circumstances(closed=some, denials=denied),
            **person,
        ),
        Access("app", parse_scopes("user/*.rs"), "t", role="referrer", circumstances=Circumstances(own=some), **person),
    ]  # fmt: skip


def filtered(app: FhirApp, caller: Access, resource_type: str, asked: list[Search]) -> list[tuple[Search, Explanation]]:
    """How a search is run for who sees a part (`_explain` is not for them).

    `total` is what one of both, the search or the rights, leads to: an index leads to the one, and the other is looked at there.
    """

    async def one(search: Search, visible: int) -> Explanation:
        parameters = [*search, ("_count", str(PAGE))]
        try:
            mine, everybodys = compile_query(resource_type, parameters), compile_query(resource_type, parameters)
            await resolve(Look(app.store, caller), mine)
            how = await explain(app.store, mine, None)
            if is_broad(search):
                return how | {"total": visible}
            await resolve(Look(app.store, ACCESS), everybodys)
            return how | {"total": min(visible, await app.store.count(everybodys))}
        except FhirError as error:
            return {"refused": error.code}

    async def all_of_them() -> list[Explanation]:
        visible = Query(resource_type)
        await resolve(Look(app.store, caller), visible)
        number = await app.store.count(visible)
        return [await one(search, number) for search in asked]

    told = list(zip(asked, app.run(all_of_them()), strict=True))
    # Value sets and code systems are no patient's; sorting too many in memory is refused as it is for everybody.
    return [(search, how) for search, how in told if how.get("refused") not in {"forbidden", "too-costly"}]


def sorted_wholly(app: FhirApp, resource_type: str) -> set[str]:
    """The parameters by which all resources of a type can be had in order; the other sorts are refused as too costly."""
    found: set[str] = set()
    for search in sorts(resource_type):
        try:
            app.run(app.interactions.search(ACCESS, resource_type, [*search, ("_count", str(PAGE))]))
        except FhirError as error:
            if error.code != "too-costly":
                raise
        else:
            found.add(search[0][1].removeprefix("-"))
    return found


def scans(app: FhirApp, resource_type: str) -> list[str]:
    """What has read the whole collection of a type."""

    async def read() -> list[str]:
        found = app.db["system.profile"].find({"ns": f"{app.db.name}.{resource_type}"})
        return [str(d["command"].get("pipeline") or d["command"].get("filter") or d["command"])[:300] async for d in found]

    return app.run(read())


def is_negated(search: Search) -> bool:
    """Whether the search is for what does not have something: no index leads there, so it goes through the ids."""
    name, text = search[0]
    return name.endswith(":not") or text.startswith("ne") or (name.endswith(":missing") and text == "true")


def is_within(search: Search) -> bool:
    """Whether the search is for the middle of a text: it looks at all resources that have a text there."""
    return search[0][0].endswith(":contains")


def is_broad(search: Search) -> bool:
    """Whether most of all resources may match."""
    return is_negated(search) or search[0][0].endswith(":missing") or search[0][0] == "_lastUpdated"


def complaint(search: Search, how: Explanation) -> str:
    """What is wrong with a plan: a scan, or more documents looked at than there are matches (or ten times those of the page)."""
    if "refused" in how:
        return f"refused: {how['refused']}"
    if "COLLSCAN" in how["stages"] or not {"IXSCAN", "IDHACK", "EOF"} & set(how["stages"]):
        return f"{how['stages']}"
    if how["documents"] > max(10 * how["returned"], how["total"]) + SLACK and not is_negated(search) and not is_within(search):
        return f"{how['documents']} documents for {how['returned']} of {how['total']} by {how['stages']}"
    return ""


# The tests


@pytest.mark.parametrize("resource_type", TYPES)
def test_no_search_scans_a_collection(app: FhirApp, stored: list[Resource], resource_type: str) -> None:
    asked = searches(stored, resource_type)
    assert {p.name for p in declared(resource_type)} == {search[0][0].partition(":")[0] for search in asked} - {"near"}
    tag = next(r["meta"]["tag"][0]["code"] for r in stored)
    asked += [[("_tag", tag), *sort] for sort in sorts(resource_type)]
    assert {str(s): text for s, how in explained(app, resource_type, asked) if (text := complaint(s, how))} == {}
    if resource_type == BIG:
        assert sorted_wholly(app, resource_type) == IN_ORDER
    for caller in callers(stored):
        if caller.allows(resource_type, "s"):
            found = filtered(app, caller, resource_type, asked[::4])
            assert {str(s): text for s, how in found if (text := complaint(s, how))} == {}, caller
    assert scans(app, resource_type) == []
