"""One transaction: the new versions, their history and index, what the reactions write, the outbox and the AuditEvent.

A unit of work is made by `Interactions.transact`, which runs it again from a clean state when MongoDB reports a conflict.
It sees its own writes. Each resource gets one new version in it, however often it is changed.
"""

import uuid
from collections.abc import Iterable
from typing import Any

from pymongo import DeleteOne, InsertOne, ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from fhir_server import clock, fhir_json, outbox
from fhir_server.elements import duplicate
from fhir_server.outcome import FhirError, fail
from fhir_server.references import Target, target, walk
from fhir_server.registry import Change, Registry, Resource
from fhir_server.search.index import index
from fhir_server.search.query import Query, compile_query
from fhir_server.store import Document, Store, Version
from fhir_server.validation import validate
from smart_auth.access import Access

_MAX_REACTIONS = 1000
_REACTION_SEARCH_LIMIT = 500


class Conflict(Exception):
    """Somebody else holds what this transaction needs; it is run again."""


class _Entry:
    """A resource in this transaction: as it was found, as it is now, and what of that is already written."""

    __slots__ = ("after", "before", "new_version", "reacted", "written")

    def __init__(self, before: Version | None) -> None:
        self.before = before
        self.after: Resource | None = before.resource if before else None
        self.new_version: int | None = None
        self.reacted: Resource | None = self.after
        self.written: Resource | None = self.after


