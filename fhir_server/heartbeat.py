"""What each server process says of its components, so that any of its HTTP workers can answer for all of them.

A document of `heartbeats`: {_id: instance, components: {"v2": true, ...}, at: date}, written every second, gone after a minute.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta

from pymongo import IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from fhir_server import clock
from fhir_server.background import beside
from fhir_server.store import Document

COLLECTION = "heartbeats"
_EVERY_SECONDS = 1.0
_STALE = timedelta(seconds=10)

Components = Mapping[str, Callable[[], bool]]


class Heartbeat:
    """The pulse of this process; `supervisor` is the instance whose HTTP worker this process is."""

    def __init__(self, db: AsyncDatabase[Document], supervisor: str | None) -> None:
        self.instance = uuid.uuid4().hex
        self._db = db
        self._supervisor = supervisor

    @contextlib.asynccontextmanager
    async def beating(self, components: Components) -> AsyncIterator[None]:
        """Tell how the components are, once now and then every second, until the end."""
        await self._db[COLLECTION].create_indexes([IndexModel([("at", 1)], expireAfterSeconds=60)])
        await self._beat(components)
        try:
            async with beside(self._keep(components)):
                yield
        finally:
            with contextlib.suppress(PyMongoError):
                await self._db[COLLECTION].delete_one({"_id": self.instance})

    async def of_supervisor(self) -> dict[str, bool]:
        """How the supervising process said its components are; a silent one is not ready."""
        if self._supervisor is None:
            return {}
        found = await self._db[COLLECTION].find_one({"_id": self._supervisor})
        if found is None:
            return {"supervisor": False}
        fresh = found["at"] > clock.naive(clock.now()) - _STALE
        return {name: ready and fresh for name, ready in found["components"].items()}

    async def _keep(self, components: Components) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            with contextlib.suppress(PyMongoError):
                await self._beat(components)

    async def _beat(self, components: Components) -> None:
        states = {name: ready() for name, ready in components.items()}
        document = {"components": states, "at": clock.naive(clock.now())}
        await self._db[COLLECTION].replace_one({"_id": self.instance}, document, upsert=True)
