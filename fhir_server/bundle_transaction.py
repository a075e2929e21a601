"""A transaction Bundle: all of it in one MongoDB transaction, in the order that FHIR R4 3.1.0.11.2 lays down.

Deletes come first. Then the conditions of what is created, updated or patched are judged, so that it is known which resource each
entry is about; the links among the entries are rewritten to that. Then everything is staged: what refers to others by a search
(a conditional reference) after what it may find. Reads come last, and see it all.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fhir_server import conditional, definitions, history
from fhir_server.audit import Act
from fhir_server.bundle_entries import EntryAsk, at
from fhir_server.bundle_links import Links
from fhir_server.conditional import Condition
from fhir_server.elements import duplicate
from fhir_server.exchange import Reply, view
from fhir_server.ids import new_id
from fhir_server.interactions import Interactions, delete_in, patch_in, update_in
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.references import Target, walk
from fhir_server.references import conditional as is_conditional
from fhir_server.registry import Resource
from fhir_server.search import results
from fhir_server.search.resolve import Look
from fhir_server.searchset import link, searchset
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access
from smart_auth.scopes import Action

_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 3, "GET": 4}
_ACTIONS: dict[str, Action] = {"DELETE": "d", "POST": "c", "PUT": "u", "PATCH": "u"}
_KINDS = {
    "DELETE": {"instance", "type"},
    "POST": {"type"},
    "PUT": {"instance", "type"},
    "PATCH": {"instance", "type"},
    "GET": {"base", "type", "instance", "version", "history", "compartment"},
}
# Entries that are done before the other requests of this process get their turn.
_BREATH = 50

_Answer = Callable[[], Reply]


async def run(interactions: Interactions, access: Access, asks: list[EntryAsk], act: Act, base_url: str) -> list[Reply]:
    """The replies to the entries, in their order. FhirError for the whole when one of them is refused."""
    transaction = _Transaction(interactions, access, asks, base_url)
    async with interactions.turns.taken(transaction.keys):
        return (await interactions.transact(access, act, transaction.work))()


@dataclass(slots=True)
class _Plan:
    """What one attempt works with: the target of each entry that writes, and what is sent, its links rewritten."""

    links: Links
    targets: dict[int, Target] = field(default_factory=dict)
    # Of the targets, those that were found by a condition, and those that another entry of the same condition creates.
    matched: dict[int, Resource] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    resources: dict[int, Resource] = field(default_factory=dict)
    # The conditional references of an entry: FHIRPath and text.
    waiting: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    answers: dict[int, _Answer] = field(default_factory=dict)

    def again(self) -> "_Plan":
        """The same for another attempt, as it was when the links were rewritten."""
        return _Plan(self.links, self.targets, resources=dict(self.resources), waiting=self.waiting)

    def is_found(self, i: int) -> bool:
        """Whether a conditional create makes nothing."""
        return i in self.matched or i in self.repeated


class _Transaction:
    def __init__(self, interactions: Interactions, access: Access, asks: list[EntryAsk], base_url: str) -> None:
        self._interactions = interactions
        self._access = access
        self._asks = asks
        self._base_url = base_url
        self._if_match = [ask.if_match() for ask in asks]
        self._order = sorted(range(len(asks)), key=lambda i: _ORDER[asks[i].method])
        self._most: dict[int, int | None] = {}
        self._conditions: dict[int, Condition] = {}
        for i, ask in enumerate(asks):
            self._check(i, ask)
        self.keys = {c.key for i, c in self._conditions.items() if asks[i].method in {"POST", "PUT"}}
        # Drawn once, so that every attempt makes the same resources.
        self._fresh = {i: new_id() for i, ask in enumerate(asks) if ask.method in {"POST", "PUT"}}
        # Without conditions the links lead to the same in every attempt.
        self._linked_once: _Plan | None = None

    def _check(self, i: int, ask: EntryAsk) -> None:
        place = f"{ask.path}.request.url"
        if ask.address.kind not in _KINDS[ask.method]:
            raise fail("value", f"{ask.method} can't be done there in a transaction", place)
        if ask.method == "GET":
            return
        try:
            if ask.method == "DELETE" and ask.address.kind == "type":
                self._most[i] = conditional.most(ask.query)
            elif ask.address.kind == "instance" or ask.method == "POST":
                ask.refuse_parameters()
        except FhirError as error:
            raise fail(error.code, str(error), place, status=error.status) from None
        found = ask.condition(("_count",) if ask.method == "DELETE" else ())
        if found is not None:
            self._conditions[i] = found

    async def work(self, unit: UnitOfWork) -> Callable[[], list[Reply]]:
        """One attempt; what it gives makes the replies, once the transaction has settled."""
        self._require_rights()
        await unit.lock(*self.keys)
        named = [a.address for a in self._asks if a.address.kind == "instance"]
        await unit.load(Target(address.resource_type, address.resource_id) for address in named)
        answers: dict[int, _Answer] = {}
        deleted = await self._delete(unit, answers)
        plan = await self._planned(unit, deleted)
        plan.answers = answers
        unit.places.update((to, self._asks[i].place) for i, to in plan.targets.items() if not plan.is_found(i))
        unit.planned.update(plan.targets.values())
        await self._write(unit, plan)
        await self._read(unit, plan)
        return lambda: [plan.answers[i]() for i in range(len(self._asks))]

    def _require_rights(self) -> None:
        """All that the entries need, before anything is looked at."""
        for i, ask in enumerate(self._asks):
            if ask.method in _ACTIONS:
                self._access.require(ask.address.resource_type, _ACTIONS[ask.method])
                if i in self._conditions:
                    self._access.require(ask.address.resource_type, "s")
            elif ask.address.id is not None:
                self._access.require(ask.address.resource_type, "r")
            elif ask.address.type is not None:
                self._access.require(ask.address.type, "s")

    # Deletes

    async def _delete(self, unit: UnitOfWork, answers: dict[int, _Answer]) -> dict[Target, int]:
        """Do the deletes; which entry deleted what."""
        deleted: dict[Target, int] = {}
        for i in self._of("DELETE"):
            ask = self._asks[i]
            try:
                found, answers[i] = await self._delete_one(unit, i)
            except FhirError as error:
                raise at(error, ask.place) from None
            for to in found:
                if to in deleted:
                    raise _twice(to, ask)
                deleted[to] = i
                unit.places[to] = ask.place
        return deleted

    async def _delete_one(self, unit: UnitOfWork, i: int) -> tuple[list[Target], _Answer]:
        address, if_match, most = self._asks[i].address, self._if_match[i], self._most.get(i)
        if address.id is not None:
            await delete_in(unit, address.resource_type, address.id, if_match)
            return [Target(address.resource_type, address.id)], lambda: Reply(204)
        found, more = await conditional.delete_where(unit, self._conditions[i], if_match, most)
        targets = [Target(address.resource_type, r["id"]) for r in found]
        if most is None:
            return targets, lambda: Reply(204)
        return targets, lambda: Reply(resource=conditional.deleted(address.resource_type, len(found), more=more))

    # Which resource each entry is about

    async def _planned(self, unit: UnitOfWork, deleted: dict[Target, int]) -> _Plan:
        if self._linked_once is not None:
            return self._linked_once.again()
        plan = _Plan(Links(self._base_url))
        first: dict[Condition, int] = {}
        for i in self._of("POST", "PUT", "PATCH"):
            ask, where = self._asks[i], self._conditions.get(i)
            try:
                if where is None:
                    plan.targets[i] = Target(ask.address.resource_type, ask.address.id or self._fresh[i])
                elif where in first and ask.method == "POST":
                    plan.targets[i] = plan.targets[first[where]]
                    plan.repeated.add(i)
                else:
                    first[where] = i
                    plan.targets[i] = await self._found(unit, plan, i, where)
            except FhirError as error:
                raise at(error, ask.place) from None
        self._refuse_overlaps(plan, deleted)
        self._link(plan)
        if not self._conditions:
            self._linked_once = plan.again()
        return plan

    async def _found(self, unit: UnitOfWork, plan: _Plan, i: int, where: Condition) -> Target:
        """What a condition leads to: the match, or what is to be created."""
        match = await conditional.the_match(unit, where)
        if match is not None:
            plan.matched[i] = match
        method, sent = self._asks[i].method, self._asks[i].sent or {}
        if method == "PUT":
            id_ = conditional.target_id(where, match, sent)
            if match is None and id_ is not None:
                await conditional.refuse_taken(unit, where.type, id_)
            return Target(where.type, id_ or self._fresh[i])
        if match is not None:
            return Target(where.type, match["id"])
        if method == "PATCH":
            raise fail("not-found", f"no {where.type} matches the condition")
        return Target(where.type, self._fresh[i])

    def _refuse_overlaps(self, plan: _Plan, deleted: dict[Target, int]) -> None:
        """No resource may be written by two entries (FHIR R4 3.1.0.11.2); what a conditional create finds is not written."""
        seen = dict(deleted)
        for i, to in plan.targets.items():
            if plan.is_found(i) and self._asks[i].method == "POST":
                continue
            if to in seen:
                raise _twice(to, self._asks[max(i, seen[to])])
            seen[to] = i

    def _link(self, plan: _Plan) -> None:
        for i, to in plan.targets.items():
            ask = self._asks[i]
            if ask.full_url is not None:
                plan.links.add(ask.full_url, to, ask.path)
        for i in plan.targets:
            ask = self._asks[i]
            if ask.method == "POST" and plan.is_found(i):
                continue
            assert ask.sent is not None
            # With conditions, the next attempt may have to lead the links elsewhere.
            resource = duplicate(ask.sent) if self._conditions else ask.sent
            plan.links.rewrite(resource, ask.full_url, ask.path)
            plan.resources[i] = resource
            waiting = [(where, e["reference"]) for where, e in walk(resource, f"{ask.path}.resource") if is_conditional(e)]
            if waiting:
                plan.waiting[i] = waiting

    # Writes

    async def _write(self, unit: UnitOfWork, plan: _Plan) -> None:
        writing = [i for i in self._order if i in plan.targets]
        await self._stage_all(unit, plan, [i for i in writing if i not in plan.waiting])
        waiting = [i for i in writing if i in plan.waiting]
        if waiting:
            await self._resolve(unit, plan, waiting)

    async def _stage_all(self, unit: UnitOfWork, plan: _Plan, entries: list[int]) -> None:
        for n, i in enumerate(entries, 1):
            try:
                plan.answers[i] = await self._stage(unit, plan, i)
            except FhirError as error:
                raise at(error, self._asks[i].place) from None
            if n % _BREATH == 0:
                await asyncio.sleep(0)

    async def _stage(self, unit: UnitOfWork, plan: _Plan, i: int) -> _Answer:
        ask, to, if_match = self._asks[i], plan.targets[i], self._if_match[i]
        if ask.method == "POST" and plan.is_found(i):
            unit.shown.append(str(to))
            return self._written(unit, ask, plan.matched.get(i, {"resourceType": to.type, "id": to.id}))
        resource = plan.resources[i]
        if ask.method == "PATCH":
            changes = plan.links.following(ask.patch_of(resource), ask.path)
            patched = await patch_in(unit, self._access, to.type, to.id, changes, if_match)
            return self._written(unit, ask, patched, unseen=True)
        if ask.method == "POST":
            return self._written(unit, ask, await unit.create(resource, to.id), created=True)
        if ask.conditions.only_new() and await unit.seen(to.type, to.id, "u", copy=False):
            raise fail("conflict", f"there is a {to.type} with this id already", status=412)
        if i in self._conditions and i not in plan.matched and "id" not in resource:
            created = await conditional.create_in(unit, resource, if_match, to.id)
            return self._written(unit, ask, created, created=True)
        stored, new = await update_in(unit, self._access, resource | {"id": to.id}, if_match)
        return self._written(unit, ask, stored, created=new)

    def _written(
        self, unit: UnitOfWork, ask: EntryAsk, stored: Resource, *, created: bool = False, unseen: bool = False
    ) -> _Answer:
        return lambda: ask.written(unit.final(stored), created=created, unseen=unseen)

    # Conditional references

    async def _resolve(self, unit: UnitOfWork, plan: _Plan, waiting: list[int]) -> None:
        """Stage what refers to others by a search, as soon as all its searches find their one resource.

        A search is made again whenever more of its type is staged, so that what it found is the one match in the end too.
        """
        found: dict[str, Target] = {}
        while waiting:
            for i in waiting:
                for where, text in plan.waiting[i]:
                    if text not in found and (to := await self._referred(unit, where, text)) is not None:
                        found[text] = to
            ready = [i for i in waiting if all(text in found for _, text in plan.waiting[i])]
            if not ready:
                where = next(w for i in waiting for w, text in plan.waiting[i] if text not in found)
                raise fail("not-found", "nothing matches this conditional reference", where, status=412)
            for i in ready:
                plan.resources[i] = _resolved(plan.resources[i], found)
            await self._stage_all(unit, plan, ready)
            staged = {plan.targets[i].type for i in ready}
            waiting = [i for i in waiting if i not in set(ready)]
            await self._still_the_same(unit, plan, found, staged)

    async def _referred(self, unit: UnitOfWork, where: str, text: str) -> Target | None:
        resource_type, _, criteria = text.partition("?")
        try:
            if resource_type not in definitions.RESOURCE_TYPES:
                raise fail("value", f"{resource_type[:64]} is not a FHIR R4 resource type")
            match = await conditional.the_match(unit, conditional.parsed(resource_type, criteria, self._base_url))
        except FhirError as error:
            issues = [Issue(i.code, f"conditional reference: {i.diagnostics}", where) for i in error.issues]
            raise FhirError(*issues, status=error.status, headers=error.headers) from None
        return None if match is None else Target(resource_type, match["id"])

    async def _still_the_same(self, unit: UnitOfWork, plan: _Plan, found: dict[str, Target], staged: set[str]) -> None:
        places = {text: where for rows in plan.waiting.values() for where, text in rows}
        for text, to in found.items():
            if to.type in staged and await self._referred(unit, places[text], text) != to:
                changed = "this transaction changes what this conditional reference leads to"
                raise fail("conflict", changed, places[text], status=412)

    # Reads

    async def _read(self, unit: UnitOfWork, plan: _Plan) -> None:
        reading = self._of("GET")
        if any(self._asks[i].address.kind != "instance" for i in reading):
            # Searches and histories see what the collections hold: let everything that follows from the writes be there.
            await unit.react()
            await unit.flush()
        for i in reading:
            try:
                plan.answers[i] = await self._read_one(unit, self._asks[i])
            except FhirError as error:
                raise at(error, self._asks[i].place) from None

    async def _read_one(self, unit: UnitOfWork, ask: EntryAsk) -> _Answer:
        kind, to = ask.address.kind, ask.address
        if kind == "instance":
            found = await unit.seen(to.resource_type, to.resource_id, "r")
            if found is None:
                raise fail("not-found", f"there is no {to.type}/{to.id}")
            return self._shown(unit, ask, found, current=True)
        if kind == "version":
            version = await self._interactions.version_in(
                self._access, to.resource_type, to.resource_id, to.version, unit.session
            )
            if version is None:
                raise fail("not-found", f"there is no {to.type}/{to.id}/_history/{to.version[:20]}")
            if version.resource is None:
                raise fail("deleted", f"{to.type}/{to.id} was deleted")
            return self._shown(unit, ask, version.resource, current=False)
        return await (self._history(unit, ask) if kind == "history" else self._search(unit, ask))

    def _shown(self, unit: UnitOfWork, ask: EntryAsk, found: Resource, *, current: bool) -> _Answer:
        shown = view(ask.query, ask.address.type, lenient=ask.prefer.lenient)
        unit.shown.append(f"{found['resourceType']}/{found['id']}")

        def answer() -> Reply:
            final = unit.final(found) if current else found
            if ask.conditions.seen(final):
                return Reply(304, stored=final)
            return Reply(resource=shown.show(final), stored=final)

        return answer

    async def _history(self, unit: UnitOfWork, ask: EntryAsk) -> _Answer:
        to, links = ask.address, self._interactions.links
        asked = await history.history_query(links, to.type, to.id, ask.query, lenient=ask.prefer.lenient)
        page = await self._interactions.history_in(self._access, asked, unit.session)
        unit.shown.extend(f"{t}/{v.id}" for t, v in page.versions)
        bundle = history.bundle(page, self._base_url, str(to), ask.query, lambda a, p: link(self._base_url, a, p))
        return lambda: Reply(resource=bundle)

    async def _search(self, unit: UnitOfWork, ask: EntryAsk) -> _Answer:
        to, links = ask.address, self._interactions.links
        compartment = (to.compartment.type, to.compartment.id) if to.compartment else None
        asked = await results.asked(links, to.type, ask.query, compartment)
        look = Look(self._interactions.store, self._access, unit.session)
        found = await results.search(look, links, asked, self._base_url, lenient=ask.prefer.lenient)
        unit.shown.extend(f"{r['resourceType']}/{r['id']}" for r in found.matches + found.included)
        bundle = searchset(found, self._base_url, str(to))
        return lambda: Reply(resource=bundle)

    def _of(self, *methods: str) -> list[int]:
        return [i for i in self._order if self._asks[i].method in methods]


def _resolved(resource: Resource, found: dict[str, Target]) -> Resource:
    copy = duplicate(resource)
    for _, element in walk(copy, ""):
        if element["reference"] in found:
            element["reference"] = str(found[element["reference"]])
    return copy


def _twice(to: Target, ask: EntryAsk) -> FhirError:
    return fail("invalid", f"{to} is in this transaction twice", f"{ask.path}.request.url", status=400)
