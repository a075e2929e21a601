"""One transaction: the new versions, their history and index, what the reactions write, the outbox and the AuditEvent.

A unit of work is made by `Interactions.transact`, which runs it again from a clean state when MongoDB reports a conflict.
It sees its own writes. Each resource gets one new version in it, however often it is changed.
"""

import uuid
from collections import deque
from collections.abc import Iterable
from urllib.parse import parse_qsl

from pymongo import DeleteOne, ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, DuplicateKeyError

from fhir_server import clock, fhir_json, outbox
from fhir_server.elements import duplicate, same
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.references import Target, conditional, target, walk
from fhir_server.registry import Change, Registry, Resource
from fhir_server.search.index import index
from fhir_server.search.query import Query, compile_query
from fhir_server.store import LOCKS, Document, Store, Version, version
from fhir_server.validation import validate
from smart_auth.access import Access

_MAX_REACTIONS = 20_000
_REACTION_SEARCH_LIMIT = 500
_DUPLICATE_KEY = 11000
# References inside these lead to what is in them, or elsewhere.
_CARRIERS = frozenset({"Bundle"})


class Conflict(Exception):
    """Somebody else holds what this transaction needs; it is run again."""


class _Entry:
    """A resource in this transaction: as it was found, as it is now, and what of that is already written."""

    __slots__ = ("after", "before", "method", "new_version", "reacted", "written")

    def __init__(self, before: Version | None, method: str = "PUT") -> None:
        self.before = before
        self.method = method
        self.after: Resource | None = before.resource if before else None
        # The number of the version that this transaction makes, once it writes one.
        self.new_version: int | None = None
        self.reacted: Resource | None = self.after
        self.written: Resource | None = self.after

    @property
    def was(self) -> Resource | None:
        """The resource when the transaction began."""
        return self.before.resource if self.before else None

    @property
    def next_version(self) -> int:
        return self.before.version + 1 if self.before else 1


class _Writes:
    """What is to be written to one collection."""

    __slots__ = ("inserts", "others")

    def __init__(self) -> None:
        self.inserts: list[Document] = []
        self.others: list[ReplaceOne[Document] | DeleteOne] = []


