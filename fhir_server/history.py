"""History (FHIR R4 3.1.0.9): the versions of one resource, of a type or of everything, newest first, a page at a time.

A page link holds the place after which the next page begins, never a number of rows to skip: what is written meanwhile is newer,
and moves nothing. Of each collection only as many index entries are read as a page has rows. What is current may become history
between two reads; so the current versions are always read first, and what then turns up twice is shown once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server import definitions, visibility
from fhir_server.exchange import Parameters, View, summary_of
from fhir_server.outcome import FhirError, fail
from fhir_server.page_links import PageLinks
from fhir_server.search.dates import of_text
from fhir_server.store import Document, Store, Version, united, version
from fhir_server.subset import elements_named
from smart_auth.access import Access

DEFAULT_COUNT = 100
MAX_COUNT = 1000
# Index entries that one page looks at, where a point in time leaves most of them out.
_MAX_LOOKED_AT = 20_000
_CHUNK = 200  # of these, at a time
_KIND = "history"
_PARAMETERS = ("_count", "_since", "_at", "_summary", "_elements")


class Key(NamedTuple):
    """A version's place in a history of many resources; the greatest comes first. `current`: it was so when it was read."""

    updated: datetime
    type: str
    id: str
    version: int
    current: bool = False
    method: str = ""

    @property
    def place(self) -> tuple[datetime, str, str, int]:
        return self[:4]


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """A page of a history. `type` None: of all `types`; `period`: what was current at some point in [start, end)."""

    type: str | None
    id: str | None
    count: int = DEFAULT_COUNT
    since: datetime | None = None
    period: tuple[datetime, datetime] | None = None
    types: tuple[str, ...] = ()
    view: View = field(default_factory=View)
    # Where the page begins: after this version's number, or after this key.
    place: Any = None

    def begins_with(self, place: Any) -> list[Any]:
        """What a link to the page that begins there holds."""
        period = [_text(t) for t in self.period] if self.period else None
        since = _text(self.since) if self.since else None
        shown = [self.view.summary, self.view.elements]
        return [self.type, self.id, self.count, since, period, self.types, shown, place]


@dataclass(slots=True)
class HistoryPage:
    """A page: the versions with their types, how many there are in all if that is known, and the text of the next page's link."""

    versions: list[tuple[str, Version]]
    total: int | None = None
    next: str | None = None
    view: View = field(default_factory=View)
    # Of the versions (type, id, number) those that came after a deletion: they were created, as the first was.
    anew: set[tuple[str, str, int]] = field(default_factory=set)


async def history_query(
    links: PageLinks, type_: str | None, id_: str | None, parameters: Parameters, *, lenient: bool = False
) -> HistoryQuery:
    """What these parameters query for; those of a page link (`_page`) are in it. FhirError `invalid` (400)."""
    pages = [value for name, value in parameters if name == "_page"]
    if pages:
        if len(parameters) > 1:
            raise fail("invalid", "a page link is followed as it is, without further parameters", status=400)
        return _opened(await links.open(_KIND, pages[0]), type_, id_)
    known = _PARAMETERS if type_ else (*_PARAMETERS, "_type")
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in known and not lenient:
            raise fail("invalid", f"a history has no parameter {name[:64]!r}; it has: {', '.join(known)}", status=400)
        if name in given:
            raise fail("invalid", f"{name} is given twice", status=400)
        given[name] = value
    if "_since" in given and "_at" in given:
        raise fail("invalid", "a history takes _since or _at, not both", status=400)
    return HistoryQuery(
        type_,
        id_,
        count=_count(given["_count"]) if "_count" in given else DEFAULT_COUNT,
        since=_interval("_since", given["_since"])[0] if "_since" in given else None,
        period=_interval("_at", given["_at"]) if "_at" in given else None,
        types=_types(given["_type"]) if "_type" in given and not type_ else (),
        view=View(
            summary_of(given["_summary"]) if "_summary" in given else None,
            elements_named(given["_elements"]) if "_elements" in given else (),
        ),
    )


