"""Where resources live in MongoDB.

One collection a resource type holds the current versions:
    {_id: logical id, version: 3, method: "PUT", updated: date, resource: {...the FHIR document...}, search: {t, d, rank}}
and `<Type>_history` the earlier ones, and a tombstone for what was deleted:
    {_id: "id/2", id, version: 2, method: "PUT" | "POST" | "DELETE", updated, resource}
so that current data stays small, and a create costs one insert.
"""

import asyncio
import secrets
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from fhir_server import fhir_json
from fhir_server.audit_chain import Trail
from fhir_server.collection_indexes import current_indexes, history_indexes
from fhir_server.counters import Counters
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.search import paging
from fhir_server.search.index import index
from fhir_server.search.query import LONGEST_SEARCH, Query
from fhir_server.together import Together

Document = dict[str, Any]
CATALOG_VERSION = 7
MAX_SORTED = 10_000  # matches that are sorted in memory
LOCKS = "locks"
_LOCKS = 2**18  # documents that keys share by chance: what is locked need not be remembered, and they don't grow
_BATCH = 500
_WITHOUT_INDEX = {"search": 0}


class NotEnsured(Exception):
    """Collections that this transaction writes to don't exist yet: make them outside, then start again."""

    def __init__(self, resource_types: Iterable[str]) -> None:
        self.resource_types = tuple(resource_types)
        super().__init__(*self.resource_types)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a resource. `resource` is None for a tombstone."""

    id: str
    version: int
    updated: datetime
    method: str
    resource: Document | None


@dataclass(slots=True)
class _Look:
    """Somebody who looks for the current version of a resource, and what was found."""

    type: str
    id: str
    found: Document | None = None


class Store:
    """The collections of one database and their indexes. Reading takes a type as it finds it; writing needs `ensure`."""

    def __init__(self, db: AsyncDatabase[Document], *, audit_key: bytes | None = None) -> None:
        """`audit_key` seals the audit trail; without one, what this process writes of it can't be checked later."""
        self.db = db
        self.trail = Trail(db, audit_key or secrets.token_bytes(32))
        self._latest = db.with_options(read_concern=ReadConcern("local"))
        self._ensured: set[str] = set()
        self._ensuring = asyncio.Lock()
        self._process_number: int | None = None
        self._links: set[tuple[str, str]] = set()  # the types that are known to refer to which
        self._numbers = Counters(db)
        self._looks = Together[_Look](self._look_up, lambda _: (), largest=100, in_flight=1)

    def current(self, resource_type: str) -> AsyncCollection[Document]:
        return self.db[resource_type]

    def history(self, resource_type: str) -> AsyncCollection[Document]:
        return self.db[f"{resource_type}_history"]

    async def ensure(self, *resource_types: str) -> None:
        """Make the collections and indexes of these types. What was made once is remembered in the database."""
        if self._ensured.issuperset(resource_types):
            return
        async with self._ensuring:
            missing = sorted(set(resource_types) - self._ensured)
            made = {d["_id"]: d["version"] async for d in self.db["catalog"].find({"_id": {"$in": missing}})}
            for resource_type in missing:
                if made.get(resource_type) != CATALOG_VERSION:
                    if resource_type in made:
                        await self.current(resource_type).drop_indexes()
                    await self.current(resource_type).create_indexes(current_indexes(resource_type))
                    await self.history(resource_type).create_indexes(history_indexes())
                    if resource_type in made:
                        await self._index_anew(resource_type)
                    made_now = {"$set": {"version": CATALOG_VERSION}, "$setOnInsert": {"refers": []}}
                    await self.db["catalog"].update_one({"_id": resource_type}, made_now, upsert=True)
                self._ensured.add(resource_type)

    async def _index_anew(self, resource_type: str) -> None:
        """Bring the index of every resource of a type to its present form: an earlier version stored less."""
        collection = self.current(resource_type)
        writes: list[UpdateOne] = []
        async for found in collection.find({}, {"search": 0}):
            search = index(fhir_json.from_bson(found["resource"]))
            writes.append(UpdateOne({"_id": found["_id"], "version": found["version"]}, {"$set": {"search": search}}))
            if len(writes) == _BATCH:
                await collection.bulk_write(writes, ordered=False)
                writes = []
        if writes:
            await collection.bulk_write(writes, ordered=False)

    def require(self, resource_types: Iterable[str]) -> None:
        """NotEnsured for types that `ensure` was not called for: a transaction can't make indexes."""
        missing = set(resource_types) - self._ensured
        if missing:
            raise NotEnsured(missing)

    async def read(self, resource_type: str, id_: str, session: AsyncClientSession | None = None) -> Version | None:
        """The current version; a tombstone if it was deleted; None if there never was one."""
        if session is None:
            looked = _Look(resource_type, id_)
            await self._looks.do(looked)
            found = looked.found
        else:
            found = await self.current(resource_type).find_one({"_id": id_}, _WITHOUT_INDEX, session=session)
        if found is None:
            found = await self.history(resource_type).find_one({"id": id_}, sort=[("version", -1)], session=session)
        return version(found, id_) if found else None

    async def _look_up(self, looks: list["_Look"]) -> None:
        """Find the current documents of those who ask at the same time."""
        asking: dict[Target, list[_Look]] = {}
        for look in looks:
            asking.setdefault(Target(look.type, look.id), []).append(look)
        for resource_type, document in await self._across(
            asking, "", lambda ids: {"_id": {"$in": ids}}, _WITHOUT_INDEX, latest=False
        ):
            for look in asking[Target(resource_type, document["_id"])]:
                look.found = document

    async def read_many(self, targets: Iterable[Target]) -> dict[Target, Version]:
        """The same for many at once; what never was is left out. Outside of any transaction: writes go by the version found."""
        wanted = list(targets)
        rows = await self._across(wanted, "", lambda ids: {"_id": {"$in": ids}}, _WITHOUT_INDEX)
        found = {Target(t, d["_id"]): version(d, d["_id"]) for t, d in rows}
        if gone := [to for to in wanted if to not in found]:
            rows = await self._across(gone, "_history", lambda ids: {"id": {"$in": ids}, "method": "DELETE"}, _WITHOUT_INDEX)
            for resource_type, document in sorted(rows, key=lambda row: int(row[1]["version"])):
                found[Target(resource_type, document["id"])] = version(document, document["id"])
        return found

    async def existing(self, targets: Iterable[Target]) -> set[Target]:
        """Those of these that there is a current resource of; the index alone tells. Outside of any transaction."""
        rows = await self._across(targets, "", lambda ids: {"_id": {"$in": ids}}, {"_id": 1})
        return {Target(resource_type, document["_id"]) for resource_type, document in rows}

    async def existing_versions(self, named: Iterable[tuple[Target, str]]) -> set[tuple[Target, str]]:
        """Those of these versions that there are, other than deletions. Outside of any transaction."""
        wanted = set(named)
        rows = await self._across({to for to, _ in wanted}, "", lambda ids: {"_id": {"$in": ids}}, {"version": 1})
        there = {(Target(t, d["_id"]), str(d["version"])) for t, d in rows} & wanted
        past = [Target(to.type, f"{to.id}/{number}") for to, number in wanted - there]
        rows = await self._across(past, "_history", lambda ids: {"_id": {"$in": ids}, "resource": {"$exists": True}}, {"id": 1})
        return there | {(Target(t, d["id"]), d["_id"].partition("/")[2]) for t, d in rows}

    async def _across(
        self,
        targets: Iterable[Target],
        collection: str,
        where: Callable[[list[str]], Document],
        projection: Document,
        *,
        latest: bool = True,
    ) -> list[tuple[str, Document]]:
        """What matches in the collections of several types, with its type: one round trip, however many types there are.

        MongoDB has no $unionWith in transactions. `latest` sees what is committed and not yet safe from a change of primary, as
        a transaction does that comes after it: who holds a lock must see what its holder before did.
        """
        ids: dict[str, list[str]] = {}
        for to in targets:
            ids.setdefault(to.type, []).append(to.id)
        if not ids:
            return []
        db = self._latest if latest else self.db
        if len(ids) == 1:
            ((only, some),) = ids.items()
            return [(only, d) for d in await db[only + collection].find(where(some), projection).to_list()]

        def stages(resource_type: str, wanted: list[str]) -> list[Document]:
            return [{"$match": where(wanted)}, {"$project": projection}, {"$set": {"of": {"$literal": resource_type}}}]

        first, pipeline = united([(t + collection, stages(t, wanted)) for t, wanted in ids.items()])
        found = await db[first].aggregate(pipeline)
        return [(d.pop("of"), d) for d in await found.to_list()]

    async def vread(self, resource_type: str, id_: str, number: int, session: AsyncClientSession | None = None) -> Version | None:
        """One version, current or earlier."""
        found = await self.current(resource_type).find_one({"_id": id_, "version": number}, _WITHOUT_INDEX, session=session)
        if found is None:
            found = await self.history(resource_type).find_one({"_id": f"{id_}/{number}"}, session=session)
        return version(found, id_) if found else None

    async def find(
        self,
        query: Query,
        *,
        limit: int,
        place: paging.Place | None = None,
        inclusive: bool = False,
        projection: Document | None = None,
        session: AsyncClientSession | None = None,
    ) -> list[Document]:
        """The stored documents that a query (nothing of it pending) finds, in its order, at most `limit`.

        Those after `place`, or (`inclusive`) from there on.
        FhirError `too-costly` when more than MAX_SORTED would have to be sorted in memory.
        """
        assert not query.pending
        if paging.is_in_memory(query):
            return await self._find_in_memory(query, limit, place, session)
        if projection is None:
            projection = {"search.t": 0, "search.by": 0} if query.sort else _WITHOUT_INDEX
        found: list[Document] = []
        for where in self.steps(query, place, inclusive=inclusive):
            rest = limit - len(found)
            cursor = self.current(query.type).find(where, projection, sort=paging.order(query), limit=rest, session=session)
            found += await cursor.max_time_ms(LONGEST_SEARCH).to_list()
            if len(found) >= limit:
                break
        return found

    def steps(self, query: Query, place: paging.Place | None, *, inclusive: bool = False) -> list[Document]:
        """The filters that, one after the other, find the matches in order: those with the sort key, then those without."""
        phases = paging.phases(query, place, inclusive=inclusive)
        return [{"$and": conditions} if conditions else {} for conditions in phases]

    async def _find_in_memory(
        self, query: Query, limit: int, place: paging.Place | None, session: AsyncClientSession | None
    ) -> list[Document]:
        await self.require_sortable(query, session)
        found = await self.current(query.type).aggregate(
            paging.pipeline(query, place, limit), session=session, maxTimeMS=LONGEST_SEARCH
        )
        return await found.to_list()

    async def require_sortable(self, query: Query, session: AsyncClientSession | None = None) -> None:
        """FhirError `too-costly` for a query that is sorted in memory and finds more than MAX_SORTED."""
        if paging.is_in_memory(query) and await self.count(query, session, limit=MAX_SORTED + 1) > MAX_SORTED:
            keys = ",".join(k.name for k in query.sort)
            raise fail("too-costly", f"more than {MAX_SORTED} {query.type} resources would have to be sorted by {keys}")

    async def newest(self, query: Query, limit: int, session: AsyncClientSession | None = None) -> list[Document]:
        """Of what a query (nothing of it pending) finds, those that were made last, at most `limit`."""
        assert not query.pending
        found = self.current(query.type).find(query.filter, _WITHOUT_INDEX, sort=[("_id", -1)], limit=limit, session=session)
        return await found.to_list()

    async def find_ids(self, query: Query, limit: int, session: AsyncClientSession | None = None) -> list[str]:
        """The ids of what a query (nothing of it pending) finds, in no order, at most `limit`."""
        assert not query.pending
        found = self.current(query.type).find(query.filter, {"_id": 1}, limit=limit, session=session)
        return [document["_id"] async for document in found]

    async def count(self, query: Query, session: AsyncClientSession | None = None, *, limit: int = 0) -> int:
        """How many resources a query (nothing of it pending) finds; at most `limit` (0: all) are counted."""
        assert not query.pending
        options: dict[str, Any] = {"maxTimeMS": LONGEST_SEARCH} | ({"limit": limit} if limit else {})
        # Where nothing narrows the search, the index of ids is smaller to walk through than the resources.
        if not _narrows(query.filter):
            options["hint"] = "_id_"
        return await self.current(query.type).count_documents(query.filter, session=session, **options)

    async def known_types(self) -> list[str]:
        """The types that anything was ever stored of, in order."""
        return sorted([d["_id"] async for d in self.db["catalog"].find({}, {"_id": 1})])

    async def next_number(self, name: str) -> int:
        """The next number of a series, from 1."""
        return await self._numbers.next(name)

    async def process_number(self) -> int:
        """Which of the processes over this database we are, counted from the first that ever was."""
        if self._process_number is None:
            self._process_number = await self.next_number("process")
        return self._process_number

    async def note_links(self, links: Iterable[tuple[str, str]]) -> None:
        """Remember, before a reference is committed, that its type refers to the other: `referrer` looks only there.

        NotEnsured for types that the catalog does not have yet.
        """
        new = set(links) - self._links
        self.require({one for one, _ in new})
        for resource_type in sorted({one for one, _ in new}):
            referred_to = sorted(other for one, other in new if one == resource_type)
            # A catalog without `refers` is of an earlier version: it may refer to anything.
            where = {"_id": resource_type, "refers": {"$exists": True}}
            await self.db["catalog"].update_one(where, {"$addToSet": {"refers": {"$each": referred_to}}})
        self._links |= new

    async def types_referring_to(self, resource_type: str) -> set[str]:
        """The types that may refer to resources of this one, as far as it was ever committed. Outside of any transaction."""
        known = self._latest["catalog"].find({"$or": [{"refers": resource_type}, {"refers": {"$exists": False}}]}, {"_id": 1})
        return {document["_id"] async for document in known}

    async def referrer(self, targets: Iterable[Target], besides: Iterable[Target]) -> tuple[Target, str] | None:
        """One of these that is referred to by anything but `besides`, and by what ("Task/1"); None if there is none.

        One look into all collections that may refer to them, outside of any transaction (MongoDB allows no $unionWith in one).
        """
        keys = {f">{to}": to for to in targets}
        passed_over: dict[str, list[str]] = {}
        for to in besides:
            passed_over.setdefault(to.type, []).append(to.id)
        looks: list[tuple[str, list[Document]]] = []
        async for known in self._latest["catalog"].find({}):
            refers, resource_type = known.get("refers"), known["_id"]
            if asked := [key for key, to in keys.items() if refers is None or to.type in refers]:
                looks.append((resource_type, _first_with(asked, resource_type, passed_over.get(resource_type, []))))
        if not looks:
            return None
        first, pipeline = united(looks)
        found = await self._latest[first].aggregate([*pipeline, {"$limit": 1}])
        async for row in found:
            key = next(k for k in row["t"] if k in keys)
            return keys[key], f"{row['type']}/{row['_id']}"
        return None


