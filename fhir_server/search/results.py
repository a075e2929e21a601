"""Running a compiled search: one page of matches, what is included with them, and how many there are."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import ExecutionTimeout

from fhir_server import definitions, fhir_json
from fhir_server.outcome import Issue, fail
from fhir_server.page_links import PageLinks
from fhir_server.search import explain, paging
from fhir_server.search.compartments import COMPARTMENTS, in_compartment
from fhir_server.search.including import Includes
from fhir_server.search.query import LONGEST_SEARCH, Query, compile_query
from fhir_server.search.resolve import Look, resolve
from fhir_server.subset import check_elements

Resource = dict[str, Any]
Parameters = list[tuple[str, str]]

_KIND = "search"


@dataclass(slots=True)
class Found:
    """A page of a search.

    `total` is the number of all matches if asked; `next` the text of the next page's link; `notes` what is to be said beside:
    parameters that were ignored, includes that are not complete. `summary` and `elements` say how the resources are to be shown,
    `explanation` how the database found them. `used` are the parameters that were applied.
    """

    matches: list[Resource] = field(default_factory=list)
    included: list[Resource] = field(default_factory=list)
    total: int | None = None
    next: str | None = None
    notes: list[Issue] = field(default_factory=list)
    summary: str | None = None
    elements: tuple[str, ...] = ()
    explanation: dict[str, Any] | None = None
    used: Parameters = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asked:
    """A search as it was asked: the type (None for several), the parameters, the compartment, and where the page begins.

    `followed` is the page link that it came in, if it did.
    """

    type: str | None
    parameters: Parameters
    compartment: tuple[str, str] | None = None
    place: list[Any] | None = None
    followed: Parameters | None = None

    async def sealed(self, links: PageLinks, place: list[Any]) -> str:
        """The link to the page that begins after a place."""
        return await links.seal(_KIND, [self.type, self.parameters, self.compartment, place])


async def asked(
    links: PageLinks, resource_type: str | None, parameters: Parameters, compartment: tuple[str, str] | None
) -> Asked:
    """What these parameters ask; those of a page link (`_page`) are inside it. FhirError `invalid`."""
    if resource_type is not None and any(name == "_type" for name, _ in parameters):
        raise fail("invalid", f"_type is for searches over several types; this is one on {resource_type}", status=400)
    pages = [value for name, value in parameters if name == "_page"]
    if not pages:
        return Asked(resource_type, parameters, compartment)
    if len(parameters) > 1:
        raise fail("invalid", "a page link is followed as it is, without further parameters", status=400)
    of_type, within, where, place = await links.open(_KIND, pages[0])
    found = Asked(of_type, [(name, value) for name, value in within], tuple(where) if where else None, place, parameters)
    if (found.type, found.compartment) != (resource_type, compartment):
        raise fail("invalid", "this page link belongs to another search", status=400)
    return found


async def search(look: Look, links: PageLinks, question: Asked, base_url: str, *, lenient: bool = False) -> Found:
    """A page of what is asked for among what the caller may see. FhirError `too-costly` for what would look at too much."""
    search_in = _search_types if question.type is None else _search_type
    try:
        async with asyncio.timeout(LONGEST_SEARCH / 1000):
            if question.compartment is not None and look.access.restricted:
                await _require_focus(look, question)
            found = await search_in(look, links, question, base_url, lenient=lenient)
    except (ExecutionTimeout, TimeoutError):
        raise fail("too-costly", "the search takes too long: narrow it") from None
    if question.followed is not None:
        found.used = question.followed  # what a sealed link asks for is not for everybody who has it
    return found


async def _require_focus(look: Look, question: Asked) -> None:
    """Refuse (404) a compartment of what isn't there for this caller; 403 comes first."""
    assert question.compartment is not None
    name, id_ = question.compartment
    if name not in COMPARTMENTS:
        return  # which is told where the compartment is looked up
    if question.type is not None:
        look.access.require(question.type, "s")
    elif not any(look.access.allows(t, "s") for t in definitions.compartment(name)):
        look.access.require(name, "s")
    where = look.access.reach(name)
    focus = {"_id": id_} if where is None else {"$and": [{"_id": id_}, where]}
    if await look.store.current(name).find_one(focus, {"_id": 1}, session=look.session) is None:
        raise fail("not-found", f"there is no {name}/{id_}")


async def _search_type(look: Look, links: PageLinks, question: Asked, base_url: str, *, lenient: bool) -> Found:
    assert question.type is not None
    query = await _compiled(look, question.type, question, base_url, lenient=lenient)
    check_elements(question.type, query.elements)
    found = _answer(query)
    place = paging.read(query, question.place) if question.place is not None else None
    if query.explain:
        found.explanation = await explain.explain(look.store, query, place)
    if query.total or query.only_count:
        found.total = await look.store.count(query, look.session)
    if query.only_count:
        return found
    documents = await look.store.find(query, limit=query.count + 1, place=place, session=look.session)
    if len(documents) > query.count:
        documents = documents[: query.count]
        found.next = await question.sealed(links, paging.written(paging.place(query, documents[-1])))
    found.matches = [fhir_json.from_bson(d["resource"]) for d in documents]
    await _include(look, query, found)
    return found


