"""The one way in: every door (REST, Bundles, HL7 v2, DICOM, operations) reads and writes through these interactions."""

import asyncio
import base64
import binascii
import json
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fhir_server import audit, definitions, fhir_json
from fhir_server.audit import Act
from fhir_server.outcome import FhirError, fail
from fhir_server.references import Target, target, walk
from fhir_server.registry import Registry, Resource
from fhir_server.search.index import parameters
from fhir_server.search.query import Chain, Include, Query, compile_query
from fhir_server.store import Document, NotEnsured, Store, Version
from fhir_server.unit_of_work import Conflict, UnitOfWork
from smart_auth.access import Access

T = TypeVar("T")

_ATTEMPTS = 12
_CHAIN_LIMIT = 1000
_INCLUDE_LIMIT = 1000
_SNAPSHOT = ReadConcern("snapshot")
_DURABLE = WriteConcern("majority", j=True)


@dataclass(slots=True)
class Found:
    """A page of a search: the matches, what was included, the number of all matches if asked, and where the next page starts."""

    matches: list[Resource] = field(default_factory=list)
    included: list[Resource] = field(default_factory=list)
    total: int | None = None
    cursor: str | None = None
    truncated: bool = False


class Interactions:
    """Create, read, vread, update, delete, search, history and transactions over one store."""

    def __init__(self, store: Store, registry: Registry, *, strict_references: bool = True) -> None:
        self.store = store
        self.registry = registry
        self.reads = audit.GroupCommit(store)
        self._strict = strict_references
        # Set when a transaction has left messages in the outbox, so that delivery need not wait for its next look.
        self.outbox_filled = asyncio.Event()

    # One transaction

    async def transact(
        self, access: Access, act: Act, work: Callable[[UnitOfWork], Awaitable[T]], entities: Iterable[Document] = ()
    ) -> T:
        """Run `work`, its reactions and its AuditEvent in one transaction, again from a clean state on a conflict.

        `entities` are those of the AuditEvent beyond what is changed.
        FhirError when a rule refuses, `conflict` (409) when others kept changing the same resources,
        `transient` (503) when MongoDB is away.
        """
        await self.store.ensure("AuditEvent")
        for attempt in range(_ATTEMPTS):
            try:
                return await self._attempt(access, act, work, entities)
            except NotEnsured as missing:
                await self.store.ensure(missing.resource_type)
            except Conflict:
                await _pause(attempt)
            except (ConnectionFailure, ExecutionTimeout) as error:
                if not isinstance(error, ConnectionFailure) or not error.has_error_label("TransientTransactionError"):
                    raise unavailable() from error
                await _pause(attempt)
            except OperationFailure as error:
                if not error.has_error_label("TransientTransactionError"):
                    raise
                await _pause(attempt)
        raise FhirError(
            fail("lock-error", "others kept changing the same resources; try again").issues[0], headers={"Retry-After": "1"}
        )

    async def _attempt(
        self, access: Access, act: Act, work: Callable[[UnitOfWork], Awaitable[T]], entities: Iterable[Document]
    ) -> T:
        async with self.store.db.client.start_session() as session:
            unit: UnitOfWork | None = None
            async with await session.start_transaction(read_concern=_SNAPSHOT, write_concern=_DURABLE):
                unit = UnitOfWork(self.store, self.registry, session, access, strict=self._strict)
                result = await work(unit)
                await unit.settle()
                changes = unit.changes()
                if changes or act.source != "rest":
                    event = audit.audit_event(act, access, [*entities, *audit.changed(changes)])
                    await audit.record(self.store, event, session)
                try:
                    await session.commit_transaction()
                except PyMongoError as error:
                    if not error.has_error_label("UnknownTransactionCommitResult"):
                        raise
                    await session.commit_transaction()
            if unit.outbox:
                self.outbox_filled.set()
            return result

    # Interactions on one resource

    async def create(self, access: Access, resource: Resource, act: Act | None = None) -> Resource:
        access.require(known_type(resource), "c")

        async def work(unit: UnitOfWork) -> Resource:
            return await unit.create(resource)

        return await self.transact(access, act or Act("create"), work)

    async def read(self, access: Access, resource_type: str, id_: str, act: Act | None = None) -> Version:
        """The current version. FhirError `not-found` or `deleted`."""
        access.require(resource_type, "r")
        return await self._seen(access, act or Act("read"), await self._read(resource_type, id_), resource_type, id_)

    async def vread(self, access: Access, resource_type: str, id_: str, version: str, act: Act | None = None) -> Version:
        access.require(resource_type, "r")
        await self.store.ensure(resource_type)
        found = await self.store.vread(resource_type, id_, int(version)) if version.isdecimal() else None
        return await self._seen(access, act or Act("vread"), found, resource_type, id_)

    async def history(self, access: Access, resource_type: str, id_: str, count: int, act: Act | None = None) -> list[Version]:
        """The versions of one resource, newest first."""
        access.require(resource_type, "r")
        await self.store.ensure(resource_type)
        found = await self.store.versions(resource_type, id_, count)
        if not found:
            raise fail("not-found", f"there is no {resource_type}/{id_}")
        await self._audit_read(access, act or Act("history-instance"), [f"{resource_type}/{id_}"])
        return found

    async def update(
        self, access: Access, resource: Resource, if_match: str | None = None, act: Act | None = None
    ) -> tuple[Resource, bool]:
        """The new state of a resource, and whether it was created. `if_match` is the version that the caller has seen (412)."""
        resource_type = known_type(resource)
        access.require(resource_type, "u")

        async def work(unit: UnitOfWork) -> tuple[Resource, bool]:
            return await update_in(unit, access, resource, if_match)

        return await self.transact(access, act or Act("update"), work)

    async def delete(
        self, access: Access, resource_type: str, id_: str, if_match: str | None = None, act: Act | None = None
    ) -> None:
        access.require(resource_type, "d")

        async def work(unit: UnitOfWork) -> None:
            await delete_in(unit, resource_type, id_, if_match)

        await self.transact(access, act or Act("delete"), work)

    # Search

    async def search(
        self, access: Access, resource_type: str, parameters: list[tuple[str, str]], act: Act | None = None
    ) -> Found:
        """A page of matches with what was included."""
        access.require(resource_type, "s")
        await self.store.ensure(resource_type)
        query = compile_query(resource_type, parameters)
        await self._resolve(access, query)
        found = await self._page(access, query)
        shown = [f"{r['resourceType']}/{r['id']}" for r in found.matches + found.included]
        await self._audit_read(access, act or Act("search-type"), shown)
        return found

    async def _page(self, access: Access, query: Query) -> Found:
        found = Found()
        restriction = access.filter(query.type, "s")
        if query.total or query.only_count:
            where = {"$and": [w for w in (query.filter, restriction) if w]} if query.filter or restriction else {}
            found.total = await self.store.current(query.type).count_documents(where)
        if query.only_count:
            return found
        extra = [w for w in (restriction, _after(query)) if w]
        documents = await self.store.find(query, limit=query.count + 1, extra={"$and": extra} if extra else None)
        if len(documents) > query.count:
            documents = documents[: query.count]
            found.cursor = _cursor(query, documents[-1])
        found.matches = [fhir_json.from_bson(d["resource"]) for d in documents]
        await self._include(access, query, found)
        return found

    async def _resolve(self, access: Access, query: Query) -> None:
        """Turn chains into conditions on the references."""
        for chain in query.chains:
            ids = await self._chained(access, chain)
            keys = [f"{chain.parameter}>{chain.target}/{i}" for i in ids]
            query.filters.append({"search.t": {"$in": keys}})

    async def _chained(self, access: Access, chain: Chain) -> list[str]:
        access.require(chain.target, "s")
        await self.store.ensure(chain.target)
        inner = compile_query(chain.target, chain.inner)
        await self._resolve(access, inner)
        documents = await self.store.find(inner, limit=_CHAIN_LIMIT + 1, extra=access.filter(chain.target, "s"))
        if len(documents) > _CHAIN_LIMIT:
            raise fail(
                "too-costly", f"more than {_CHAIN_LIMIT} {chain.target} resources match {chain.inner[0][0]}: narrow the search"
            )
        return [d["_id"] for d in documents]

    async def _include(self, access: Access, query: Query, found: Found) -> None:
        have = {(r["resourceType"], r["id"]) for r in found.matches}
        for include in query.includes:
            wanted: dict[str, set[str]] = {}
            for resource in found.matches:
                for to in _pointed_at(resource, include):
                    if (to.type, to.id) not in have and (include.target in {None, to.type}):
                        wanted.setdefault(to.type, set()).add(to.id)
            for resource_type, ids in wanted.items():
                await self._add(access, resource_type, {"_id": {"$in": sorted(ids)}}, found, have)
        for include in query.revincludes:
            keys = [f"{include.parameter}>{r['resourceType']}/{r['id']}" for r in found.matches]
            await self._add(access, include.source, {"search.t": {"$in": keys}}, found, have)

    async def _add(self, access: Access, resource_type: str, where: Document, found: Found, have: set[tuple[str, str]]) -> None:
        access.require(resource_type, "s")
        await self.store.ensure(resource_type)
        documents = await self.store.find(
            Query(resource_type, filters=[where]), limit=_INCLUDE_LIMIT + 1, extra=access.filter(resource_type, "s")
        )
        found.truncated |= len(documents) > _INCLUDE_LIMIT
        for d in documents[:_INCLUDE_LIMIT]:
            if (resource_type, d["_id"]) not in have:
                have.add((resource_type, d["_id"]))
                found.included.append(fhir_json.from_bson(d["resource"]))

    # Reading

    async def _read(self, resource_type: str, id_: str) -> Version | None:
        await self.store.ensure(resource_type)
        return await self.store.read(resource_type, id_)

    async def _seen(self, access: Access, act: Act, found: Version | None, resource_type: str, id_: str) -> Version:
        if found is None:
            raise fail("not-found", f"there is no {resource_type}/{id_}")
        await self._audit_read(access, act, [f"{resource_type}/{id_}"])
        if found.resource is None:
            raise fail("deleted", f"{resource_type}/{id_} was deleted")
        return found

    async def _audit_read(self, access: Access, act: Act, shown: Iterable[str]) -> None:
        await self.store.ensure("AuditEvent")
        await self.reads.write(audit.audit_event(act, access, audit.seen(shown)))


