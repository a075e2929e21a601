"""Alerts about interfaces: raised when something is not as usual, ended when it is over.

An alert is a Task (`interface-alert`), a log line and a count. It is raised once: whoever completes its Task hears no more of it
until it was over. A document of its collection: {_id: subject, since}.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter

from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.unit_of_work import UnitOfWork
from resources import work_items
from smart_auth.access import Access

log = structlog.get_logger()

ALERT: Final = "interface-alert"


@dataclass(frozen=True, slots=True)
class Alerts:
    """The alerts of one bridge.

    collection: of those that are raised; source: of their AuditEvents, `v2` or `dicom`; raised: how many, by kind, which is the
    first word of a subject
    """

    interactions: Interactions
    collection: str
    source: str
    raised: Counter
    now: Callable[[], datetime] = clock.now

    async def settle(self, found: Mapping[str, str]) -> None:
        """Raise what is found (subject -> what to say) and new, end what isn't found any more."""
        known = {d["_id"] async for d in self.interactions.store.db[self.collection].find()}
        for subject in sorted(found.keys() - known):
            await self._raise(subject, found[subject])
        for subject in sorted(known - found.keys()):
            await self._end(subject)

    async def _raise(self, subject: str, text: str) -> None:
        since = {"$setOnInsert": {"since": clock.naive(self.now())}}

        async def work(unit: UnitOfWork) -> None:
            await unit.db[self.collection].update_one({"_id": subject}, since, upsert=True, session=unit.session)
            await work_items.raise_once(unit, ALERT, subject, text)

        await self._transact("alert", subject, work)
        self.raised.labels(subject.partition(" ")[0]).inc()
        log.warning("alert", subject=subject, text=text)

    async def _end(self, subject: str) -> None:
        async def work(unit: UnitOfWork) -> None:
            await unit.db[self.collection].delete_one({"_id": subject}, session=unit.session)
            await work_items.close(unit, ALERT, subject, "over")

        await self._transact("alert-over", subject, work)
        log.info("alert is over", subject=subject)

    async def _transact(self, event: str, subject: str, work: Any) -> None:
        access = Access.system(f"{self.source}-watch")
        await self.interactions.transact(access, Act(event, source=self.source, detail=subject), work)
