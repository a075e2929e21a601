"""Where resources live in MongoDB.

One collection a resource type holds the current versions:
    {_id: logical id, version: 3, method: "PUT", updated: date, resource: {...the FHIR document...}, search: {t, d, rank}}
and `<Type>_history` the earlier ones, and a tombstone for what was deleted:
    {_id: "id/2", id, version: 2, method: "PUT" | "POST" | "DELETE", updated, resource}
so that current data stays small, and a create costs one insert.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import IndexModel, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import definitions, fhir_json
from fhir_server.references import Target
from fhir_server.search.query import Query

Document = dict[str, Any]
CATALOG_VERSION = 1


class NotEnsured(Exception):
    """A collection that this transaction needs doesn't exist yet: make it outside, then start again."""

    def __init__(self, resource_type: str) -> None:
        super().__init__(resource_type)
        self.resource_type = resource_type


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a resource. `resource` is None for a tombstone."""

    id: str
    version: int
    updated: datetime
    method: str
    resource: Document | None


class Store:
    """The collections of one database and their indexes."""

    def __init__(self, db: AsyncDatabase[Document]) -> None:
        self.db = db
        self._ensured: set[str] = set()
        self._ensuring = asyncio.Lock()

    def current(self, resource_type: str) -> AsyncCollection[Document]:
        if resource_type not in self._ensured:
            raise NotEnsured(resource_type)
        return self.db[resource_type]

    def history(self, resource_type: str) -> AsyncCollection[Document]:
        if resource_type not in self._ensured:
            raise NotEnsured(resource_type)
        return self.db[f"{resource_type}_history"]

    async def ensure(self, *resource_types: str) -> None:
        """Make the collections and indexes of these types. What was made once is remembered in the database."""
        missing = [t for t in resource_types if t not in self._ensured]
        if not missing:
            return
        async with self._ensuring:
            made = {d["_id"] async for d in self.db["catalog"].find({"_id": {"$in": missing}, "version": CATALOG_VERSION})}
            for resource_type in missing:
                if resource_type not in made:
                    await self.db[resource_type].create_indexes(_indexes(resource_type))
                    await self.db[f"{resource_type}_history"].create_indexes([IndexModel([("id", 1), ("version", -1)])])
                    await self.db["catalog"].replace_one({"_id": resource_type}, {"version": CATALOG_VERSION}, upsert=True)
                self._ensured.add(resource_type)

    async def read(self, resource_type: str, id_: str, session: AsyncClientSession | None = None) -> Version | None:
        """The current version; a tombstone if it was deleted; None if there never was one."""
        found = await self.current(resource_type).find_one({"_id": id_}, {"search": 0}, session=session)
        if found is None:
            found = await self.history(resource_type).find_one({"id": id_}, sort=[("version", -1)], session=session)
        return _version(found, id_) if found else None

    async def vread(self, resource_type: str, id_: str, version: int) -> Version | None:
        """One version, current or earlier."""
        found = await self.current(resource_type).find_one({"_id": id_, "version": version}, {"search": 0})
        if found is None:
            found = await self.history(resource_type).find_one({"_id": f"{id_}/{version}"})
        return _version(found, id_) if found else None

    async def versions(self, resource_type: str, id_: str, limit: int) -> list[Version]:
        """The newest versions first, at most `limit`."""
        found = await self.current(resource_type).find_one({"_id": id_}, {"search": 0})
        older = self.history(resource_type).find({"id": id_}, sort=[("version", -1)], limit=limit)
        documents = ([found] if found else []) + [d async for d in older]
        return [_version(d, id_) for d in documents[:limit]]

    async def find(
        self, query: Query, *, limit: int, extra: Document | None = None, session: AsyncClientSession | None = None
    ) -> list[Document]:
        """The stored documents that a compiled query finds, in its order and by id, at most `limit`."""
        where = {"$and": [query.filter, extra]} if extra and query.filter else extra or query.filter
        order = [*query.sort, *([] if any(k == "_id" for k, _ in query.sort) else [("_id", 1)])]
        cursor = self.current(query.type).find(where, {"search.t": 0}, sort=order, limit=limit, session=session)
        return [d async for d in cursor]

    async def next_number(self, name: str) -> int:
        """The next number of a series, from 1."""
        found = await self.db["counters"].find_one_and_update(
            {"_id": name}, {"$inc": {"n": 1}}, upsert=True, return_document=ReturnDocument.AFTER
        )
        assert found is not None
        return int(found["n"])

    async def referrer(self, to: Target, session: AsyncClientSession | None = None) -> str | None:
        """A resource that refers to this one ("Task/1"), if there is any."""
        async for known in self.db["catalog"].find({}, {"_id": 1}):
            found = await self.db[known["_id"]].find_one(
                {"search.t": f">{to}", "_id": {"$ne": to.id}}, {"_id": 1}, session=session
            )
            if found:
                return f"{known['_id']}/{found['_id']}"
        return None


def _version(found: Document, id_: str) -> Version:
    resource = found.get("resource")
    return Version(id_, found["version"], found["updated"], found["method"], fhir_json.from_bson(resource) if resource else None)


def _indexes(resource_type: str) -> list[IndexModel]:
    dates = [n for n, p in definitions.search_parameters(resource_type).items() if p.type == "date" and n != "_lastUpdated"]
    indexes = [IndexModel([("search.t", 1), ("updated", -1), ("_id", 1)]), IndexModel([("updated", -1), ("_id", 1)])]
    indexes += [IndexModel([(f"search.d.{n}.s", 1), (f"search.d.{n}.e", 1)], sparse=True) for n in dates]
    return indexes