async def update_in(unit: UnitOfWork, access: Access, resource: Resource, if_match: str | None) -> tuple[Resource, bool]:
    """An update inside a transaction: If-Match judged there, so that an update can't be lost."""
    resource_type, id_ = resource["resourceType"], resource.get("id")
    if not isinstance(id_, str):
        raise fail("required", "an update needs the resource's id", f"{resource_type}.id")
    version = await unit.version_of(resource_type, id_)
    if if_match is not None and if_match != str(version):
        raise fail("conflict", f"{resource_type}/{id_} is at version {version}, not {if_match}", status=412)
    if version == 0:
        access.require(resource_type, "c")
    return await unit.update(resource), version == 0


async def delete_in(unit: UnitOfWork, resource_type: str, id_: str, if_match: str | None = None) -> None:
    """A deletion inside a transaction."""
    version = await unit.version_of(resource_type, id_)
    if if_match is not None and if_match != str(version):
        raise fail("conflict", f"{resource_type}/{id_} is at version {version}, not {if_match}", status=412)
    await unit.delete(resource_type, id_)


def known_type(resource: Any) -> str:
    """The resource's type. FhirError when there is none, or FHIR has no such type."""
    resource_type = resource.get("resourceType") if isinstance(resource, dict) else None
    if not isinstance(resource_type, str) or resource_type not in definitions.RESOURCE_TYPES:
        raise fail("structure", f"{resource_type!r} is not a FHIR R4 resource type", "resourceType")
    return resource_type