def _opened(content: Any, type_: str | None, id_: str | None) -> HistoryQuery:
    of_type, of_id, count, since, period, types, shown, place = content
    if (of_type, of_id) != (type_, id_):
        raise fail("invalid", "this page link belongs to another history", status=400)
    return HistoryQuery(
        type_,
        id_,
        count,
        _moment(since) if since else None,
        (_moment(period[0]), _moment(period[1])) if period else None,
        tuple(types),
        View(shown[0], tuple(shown[1])),
        place,
    )


async def history_of_one(
    store: Store, access: Access, links: PageLinks, query: HistoryQuery, session: AsyncClientSession | None = None
) -> HistoryPage:
    """A page of the history of one resource, of what `access` may see of it. FhirError `not-found` when there never was one."""
    assert query.type is not None
    assert query.id is not None
    newest = await visibility.read(store, access, query.type, query.id, session)
    if newest is None:
        raise fail("not-found", f"there is no {query.type}/{query.id}")
    whole = not access.restricted or access.filter(query.type, "r") is None
    found = [newest] if _before(newest, query) else []
    older: Document = {"id": query.id, "version": {"$lt": min(newest.version, query.place or newest.version)}}
    if query.period:
        older["updated"] = {"$lt": query.period[1]}
    limit = query.count + 1 if whole else 0
    cursor = store.history(query.type).find(older, sort=[("version", -1)], limit=limit, session=session)
    versions = (version(d, query.id) async for d in cursor)
    async for one in versions if whole else visibility.visible(access, versions):
        found.append(one)
        if len(found) > query.count + 1:
            break
    found = _within(found, query)
    page = await _page(store, [(query.type, v) for v in found[: query.count]], query.view, session)
    if whole and not (query.since or query.period or query.place):
        page.total = newest.version  # every number from 1 on is a version
    if 0 < query.count < len(found):
        page.next = await links.seal(_KIND, query.begins_with(found[query.count - 1].version))
    return page


def _before(found: Version, query: HistoryQuery) -> bool:
    """Whether a version comes after the place where the page begins, and began before the end of the period."""
    return (query.place is None or found.version < query.place) and (query.period is None or found.updated < query.period[1])


def _within(newest_first: list[Version], query: HistoryQuery) -> list[Version]:
    """Those since then; or those of the period, of which the last one began before it or with it."""
    if query.since:
        return [v for v in newest_first if v.updated >= query.since]
    if query.period is None:
        return newest_first
    start = query.period[0]
    inside = [v for v in newest_first if v.updated > start]
    earlier = newest_first[len(inside) : len(inside) + 1]
    # What was deleted before the period began was not there in it.
    return inside + [v for v in earlier if v.resource is not None or v.updated == start]


async def history_of_many(
    store: Store, links: PageLinks, query: HistoryQuery, types: Iterable[str], session: AsyncClientSession | None = None
) -> HistoryPage:
    """A page of the history of all resources of these types."""
    keys: list[Key] = []
    looked_at, place = 0, _place(query.place)
    present = sorted(types)
    more = bool(present) and query.count > 0
    while more and len(keys) <= query.count and looked_at < _MAX_LOOKED_AT:
        wanted = query.count + 1 - len(keys)
        newest, more = await _newest(store, present, query, place, max(wanted, _CHUNK) if query.period else wanted, session)
        looked_at += len(newest)
        place = newest[-1].place if newest else place
        keys += await _of_period(store, newest, query.period[0], session) if query.period else newest
    page = await _page(store, await _versions(store, keys[: query.count], session), query.view, session)
    if len(keys) > query.count > 0:
        place, more = keys[query.count - 1].place, True
    if more and place is not None:
        page.next = await links.seal(_KIND, query.begins_with([_text(place[0]), *place[1:]]))
    elif query.place is None and query.count > 0:
        page.total = len(keys)
    return page


