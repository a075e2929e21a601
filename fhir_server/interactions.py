"""The one way in: every door (REST, Bundles, HL7 v2, DICOM, operations) reads and writes through these interactions."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import (
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fhir_server import audit, definitions
from fhir_server.audit import Act
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.registry import Registry, Resource
from fhir_server.search.query import compile_query
from fhir_server.search.results import Found, search
from fhir_server.store import Document, NotEnsured, Store, Version
from fhir_server.unit_of_work import Conflict, UnitOfWork
from smart_auth.access import Access
from smart_auth.scopes import Action

T = TypeVar("T")

_PATIENCE = 10.0  # seconds that a transaction is tried again while others hold what it needs
_SNAPSHOT = ReadConcern("snapshot")
_DURABLE = WriteConcern("majority", j=True)
_TRANSIENT = "TransientTransactionError"
_UNKNOWN_COMMIT = "UnknownTransactionCommitResult"
_TOO_LARGE = 10334  # BSONObjectTooLarge
_LARGEST_VERSION = 2**31 - 1


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
        FhirError when a rule refuses, `forbidden` (403, and on record) when `work` requires more than `access` allows,
        `lock-error` (409) when others kept changing the same resources,
        `too-long` (413) for a resource that MongoDB can't hold, `transient` (503) when MongoDB is away.
        """
        async with self._refusals_recorded(access, act):
            return await self._until_done(access, act, work, list(entities))

    async def _until_done(
        self, access: Access, act: Act, work: Callable[[UnitOfWork], Awaitable[T]], entities: list[Document]
    ) -> T:
        await self.store.ensure("AuditEvent")
        deadline = time.monotonic() + _PATIENCE
        attempt = 0
        while True:
            try:
                return await self._attempt(access, act, work, entities, deadline)
            except NotEnsured as missing:
                await self.store.ensure(*missing.resource_types)
                continue
            except Conflict:
                pass
            except DocumentTooLarge:
                raise _too_large() from None
            except PyMongoError as error:
                if not _try_again(error):
                    raise
            if time.monotonic() > deadline:
                raise FhirError(
                    Issue("lock-error", "others kept changing the same resources; try again"), headers={"Retry-After": "1"}
                )
            await _pause(attempt)
            attempt += 1

    async def _attempt(
        self, access: Access, act: Act, work: Callable[[UnitOfWork], Awaitable[T]], entities: list[Document], deadline: float
    ) -> T:
        async with self.store.db.client.start_session() as session:
            async with await session.start_transaction(read_concern=_SNAPSHOT, write_concern=_DURABLE):
                unit = UnitOfWork(self.store, self.registry, session, access, strict=self._strict)
                result = await work(unit)
                await unit.settle()
                event = audit.audit_event(act, access, [*entities, *audit.changed(unit.changes(), unit.shown)])
                await audit.record(self.store, event, session)
                await _commit(session, deadline)
            if unit.outbox:
                self.outbox_filled.set()
            return result

    # Interactions on one resource

    async def create(self, access: Access, resource: Resource, act: Act | None = None) -> Resource:
        """The resource as it is stored, under an id of our own."""
        resource_type = known_type(resource)

        async def work(unit: UnitOfWork) -> Callable[[], Resource]:
            access.require(resource_type, "c")
            created = await unit.create(resource)
            return lambda: unit.final(created)

        return (await self.transact(access, act or Act("create"), work))()

    async def read(self, access: Access, resource_type: str, id_: str, act: Act | None = None) -> Version:
        """The current version. FhirError `not-found` or `deleted`."""
        act = act or Act("read")
        await self._require(access, act, resource_type, "r")
        return await self._seen(access, act, await self.store.read(resource_type, id_), resource_type, id_)

    async def vread(self, access: Access, resource_type: str, id_: str, version: str, act: Act | None = None) -> Version:
        """One version. FhirError `not-found`, or `deleted` for the version that is a deletion."""
        act = act or Act("vread")
        await self._require(access, act, resource_type, "r")
        number = int(version) if version.isascii() and version.isdecimal() and len(version) <= 10 else 0
        found = await self.store.vread(resource_type, id_, number) if 0 < number <= _LARGEST_VERSION else None
        return await self._seen(access, act, found, resource_type, id_)

    async def history(
        self,
        access: Access,
        resource_type: str,
        id_: str,
        count: int,
        act: Act | None = None,
        *,
        before: int | None = None,
    ) -> list[Version]:
        """The versions of one resource, newest first, at most `count`; those before version `before` if given."""
        act = act or Act("history-instance")
        await self._require(access, act, resource_type, "r")
        found = await self.store.versions(resource_type, id_, count, before)
        if not found and before is None:
            raise fail("not-found", f"there is no {resource_type}/{id_}")
        await self._audit_read(access, act, audit.shown(resource_type, found))
        return found

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
            if only_new and await unit.version_of(resource_type, str(resource.get("id"))):
                raise fail("conflict", f"there is a {resource_type} with this id already", status=412)
            stored, created = await update_in(unit, access, resource, if_match)
            return lambda: (unit.final(stored), created)

        return (await self.transact(access, act or Act("update"), work))()

    async def delete(
        self, access: Access, resource_type: str, id_: str, if_match: str | None = None, act: Act | None = None
    ) -> None:
        """Delete a resource; that there is none (any more) is no error, unless `if_match` says that there was one (412)."""

        async def work(unit: UnitOfWork) -> None:
            access.require(resource_type, "d")
            await delete_in(unit, resource_type, id_, if_match)

        await self.transact(access, act or Act("delete"), work)

    async def search(
        self,
        access: Access,
        resource_type: str,
        parameters: list[tuple[str, str]],
        act: Act | None = None,
        *,
        base_url: str = "",
    ) -> Found:
        """A page of matches with what was included. `base_url` is our own FHIR base, by which references may be given."""
        act = act or Act("search-type")
        async with self._refusals_recorded(access, act):
            access.require(resource_type, "s")
            found = await search(self.store, access, compile_query(resource_type, parameters, base_url))
        await self._audit_read(access, act, audit.shown_resources(found.matches + found.included))
        return found

    # The audit trail

    @asynccontextmanager
    async def _refusals_recorded(self, access: Access, act: Act) -> AsyncIterator[None]:
        """Whoever is refused in here for lack of rights is on record before being told."""
        try:
            yield
        except FhirError as error:
            if error.code == "forbidden":
                await self.store.ensure("AuditEvent")
                await self.reads.write(audit.audit_event(act, access, (), failed=str(error)))
            raise

    async def _require(self, access: Access, act: Act, resource_type: str, action: Action) -> None:
        async with self._refusals_recorded(access, act):
            access.require(resource_type, action)

    async def _seen(self, access: Access, act: Act, found: Version | None, resource_type: str, id_: str) -> Version:
        if found is None:
            raise fail("not-found", f"there is no {resource_type}/{id_}")
        await self._audit_read(access, act, audit.shown(resource_type, [found]))
        if found.resource is None:
            raise fail("deleted", f"{resource_type}/{id_} was deleted")
        return found

    async def _audit_read(self, access: Access, act: Act, entities: list[Document]) -> None:
        await self.store.ensure("AuditEvent")
        await self.reads.write(audit.audit_event(act, access, entities))