class UnitOfWork:
    """Reads and writes of one transaction, for interactions, rules, reactions and bridges alike."""

    def __init__(self, store: Store, registry: Registry, session: AsyncClientSession, access: Access, *, strict: bool) -> None:
        self.access = access
        self.session = session
        self.now = clock.now()
        self.outbox: list[outbox.Outbound] = []
        self._store = store
        self._registry = registry
        self._strict = strict
        self._entries: dict[Target, _Entry] = {}
        self._queue: list[Target] = []

    @property
    def db(self) -> AsyncDatabase[Document]:
        """For what projections derive and bridges keep beside the resources; always with `session=unit.session`."""
        return self._store.db

    # Reading

    async def read(self, resource_type: str, id_: str) -> Resource | None:
        """The current resource, or None. The caller may change the copy it gets."""
        entry = await self._entry(Target(resource_type, id_))
        return duplicate(entry.after)

    async def get(self, reference: object) -> Resource | None:
        """What a local reference points to, or None."""
        to = target(reference)
        return await self.read(to.type, to.id) if to else None

    async def version_of(self, resource_type: str, id_: str) -> int:
        """The version that is current in this transaction; 0 if there is none."""
        entry = await self._entry(Target(resource_type, id_))
        if entry.new_version is not None:
            return entry.new_version
        return entry.before.version if entry.before and entry.before.resource else 0

    async def search(self, resource_type: str, **parameters: str) -> list[Resource]:
        """The resources that match, own writes included: `search("Task", based_on="ServiceRequest/1")`."""
        return await self.search_all(resource_type, [(name.replace("_", "-"), value) for name, value in parameters.items()])

    async def search_all(self, resource_type: str, parameters: list[tuple[str, str]]) -> list[Resource]:
        """The same with parameters that may repeat. More than 500 matches are refused: a rule must not work on part of them."""
        await self.flush()
        return await self.run(compile_query(resource_type, parameters))

    async def run(self, query: Query) -> list[Resource]:
        """The resources that a compiled query finds in this transaction."""
        found = await self._store.find(query, limit=_REACTION_SEARCH_LIMIT + 1, session=self.session)
        if len(found) > _REACTION_SEARCH_LIMIT:
            raise fail("too-costly", f"more than {_REACTION_SEARCH_LIMIT} {query.type} resources are concerned")
        resources = []
        for document in found:
            to = Target(query.type, document["_id"])
            if to not in self._entries:
                resource = fhir_json.from_bson(document["resource"])
                self._entries[to] = _Entry(
                    Version(document["_id"], document["version"], document["updated"], document["method"], resource)
                )
            resources.append(duplicate(self._entries[to].after))
        return [r for r in resources if r is not None]

    async def next_number(self, name: str) -> int:
        """The next of a series of numbers. Taken outside the transaction: unique, with gaps, and nobody waits for it."""
        return await self._store.next_number(name)

    async def lock(self, *keys: str) -> None:
        """Make transactions that name the same key wait their turn (by a write conflict, which starts the later one again)."""
        for key in sorted(set(keys)):
            try:
                await self._store.db["locks"].update_one(
                    {"_id": key}, {"$inc": {"n": 1}, "$set": {"at": clock.naive(self.now)}}, upsert=True, session=self.session
                )
            except DuplicateKeyError as error:
                raise Conflict(key) from error

    # Writing

    async def create(self, resource: Resource, id_: str | None = None) -> Resource:
        """Stage a new resource under a fresh id (or this one). The answer has id and meta."""
        to = Target(resource["resourceType"], id_ or uuid.uuid4().hex)
        entry = await self._entry(to) if id_ else self._entries.setdefault(to, _Entry(None))
        return await self._stage(to, entry, resource)

    async def update(self, resource: Resource) -> Resource:
        """Stage the new state of a resource by its id; a resource that isn't there is created. Unchanged: no new version."""
        to = Target(resource["resourceType"], resource["id"])
        return await self._stage(to, await self._entry(to), resource)

    async def delete(self, resource_type: str, id_: str) -> None:
        """Stage a deletion. Deleting what isn't there is no error."""
        to = Target(resource_type, id_)
        entry = await self._entry(to)
        if entry.after is None:
            return
        change = Change(to.type, to.id, entry.after, None)
        for rule in self._registry.rules.get(to.type, ()):
            await rule(self, change)
        entry.after = None
        self._queue.append(to)

    def send(self, message: outbox.Outbound) -> None:
        """Put a message into the outbox of this transaction."""
        self.outbox.append(message)

    def changes(self) -> list[Change]:
        """The net changes so far, in the order in which they were first made."""
        return [
            Change(to.type, to.id, e.before.resource if e.before else None, e.after)
            for to, e in self._entries.items()
            if e.after is not (e.before.resource if e.before else None)
        ]

    # The end of the transaction

    async def settle(self) -> None:
        """Run the reactions until nothing more follows, check the references, project, and write everything."""
        await self._react()
        if self._strict:
            await self._check_references()
        for projection in self._registry.projections:
            await projection(self, self.changes())
        await self.flush()
        if self.outbox:
            await self._store.db[outbox.COLLECTION].insert_many([outbox.document(m) for m in self.outbox], session=self.session)

    async def flush(self) -> None:
        """Write what is staged so far into the transaction, one bulk write a collection."""
        current: dict[str, list[Any]] = {}
        history: dict[str, list[Any]] = {}
        for to, entry in self._entries.items():
            if entry.after is entry.written:
                continue
            first = entry.new_version is None
            before = entry.before
            if first:
                entry.new_version = before.version + 1 if before else 1
                if before and before.resource is not None:
                    history.setdefault(to.type, []).append(InsertOne(_history_document(before)))
            version = entry.new_version or 1
            was = before.version if first and before else version
            if entry.after is not None:
                document = self._document(to, entry, version)
                if entry.written is None:
                    current.setdefault(to.type, []).append(InsertOne(document))
                else:
                    current.setdefault(to.type, []).append(ReplaceOne({"_id": to.id, "version": was}, document))
            elif entry.written is not None:
                current.setdefault(to.type, []).append(DeleteOne({"_id": to.id, "version": was}))
                tombstone = Version(to.id, version, clock.naive(self.now), "DELETE", None)
                history.setdefault(to.type, []).append(InsertOne(_history_document(tombstone)))
            entry.written = entry.after
        for resource_type, writes in history.items():
            await self._store.history(resource_type).bulk_write(writes, session=self.session)
        for resource_type, writes in current.items():
            try:
                result = await self._store.current(resource_type).bulk_write(writes, session=self.session)
            except DuplicateKeyError as error:
                raise Conflict(resource_type) from error
            if result.inserted_count + result.matched_count + result.deleted_count != len(writes):
                raise Conflict(resource_type)

    def _document(self, to: Target, entry: _Entry, version: int) -> Document:
        assert entry.after is not None
        return {
            "_id": to.id,
            "version": version,
            "method": "PUT" if entry.before else "POST",
            "updated": clock.naive(self.now),
            "resource": fhir_json.to_bson(entry.after),
            "search": index(entry.after),
        }

    async def _entry(self, to: Target) -> _Entry:
        if to not in self._entries:
            self._entries[to] = _Entry(await self._store.read(to.type, to.id, self.session))
        return self._entries[to]

    async def _stage(self, to: Target, entry: _Entry, resource: Resource) -> Resource:
        staged = {**duplicate(resource), "id": to.id}
        change = Change(to.type, to.id, entry.after, staged)
        for rule in self._registry.rules.get(to.type, ()):
            await rule(self, change)
        issues = [i for i in validate(staged) if i.severity in {"error", "fatal"}]
        if issues:
            raise FhirError(*issues)
        if entry.after is not None and _content(entry.after) == _content(staged):
            return duplicate(entry.after)
        version = entry.new_version or (entry.before.version + 1 if entry.before else 1)
        meta = {k: v for k, v in staged.get("meta", {}).items() if k not in {"versionId", "lastUpdated"}}
        stamped = {"versionId": str(version), "lastUpdated": clock.instant(self.now), **meta}
        entry.after = {"resourceType": to.type, "id": to.id, "meta": stamped} | {
            k: v for k, v in staged.items() if k not in {"resourceType", "id", "meta"}
        }
        self._queue.append(to)
        return duplicate(entry.after)

    async def _react(self) -> None:
        for _ in range(_MAX_REACTIONS):
            if not self._queue:
                return
            to = self._queue.pop(0)
            entry = self._entries[to]
            if entry.after is entry.reacted:
                continue
            change = Change(to.type, to.id, duplicate(entry.reacted), duplicate(entry.after))
            entry.reacted = entry.after
            for reaction in self._registry.reactions.get(to.type, ()):
                await reaction(self, change)
        raise RuntimeError("the reactions to this change don't come to an end")

    async def _check_references(self) -> None:
        """Local references must resolve; what is referred to can't be deleted (RIS_REFERENTIAL_INTEGRITY=strict)."""
        wanted: dict[Target, str] = {}
        for change in self.changes():
            if change.after is None:
                await self._refuse_if_referred_to(Target(change.type, change.id))
                continue
            known = {str(e.get("reference")) for _, e in walk(change.before, "")} if change.before else set()
            for path, element in walk(change.after, change.type):
                to = target(element)
                if to and element["reference"] not in known:
                    wanted.setdefault(to, path)
        await self._load(wanted)
        for to, path in wanted.items():
            if self._entries[to].after is None:
                raise fail("value", f"{to} does not exist", path, status=422)

    async def _load(self, targets: Iterable[Target]) -> None:
        missing: dict[str, list[str]] = {}
        for to in targets:
            if to not in self._entries:
                missing.setdefault(to.type, []).append(to.id)
        for resource_type, ids in missing.items():
            cursor = self._store.current(resource_type).find({"_id": {"$in": ids}}, {"search": 0}, session=self.session)
            async for d in cursor:
                resource = fhir_json.from_bson(d["resource"])
                version = Version(d["_id"], d["version"], d["updated"], d["method"], resource)
                self._entries[Target(resource_type, d["_id"])] = _Entry(version)
            for id_ in ids:
                self._entries.setdefault(Target(resource_type, id_), _Entry(None))

    async def _refuse_if_referred_to(self, to: Target) -> None:
        await self.flush()
        found = await self._store.referrer(to, self.session)
        if found:
            raise fail("conflict", f"{to} can't be deleted: {found} refers to it", to.type)


def _content(resource: Resource) -> Resource:
    """A resource without what the server itself sets, for telling whether an update changes anything."""
    meta = {k: v for k, v in resource.get("meta", {}).items() if k not in {"versionId", "lastUpdated"}}
    rest = {k: v for k, v in resource.items() if k != "meta"}
    return rest | {"meta": meta} if meta else rest


def _history_document(version: Version) -> Document:
    return {
        "_id": f"{version.id}/{version.version}",
        "id": version.id,
        "version": version.version,
        "method": version.method,
        "updated": version.updated,
        **({"resource": fhir_json.to_bson(version.resource)} if version.resource is not None else {}),
    }
