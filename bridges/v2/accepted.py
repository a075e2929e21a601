"""Messages that were accepted (CA) and not processed: whose process is gone, they come before what their sender sends next.

Each process of the bridge has a name, under which it holds a lease (`leases`) while it lives, and which stands as `owner` in
what it accepted (`message_log.py`). What a living owner is at is waited for; what a dead one left is done by whoever finds it.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from bson import ObjectId
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from bridges.v2 import message_log
from bridges.v2.received import Received
from fhir_server import clock, leases
from fhir_server.leases import Lease
from fhir_server.outcome import FhirError, Issue

log = structlog.get_logger()

Document = dict[str, Any]
_LEASE: Final = 5.0  # seconds after which a process that says nothing is taken for dead
_LOOK: Final = 1.0  # seconds for which a connection's sender is known to have nothing left behind; and between two sweeps
_PATIENCE: Final = 30.0  # seconds that a message waits for older ones of its sender before it is sent back
_POLL: Final = 0.05
_MOST: Final = 10_000  # connections that are remembered
_FORGOTTEN: Final = timedelta(days=1)  # the name of a dead process is kept so long
_NAME: Final = "v2-inbound "


class Accepted:
    """Those of one database, as one process sees them. `process` does what a message says, whoever accepted it."""

    def __init__(self, db: AsyncDatabase[Document], process: Callable[[Document], Awaitable[None]]) -> None:
        self.owner = uuid.uuid4().hex
        self._db = db
        self._messages = db[message_log.COLLECTION]
        self._process = process
        self._left: set[ObjectId] = set()
        self._looked: dict[tuple[str, int, str], float] = {}
        self._one = asyncio.Lock()

    def leave(self, received: Received) -> None:
        """What this process has accepted and didn't get done: it is done before the next message of its sender, or soon."""
        self._left.add(received.key.id)

    async def before(self, received: Received) -> None:
        """Have everything done that its sender was told `CA` for earlier. FhirError or PyMongoError when that can't be done now.

        The database is asked for a connection's first message, and once a second: after a crash a sender comes by a new one.
        """
        place = (received.peer.host, received.peer.port, received.key.sender)
        now = time.monotonic()
        if not self._left and now - self._looked.get(place, float("-inf")) < _LOOK:
            return
        if not await self.finish(received.key.sender, older_than=received.when, patience=_PATIENCE):
            raise FhirError(Issue("transient", "older messages of this sender are not processed yet"))
        if len(self._looked) >= _MOST:
            self._looked.clear()
        self._looked[place] = now

    async def finish(self, sender: str | None = None, *, older_than: datetime | None = None, patience: float = 0) -> bool:
        """Do what was left behind (by a sender), the oldest first.

        older_than: what living processes accepted before then is waited for, `patience` seconds. Whether nothing is left of it.
        """
        end = time.monotonic() + patience
        while True:
            waits = await self._once(sender, older_than)
            if not waits or time.monotonic() >= end:
                return not waits
            await asyncio.sleep(_POLL)

    async def _once(self, sender: str | None, older_than: datetime | None) -> bool:
        """Whether something has to wait for a living process."""
        left = set(self._left)
        mine = {"_id": {"$in": [*left]}}
        where: Document = {"outcome": message_log.ACCEPTED, "$or": [{"owner": {"$ne": self.owner}}, mine]}
        if sender is not None:
            where["sender"] = sender
        found = await self._messages.find(where, {"owner": 1, "received": 1}, sort=[("received", 1)]).to_list()
        alive = await self._alive({d.get("owner", "") for d in found} - {self.owner}) if found else set()
        for document in found:
            if document.get("owner", "") not in alive:
                await self._do(document["_id"])
            elif older_than is not None and document["received"] < clock.naive(older_than):
                return True
        if sender is None:
            self._left -= left  # the others of them were done elsewhere
        return False

    async def _do(self, id_: ObjectId) -> None:
        async with self._one:
            document = await self._messages.find_one({"_id": id_, "outcome": message_log.ACCEPTED})
            if document is not None:  # another connection was faster
                await self._process(document)
        self._left.discard(id_)

    async def _alive(self, owners: Iterable[str]) -> set[str]:
        where = {"_id": {"$in": [_NAME + o for o in owners if o]}, "$expr": {"$gte": ["$until", "$$NOW"]}}
        return {d["owner"] async for d in self._db[leases.COLLECTION].find(where, {"owner": 1})}

    @contextlib.asynccontextmanager
    async def finishing(self) -> AsyncIterator[None]:
        """While inside, this process is known to live, and what dead ones have left is done: at first, and then soon."""
        lease = Lease(self._db, _NAME + self.owner, self.owner, _LEASE)
        await lease.held()
        tasks = [asyncio.create_task(lease.keep())]
        try:
            await self._try(older_than=clock.now(), patience=2 * _LEASE)
            tasks.append(asyncio.create_task(self._keep_finishing()))
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(PyMongoError):
                await leases.give_back(self._db, self.owner)
                over = {"_id": {"$regex": f"^{_NAME}"}, "until": {"$lt": clock.naive(clock.now() - _FORGOTTEN)}}
                await self._db[leases.COLLECTION].delete_many(over)

    async def _keep_finishing(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            await self._try()

    async def _try(self, *, older_than: datetime | None = None, patience: float = 0) -> None:
        try:
            await self.finish(older_than=older_than, patience=patience)
        except (FhirError, PyMongoError) as error:
            log.warning("accepted messages could not be processed now", reason=type(error).__name__)
