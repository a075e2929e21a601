"""Running transactions: again from a clean state on a conflict, and several small ones as one when they come at the same time.

Small transactions (one resource's create, update, patch or delete) that arrive while others are being committed become the parts
of one: each is done in turn and sees what those before it did, as if they had come one after the other. When anything stands in
the way of the whole, each is run on its own.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
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

from fhir_server import audit
from fhir_server.audit import Act
from fhir_server.foresight import Asked, Lookup
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.references import Target
from fhir_server.registry import Registry
from fhir_server.staging import Part
from fhir_server.store import Document, NotEnsured, Store
from fhir_server.together import Together
from fhir_server.turns import Turns
from fhir_server.unit_of_work import Conflict, Entangled, UnitOfWork
from smart_auth.access import Access

T = TypeVar("T")

_PATIENCE = 10.0  # seconds that a transaction is tried again while others hold what it needs
_PATIENCE_TOGETHER = 2.0  # the same for a group, before each is left to itself
_LARGEST_GROUP = 16  # small transactions that are committed as one
_ALONE = 4  # small transactions left to themselves that run at once: more would only get in each other's way
_SNAPSHOT = ReadConcern("snapshot")
_DURABLE = WriteConcern("majority", j=True)
_TRANSIENT = "TransientTransactionError"
_UNKNOWN_COMMIT = "UnknownTransactionCommitResult"
_TOO_LARGE = 10334  # BSONObjectTooLarge


@dataclass(slots=True)
class Job:
    """A transaction to be run: who does what, what its AuditEvent names beyond the changes, which resources it begins with."""

    access: Access
    act: Act
    work: Callable[[UnitOfWork], Awaitable[Any]]
    entities: list[Document]
    targets: list[Target] = field(default_factory=list)
    small: bool = False
    turns: frozenset[str] = frozenset()  # what else it touches: others that do wait
    foreseen: tuple[Asked | Target | Lookup, ...] = ()  # what it will look for
    # What came of it when it was run with others; `alone` while it has yet to be run on its own.
    alone: bool = True
    result: Any = None
    refusal: FhirError | None = None


class Transactions:
    """Runs transactions over one store."""

    def __init__(self, store: Store, registry: Registry, *, strict_references: bool) -> None:
        self._store, self._registry, self._strict = store, registry, strict_references
        self.turns = Turns()
        self._places: set[int] = set()
        self._together = Together[Job](self._joint, _touched, largest=_LARGEST_GROUP)
        self._alone = asyncio.Semaphore(_ALONE)
        # Set when a transaction has left messages in the outbox, so that delivery need not wait for its next look.
        self.outbox_filled = asyncio.Event()

    async def run(
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
        """Run `work`, its reactions and its AuditEvent in one transaction. The errors are those of `Interactions.transact`.

        `small`: it may share a transaction with others, and begins with these resources, which are read ahead.
        `turns`: names of what else it works on; of those that name the same, one goes after the other.
        `foreseen`: what it will look for.
        """
        job = Job(access, act, work, list(entities), turns=frozenset(turns), foreseen=tuple(foreseen))
        if small is not None:
            job.targets, job.small = list(small), True
            await self._together.do(job)
            if job.refusal is not None:
                raise job.refusal
        if job.alone:
            turn = self.turns.taken((*(str(to) for to in job.targets), *job.turns))
            async with turn, self._alone if job.small else contextlib.nullcontext():
                await self._until_done(job)
        result: T = job.result
        return result

    async def _joint(self, jobs: list[Job]) -> None:
        """Run these as one. Whatever keeps them from being committed together leaves each of them to itself."""
        await self._store.ensure("AuditEvent")
        if len(jobs) == 1:
            await self._once(jobs[0])
            return
        deadline = time.monotonic() + _PATIENCE_TOGETHER
        attempt = 0
        while time.monotonic() < deadline:
            for job in jobs:
                job.refusal = None
            try:
                await self._attempt(jobs, deadline + _PATIENCE)
            except (FhirError, Entangled, NotEnsured, DocumentTooLarge):
                break
            except (Conflict, PyMongoError) as error:
                if isinstance(error, PyMongoError) and not error.has_error_label(_TRANSIENT):
                    if error.has_error_label(_UNKNOWN_COMMIT):
                        raise _unknown() from error  # it may have been done, and must not be done twice
                    break
                await _pause(attempt)
                attempt += 1
            except Exception:  # noqa: BLE001 - a fault in one must not fail the others: on its own, it shows whose it is
                break
            else:
                for job in jobs:
                    job.alone = False
                return
        for job in jobs:
            job.refusal = None

    async def _once(self, job: Job) -> None:
        """Try one that came alone, while others gather. If it can't be done at once, it is left to itself."""
        try:
            await self._attempt([job], time.monotonic() + _PATIENCE)
        except FhirError as refusal:
            job.refusal = refusal
        except DocumentTooLarge:
            job.refusal = _too_large()
        except (Conflict, NotEnsured):
            return
        except PyMongoError as error:
            if _try_again(error):
                return
            raise
        job.alone = False

    async def _until_done(self, job: Job) -> None:
        await self._store.ensure("AuditEvent")
        deadline = time.monotonic() + _PATIENCE
        attempt = 0
        while True:
            try:
                await self._attempt([job], deadline)
                return
            except NotEnsured as missing:
                await self._store.ensure(*missing.resource_types)
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

    async def _attempt(self, jobs: list[Job], deadline: float) -> None:
        with self._place() as place:
            await self._attempt_at(place, jobs, deadline)

    @contextlib.contextmanager
    def _place(self) -> Iterator[int]:
        """The lowest number that no other transaction of this process has meanwhile."""
        place = next(n for n in itertools.count() if n not in self._places)
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.remove(place)

    async def _attempt_at(self, place: int, jobs: list[Job], deadline: float) -> None:
        async with self._store.trail.lane() as lane, self._store.db.client.start_session() as session:
            async with await session.start_transaction(read_concern=_SNAPSHOT, write_concern=_DURABLE):
                late = all(job.small for job in jobs)
                unit = UnitOfWork(self._store, self._registry, session, strict=self._strict, late_locks=late, place=place)
                await unit.load(to for job in jobs for to in job.targets)
                if foreseen := [one for job in jobs for one in job.foreseen]:
                    await unit.foresee(*self._registry.asked, *foreseen)
                done = [(job, part) for job in jobs if (part := await _part(unit, job, together=len(jobs) > 1))]
                await unit.complete()
                events = [
                    audit.audit_event(job.act, job.access, [*job.entities, *audit.changed(unit.changes(part), part.shown)])
                    for job, part in done
                ]
                await audit.record(self._store, lane, [*events, *unit.events], session)
                lane.committing()
                await _commit(session, deadline)
                lane.committed()
            if unit.outbox:
                self.outbox_filled.set()


async def _part(unit: UnitOfWork, job: Job, *, together: bool) -> Part | None:
    """Do one job, with its reactions. None if it is refused before it wrote anything: the others go on without it."""
    part = unit.begin(job.access)
    try:
        job.result = await job.work(unit)
        await unit.react()
    except FhirError as refusal:
        if not together or part.wrote or unit.changes(part):
            raise
        job.refusal = refusal
        return None
    return part


def _touched(job: Job) -> Iterable[Hashable]:
    return (*job.targets, *job.turns)


def unavailable(text: str = "the database is not available; try again") -> FhirError:
    """The refusal while MongoDB is away."""
    return FhirError(Issue("transient", text), headers={"Retry-After": "2"})


def _unknown() -> FhirError:
    return unavailable("the database went away during the commit: look whether it was done before you try again")


def _too_large() -> FhirError:
    return fail("too-long", "a resource with its search index takes more than the 16 MiB that can be stored", status=413)


def _try_again(error: PyMongoError) -> bool:
    """Whether a failed transaction can be run again. FhirError when we know why it can't."""
    if error.has_error_label(_UNKNOWN_COMMIT):
        raise _unknown() from error
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