def unavailable() -> FhirError:
    """The refusal while MongoDB is away."""
    return FhirError(fail("transient", "the database is not available; try again").issues[0], headers={"Retry-After": "2"})


async def _pause(attempt: int) -> None:
    await asyncio.sleep(random.uniform(0.2, 1) * min(0.25, 0.002 * 2**attempt))  # noqa: S311 - jitter, not a secret


def _pointed_at(resource: Resource, include: Include) -> Iterable[Target]:
    if resource["resourceType"] != include.source:
        return
    _, extract = parameters(include.source)[include.parameter]
    for _, value in extract(resource):
        for _, element in walk(value, ""):
            if (to := target(element)) is not None:
                yield to


def _cursor(query: Query, last: Document) -> str:
    keys = [_at(last, path) for path, _ in query.sort] + [last["_id"]]
    return base64.urlsafe_b64encode(json.dumps(keys).encode()).decode().rstrip("=")


def _at(document: Document, path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = [v.get(name) for v in value] if isinstance(value, list) else (value or {}).get(name)
    if isinstance(value, list):
        value = min(value) if path.endswith(".s") else max(value)
    return {"$date": value.isoformat()} if hasattr(value, "isoformat") else value


def _after(query: Query) -> Document | None:
    """The condition that a document comes after the cursor in the query's order."""
    if query.cursor is None:
        return None
    try:
        padded = query.cursor + "=" * (-len(query.cursor) % 4)
        values = [
            datetime.fromisoformat(v["$date"]) if isinstance(v, dict) else v for v in json.loads(base64.urlsafe_b64decode(padded))
        ]
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise fail("invalid", "this page link is not one of ours", status=400) from None
    order = [*query.sort, ("_id", 1)]
    if len(values) != len(order):
        raise fail("invalid", "this page link belongs to another search", status=400)
    branches = [
        {"$and": [*({p: v} for (p, _), v in zip(order[:i], values[:i], strict=True)), beyond]}
        for i, (path, direction) in enumerate(order)
        if (beyond := _beyond(path, direction, values[i])) is not None
    ]
    return {"$or": branches}


def _beyond(path: str, direction: int, value: Any) -> Document | None:
    """What comes after this value. MongoDB sorts a missing value before all others."""
    if direction == 1:
        return {path: {"$gt": value}} if value is not None else {path: {"$ne": None}}
    return {"$or": [{path: {"$lt": value}}, {path: None}]} if value is not None else None
