"""Watching the interfaces: one process looks whether all is as usual, and raises or ends alerts (`resources/alerts.py`)."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Final

from bridges.v2.alerts import Habits, Looks
from bridges.v2.inbound import Inbound
from fhir_server import clock, metrics
from fhir_server.interactions import Interactions
from fhir_server.watching import looking
from resources.alerts import Alerts

_EVERY: Final = 30.0  # seconds between two looks
_LEASE: Final = 120.0
_LEFT_BEHIND: Final = timedelta(minutes=5)  # a message that was accepted so long ago is processed by whoever looks


class Watcher:
    """Looks at what the bridge receives and sends. `now` tells the time."""

    def __init__(
        self, interactions: Interactions, inbound: Inbound, habits: Habits | None = None, now: Callable[[], datetime] = clock.now
    ) -> None:
        self._interactions = interactions
        self._inbound = inbound
        self._db = interactions.store.db
        self._looks = Looks(self._db, habits or Habits())
        self._alerts = Alerts(interactions, "alerts", "v2", metrics.ALERTS, now)
        self._now = now

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look every now and then while inside, unless another process does."""
        async with looking(self._db, "v2-watch", self._once, every=_EVERY, lease=_LEASE):
            yield

    async def _once(self) -> None:
        await self._inbound.take_up(_LEFT_BEHIND)
        await self.look()

    async def look(self) -> None:
        """Look once: raise what is new, end what is over."""
        now = self._now()
        partners = (await self._inbound.partners.directory()).partners
        looks = (self._looks.silent(partners, now), self._looks.refusing(now), self._looks.waiting(now))
        found = {subject: text for findings in looks async for subject, text in findings}
        await self._alerts.settle(found)
