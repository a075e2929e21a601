"""Watching the scanners: an alert when one is silent, refused, or answered with nothing for longer than it is used to.

How it is raised and ended: `resources/alerts.py`. Any number of processes may watch: they find the same.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final

import structlog
from pymongo.errors import PyMongoError

from bridges.dicom import dicom_metrics, habits
from fhir_server import clock, fhir_json
from fhir_server.background import beside
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.search.query import compile_query
from resources import device, terms
from resources.alerts import Alerts

log = structlog.get_logger()

_EVERY: Final = 30.0  # seconds between two looks
_MOST_SCANNERS: Final = 10_000


class ScannerWatch:
    """Looks at what the scanners do. `now` tells the time."""

    def __init__(self, interactions: Interactions, now: Callable[[], datetime] = clock.now) -> None:
        self._interactions = interactions
        self._db = interactions.store.db
        self._now = now
        self._alerts = Alerts(interactions, "dicom_alerts", "dicom", dicom_metrics.ALERTS, now)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look every now and then while inside."""
        async with beside(self._watch()):
            yield

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
        await self._alerts.settle(found)

    async def _registered(self) -> set[str]:
        """The AE titles of the scanners in use."""
        await self._interactions.store.ensure("Device")
        query = compile_query("Device", [("identifier", f"{terms.AE_TITLE}|"), ("status", "active")])
        found = await self._interactions.store.find(query, limit=_MOST_SCANNERS)
        return {t for d in found if (t := device.ae_title(fhir_json.from_bson(d["resource"])))}
