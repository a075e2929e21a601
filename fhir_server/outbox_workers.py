"""Workers over the outbox: one for each destination that has something due, under its lease, until there is nothing more."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import structlog
from pymongo.errors import PyMongoError

from fhir_server import outbox
from fhir_server.leases import Lease, give_back
from fhir_server.store import Store

log = structlog.get_logger()
_ALL: Final = ";"  # the first character after the `:` that ends a prefix: what begins with that, is before it


class OutboxWorkers:
    """Serves the destinations that begin with a prefix such as `dicom:`.

    due: which messages to a destination are to be sent now, as a query on the outbox; it is given the destination, or a range of
        them
    serve: sends what is due to one; False when nothing was
    wait: until the next look for destinations
    lease: seconds that a destination is held for, and renewed while it is served
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        due: Callable[[object], dict[str, Any]],
        serve: Callable[[str], Awaitable[bool]],
        wait: Callable[[], Awaitable[object]],
        lease: float,
    ) -> None:
        self._db = store.db
        self._range = {"$gte": prefix, "$lt": prefix[:-1] + _ALL}
        self._due, self._serve, self._wait, self._lease = due, serve, wait, lease
        self._owner = uuid.uuid4().hex
        self._workers: dict[str, asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while inside. What is not answered stays pending."""
        task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            workers = [task, *self._workers.values()]
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            with contextlib.suppress(PyMongoError):
                await give_back(self._db, self._owner)

    async def _look(self) -> None:
        while True:
            try:
                for destination in await self._db[outbox.COLLECTION].distinct("destination", self._due(self._range)):
                    worker = self._workers.get(destination)
                    if worker is None or worker.done():
                        self._workers[destination] = asyncio.create_task(self._work(destination))
            except PyMongoError as error:
                log.warning("the outbox can't be read", reason=type(error).__name__)
            await self._wait()

    async def _work(self, destination: str) -> None:
        """Serve one while we hold its lease; then end until there is more."""
        lease = Lease(self._db, f"delivery:{destination}", self._owner, self._lease)
        renewal = asyncio.create_task(lease.keep())
        try:
            while await lease.held():
                if not await self._serve(destination):
                    return
        except Exception as error:  # noqa: BLE001 - the next look starts the worker again; the text may name a patient
            log.warning("delivery stops for now", destination=destination, reason=type(error).__name__)
        finally:
            renewal.cancel()