class UnitOfWork:
    """Reads and writes of one transaction, for interactions, rules, reactions and bridges alike."""

    def __init__(self, store: Store, registry: Registry, session: AsyncClientSession, access: Access, *, strict: bool) -> None:
        self.access = access
        self.session = session
        self.now = clock.now()
        self.outbox: list[outbox.Outbound] = []
        # What the AuditEvent names beside what is changed: "Patient/1".
        self.shown: list[str] = []
        # Where a resource stands in what was sent ("Bundle.entry[2].resource"), for the expressions of refusals.
        self.places: dict[Target, str] = {}
        self._store = store
        self._registry = registry
        self._strict = strict
        self._entries: dict[Target, _Entry] = {}
        self._queue: deque[Target] = deque()  # changed, with reactions to come
        self._dirty: dict[Target, None] = {}  # changed since the last flush

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

    async def load(self, targets: Iterable[Target]) -> None:
        """Read these ahead, with one query a type: for whoever knows that it will need many."""
        missing: dict[str, list[str]] = {}
        for to in dict.fromkeys(targets):
            if to not in self._entries:
                missing.setdefault(to.type, []).append(to.id)
        for resource_type, ids in missing.items():
            found = await self._store.read_many(resource_type, ids, self.session)
            for id_ in ids:
                self._entries[Target(resource_type, id_)] = _Entry(found.get(id_))

    async def version_of(self, resource_type: str, id_: str) -> int:
        """The version that is current in this transaction; 0 if there is none."""
        entry = await self._entry(Target(resource_type, id_))
        if entry.after is None:
            return 0
        return int(entry.after["meta"]["versionId"])

    async def search(self, resource_type: str, **parameters: str) -> list[Resource]:
        """The resources that match, own writes included: `search("Task", based_on="ServiceRequest/1")`."""
        return await self.search_all(resource_type, [(name.replace("_", "-"), value) for name, value in parameters.items()])

    async def search_all(self, resource_type: str, parameters: list[tuple[str, str]]) -> list[Resource]:
        """The same with parameters that may repeat. More than 500 matches are refused: a rule must not work on part of them."""
        await self.flush()
        return await self.run(compile_query(resource_type, parameters))

    async def run(self, query: Query) -> list[Resource]:
        """The resources that a compiled query (without chains) finds in this transaction."""
        found = await self._store.find(query, limit=_REACTION_SEARCH_LIMIT + 1, session=self.session)
        if len(found) > _REACTION_SEARCH_LIMIT:
            raise fail("too-costly", f"more than {_REACTION_SEARCH_LIMIT} {query.type} resources are concerned")
        resources = []
        for document in found:
            to = Target(query.type, document["_id"])
            if to not in self._entries:
                self._entries[to] = _Entry(version(document, document["_id"]))
            resources.append(duplicate(self._entries[to].after))
        return [r for r in resources if r is not None]

    async def matching(self, resource_type: str, criteria: str, limit: int = 2) -> list[Resource]:
        """The resources that a search finds in this transaction, at most `limit`, for conditional interactions.

        `criteria` is written as in a URL: `identifier=urn:x|1&status=active`. FhirError for what is no search on this type, or
        for one without any condition.
        """
        await self.flush()
        query = compile_query(resource_type, parse_qsl(criteria, keep_blank_values=True))
        if not query.filters and not query.chains:
            raise fail("invalid", "a condition needs at least one search parameter", status=400)
        return (await self.run(query))[:limit]

    async def next_number(self, name: str) -> int:
        """The next of a series of numbers. Taken outside the transaction: unique, with gaps, and nobody waits for it."""
        return await self._store.next_number(name)

    async def lock(self, *keys: str) -> None:
        """Make transactions that name the same key wait their turn (by a write conflict, which starts the later one again)."""
        for key in sorted(set(keys)):
            try:
                await self._store.db[LOCKS].update_one(
                    {"_id": key}, {"$inc": {"n": 1}, "$set": {"at": clock.naive(self.now)}}, upsert=True, session=self.session
                )
            except DuplicateKeyError as error:
                raise Conflict(key) from error

    # Writing

    async def create(self, resource: Resource, id_: str | None = None) -> Resource:
        """Stage a new resource under a fresh id; `id_` is one that the caller has drawn. The answer has id and meta."""
        to = Target(resource["resourceType"], id_ or uuid.uuid4().hex)
        return await self._stage(to, self._entries.setdefault(to, _Entry(None, "POST")), resource)

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
        self._changed(to)

    def send(self, message: outbox.Outbound) -> None:
        """Put a message into the outbox of this transaction."""
        self.outbox.append(message)

    def changes(self) -> list[Change]:
        """The net changes so far, in the order in which they were first made."""
        return [Change(to.type, to.id, e.was, e.after) for to, e in self._entries.items() if e.after is not e.was]

    def final(self, resource: Resource) -> Resource:
        """What this transaction made of a resource that was staged in it: reactions may have changed it since."""
        return self._entries[Target(resource["resourceType"], resource["id"])].after or resource

    # The end of the transaction

    async def settle(self) -> None:
        """Run the reactions until nothing more follows, check the references, project, and write everything."""
        await self._react()
        await self._check_references()
        for projection in self._registry.projections:
            await projection(self, self.changes())
        await self.flush()
        if self.outbox:
            await self._store.db[outbox.COLLECTION].insert_many([outbox.document(m) for m in self.outbox], session=self.session)

    async def flush(self) -> None:
        """Write what is staged so far into the transaction, one bulk write a collection."""
        staged = [(to, entry) for to in self._dirty if (entry := self._entries[to]).after is not entry.written]
        if not staged:
            return
        self._store.require({to.type for to, _ in staged})
        current: dict[str, _Writes] = {}
        history: dict[str, _Writes] = {}
        for to, entry in staged:
            _write(to, entry, self, current.setdefault(to.type, _Writes()), history.setdefault(to.type, _Writes()))
            entry.written = entry.after
        self._dirty.clear()
        for resource_type, writes in history.items():
            await self._apply(self._store.history(resource_type), writes)
        for resource_type, writes in current.items():
            await self._apply(self._store.current(resource_type), writes)

    async def _apply(self, collection: AsyncCollection[Document], writes: _Writes) -> None:
        try:
            if writes.others:
                done = await collection.bulk_write(writes.others, ordered=False, session=self.session)
                if done.matched_count + done.deleted_count != len(writes.others):
                    raise Conflict(collection.name)
            if len(writes.inserts) == 1:  # by far the most frequent, and half the work for the driver
                await collection.insert_one(writes.inserts[0], session=self.session)
            elif writes.inserts:
                await collection.insert_many(writes.inserts, ordered=False, session=self.session)
        except DuplicateKeyError as error:
            raise Conflict(collection.name) from error
        except BulkWriteError as error:
            if all(e.get("code") == _DUPLICATE_KEY for e in error.details.get("writeErrors", ())):
                raise Conflict(collection.name) from error
            raise

    async def _entry(self, to: Target) -> _Entry:
        if to not in self._entries:
            self._entries[to] = _Entry(await self._store.read(to.type, to.id, self.session))
        return self._entries[to]

    async def _stage(self, to: Target, entry: _Entry, resource: Resource) -> Resource:
        """Validate, apply the rules, and stage. Rules see valid resources only; what they change is validated again."""
        staged = {**duplicate(resource), "id": to.id}
        _refuse_invalid(staged)
        change = Change(to.type, to.id, entry.after, staged)
        rules = self._registry.rules.get(to.type, ())
        for rule in rules:
            await rule(self, change)
        if rules and staged != {**resource, "id": to.id}:
            _refuse_invalid(staged)
        if entry.after is not None and same(_content(entry.after), _content(staged)):
            return duplicate(entry.after)
        meta = {k: v for k, v in staged.get("meta", {}).items() if k not in {"versionId", "lastUpdated"}}
        stamped = {"versionId": str(entry.next_version), "lastUpdated": clock.instant(self.now), **meta}
        entry.after = {"resourceType": to.type, "id": to.id, "meta": stamped} | {
            k: v for k, v in staged.items() if k not in {"resourceType", "id", "meta"}
        }
        self._changed(to)
        return duplicate(entry.after)

    def _changed(self, to: Target) -> None:
        self._queue.append(to)
        self._dirty[to] = None

    async def _react(self) -> None:
        done = 0
        while self._queue:
            to = self._queue.popleft()
            entry = self._entries[to]
            if entry.after is entry.reacted:
                continue
            done += 1
            if done > _MAX_REACTIONS:
                raise RuntimeError("the reactions to this change don't come to an end")
            change = Change(to.type, to.id, duplicate(entry.reacted), duplicate(entry.after))
            entry.reacted = entry.after
            for reaction in self._registry.reactions.get(to.type, ()):
                await reaction(self, change)

    async def _check_references(self) -> None:
        """Local references must resolve; what is referred to can't be deleted (both RIS_REFERENTIAL_INTEGRITY=strict).

        References that were there before are left alone, so that a resource with a bad one can still be changed.
        What another transaction links and what this one deletes at the very same time is not seen: MongoDB has snapshot
        isolation, and to make every new reference a write to its target would have them all wait for each other.
        """
        wanted: dict[Target, list[str]] = {}
        deleted: list[Target] = []
        issues: list[Issue] = []
        for change in self.changes():
            to = Target(change.type, change.id)
            if change.after is None:
                deleted.append(to)
            elif change.type not in _CARRIERS:
                known = {element["reference"] for _, element in walk(change.before, "")}
                for path, element in walk(change.after, self.places.get(to, to.type)):
                    if element["reference"] in known:
                        continue
                    if (pointed_at := target(element)) is not None:
                        wanted.setdefault(pointed_at, []).append(path)
                    elif conditional(element):
                        issues.append(Issue("not-supported", "conditional references are not supported yet", path))
        if self._strict:
            issues += await self._dangling(wanted)
        if issues:
            raise FhirError(*issues, status=422)
        if self._strict:
            await self._refuse_if_referred_to(deleted)

    async def _dangling(self, wanted: dict[Target, list[str]]) -> list[Issue]:
        await self.load(wanted)
        gone = [to for to in wanted if self._entries[to].after is None]
        return [Issue("value", f"{to} does not exist", path) for to in gone for path in wanted[to]]

    async def _refuse_if_referred_to(self, deleted: list[Target]) -> None:
        if deleted:
            await self.flush()  # what is deleted refers to nothing any more
            if found := await self._store.referrer(deleted, self.session):
                to, by = found
                raise fail("conflict", f"{to} can't be deleted: {by} refers to it", self.places.get(to, to.type))


