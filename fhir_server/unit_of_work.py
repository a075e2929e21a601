"""One transaction: the new versions, their history and index, what the reactions write, the outbox and the AuditEvent.

A unit of work is made by `Interactions.transact`, which runs it again from a clean state when MongoDB reports a conflict.
It sees its own writes. Each resource gets one new version in it, however often it is changed.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pymongo import DeleteOne, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from fhir_server import fhir_json, integrity, judgement, outbox
from fhir_server.elements import duplicate, same
from fhir_server.ids import new_id
from fhir_server.references import Target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.staging import Entry, Writes, aside, content, refuse_invalid, write
from fhir_server.store import LOCKS, Document, Store, lock_numbers
from fhir_server.view import View

_LARGE = 256 * 1024  # bytes of JSON
_MAX_REACTIONS = 20_000
_DUPLICATE_KEY = 11000


class Conflict(Exception):
    """Somebody else holds what this transaction needs; it is run again."""


class Entangled(Exception):
    """Two requests that share a transaction change the same resource; each is run on its own."""


class UnitOfWork(View):
    """Writes of one transaction on top of what it sees, for interactions, rules, reactions and bridges alike.

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
        late_locks: bool = False,
        place: int = 0,
    ) -> None:
        """`late_locks`: they are all taken at once at the end, which costs more where others hold them, and less where none does.

        `place`: which of the transactions under way in this process it is.
        """
        super().__init__(store, session)
        self.place_in_process = place
        self.outbox: list[outbox.Outbound] = []
        # Where a resource stands in what was sent ("Bundle.entry[2].resource"), for the expressions of refusals.
        self.places: dict[Target, str] = {}
        self._registry = registry
        self._strict = strict
        self._locks: set[int] | None = set() if late_locks else None  # those to be taken at the end
        self._kept: dict[str, list[UpdateOne]] = {}
        self._rows: dict[str, list[ReplaceOne[Document] | DeleteOne]] = {}
        self._following = 0  # rules and reactions at work: what they do is the department's, not the caller's
        self._queue: deque[Target] = deque()  # changed, with reactions to come

    async def next_number(self, name: str) -> int:
        """The next of a series of numbers. Taken outside the transaction: unique, with gaps, and nobody waits for it."""
        return await self._store.next_number(name)

    async def next_without_gap(self, name: str) -> int:
        """The next of a series of numbers, taken by this transaction: whoever wants the one after it, waits for its end."""
        try:
            found = await self.db["counters"].find_one_and_update(
                {"_id": name}, {"$inc": {"n": 1}}, upsert=True, return_document=ReturnDocument.AFTER, session=self.session
            )
        except DuplicateKeyError as error:
            raise Conflict("counters") from error
        assert found is not None
        return int(found["n"])

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

    def redirect(self, resource: Resource) -> None:
        """Stage a resource of which only references have changed, past all rules and reactions: `redirection.py` alone may."""
        to = Target(resource["resourceType"], resource["id"])
        entry = self._entries[to]
        entry.redirected = entry.after is entry.was or entry.redirected
        entry.state(to, resource, self.now)
        self._changed(to, entry)
        entry.reacted = entry.after

    @contextmanager
    def as_department(self) -> Iterator[None]:
        """What is written in here is the department's doing, as that of rules and reactions is: the caller was judged before."""
        self._following += 1
        try:
            yield
        finally:
            self._following -= 1

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What is staged in here is taken back when it raises. What is written past the unit of work (`db`) isn't."""
        before = {to: (e.after, e.part, e.reacted, e.redirected) for to, e in self._entries.items()}
        queue, sent, told = deque(self._queue), len(self.outbox), len(self.events)
        try:
            yield
        except BaseException:
            for to, entry in self._entries.items():
                entry.after, entry.part, entry.reacted, entry.redirected = before.get(to, (entry.was, None, entry.was, False))
                if entry.after is entry.written:
                    self._dirty.pop(to, None)
                else:
                    self._dirty[to] = None
            self._queue = queue
            del self.outbox[sent:], self.events[told:]
            raise

    async def create(self, resource: Resource, id_: str | None = None, *, copy: bool = True) -> Resource:
        """Stage a new resource under a fresh id; `id_` is one that the caller has drawn. The answer has id and meta.

        `copy=False` is for callers that change neither what they give nor what they get from here on.
        """
        to = Target(resource["resourceType"], id_ or new_id())
        entry = self._entries.setdefault(to, Entry(None, "POST"))
        entry.fresh = id_ is None
        return await self._stage(to, entry, resource, copy=copy)

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
        self._at.wrote = True
        self.events.append(event)

    def keep(self, collection: str, write: UpdateOne) -> None:
        """Have a document that is no resource written with this transaction. DuplicateKeyError then, where its key is taken."""
        self._at.wrote = True
        self._kept.setdefault(collection, []).append(write)

    def put_rows(self, collection: str, writes: list[ReplaceOne[Document] | DeleteOne]) -> None:
        """Have documents that follow from resources written with this transaction, in this order."""
        self._rows.setdefault(collection, []).extend(writes)

    async def flush_rows(self, collection: str) -> None:
        """Write those of a collection, so that they are found. Conflict where another transaction was quicker to make one."""
        writes = self._rows.pop(collection, None)
        if not writes:
            return
        self._beside.clear()
        try:
            await self._store.db[collection].bulk_write(writes, session=self.session)
        except BulkWriteError as error:
            if _is_taken(error):
                raise Conflict(collection) from error
            raise

    def send(self, message: outbox.Outbound) -> None:
        """Put a message into the outbox of this transaction."""
        self._at.wrote = True
        self.outbox.append(message)

    # The end of the transaction

    async def complete(self) -> None:
        """Once nothing more follows from the reactions: check the references, project, and write everything."""
        await integrity.check(self, strict=self._strict)
        for part in self.parts:
            self._at = part
            if changes := self.changes(part):
                for projection in self._registry.projections:
                    await projection(self, changes)
        await self.take_locks()
        for collection in [*self._rows]:
            await self.flush_rows(collection)
        await self.flush()
        for collection, writes in self._kept.items():
            try:
                await self._store.db[collection].bulk_write(writes, ordered=False, session=self.session)
            except BulkWriteError as error:
                if _is_taken(error):
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
        self._looked.clear()
        self._flushed = True
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
            if _is_taken(error):
                raise Conflict(collection.name) from error
            raise

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
        entry.redirected = False
        after = entry.state(to, staged, self.now)
        self._changed(to, entry)
        return duplicate(after) if copy else after

    @property
    def _is_judged(self) -> bool:
        """Whether what is written now is the caller's doing, and the caller may not do everything."""
        return not self._following and self.access.restricted

    @property
    def is_callers(self) -> bool:
        """In a rule: whether the change that it looks at is the caller's own doing, not what follows from another."""
        return self._following == 1

    async def _apply_rules(self, change: Change) -> None:
        self._following += 1
        try:
            for rule in self._registry.rules.get(change.type, ()):
                await rule(self, change)
        finally:
            self._following -= 1

    def _changed(self, to: Target, entry: Entry) -> None:
        if entry.part is not None and entry.part != self._at.number:
            raise Entangled
        entry.part = self._at.number
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


def _is_taken(error: BulkWriteError) -> bool:
    """Whether nothing but keys that others have made stood in the way."""
    return all(e.get("code") == _DUPLICATE_KEY for e in error.details.get("writeErrors", ()))
