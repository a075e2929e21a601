"""Watching the scanners: an alert when one is silent, refused, or answered with nothing for longer than it is used to.

An alert is a Task (`interface-alert`), a log line and a count. It is raised once: whoever completes its Task hears no more of it
until it was over. A document of `dicom_alerts`: {_id: subject, since}. Any number of processes may watch: they find the same.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final

import structlog
from pymongo.errors import PyMongoError

from bridges.dicom import dicom_metrics, habits
from fhir_server import clock, fhir_json
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.search.query import compile_query
from fhir_server.unit_of_work import UnitOfWork
from resources import device, terms, work_items
from smart_auth.access import Access

log = structlog.get_logger()

ALERT: Final = "interface-alert"
COLLECTION: Final = "dicom_alerts"
_EVERY: Final = 30.0  # seconds between two looks
_MOST_SCANNERS: Final = 10_000


class ScannerWatch:
    """Looks at what the scanners do. `now` tells the time."""

    def __init__(self, interactions: Interactions, now: Callable[[], datetime] = clock.now) -> None:
        self._interactions = interactions
        self._db = interactions.store.db
        self._now = now

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look every now and then while inside."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.look()
            except (PyMongoError, FhirError) as error:
                log.warning("dicom.watch_failed", reason=type(error).__name__)

    async def look(self) -> None:
        """Look once: raise what is new, end what is over."""
        now = self._now()
        found = {subject: text async for subject, text in habits.unusual(self._db, await self._registered(), now)}
        known = {d["_id"] async for d in self._db[COLLECTION].find()}
        for subject in sorted(found.keys() - known):
            await self._raise(subject, found[subject], now)
        for subject in sorted(known - found.keys()):
            await self._end(subject)

    async def _registered(self) -> set[str]:
        """The AE titles of the scanners in use."""
        await self._interactions.store.ensure("Device")
        query = compile_query("Device", [("identifier", f"{terms.AE_TITLE}|"), ("status", "active")])
        found = await self._interactions.store.find(query, limit=_MOST_SCANNERS)
        return {t for d in found if (t := device.ae_title(fhir_json.from_bson(d["resource"])))}

    async def _raise(self, subject: str, text: str, now: datetime) -> None:
        async def work(unit: UnitOfWork) -> None:
            await work_items.raise_once(unit, ALERT, subject, text)
            since = {"$setOnInsert": {"since": clock.naive(now)}}
            await unit.db[COLLECTION].update_one({"_id": subject}, since, upsert=True, session=unit.session)

        await self._transact("alert", subject, work)
        dicom_metrics.ALERTS.labels(subject.partition(" ")[0]).inc()
        log.warning("alert", subject=subject, text=text)

    async def _end(self, subject: str) -> None:
        async def work(unit: UnitOfWork) -> None:
            await work_items.close(unit, ALERT, subject, "over")
            await unit.db[COLLECTION].delete_one({"_id": subject}, session=unit.session)

        await self._transact("alert-over", subject, work)
        log.info("alert is over", subject=subject)

    async def _transact(self, event: str, subject: str, work: Any) -> None:
        await self._interactions.transact(Access.system("dicom-watch"), Act(event, source="dicom", detail=subject), work)