async def _compiled(look: Look, resource_type: str, question: Asked, base_url: str, *, lenient: bool) -> Query:
    query = compile_query(resource_type, question.parameters, base_url, lenient=lenient)
    if query.explain and look.access.restricted:
        raise fail("forbidden", "_explain tells how many resources were looked at, which is more than this token may know")
    if question.compartment is not None:
        query.filters.append(in_compartment(resource_type, *question.compartment))
    await resolve(look, query)
    return query


def _answer(query: Query) -> Found:
    return Found(summary=query.summary, elements=query.elements, used=query.used, notes=query.notes)


async def _include(look: Look, query: Query, found: Found) -> None:
    if found.matches and query.includes:
        found.included, notes = await Includes(look, found.matches).find(query.includes)
        found.notes += notes


# Several types


async def _search_types(look: Look, links: PageLinks, question: Asked, base_url: str, *, lenient: bool) -> Found:
    """A search over several types: one after the other, or merged where `_sort=_lastUpdated` asks for one order."""
    types = await _types(look, question)
    queries = [await _compiled(look, t, question, base_url, lenient=lenient) for t in types]
    if not queries:
        return Found(total=0 if any(n in {"_total", "_summary"} for n, _ in question.parameters) else None)
    first = queries[0]
    if any(key.name not in {"_id", "_lastUpdated"} for key in first.sort):
        raise fail("invalid", "a search over several types is sorted by _id or _lastUpdated", status=400)
    found = _answer(first)
    if first.explain:
        found.explanation = {q.type: await explain.explain(look.store, q, None) for q in queries}
    if first.total or first.only_count:
        found.total = sum([await look.store.count(q, look.session) for q in queries])
    if first.only_count:
        return found
    rows = await (_merged if first.sort else _one_by_one)(look, queries, question.place)
    if len(rows) > first.count:
        rows = rows[: first.count]
        query, last = rows[-1]
        found.next = await question.sealed(links, [query.type, *paging.written(paging.place(query, last))])
    found.matches = [fhir_json.from_bson(d["resource"]) for _, d in rows]
    await _include(look, first, found)
    return found


async def _types(look: Look, question: Asked) -> list[str]:
    """The types to look at: those asked for by `_type`, else all that are stored; of these, those the caller may search."""
    named = [t for name, value in question.parameters if name == "_type" for t in value.split(",")]
    if wrong := [t for t in named if t not in definitions.RESOURCE_TYPES]:
        raise fail("invalid", f"_type: {wrong[0][:64]!r} is not a FHIR R4 resource type", status=400)
    stored = await look.store.known_types()
    if question.compartment is not None:
        held = definitions.compartment(question.compartment[0])
        if outside := [t for t in named if t not in held and t != question.compartment[0]]:
            raise fail("invalid", f"{outside[0]} is not in the {question.compartment[0]} compartment", status=400)
        stored = [t for t in stored if t in held or t == question.compartment[0]]
    if named:
        for resource_type in named:
            look.access.require(resource_type, "s")
        return sorted(set(named))
    allowed = [t for t in stored if look.access.allows(t, "s")]
    if stored and not allowed:
        look.access.require(stored[0], "s")
    return allowed


Row = tuple[Query, dict[str, Any]]


async def _one_by_one(look: Look, queries: list[Query], place: list[Any] | None) -> list[Row]:
    """Type by type, each in the order of ids, until the page is full."""
    rows: list[Row] = []
    for query in queries:
        if place is not None and query.type < place[0]:
            continue
        begin = paging.read(query, place[1:]) if place is not None and query.type == place[0] else None
        documents = await look.store.find(query, limit=query.count + 1 - len(rows), place=begin, session=look.session)
        rows += [(query, d) for d in documents]
        if len(rows) > query.count:
            break
    return rows


async def _merged(look: Look, queries: list[Query], place: list[Any] | None) -> list[Row]:
    """All types in one order: the sort keys, the id, and the type where the same id is used by several."""
    rows: list[tuple[Any, Row]] = []
    for query in queries:
        # What another type has at the very same place comes before it or after it, as the names of the types go.
        begin = paging.read(query, place[1:]) if place is not None else None
        same = begin is not None and place is not None and query.type > place[0]
        documents = await look.store.find(query, limit=query.count + 2, place=begin, inclusive=same, session=look.session)
        rows += [(_Order(query, d), (query, d)) for d in documents]
    rows.sort(key=lambda row: row[0])
    return [row for _, row in rows[: queries[0].count + 1]]


class _Order:
    """How a match compares to one of another type."""

    __slots__ = ("_keys", "_type")

    def __init__(self, query: Query, document: dict[str, Any]) -> None:
        directions = [k.direction for k in query.sort if k.name != "_id"] + [paging.id_direction(query)]
        self._keys = list(zip(paging.place(query, document), directions, strict=True))
        self._type = query.type

    def __lt__(self, other: "_Order") -> bool:
        for (mine, direction), (theirs, _) in zip(self._keys, other._keys, strict=True):
            if mine != theirs:
                return bool(mine < theirs) if direction == 1 else bool(mine > theirs)
        return self._type < other._type
