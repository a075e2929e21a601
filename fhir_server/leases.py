"""Leases in MongoDB: one holder of a name at a time among any number of processes, by the clock of the database alone.

A document of `leases`: {_id: name, owner, until: date}. Who doesn't renew loses it.
"""

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, PyMongoError

COLLECTION = "leases"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class Lease:
    """One name that `owner` wants to hold, for `seconds` at a time."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], name: str, owner: str, seconds: float) -> None:
        self._leases = db[COLLECTION]
        self._name = name
        self._owner = owner
        self._seconds = seconds
        self._sure_until = 0.0

    async def held(self) -> bool:
        """Whether it is ours now; taken when it is free. Asks the database only when we can't be sure."""
        return time.monotonic() < self._sure_until or await self._take()

    async def keep(self) -> None:
        """Renew it, while it is ours, until cancelled: a receiver may take its time."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            if self._sure_until:
                with contextlib.suppress(PyMongoError):
                    await self._take()

    async def _take(self) -> bool:
        asked = time.monotonic()
        free = {"$or": [{"owner": self._owner}, {"$expr": {"$lt": ["$until", "$$NOW"]}}]}
        hold = {"$set": {"owner": self._owner, "until": {"$add": ["$$NOW", int(self._seconds * 1000)]}}}
        result = await self._leases.update_one({"_id": self._name, **free}, [hold])
        if not result.matched_count:
            with contextlib.suppress(DuplicateKeyError):
                await self._leases.insert_one({"_id": self._name, "owner": "", "until": _LONG_AGO})
                result = await self._leases.update_one({"_id": self._name, **free}, [hold])
        # Half of its time: the other half is for the way to the database and for clocks that don't run alike.
        self._sure_until = asked + self._seconds / 2 if result.matched_count else 0.0
        return bool(result.matched_count)


async def give_back(db: AsyncDatabase[dict[str, Any]], owner: str) -> None:
    """Let go of everything that `owner` holds."""
    await db[COLLECTION].delete_many({"owner": owner})
