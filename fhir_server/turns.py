"""Taking turns within one process, so that many who want the same don't all run into each other in the database.

What keeps them apart for good, between processes too, is `UnitOfWork.lock`; a turn only saves the conflicts.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary


class Turns:
    """One queue a key, for as long as somebody waits in it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def taken(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Hold all these turns. They are taken in one order, so that nobody waits for somebody who waits for them."""
        async with AsyncExitStack() as held:
            for key in sorted(set(keys)):
                lock = self._locks.get(key)
                if lock is None:
                    lock = self._locks[key] = asyncio.Lock()
                await held.enter_async_context(lock)
            yield