def _write(to: Target, entry: _Entry, unit: UnitOfWork, current: _Writes, history: _Writes) -> None:
    """The writes that bring the collections to the present state of an entry."""
    number, before = entry.next_version, entry.before
    first = entry.new_version is None
    entry.new_version = number
    if first and before is not None and before.resource is not None:
        history.inserts.append(_history_document(before))
    if entry.written is None and not first and before is not None:
        history.others.append(DeleteOne({"_id": f"{to.id}/{number}"}))  # our tombstone, before somebody thought better of it
    found_version = before.version if first and before is not None else number
    if entry.after is None:
        current.others.append(DeleteOne({"_id": to.id, "version": found_version}))
        if before is not None:
            history.inserts.append(_history_document(Version(to.id, number, clock.naive(unit.now), "DELETE", None)))
        return
    document = {
        "_id": to.id,
        "version": number,
        "method": entry.method,
        "updated": clock.naive(unit.now),
        "resource": fhir_json.to_bson(entry.after),
        "search": index(entry.after),
    }
    if entry.written is None:
        current.inserts.append(document)
    else:
        current.others.append(ReplaceOne({"_id": to.id, "version": found_version}, document))


def _refuse_invalid(resource: Resource) -> None:
    issues = [i for i in validate(resource) if i.severity in {"error", "fatal"}]
    if issues:
        raise FhirError(*issues)


def _content(resource: Resource) -> Resource:
    """A resource without what the server itself sets, for telling whether an update changes anything."""
    meta = {k: v for k, v in resource.get("meta", {}).items() if k not in {"versionId", "lastUpdated"}}
    rest = {k: v for k, v in resource.items() if k != "meta"}
    return rest | {"meta": meta} if meta else rest


def _history_document(found: Version) -> Document:
    return {
        "_id": f"{found.id}/{found.version}",
        "id": found.id,
        "version": found.version,
        "method": found.method,
        "updated": found.updated,
        **({"resource": fhir_json.to_bson(found.resource)} if found.resource is not None else {}),
    }