async def _newest(
    store: Store,
    types: list[str],
    query: HistoryQuery,
    place: tuple[datetime, str, str, int] | None,
    limit: int,
    session: AsyncClientSession | None,
) -> tuple[list[Key], bool]:
    """The next keys after a place, at most `limit`, and whether there may be more."""
    branches = [branch for t in types for branch in _branches(store, t, query, place, limit)]
    rows: list[Document] = []
    if session is None:
        first, pipeline = united(branches)
        newest: list[Document] = [{"$sort": dict.fromkeys("utiv", -1)}, {"$limit": limit}]
        rows = await (await store.db[first].aggregate([*pipeline, *newest])).to_list()
    else:  # MongoDB has no $unionWith in a transaction
        for name, stages in branches:
            rows += await (await store.db[name].aggregate(stages, session=session)).to_list()
        rows = sorted(rows, key=lambda row: tuple(row[k] for k in "utiv"), reverse=True)[:limit]
    keys: list[Key] = []
    for row in rows:
        key = Key(row["u"], row["t"], row["i"], row["v"], row["c"], row["m"])
        if keys and keys[-1].place == key.place:
            continue
        keys.append(key)
    return keys, len(rows) == limit


def _branches(
    store: Store, resource_type: str, query: HistoryQuery, place: tuple[datetime, str, str, int] | None, limit: int
) -> list[tuple[str, list[Document]]]:
    """Collection and pipeline for the keys of one type: those of the current versions, then those of the history."""

    def pipeline(id_path: str, *, current: bool) -> list[Document]:
        row = {"_id": 0, "t": {"$literal": resource_type}, "i": f"${id_path}", "v": "$version", "u": "$updated"}
        return [
            {"$match": _where(resource_type, id_path, query, place)},
            {"$sort": {"updated": -1, id_path: -1, **({} if current else {"version": -1})}},
            {"$limit": limit},
            {"$project": {**row, "m": "$method", "c": {"$literal": current}}},
        ]

    names = store.current(resource_type).name, store.history(resource_type).name
    return [(names[0], pipeline("_id", current=True)), (names[1], pipeline("id", current=False))]


def _where(resource_type: str, id_path: str, query: HistoryQuery, place: tuple[datetime, str, str, int] | None) -> Document:
    """What comes after a place, since then, or before the end of a period: one range of the index."""
    updated: Document = {}
    where: Document = {}
    if query.since:
        updated["$gte"] = query.since
    if query.period:
        updated["$lt"] = query.period[1]
    if place is not None:
        moment, at_type, at_id, at_version = place
        updated["$lte" if resource_type <= at_type else "$lt"] = moment
        if resource_type == at_type:
            # Said by what it is not, lest the planner take the branches of an `$or` one by one, and sort.
            same = {"updated": moment, id_path: at_id, "version": {"$gte": at_version}}
            where["$nor"] = [{"updated": moment, id_path: {"$gt": at_id}}, same]
    return where | {"updated": updated} if updated else where


async def _of_period(store: Store, keys: list[Key], start: datetime, session: AsyncClientSession | None) -> list[Key]:
    """Those of them that were still current when the period began, or came later; not what had been deleted by then."""
    earlier = [k for k in keys if k.updated < start and not k.current and k.method != "DELETE"]
    successors: dict[tuple[str, str, int], datetime] = {}
    for resource_type in {k.type for k in earlier}:
        wanted = [k for k in earlier if k.type == resource_type]
        ids = list({k.id for k in wanted})
        projection = {"version": 1, "updated": 1, "id": 1}
        async for d in store.current(resource_type).find({"_id": {"$in": ids}}, projection, session=session):
            successors[resource_type, d["_id"], d["version"]] = d["updated"]
        names = [f"{k.id}/{k.version + 1}" for k in wanted]
        async for d in store.history(resource_type).find({"_id": {"$in": names}}, projection, session=session):
            successors[resource_type, d["id"], d["version"]] = d["updated"]

    def was_there(key: Key) -> bool:
        if key.updated >= start or key.current:
            return True
        ended = successors.get((key.type, key.id, key.version + 1))
        return key.method != "DELETE" and (ended is None or ended > start)

    return [k for k in keys if was_there(k)]


