"""What one transaction sees: what is stored, with what it has staged itself on top."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from urllib.parse import parse_qsl

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import clock, visibility
from fhir_server.elements import duplicate
from fhir_server.foresight import Asked, Lookup, asked, by_ids, look
from fhir_server.outcome import FhirError, fail
from fhir_server.references import Target, target, walk
from fhir_server.registry import Change, Resource
from fhir_server.search import resolve
from fhir_server.search.index import NO_HOLD
from fhir_server.search.matching import resource_matches
from fhir_server.search.query import Query, compile_query
from fhir_server.staging import Entry, Part
from fhir_server.store import Document, Store, Version, version
from smart_auth.access import Access
from smart_auth.scopes import Action

_REACTION_SEARCH_LIMIT = 500


class View(ABC):
    """The reading half of a unit of work: resources by reference, by search, and what refers to them."""

    def __init__(self, store: Store, session: AsyncClientSession) -> None:
        self.parts: list[Part] = []
        self.session = session
        self.now = clock.now()
        self.events: list[Resource] = []  # AuditEvents to be written with it
        # What the entries of the present transaction Bundle write, so that they may refer to it before it is there.
        self.planned: set[Target] = set()
        self._store = store
        self._at: Part  # the one that is being done
        self._entries: dict[Target, Entry] = {}
        self._dirty: dict[Target, None] = {}  # changed since the last flush
        self._queries: dict[tuple[str, tuple[tuple[str, str], ...]], Query] = {}  # what was asked for, compiled
        self._looked: dict[str, list[Document]] = {}  # what searches have found in the database, since the last flush
        self._beside: dict[str, list[Document]] = {}  # what was foreseen beside the resources
        self._flushed = False

    @abstractmethod
    async def flush(self) -> None:
        """Write what is staged so far into the transaction, so that searches find it."""

    @property
    def access(self) -> Access:
        """The rights of the request that is being done."""
        return self._at.access

    @property
    def origin(self) -> str | None:
        """The partner whose message is being processed, "Endpoint/his": it is not told what it told us."""
        return self._at.origin

    @origin.setter
    def origin(self, partner: str | None) -> None:
        self._at.origin = partner

    @property
    def shown(self) -> list[str]:
        """What its AuditEvent names beside what is changed: "Patient/1"."""
        return self._at.shown

    def begin(self, access: Access) -> Part:
        """What follows is this request's."""
        self._at = Part(access, len(self.parts), [])
        self.parts.append(self._at)
        return self._at

    @property
    def db(self) -> AsyncDatabase[Document]:
        """For what projections derive and bridges keep beside the resources; always with `session=unit.session`."""
        self._at.wrote = True
        return self._store.db

    def changes(self, part: Part | None = None) -> list[Change]:
        """The net changes so far (of one part, if given), in the order in which they were first made."""
        return [
            Change(to.type, to.id, e.was, e.after, e.redirected)
            for to, e in self._entries.items()
            if e.after is not e.was and (part is None or e.part == part.number)
        ]

    @property
    def part(self) -> Part:
        """The part that is being done."""
        return self._at

    def final(self, resource: Resource) -> Resource:
        """What this transaction made of a resource that was staged in it: reactions may have changed it since."""
        return self._entries[Target(resource["resourceType"], resource["id"])].after or resource

    async def read(self, resource_type: str, id_: str) -> Resource | None:
        """The current resource, or None. The caller may change the copy it gets."""
        entry = await self._entry(Target(resource_type, id_))
        return duplicate(entry.after)

    async def versions(self, resource_type: str, id_: str) -> AsyncIterator[Version]:
        """Its versions as they were stored before this transaction, the newest first."""
        before = (await self._entry(Target(resource_type, id_))).before
        if before is None:
            return
        yield before
        where = {"id": id_, "version": {"$lt": before.version}}
        async for document in self._store.history(resource_type).find(where, sort=[("version", -1)], session=self.session):
            yield version(document, id_)

    async def seen(self, resource_type: str, id_: str, action: Action, *, copy: bool = True) -> Resource | None:
        """The current resource, if the caller may do this to it; None, as if there were none, if not."""
        entry = await self._entry(Target(resource_type, id_))
        if entry.after is None or (self.access.restricted and not self.access.covers(entry.after, action)):
            return None
        return duplicate(entry.after) if copy else entry.after

    async def is_gone(self, resource_type: str, id_: str) -> bool:
        """Whether there was one that is deleted, and the caller may know of it."""
        if not self.access.allows(resource_type, "r"):
            return False
        found = await visibility.read(self._store, self.access, resource_type, id_, self.session)
        return found is not None and found.resource is None

    async def named(self, resource_type: str, id_: str) -> str:
        """How to call a resource in a refusal: by its id only if the caller may read it."""
        if not self.access.allows(resource_type, "r") or await self.seen(resource_type, id_, "r", copy=False) is None:
            return f"another {resource_type}"
        return f"{resource_type}/{id_}"

    async def get(self, reference: object) -> Resource | None:
        """What a local reference points to, or None."""
        to = target(reference)
        return await self.read(to.type, to.id) if to else None

    async def earlier(self, resource_type: str, id_: str) -> list[Resource]:
        """What a resource was before this transaction, all its versions, the oldest first."""
        was = (await self._entry(Target(resource_type, id_))).was
        if was is None:
            return []
        past = await self.beside(self.before(was))
        return [r for r in [version(d, id_).resource for d in past] if r is not None] + [duplicate(was)]

    @staticmethod
    def before(resource: Resource) -> Lookup:
        """What `earlier` will ask for of a resource as it is stored, for `foresee`."""
        older = {"id": resource["id"], "version": {"$lt": int(resource["meta"]["versionId"])}}
        return Lookup(f"{resource['resourceType']}_history", older, sort="version")

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

    async def missing_versions(self, named: Iterable[tuple[Target, str]]) -> list[tuple[Target, str]]:
        """Those of these versions that there are not, or that are a deletion; the one that this transaction makes included."""
        unknown = [(to, number) for to, number in named if number != self._number_now(to)]
        there = await self._store.existing_versions(unknown)
        return [key for key in unknown if key not in there]

    def _number_now(self, to: Target) -> str | None:
        entry = self._entries.get(to)
        return entry.after["meta"]["versionId"] if entry is not None and entry.after is not None else None

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
        return await self.ask(asked(resource_type, parameters))

    async def search_all(self, resource_type: str, parameters: list[tuple[str, str]]) -> list[Resource]:
        """The same with parameters that may repeat. More than 500 matches are refused: a rule must not work on part of them."""
        return await self.ask(Asked(resource_type, tuple(parameters)))

    async def some(self, resource_type: str, limit: int, **parameters: str) -> list[Resource]:
        """The newest that match, at most `limit` of those stored and all that this transaction makes: for who needs no more."""
        return await self.ask(asked(resource_type, parameters, limit))

    async def ask(self, what: Asked) -> list[Resource]:
        """The same for a search that may have been foreseen."""
        return await self._matches(self._query(what.type, what.parameters), what.newest)

    async def beside(self, what: Lookup) -> list[Document]:
        """Documents beside the current resources, as this transaction finds them; foreseen ones serve once."""
        found = self._beside.pop(repr(what), None)
        if found is None:
            cursor = self._store.db[what.collection].find(what.filter, sort=[(what.sort, 1)], session=self.session)
            found = await cursor.to_list()
        return found

    async def foresee(self, *what: Asked | Target | Lookup) -> None:
        """Lookup for all of this at once, with one command: for whoever knows what will be asked for, or read, next."""
        targets = dict.fromkeys(one for one in what if isinstance(one, Target) and one not in self._entries)
        by_id = by_ids(targets)
        beside = {repr(one): one for one in what if isinstance(one, Lookup)}
        looks = by_id | beside
        for one in what:
            if isinstance(one, Asked) and (query := self._foreseeable(one)) is not None:
                key = _key(query, one.newest)
                if key not in self._looked:
                    looks[key] = Lookup(one.type, query.filter, one.newest)
        if len(looks) < 2 and len(targets) < 2:
            return
        for key, documents in (await look(self._store.db, looks, self.session)).items():
            if key in beside:
                self._beside[key] = documents
                continue
            for document in documents:
                to = Target(looks[key].collection, document["_id"])
                self._entries.setdefault(to, Entry(version(document, to.id)))
            if key not in by_id:
                self._looked[key] = documents
                continue
            for id_ in looks[key].filter["_id"]["$in"]:
                self._entries.setdefault(Target(looks[key].collection, id_), Entry(None))

    def _foreseeable(self, one: Asked) -> Query | None:
        """A search that is one look into the database; None for others."""
        try:
            query = self._query(one.type, one.parameters)
        except FhirError:
            return None  # who asks for it is told
        return None if query.pending or query.sort or self._finds_nothing(query) else query

    def _query(self, resource_type: str, parameters: tuple[tuple[str, str], ...]) -> Query:
        """The search, compiled once. One that has to be resolved first is changed by that, and made anew."""
        known = self._queries.get((resource_type, parameters))
        if known is None:
            known = compile_query(resource_type, list(parameters))
            if not known.pending:
                self._queries[resource_type, parameters] = known
        return known

    async def _matches(self, query: Query, limit: int | None) -> list[Resource]:
        staged = self._staged_matches(query)
        if staged is None:
            await self.flush()
            await resolve.resolve(resolve.Look(self._store, Access.system("rules"), self.session), query)
        found = await self._found(query, limit)
        if limit is None and len(found) > _REACTION_SEARCH_LIMIT:
            raise fail("too-costly", f"more than {_REACTION_SEARCH_LIMIT} {query.type} resources are concerned")
        if staged is None:
            return self._own(query.type, found)
        unstaged = [d for d in found if Target(query.type, d["_id"]) not in self._dirty]
        return self._own(query.type, unstaged) + [r for r in map(duplicate, staged) if r is not None]

    async def _found(self, query: Query, limit: int | None) -> list[Document]:
        """What is stored: rules ask for the same again and again, and until the next flush it is the same."""
        key = _key(query, limit)
        if key not in self._looked:
            if self._finds_nothing(query):
                self._looked[key] = []
            elif limit is not None:
                self._looked[key] = await self._store.newest(query, limit, self.session)
            else:
                self._looked[key] = await self._store.find(query, limit=_REACTION_SEARCH_LIMIT + 1, session=self.session)
        return self._looked[key]

    def _finds_nothing(self, query: Query) -> bool:
        """Whether only what refers to a resource of this transaction can match: nothing that is stored does so before a flush."""
        if self._flushed or query.pending:
            return False
        keys = [condition.get("search.t") for condition in query.filters]
        referred = [target(key.partition(">")[2]) for key in keys if isinstance(key, str)]
        entries = [self._entries.get(to) for to in referred if to is not None]
        return any(entry is not None and entry.fresh for entry in entries)

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
        await resolve.resolve(resolve.Look(self._store, self.access, self.session), query)
        return self._own(query.type, await self._store.find(query, limit=limit, session=self.session))

    async def referring(self, to: Target, first: Iterable[str], limit: int) -> list[Resource]:
        """What refers to a resource, own writes included, at most `limit`; not what merely tells of it (`NO_HOLD`).

        Types other than its own, in the order of `first`, then the others; within a type the newest first.
        """
        await self.flush()
        types = await self._store.types_referring_to(to.type) - {to.type}
        found: list[Resource] = []
        for resource_type in [*(t for t in first if t in types), *sorted(types.difference(first))]:
            where = {"search.t": f">{to}"}
            cursor = self._store.current(resource_type).find(
                where, {"search": 0}, sort=[("_id", -1)], limit=limit - len(found), session=self.session
            )
            found += self._own(resource_type, await cursor.to_list())
            if len(found) >= limit:
                break
        return found

    async def _entry(self, to: Target) -> Entry:
        if to not in self._entries:
            self._entries[to] = Entry(await self._store.read(to.type, to.id, self.session))
        return self._entries[to]


def _key(query: Query, newest: int | None) -> str:
    return f"{query.type} {query.filter} {query.sort} {newest}"
