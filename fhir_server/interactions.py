"""The one way in: every door (REST, Bundles, HL7 v2, DICOM, operations) reads and writes through these interactions."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server import audit, definitions, visibility
from fhir_server.audit import Act
from fhir_server.exchange import Parameters, Patch
from fhir_server.foresight import Asked, Lookup
from fhir_server.history import HistoryPage, HistoryQuery, history_of_many, history_of_one, history_query
from fhir_server.outcome import FhirError, fail
from fhir_server.page_links import PageLinks
from fhir_server.references import Target
from fhir_server.registry import Registry, Resource
from fhir_server.search.resolve import Look
from fhir_server.search.results import Found, asked, search
from fhir_server.store import Document, Store, Version
from fhir_server.transactions import Transactions
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access
from smart_auth.scopes import Action

T = TypeVar("T")

_VERSION = re.compile(r"[1-9][0-9]{0,9}")  # as it is written in meta.versionId
_LARGEST_VERSION = 2**31 - 1


class Interactions:
    """Create, read, vread, update, delete, search, history and transactions over one store."""

    def __init__(self, store: Store, registry: Registry, *, strict_references: bool = True) -> None:
        self.store = store
        self.registry = registry
        self.reads = audit.GroupCommit(store)
        self.links = PageLinks(store.db)
        self._transactions = Transactions(store, registry, strict_references=strict_references)
        self.turns = self._transactions.turns
        self.outbox_filled = self._transactions.outbox_filled

    # One transaction

    async def transact(
        self,
        access: Access,
        act: Act,
        work: Callable[[UnitOfWork], Awaitable[T]],
        entities: Iterable[Document] = (),
        *,
        small: Iterable[Target] | None = None,
        turns: Iterable[str] = (),
        foreseen: Iterable[Asked | Target | Lookup] = (),
    ) -> T:
        """Run `work`, its reactions and its AuditEvent in one transaction, again from a clean state on a conflict.

        `entities` are those of the AuditEvent beyond what is changed. `small`: `work` is about one resource, beginning with
        these, and may share its transaction with others that come at the same time, but not with those that name one of the same
        `turns`: these go one after the other.
        `foreseen`: what it will look for (`View.foresee`); what is foreseen of a group, is looked for at once.
        FhirError when a rule refuses, `forbidden` (403, and on record) when `work` requires more than `access` allows,
        `lock-error` (409) when others kept changing the same resources,
        `too-long` (413) for a resource that MongoDB can't hold, `transient` (503) when MongoDB is away.
        """
        async with self._refusals_recorded(access, act):
            return await self._transactions.run(access, act, work, entities, small=small, turns=turns, foreseen=foreseen)

    # Interactions on one resource

    async def create(self, access: Access, resource: Resource, act: Act | None = None) -> Resource:
        """The resource as it is stored, under an id of our own."""
        resource_type = known_type(resource)

        async def work(unit: UnitOfWork) -> Callable[[], Resource]:
            access.require(resource_type, "c")
            created = await unit.create(resource, copy=False)
            return lambda: unit.final(created)

        foreseen = self.registry.read_for(resource)
        return (await self.transact(access, act or Act("create"), work, small=(), foreseen=foreseen))()

    async def read(self, access: Access, resource_type: str, id_: str, act: Act | None = None) -> Version:
        """The current version. FhirError `not-found` or `deleted`."""
        act = act or Act("read")
        await self.require(access, act, resource_type, "r")
        found = await visibility.read(self.store, access, resource_type, id_)
        return await self._seen(access, act, found, resource_type, id_)

    async def vread(self, access: Access, resource_type: str, id_: str, version: str, act: Act | None = None) -> Version:
        """One version. FhirError `not-found`, or `deleted` for the version that is a deletion."""
        act = act or Act("vread")
        await self.require(access, act, resource_type, "r")
        return await self._seen(access, act, await self.version_in(access, resource_type, id_, version), resource_type, id_)

    async def version_in(
        self, access: Access, resource_type: str, id_: str, version: str, session: AsyncClientSession | None = None
    ) -> Version | None:
        """One version without the audit; with `session`, as a transaction sees it. None when there never was one to be seen."""
        number = int(version) if _VERSION.fullmatch(version) else 0
        if not 0 < number <= _LARGEST_VERSION:
            return None
        return await visibility.vread(self.store, access, resource_type, id_, number, session)

    async def history(
        self,
        access: Access,
        resource_type: str | None,
        id_: str | None,
        parameters: Parameters,
        act: Act | None = None,
        *,
        lenient: bool = False,
    ) -> HistoryPage:
        """A page of the versions of one resource, of a type or (None) of everything that `access` may search, newest first."""
        act = act or Act(f"history-{'instance' if id_ else 'type' if resource_type else 'system'}")
        async with self._refusals_recorded(access, act):
            if resource_type is not None:
                access.require(resource_type, "r" if id_ else "s")
            query = await history_query(self.links, resource_type, id_, parameters, lenient=lenient)
            page = await self.history_in(access, query)
        await self.record(access, act, audit.shown_versions(page.versions))
        return page

    async def history_in(self, access: Access, query: HistoryQuery, session: AsyncClientSession | None = None) -> HistoryPage:
        """The same for what is asked, without the audit; with `session`, as a transaction sees it."""
        if query.id is not None:
            return await history_of_one(self.store, access, self.links, query, session)
        types = [query.type] if query.type else await self._searchable(access, query.types)
        for resource_type in types:
            if access.filter(resource_type, "s") is not None:
                raise fail("forbidden", f"the access token shows part of {resource_type} only, and a history is of all of it")
        return await history_of_many(self.store, self.links, query, types, session)

    async def _searchable(self, access: Access, named: Iterable[str]) -> list[str]:
        """The types named, or else all that are stored and that the caller may search."""
        types = list(named)
        if not types:
            stored = await self.store.known_types()
            types = [t for t in stored if access.allows(t, "s")] or stored[:1]
        for resource_type in types:
            access.require(resource_type, "s")
        return types

    async def update(
        self,
        access: Access,
        resource: Resource,
        if_match: str | None = None,
        act: Act | None = None,
        *,
        only_new: bool = False,
    ) -> tuple[Resource, bool]:
        """The new state of a resource, and whether it was created.

        `if_match` is the version that the caller has seen, `only_new` that there must be none yet (both 412).
        """
        resource_type = known_type(resource)

        async def work(unit: UnitOfWork) -> Callable[[], tuple[Resource, bool]]:
            access.require(resource_type, "u")
            if only_new and await unit.seen(resource_type, str(resource.get("id")), "u"):
                raise fail("conflict", f"there is a {resource_type} with this id already", status=412)
            stored, created = await update_in(unit, access, resource, if_match)
            return lambda: (unit.final(stored), created)

        small = [Target(resource_type, str(resource.get("id")))]
        return (await self.transact(access, act or Act("update"), work, small=small))()

    async def delete(
        self, access: Access, resource_type: str, id_: str, if_match: str | None = None, act: Act | None = None
    ) -> None:
        """Delete a resource; that there is none (any more) is no error, unless `if_match` says that there was one (412)."""

        async def work(unit: UnitOfWork) -> None:
            access.require(resource_type, "d")
            await delete_in(unit, resource_type, id_, if_match)

        await self.transact(access, act or Act("delete"), work, small=[Target(resource_type, id_)])

    async def patch(
        self,
        access: Access,
        resource_type: str,
        id_: str,
        changes: Patch,
        if_match: str | None = None,
        act: Act | None = None,
    ) -> Resource:
        """The resource as a patch leaves it: its result is an update like any other. FhirError `not-found` or `deleted`."""

        async def work(unit: UnitOfWork) -> Callable[[], Resource]:
            access.require(resource_type, "u")
            stored = await patch_in(unit, access, resource_type, id_, changes, if_match)
            return lambda: unit.final(stored)

        return (await self.transact(access, act or Act("patch"), work, small=[Target(resource_type, id_)]))()

    async def search(
        self,
        access: Access,
        resource_type: str | None,
        parameters: list[tuple[str, str]],
        act: Act | None = None,
        *,
        base_url: str = "",
        lenient: bool = False,
        compartment: tuple[str, str] | None = None,
    ) -> Found:
        """A page of matches with what was included, of one type or (None) of several, all or those of a compartment.

        `base_url` is our own FHIR base, by which references may be given. `lenient`: what isn't understood is left out and noted.
        """
        act = act or Act("search-type" if resource_type else "search-system")
        async with self._refusals_recorded(access, act):
            if resource_type is not None:
                access.require(resource_type, "s")
            question = await asked(self.links, resource_type, parameters, compartment)
            found = await search(Look(self.store, access), self.links, question, base_url, lenient=lenient)
        await self.record(access, act, audit.shown_resources(found.matches + found.included))
        return found

    # The audit trail

    @asynccontextmanager
    async def _refusals_recorded(self, access: Access, act: Act) -> AsyncIterator[None]:
        """Whoever is refused in here for lack of rights is on record before being told."""
        try:
            yield
        except FhirError as error:
            # A condition or a patch that is refused has told what is there, or isn't.
            if error.code == "forbidden" or act.event == "patch" or (act.query and not act.event.startswith("search")):
                await self.store.ensure("AuditEvent")
                await self.reads.write(audit.audit_event(act, access, (), failed=str(error)))
            raise

    async def require(self, access: Access, act: Act, resource_type: str, action: Action) -> None:
        """Refuse (403, and on record) what `access` does not allow."""
        if not access.allows(resource_type, action):
            async with self._refusals_recorded(access, act):
                access.require(resource_type, action)

    async def _seen(self, access: Access, act: Act, found: Version | None, resource_type: str, id_: str) -> Version:
        if found is None:
            raise fail("not-found", f"there is no {resource_type}/{id_}")
        await self.record(access, act, audit.shown(resource_type, found))
        if found.resource is None:
            raise fail("deleted", f"{resource_type}/{id_} was deleted")
        return found

    async def record(self, access: Access, act: Act, entities: list[Document]) -> None:
        """Record that these were shown, before they are."""
        await self.store.ensure("AuditEvent")
        await self.reads.write(audit.audit_event(act, access, entities))


async def update_in(unit: UnitOfWork, access: Access, resource: Resource, if_match: str | None) -> tuple[Resource, bool]:
    """An update inside a transaction: If-Match judged there, so that an update can't be lost."""
    resource_type, id_ = resource["resourceType"], resource.get("id")
    if not isinstance(id_, str):
        raise fail("required", "an update needs the resource's id", f"{resource_type}.id")
    before = await unit.seen(resource_type, id_, "u", copy=False)
    check_version(f"{resource_type}/{id_}", before, if_match)
    if before is None:
        access.require(resource_type, "c")
        if access.restricted:
            # An id of its own choice would tell it which ones are taken by what it may not see.
            raise fail("not-found", f"there is no {resource_type}/{id_}")
    stored = await unit.update(resource, copy=False)
    unit.shown.append(f"{resource_type}/{id_}")
    return stored, before is None


