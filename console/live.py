"""`/events`: pages are told (server-sent events) that something of a kind has changed, and ask for themselves anew.

Nothing but the names of the kinds goes over it: what a page then shows is what its reader may see. Each process follows MongoDB's
change stream, so that a page learns what any process, HL7 v2 or DICOM has done.
"""

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

RESOURCES = (
    "ServiceRequest", "Appointment", "Slot", "Task", "Procedure", "ImagingStudy", "DiagnosticReport", "Patient", "Device",
    "Endpoint", "DetectedIssue", "QuestionnaireResponse", "Communication", "ChargeItem", "Schedule", "Location",
    "MedicationAdministration", "CoverageEligibilityResponse",
)  # fmt: skip
# What is no resource: messages received and sent, what scanners ask, and when others were last reached.
OTHERS = ("messages", "outbox", "dicom_scanners", "contacts")
ALL = "*"
ENOUGH = "-"  # instead of a kind: there are too many who listen
MOST = 12  # pages of a session that listen at a time, in a process
# The header of a request that the page makes by itself, to show what is new: it doesn't keep a session from ending.
BY_ITSELF = "x-ris-by-itself"
_REMEMBERED = 4096  # changes, for pages that were made just before they listen
_GATHER = 0.3  # seconds in which changes are told together
_ALIVE = 15.0
_SKEW = 2.0  # seconds by which the clocks of two machines may differ


class Changes:
    """What has changed, as this process has heard. Started at the first `listen`; ends when `ending` is set."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], ending: asyncio.Event) -> None:
        self._db, self._ending = db, ending
        self._heard: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED)
        self._began = float("inf")
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listening: dict[str, list[object]] = {}

    def start(self) -> None:
        """Begin to follow, unless that is being done."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())

    async def listen(self, kinds: Collection[str], since: float, session: str) -> AsyncIterator[set[str]]:
        """The kinds that changed after `since` (seconds since 1970), now and as it happens; an empty set every now and then.

        The page of a session that has listened longest makes room for one too many, and is told `ENOUGH`: of many, people look at
        those that they have opened last.
        """
        self.start()
        me, here = object(), self._listening.setdefault(session, [])
        here.append(me)
        if len(here) > MOST:
            del here[0]
            self._tell(None)
        try:
            async for changed in self._heard_by(kinds, since, lambda: me in here):
                yield changed
            if me not in here:
                yield {ENOUGH}
        finally:
            if me in here:
                here.remove(me)
            if not here and self._listening.get(session) is here:
                del self._listening[session]

    async def _heard_by(self, kinds: Collection[str], since: float, stays: Callable[[], bool]) -> AsyncIterator[set[str]]:
        told = since - _SKEW
        if told < (self._heard[0][0] if len(self._heard) == _REMEMBERED else self._began):
            yield {ALL}
            told = time.time()
        while stays() and not self._ending.is_set():
            news = self._news
            changed = self._after(told)
            told = max(told, self._heard[-1][0]) if self._heard else told
            if changed & {*kinds, ALL}:
                yield changed & {*kinds, ALL}
                await asyncio.sleep(_GATHER)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ALIVE):
                    await news.wait()
                await asyncio.sleep(_GATHER)
                continue
            yield set()

    def _after(self, moment: float) -> set[str]:
        return {kind for _, kind in itertools.takewhile(lambda heard: heard[0] > moment, reversed(self._heard))}

    async def _follow(self) -> None:
        following = asyncio.create_task(self._followed())
        await self._ending.wait()
        following.cancel()
        self._tell(None)

    async def _followed(self) -> None:
        while True:
            try:
                async with await self._db.watch(_PIPELINE, max_await_time_ms=5000) as stream:
                    self._began = min(self._began, time.time())
                    async for change in stream:
                        self._tell(_kind(change))
            except PyMongoError:  # another primary, or none: what was missed is not known
                await asyncio.sleep(1)
                self._tell(ALL)

    def _tell(self, kind: str | None) -> None:
        if kind is not None:
            self._heard.append((time.time(), kind))
        self._news.set()
        self._news = asyncio.Event()


_PIPELINE: list[Mapping[str, Any]] = [
    {"$match": {"ns.coll": {"$in": [*RESOURCES, *OTHERS]}}},
    {"$project": {"ns": 1}},
]


def _kind(change: Mapping[str, Any]) -> str:
    return str(change["ns"]["coll"])