async def update_in(unit: UnitOfWork, access: Access, resource: Resource, if_match: str | None) -> tuple[Resource, bool]:
    """An update inside a transaction: If-Match judged there, so that an update can't be lost."""
    resource_type, id_ = resource["resourceType"], resource.get("id")
    if not isinstance(id_, str):
        raise fail("required", "an update needs the resource's id", f"{resource_type}.id")
    version = await unit.version_of(resource_type, id_)
    _check_version(f"{resource_type}/{id_}", version, if_match)
    if version == 0:
        access.require(resource_type, "c")
    stored = await unit.update(resource)
    unit.shown.append(f"{resource_type}/{id_}")
    return stored, version == 0


async def delete_in(unit: UnitOfWork, resource_type: str, id_: str, if_match: str | None = None) -> None:
    """A deletion inside a transaction."""
    _check_version(f"{resource_type}/{id_}", await unit.version_of(resource_type, id_), if_match)
    await unit.delete(resource_type, id_)
    unit.shown.append(f"{resource_type}/{id_}")


def _check_version(what: str, version: int, if_match: str | None) -> None:
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


def unavailable(text: str = "the database is not available; try again") -> FhirError:
    """The refusal while MongoDB is away."""
    return FhirError(Issue("transient", text), headers={"Retry-After": "2"})


def _too_large() -> FhirError:
    return fail("too-long", "a resource with its search index takes more than the 16 MiB that can be stored", status=413)


def _try_again(error: PyMongoError) -> bool:
    """Whether a failed transaction can be run again. FhirError when we know why it can't."""
    if error.has_error_label(_UNKNOWN_COMMIT):
        raise unavailable("the database went away during the commit: look whether it was done before you try again") from error
    if isinstance(error, (ServerSelectionTimeoutError, ExecutionTimeout)):
        raise unavailable() from error
    if error.has_error_label(_TRANSIENT):
        return True
    if isinstance(error, ConnectionFailure):
        raise unavailable() from error
    if isinstance(error, OperationFailure) and error.code == _TOO_LARGE:
        raise _too_large() from error
    return False


async def _commit(session: AsyncClientSession, deadline: float) -> None:
    """Commit, asking again when the answer was lost (a commit may be repeated)."""
    while True:
        try:
            await session.commit_transaction()
            return
        except PyMongoError as error:
            if not error.has_error_label(_UNKNOWN_COMMIT) or time.monotonic() > deadline:
                raise


async def _pause(attempt: int) -> None:
    await asyncio.sleep(random.uniform(0.2, 1) * min(0.1, 0.002 * 2**attempt))  # noqa: S311 - jitter, not a secret