def lock_numbers(keys: Iterable[str]) -> list[int]:
    """The lock documents that stand for these keys, in the order in which they are to be taken."""
    return sorted({zlib.crc32(key.encode()) % _LOCKS for key in keys})


def united(looks: list[tuple[str, list[Document]]]) -> tuple[str, list[Document]]:
    """Looks (a collection and the stages in it) as one: the collection to begin with, and the stages for it."""
    (first, stages), *others = looks
    return first, [*stages, *({"$unionWith": {"coll": name, "pipeline": inner}} for name, inner in others)]


def _first_with(keys: Iterable[str], resource_type: str, besides: list[str]) -> list[Document]:
    """The stages that give the first resource of a type, but for some, that has one of these keys."""
    return [
        {"$match": {"search.t": {"$in": list(keys)}} | ({"_id": {"$nin": besides}} if besides else {})},
        {"$limit": 1},
        {"$project": {"t": "$search.t", "type": {"$literal": resource_type}}},
    ]


def version(found: Document, id_: str) -> Version:
    """The version that a stored document, current or of the history, holds."""
    resource = found.get("resource")
    return Version(id_, found["version"], found["updated"], found["method"], fhir_json.from_bson(resource) if resource else None)


def _narrows(condition: Document) -> bool:
    """Whether an index leads to what a condition is true for; none leads to what is not there."""
    for path, test in condition.items():
        if path == "$and":
            found = any(_narrows(c) for c in test)
        elif path == "$or":
            found = all(_narrows(c) for c in test)
        elif path == "$nor":
            found = False
        elif isinstance(test, dict):
            found = not {"$nin", "$not", "$ne", "$exists"} & test.keys()
        else:
            found = test is not None
        if found:
            return True
    return False