async def patch_in(
    unit: UnitOfWork, access: Access, resource_type: str, id_: str, changes: Patch, if_match: str | None
) -> Resource:
    """A patch inside a transaction. The resource stays what it is: neither type nor id can be patched."""
    found = await unit.seen(resource_type, id_, "u")
    if found is None:
        if await unit.is_gone(resource_type, id_):
            raise fail("deleted", f"{resource_type}/{id_} was deleted")
        raise fail("not-found", f"there is no {resource_type}/{id_}")
    if access.covers(found, "r"):
        return await _patched(unit, access, found, changes, if_match)
    try:
        return await _patched(unit, access, found, changes, if_match)
    except FhirError:  # what a patch fails at tells what is there
        raise fail("business-rule", "the patch was not applied; why is for those to know who may read this", status=422) from None


async def _patched(unit: UnitOfWork, access: Access, found: Resource, changes: Patch, if_match: str | None) -> Resource:
    resource_type, id_ = found["resourceType"], found["id"]
    patched = changes(found)
    if (patched.get("resourceType"), patched.get("id")) != (resource_type, id_):
        raise fail("value", "a patch can't change the type or the id of a resource", f"{resource_type}.id", status=422)
    stored, _ = await update_in(unit, access, patched, if_match)
    return stored


async def delete_in(unit: UnitOfWork, resource_type: str, id_: str, if_match: str | None = None) -> None:
    """A deletion inside a transaction."""
    before = await unit.seen(resource_type, id_, "d", copy=False)
    check_version(f"{resource_type}/{id_}", before, if_match)
    if before is not None:
        await unit.delete(resource_type, id_)
    unit.shown.append(f"{resource_type}/{id_}")


def check_version(what: str, before: Resource | None, if_match: str | None) -> None:
    """FhirError 412 when there is another version than the one that If-Match names."""
    version = int(before["meta"]["versionId"]) if before else 0
    if if_match is not None and if_match != str(version):
        state = f"is at version {version}" if version else "does not exist"
        raise fail("conflict", f"{what} {state}; If-Match asks for version {if_match[:64]}", status=412)


def known_type(resource: Any) -> str:
    """The resource's type. FhirError when there is none, or FHIR has no such type."""
    resource_type = resource.get("resourceType") if isinstance(resource, dict) else None
    if resource_type is None:
        raise fail("required", "a resource needs its resourceType", "Resource.resourceType")
    if not isinstance(resource_type, str) or resource_type not in definitions.RESOURCE_TYPES:
        raise fail("structure", f"{str(resource_type)[:64]!r} is not a FHIR R4 resource type", "Resource.resourceType")
    return resource_type