async def _versions(store: Store, keys: list[Key], session: AsyncClientSession | None) -> list[tuple[str, Version]]:
    """What stands at these keys."""
    found: dict[tuple[str, str, int], Version] = {}
    for resource_type in {k.type for k in keys}:
        wanted = [k for k in keys if k.type == resource_type]
        ids = [k.id for k in wanted if k.current]
        if ids:
            cursor = store.current(resource_type).find({"_id": {"$in": ids}}, {"search": 0}, session=session)
            async for d in cursor:
                found[resource_type, d["_id"], d["version"]] = version(d, d["_id"])
        names = [f"{k.id}/{k.version}" for k in wanted if (resource_type, k.id, k.version) not in found]
        if names:
            async for d in store.history(resource_type).find({"_id": {"$in": names}}, session=session):
                found[resource_type, d["id"], d["version"]] = version(d, d["id"])
    places = [(k.type, k.id, k.version) for k in keys]
    return [(place[0], found[place]) for place in places if place in found]


async def _page(store: Store, versions: list[tuple[str, Version]], view: View, session: AsyncClientSession | None) -> HistoryPage:
    page = HistoryPage(versions, view=view)
    for resource_type in {t for t, _ in versions}:
        before = [f"{v.id}/{v.version - 1}" for t, v in versions if t == resource_type and v.method == "PUT" and v.version > 1]
        deleted: Document = {"_id": {"$in": before}, "method": "DELETE"}
        if before:
            cursor = store.history(resource_type).find(deleted, {"id": 1, "version": 1}, session=session)
            page.anew |= {(resource_type, d["id"], d["version"] + 1) async for d in cursor}
    return page


def entry(base_url: str, resource_type: str, found: Version, view: View, *, created: bool) -> Document:
    """The entry of one version in a history Bundle."""
    return {
        "fullUrl": f"{base_url}/{resource_type}/{found.id}",
        **({"resource": view.show(found.resource)} if found.resource else {}),
        "request": {
            "method": found.method,
            "url": resource_type if found.method == "POST" else f"{resource_type}/{found.id}",
        },
        "response": {
            "status": "204" if found.method == "DELETE" else "201" if created else "200",
            "etag": f'W/"{found.version}"',
            "lastModified": f"{_text(found.updated)}Z",
        },
    }


def bundle(
    page: HistoryPage, base_url: str, address: str, parameters: Parameters, link: Callable[[str, Parameters], str]
) -> Document:
    """The Bundle of a page; `link` writes an address with parameters."""
    links = [{"relation": "self", "url": link(address, parameters)}]
    if page.next:
        links.append({"relation": "next", "url": link(address, [("_page", page.next)])})
    made: Document = {"resourceType": "Bundle", "type": "history"}
    if page.total is not None:
        made["total"] = page.total
    made["link"] = links
    if page.versions:
        made["entry"] = [
            entry(base_url, t, v, page.view, created=v.version == 1 or (t, v.id, v.version) in page.anew)
            for t, v in page.versions
        ]
    return made


def _count(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise fail("invalid", "_count takes a whole number", status=400)
    return min(int(value), MAX_COUNT)


def _interval(name: str, value: str) -> tuple[datetime, datetime]:
    try:
        return of_text(value.replace(" ", "+"))  # an unencoded + of a zone arrives as a space
    except ValueError as error:
        raise fail("invalid", f"{name}: {error}", status=400) from None


def _types(value: str) -> tuple[str, ...]:
    types = tuple(value.split(","))
    if wrong := [t for t in types if t not in definitions.RESOURCE_TYPES]:
        raise _unknown(wrong[0])
    return types


def _unknown(resource_type: str) -> FhirError:
    return fail("invalid", f"_type: {resource_type[:64]!r} is not a FHIR R4 resource type", status=400)


def _place(given: Any) -> tuple[datetime, str, str, int] | None:
    return None if given is None else (_moment(given[0]), given[1], given[2], given[3])


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
