"""Where resources live in MongoDB.

One collection a resource type holds the current versions:
    {_id: logical id, version: 3, method: "PUT", updated: date, resource: {...the FHIR document...}, search: {t, d, rank}}
and `<Type>_history` the earlier ones, and a tombstone for what was deleted:
    {_id: "id/2", id, version: 2, method: "PUT" | "POST" | "DELETE", updated, resource}
so that current data stays small, and a create costs one insert.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import IndexModel, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import fhir_json
from fhir_server.references import Target
from fhir_server.search import paging
from fhir_server.search.index import searchable
from fhir_server.search.query import Query

Document = dict[str, Any]
CATALOG_VERSION = 2
LOCKS = "locks"
_LOCK_SECONDS = 3600  # how long a lock's document stays after its last use
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


class Store:
    """The collections of one database and their indexes. Reading takes a type as it finds it; writing needs `ensure`."""

    def __init__(self, db: AsyncDatabase[Document]) -> None:
        self.db = db
        self._ensured: set[str] = set()
        self._ensuring = asyncio.Lock()

    def current(self, resource_type: str) -> AsyncCollection[Document]:
        return self.db[resource_type]

    def history(self, resource_type: str) -> AsyncCollection[Document]:
        return self.db[f"{resource_type}_history"]

    async def ensure(self, *resource_types: str) -> None:
        """Make the collections and indexes of these types. What was made once is remembered in the database."""
        if self._ensured.issuperset(resource_types):
            return
        async with self._ensuring:
            if not self._ensured:
                await self.db[LOCKS].create_index("at", expireAfterSeconds=_LOCK_SECONDS)
            missing = sorted(set(resource_types) - self._ensured)
            made = {d["_id"] async for d in self.db["catalog"].find({"_id": {"$in": missing}, "version": CATALOG_VERSION})}
            for resource_type in missing:
                if resource_type not in made:
                    await self.current(resource_type).create_indexes(indexes(resource_type))
                    await self.history(resource_type).create_indexes([IndexModel([("id", 1), ("version", -1)])])
                    await self.db["catalog"].replace_one({"_id": resource_type}, {"version": CATALOG_VERSION}, upsert=True)
                self._ensured.add(resource_type)

    def require(self, resource_types: Iterable[str]) -> None:
        """NotEnsured for types that `ensure` was not called for: a transaction can't make indexes."""
        missing = set(resource_types) - self._ensured
        if missing:
            raise NotEnsured(missing)

    async def read(self, resource_type: str, id_: str, session: AsyncClientSession | None = None) -> Version | None:
        """The current version; a tombstone if it was deleted; None if there never was one."""
        found = await self.current(resource_type).find_one({"_id": id_}, _WITHOUT_INDEX, session=session)
        if found is None:
            found = await self.history(resource_type).find_one({"id": id_}, sort=[("version", -1)], session=session)
        return version(found, id_) if found else None

    async def read_many(self, resource_type: str, ids: list[str], session: AsyncClientSession) -> dict[str, Version]:
        """The same for many at once, by id; what never was is left out."""
        cursor = self.current(resource_type).find({"_id": {"$in": ids}}, _WITHOUT_INDEX, session=session)
        found = {d["_id"]: version(d, d["_id"]) async for d in cursor}
        if gone := [id_ for id_ in ids if id_ not in found]:
            deleted = {"id": {"$in": gone}, "method": "DELETE"}
            async for d in self.history(resource_type).find(deleted, sort=[("id", 1), ("version", 1)], session=session):
                found[d["id"]] = version(d, d["id"])
        return found

    async def vread(self, resource_type: str, id_: str, number: int) -> Version | None:
        """One version, current or earlier."""
        found = await self.current(resource_type).find_one({"_id": id_, "version": number}, _WITHOUT_INDEX)
        if found is None:
            found = await self.history(resource_type).find_one({"_id": f"{id_}/{number}"})
        return version(found, id_) if found else None

    async def versions(self, resource_type: str, id_: str, limit: int, before: int | None = None) -> list[Version]:
        """The newest versions first, at most `limit` (at least 1), those before version `before` if given."""
        found = await self.current(resource_type).find_one({"_id": id_}, _WITHOUT_INDEX)
        newest = [version(found, id_)] if found and (before is None or found["version"] < before) else []
        # What was current above may be history by now, and must not come twice.
        bound = newest[0].version if newest else before
        where: Document = {"id": id_} if bound is None else {"id": id_, "version": {"$lt": bound}}
        older = self.history(resource_type).find(where, sort=[("version", -1)], limit=limit)
        return [*newest, *[version(d, id_) async for d in older]][:limit]

    async def find(
        self,
        query: Query,
        *,
        limit: int,
        after: Document | None = None,
        projection: Document | None = None,
        session: AsyncClientSession | None = None,
    ) -> list[Document]:
        """The stored documents that a query (its chains resolved) finds, in its order, at most `limit`; `after` is of paging."""
        assert not query.chains
        where = {"$and": [*query.filters, after]} if after else query.filter
        order = paging.order(query)
        if projection is None:
            projection = {"search.t": 0} if any(path.startswith("search.") for path, _ in order) else _WITHOUT_INDEX
        return await self.current(query.type).find(where, projection, sort=order, limit=limit, session=session).to_list()

    async def count(self, query: Query) -> int:
        """How many resources a query (its chains resolved) finds."""
        assert not query.chains
        # Where nothing narrows the search, the index of ids is smaller to count through than the resources.
        collection = self.current(query.type)
        if any(_narrows(f) for f in query.filters):
            return await collection.count_documents(query.filter)
        return await collection.count_documents(query.filter, hint="_id_")

    async def next_number(self, name: str) -> int:
        """The next number of a series, from 1."""
        found = await self.db["counters"].find_one_and_update(
            {"_id": name}, {"$inc": {"n": 1}}, upsert=True, return_document=ReturnDocument.AFTER
        )
        assert found is not None
        return int(found["n"])

    async def referrer(self, targets: Iterable[Target], session: AsyncClientSession) -> tuple[Target, str] | None:
        """One of these that is referred to, and by what ("Task/1"); None if there is none."""
        keys = {f">{to}": to for to in targets}
        async for known in self.db["catalog"].find({}, {"_id": 1}):
            where = {"search.t": {"$in": list(keys)}}
            found = await self.current(known["_id"]).find_one(where, {"search.t": 1}, session=session)
            if found:
                key = next(k for k in found["search"]["t"] if k in keys)
                return keys[key], f"{known['_id']}/{found['_id']}"
        return None


def version(found: Document, id_: str) -> Version:
    """The version that a stored document, current or of the history, holds."""
    resource = found.get("resource")
    return Version(id_, found["version"], found["updated"], found["method"], fhir_json.from_bson(resource) if resource else None)


def _narrows(condition: Document) -> bool:
    """Whether an index leads to what a condition is true for; it does not for a `:not`."""
    return not any(isinstance(test, dict) and "$nin" in test for test in condition.values())


def indexes(resource_type: str) -> list[IndexModel]:
    """The indexes of a type: its keys, its sort orders, each with `_id` at the end for paging."""
    paths = ["search.t", "updated"]
    for name, kind in searchable(resource_type).items():
        if kind == "date" and name != "_lastUpdated":
            paths += [f"search.d.{name}.s", f"search.d.{name}.e"]
        elif name == "priority" and kind == "token":
            paths.append("search.rank")
    return [IndexModel([(path, 1), ("_id", 1)]) for path in paths]
