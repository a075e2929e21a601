"""One transaction: the new versions, their history and index, what the reactions write, the outbox and the AuditEvent.

A unit of work is made by `Interactions.transact`, which runs it again from a clean state when MongoDB reports a conflict.
It sees its own writes. Each resource gets one new version in it, however often it is changed.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl

from pymongo import ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, DuplicateKeyError

from fhir_server import clock, fhir_json, integrity, judgement, outbox
from fhir_server.elements import duplicate, same
from fhir_server.ids import new_id
from fhir_server.outcome import fail
from fhir_server.references import Target, target, walk
from fhir_server.registry import Change, Registry, Resource
from fhir_server.search.index import NO_HOLD
from fhir_server.search.matching import resource_matches
from fhir_server.search.query import Query, compile_query
from fhir_server.search.resolve import Look, resolve
from fhir_server.staging import Entry, Part, Writes, aside, content, refuse_invalid, write
from fhir_server.store import LOCKS, Document, Store, lock_numbers, version
from smart_auth.access import Access
from smart_auth.scopes import Action

_LARGE = 256 * 1024  # bytes of JSON
_MAX_REACTIONS = 20_000
_REACTION_SEARCH_LIMIT = 500
_DUPLICATE_KEY = 11000


class Conflict(Exception):
    """Somebody else holds what this transaction needs; it is run again."""


class Entangled(Exception):
    """Two requests that share a transaction change the same resource; each is run on its own."""


class UnitOfWork:
    """Reads and writes of one transaction, for interactions, rules, reactions and bridges alike.

    `begin` comes first. Requests that come at the same time may share it as its parts: they are done one after the other, so that
    each sees what those before it did, and no two of them may change the same resource.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        session: AsyncClientSession,
        *,
        strict: bool,
        together: bool = False,
        place: int = 0,
    ) -> None:
        """`together`: it will have several parts, so what can wait is done once for all of them at the end.

        `place`: which of the transactions under way in this process it is.
        """
        self.place_in_process = place
        self.parts: list[Part] = []
        self.session = session
        self.now = clock.now()
        self.outbox: list[outbox.Outbound] = []
        self.events: list[Resource] = []
        # Where a resource stands in what was sent ("Bundle.entry[2].resource"), for the expressions of refusals.
        self.places: dict[Target, str] = {}
        self._store = store
        self._registry = registry
        self._strict = strict
        self._locks: set[int] | None = set() if together else None  # those to be taken at the end
        self._kept: dict[str, list[ReplaceOne[Document]]] = {}
        self._entries: dict[Target, Entry] = {}
        # What the entries of the present transaction Bundle write, so that they may refer to it before it is there.
        self.planned: set[Target] = set()
        self._following = 0  # rules and reactions at work: what they do is the department's, not the caller's
        self._queue: deque[Target] = deque()  # changed, with reactions to come
        self._dirty: dict[Target, None] = {}  # changed since the last flush

    @property
    def access(self) -> Access:
        """The rights of the request that is being done."""
        return self.parts[-1].access

    @property
    def shown(self) -> list[str]:
        """What its AuditEvent names beside what is changed: "Patient/1"."""
        return self.parts[-1].shown

    def begin(self, access: Access) -> Part:
        """What follows is this request's."""
        self.parts.append(Part(access, len(self.parts), []))
        return self.parts[-1]

    @property
    def db(self) -> AsyncDatabase[Document]:
        """For what projections derive and bridges keep beside the resources; always with `session=unit.session`."""
        return self._store.db

    # Reading

    async def read(self, resource_type: str, id_: str) -> Resource | None:
        """The current resource, or None. The caller may change the copy it gets."""
        entry = await self._entry(Target(resource_type, id_))
        return duplicate(entry.after)

    async def seen(self, resource_type: str, id_: str, action: Action, *, copy: bool = True) -> Resource | None:
        """The current resource, if the caller may do this to it; None, as if there were none, if not."""
        entry = await self._entry(Target(resource_type, id_))
        if entry.after is None or (self.access.restricted and not self.access.covers(entry.after, action)):
            return None
        return duplicate(entry.after) if copy else entry.after

    async def named(self, resource_type: str, id_: str) -> str:
        """How to call a resource in a refusal: by its id only if the caller may read it."""
        if not self.access.allows(resource_type, "r") or await self.seen(resource_type, id_, "r", copy=False) is None:
            return f"another {resource_type}"
        return f"{resource_type}/{id_}"

    async def get(self, reference: object) -> Resource | None:
        """What a local reference points to, or None."""
        to = target(reference)
        return await self.read(to.type, to.id) if to else None

    async def load(self, targets: Iterable[Target]) -> None:
        """Read these ahead, all at once: for whoever knows that it will need many.

        They are read outside of the transaction. One that somebody has changed since can't be written by it (`Conflict`).
        """
        unknown = [to for to in dict.fromkeys(targets) if to not in self._entries]
        found = await self._store.read_many(unknown)
        for to in unknown:
            self._entries[to] = Entry(found.get(to))

    async def out_of_reach(self, resource_type: str, ids: set[str]) -> set[str]:
        """Those of these that are not there, or not for this caller to refer to; what this transaction is about to write is."""
        wanted = {i for i in ids if Target(resource_type, i) not in self.planned}
        where = self.access.reach(resource_type)
        if where is None or not wanted:
            return set()
        held = {i: e.after for i in wanted if (e := self._entries.get(Target(resource_type, i))) is not None}
        gone = {i for i, after in held.items() if after is None or not resource_matches(where, after)}
        rest = list(wanted - held.keys())
        if not rest:
            return gone
        found = self._store.current(resource_type).find(
            {"$and": [{"_id": {"$in": rest}}, where]}, {"_id": 1}, session=self.session
        )
        return gone | (set(rest) - {document["_id"] async for document in found})

    async def missing(self, targets: Iterable[Target]) -> list[Target]:
        """Those of these that are not there, own writes included. The caller holds their locks (`integrity.py`)."""
        coming = {Target("AuditEvent", event["id"]) for event in self.events}
        unknown = [to for to in targets if to not in self._entries and to not in coming]
        there = await self._store.existing(unknown)
        own = [to for to in targets if to in self._entries and self._entries[to].after is None]
        return [to for to in unknown if to not in there] + own

    async def referrer(self, targets: Iterable[Target]) -> tuple[Target, str] | None:
        """One of these that is referred to, own writes included, and by what ("Task/1"); None if there is none.

        The caller holds the locks of these (`integrity.py`): nobody else refers to them meanwhile.
        """
        wanted = set(targets)
        for change in self.changes():
            for _, element in walk(change.after, "") if change.type not in NO_HOLD else ():
                if (to := target(element)) in wanted and to is not None:
                    return to, await self._referring(change.type, change.id)
        found = await self._store.referrer(wanted, [Target(c.type, c.id) for c in self.changes()])
        return (found[0], await self._referring(*found[1].split("/"))) if found else None

    async def _referring(self, resource_type: str, id_: str) -> str:
        name = await self.named(resource_type, id_)
        return "something else" if name.startswith("another ") else name

    def is_new(self, to: Target) -> bool:
        """Whether this transaction makes this resource."""
        entry = self._entries.get(to)
        return entry is not None and entry.was is None

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
        query = compile_query(resource_type, parameters)
        staged = self._staged_matches(query)
        if staged is None:
            await self.flush()
            await resolve(Look(self._store, Access.system("rules"), self.session), query)
        found = await self._store.find(query, limit=_REACTION_SEARCH_LIMIT + 1, session=self.session)
        if len(found) > _REACTION_SEARCH_LIMIT:
            raise fail("too-costly", f"more than {_REACTION_SEARCH_LIMIT} {query.type} resources are concerned")
        if staged is None:
            return self._own(query.type, found)
        unstaged = [d for d in found if Target(query.type, d["_id"]) not in self._dirty]
        return self._own(query.type, unstaged) + [r for r in map(duplicate, staged) if r is not None]

    def _staged_matches(self, query: Query) -> list[Resource] | None:
        """What is staged but not yet written and meets a query on its own type; None where that can't be told without writing."""
        if query.pending or query.sort:
            return None
        staged = [e for to in self._dirty if to.type == query.type and (e := self._entries[to]).after is not None]
        try:
            return [e.after for e in staged if e.after and resource_matches(query.filter, e.after, e.index())]
        except NotImplementedError:
            return None

    def _own(self, resource_type: str, found: list[Document]) -> list[Resource]:
        """What was found, as copies of what this transaction holds of it."""
        resources = []
        for document in found:
            to = Target(resource_type, document["_id"])
            if to not in self._entries:
                self._entries[to] = Entry(version(document, document["_id"]))
            resources.append(duplicate(self._entries[to].after))
        return [r for r in resources if r is not None]

    async def matching(self, resource_type: str, criteria: str, limit: int = 2) -> list[Resource]:
        """The resources that a search finds in this transaction, at most `limit`, for conditional interactions.

        `criteria` is written as in a URL: `identifier=urn:x|1&status=active`. FhirError for what is no search on this type, or
        for one without any condition.
        """
        await self.flush()
        query = compile_query(resource_type, parse_qsl(criteria, keep_blank_values=True))
        if not query.has_condition:
            raise fail("invalid", "a condition needs at least one search parameter", status=400)
        await resolve(Look(self._store, self.access, self.session), query)
        return self._own(query.type, await self._store.find(query, limit=limit, session=self.session))

    async def next_number(self, name: str) -> int:
        """The next of a series of numbers. Taken outside the transaction: unique, with gaps, and nobody waits for it."""
        return await self._store.next_number(name)

    async def lock(self, *keys: str) -> None:
        """Make transactions that name the same key wait their turn (by a write conflict, which starts the later one again)."""
        if self._locks is not None:
            self._locks.update(lock_numbers(keys))
        else:
            await self._take(lock_numbers(keys))

    async def take_locks(self) -> None:
        """Take those that were left for the end: from here on, what is read outside of the transaction is settled too."""
        if self._locks:
            await self._take(sorted(self._locks))
            self._locks.clear()

    async def _take(self, numbers: Iterable[int]) -> None:
        await self._apply(
            self._store.db[LOCKS], Writes([], [UpdateOne({"_id": n}, {"$inc": {"n": 1}}, upsert=True) for n in numbers])
        )

    async def process_number(self) -> int:
        """Which of the processes over this database we are, counted from the first that ever was."""
        return await self._store.process_number()

    async def note_links(self, links: Iterable[tuple[str, str]]) -> None:
        """Remember for good that resources of these types (first) refer to some of those (second)."""
        await self._store.note_links(links)

    # Writing

    @contextmanager
    def as_department(self) -> Iterator[None]:
        """What is written in here is the department's doing, as that of rules and reactions is: the caller was judged before."""
        self._following += 1
        try:
            yield
        finally:
            self._following -= 1

    async def create(self, resource: Resource, id_: str | None = None, *, copy: bool = True) -> Resource:
        """Stage a new resource under a fresh id; `id_` is one that the caller has drawn. The answer has id and meta.

        `copy=False` is for callers that change neither what they give nor what they get from here on.
        """
        to = Target(resource["resourceType"], id_ or new_id())
        return await self._stage(to, self._entries.setdefault(to, Entry(None, "POST")), resource, copy=copy)

    async def update(self, resource: Resource, *, copy: bool = True) -> Resource:
        """Stage the new state of a resource by its id; a resource that isn't there is created. Unchanged: no new version."""
        to = Target(resource["resourceType"], resource["id"])
        return await self._stage(to, await self._entry(to), resource, copy=copy)

    async def delete(self, resource_type: str, id_: str) -> None:
        """Stage a deletion. Deleting what isn't there is no error."""
        to = Target(resource_type, id_)
        entry = await self._entry(to)
        if entry.after is None:
            return
        if self._is_judged and not self.access.covers(entry.after, "d"):
            return
        await self._apply_rules(Change(to.type, to.id, entry.after, None))
        entry.after = None
        self._changed(to, entry)

    def record(self, event: Resource) -> None:
        """Have a further AuditEvent written with this transaction (`audit.audit_event`), which its resources may refer to."""
        self.events.append(event)

    def keep(self, collection: str, write: "ReplaceOne[Document]") -> None:
        """Have a document that is no resource written with this transaction. DuplicateKeyError then, where its key is taken."""
        self._kept.setdefault(collection, []).append(write)

    def send(self, message: outbox.Outbound) -> None:
        """Put a message into the outbox of this transaction."""
        self.outbox.append(message)

    def changes(self, part: Part | None = None) -> list[Change]:
        """The net changes so far (of one part, if given), in the order in which they were first made."""
        return [
            Change(to.type, to.id, e.was, e.after)
            for to, e in self._entries.items()
            if e.after is not e.was and (part is None or e.part == part.number)
        ]

    def final(self, resource: Resource) -> Resource:
        """What this transaction made of a resource that was staged in it: reactions may have changed it since."""
        return self._entries[Target(resource["resourceType"], resource["id"])].after or resource

    # The end of the transaction

    async def complete(self) -> None:
        """Once nothing more follows from the reactions: check the references, project, and write everything."""
        await integrity.check(self, strict=self._strict)
        for projection in self._registry.projections:
            await projection(self, self.changes())
        await self.take_locks()
        await self.flush()
        for collection, writes in self._kept.items():
            try:
                await self._store.db[collection].bulk_write(writes, ordered=False, session=self.session)
            except BulkWriteError as error:
                if all(e.get("code") == _DUPLICATE_KEY for e in error.details.get("writeErrors", ())):
                    raise DuplicateKeyError(f"a key of {collection} is taken", _DUPLICATE_KEY, error.details) from error
                raise
        if self.outbox:
            await self._store.db[outbox.COLLECTION].insert_many([outbox.document(m) for m in self.outbox], session=self.session)

    async def flush(self) -> None:
        """Write what is staged so far into the transaction, one bulk write a collection."""
        staged = [(to, entry) for to in self._dirty if (entry := self._entries[to]).after is not entry.written]
        if not staged:
            return
        self._store.require({to.type for to, _ in staged})
        current: dict[str, Writes] = {}
        history: dict[str, Writes] = {}
        for to, entry in staged:
            into = current.setdefault(to.type, Writes()), history.setdefault(to.type, Writes())
            await aside(entry, write, to, entry, self.now, *into)
            entry.written = entry.after
        self._dirty.clear()
        for resource_type, writes in history.items():
            await self._apply(self._store.history(resource_type), writes)
        for resource_type, writes in current.items():
            await self._apply(self._store.current(resource_type), writes)

    async def _apply(self, collection: AsyncCollection[Document], writes: Writes) -> None:
        try:
            if writes.others:
                done = await collection.bulk_write(writes.others, ordered=False, session=self.session)
                if done.matched_count + done.deleted_count + done.upserted_count != len(writes.others):
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

    async def _entry(self, to: Target) -> Entry:
        if to not in self._entries:
            self._entries[to] = Entry(await self._store.read(to.type, to.id, self.session))
        return self._entries[to]

    async def _stage(self, to: Target, entry: Entry, resource: Resource, *, copy: bool) -> Resource:
        """Validate, apply the rules, and stage. Rules see valid resources only; what they change is validated again."""
        rules = self._registry.rules.get(to.type, ())
        staged = {**(duplicate(resource) if copy or rules else resource), "id": to.id}
        entry.large = len(fhir_json.dumps(staged)) > _LARGE
        await aside(entry, refuse_invalid, staged)
        if self._is_judged:
            await judgement.of_write(self, to, entry.after, staged)
        await self._apply_rules(Change(to.type, to.id, entry.after, staged))
        if rules and staged != {**resource, "id": to.id}:
            await aside(entry, refuse_invalid, staged)
            if self._is_judged:
                judgement.require_within(self.access, entry.after, staged)
        if entry.after is not None and same(content(entry.after), content(staged)):
            return duplicate(entry.after) if copy else entry.after
        meta = {k: v for k, v in staged.get("meta", {}).items() if k not in {"versionId", "lastUpdated"}}
        stamped = {"versionId": str(entry.next_version), "lastUpdated": clock.instant(entry.moment(self.now)), **meta}
        entry.after = {"resourceType": to.type, "id": to.id, "meta": stamped} | {
            k: v for k, v in staged.items() if k not in {"resourceType", "id", "meta"}
        }
        self._changed(to, entry)
        return duplicate(entry.after) if copy else entry.after

    @property
    def _is_judged(self) -> bool:
        """Whether what is written now is the caller's doing, and the caller may not do everything."""
        return not self._following and self.access.restricted

    async def _apply_rules(self, change: Change) -> None:
        self._following += 1
        try:
            for rule in self._registry.rules.get(change.type, ()):
                await rule(self, change)
        finally:
            self._following -= 1

    def _changed(self, to: Target, entry: Entry) -> None:
        if entry.part is not None and entry.part != self.parts[-1].number:
            raise Entangled
        entry.part = self.parts[-1].number
        self._queue.append(to)
        self._dirty[to] = None

    async def react(self) -> None:
        """Run the reactions to what was staged, and to what they stage, until nothing more follows."""
        self._following += 1
        try:
            await self._react()
        finally:
            self._following -= 1

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
            reactions = self._registry.reactions.get(to.type)
            before, entry.reacted = entry.reacted, entry.after
            if not reactions:
                continue
            change = Change(to.type, to.id, duplicate(before), duplicate(entry.after))
            for reaction in reactions:
                await reaction(self, change)
