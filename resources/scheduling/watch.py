"""What goes by the clock: holds end, and slots are made as the days go by. One process at a time looks (a lease)."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

import structlog
from pymongo.errors import PyMongoError

from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.search.query import compile_query
from fhir_server.store import Document
from fhir_server.unit_of_work import UnitOfWork
from fhir_server.watching import looking
from resources import task, work_items
from resources.scheduling import freed, generation, occupancy
from smart_auth.access import Access

log = structlog.get_logger()

_EVERY: Final = 15.0  # seconds between two looks
_LEASE: Final = 60.0
_ACCESS: Final = Access.system("scheduling")
_AT_ONCE: Final = 100
_MOST_FREED: Final = 1000


class ScheduleWatch:
    """Ends holds and keeps the slots. `now` tells the time."""

    def __init__(self, interactions: Interactions, zone: ZoneInfo, now: Callable[[], datetime] = clock.now) -> None:
        self._interactions, self._zone, self._now = interactions, zone, now

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look every now and then while inside, unless another process does."""
        async with looking(self._interactions.store.db, "schedule-watch", self.look, every=_EVERY, lease=_LEASE):
            yield

    async def look(self) -> None:
        """Look once."""
        await self.end_holds()
        await self.end_freed_times()
        await generation.keep_all(self._interactions, self._zone, self._now())

    async def end_holds(self) -> int:
        """End the holds whose time is over, each in a transaction: one may be booked meanwhile. How many there were."""
        now = self._now()
        held = {"search.t": "status=pending", "resource.extension.url": occupancy.HOLD_UNTIL}
        found = await self._interactions.store.current("Appointment").find(held, {"resource": 1}).to_list()
        ended = 0
        for id_ in [d["_id"] for d in found if _is_over(d, now)][:_AT_ONCE]:
            try:
                ended += await self._end(id_, now)
            except PyMongoError:
                raise
            except Exception as error:  # noqa: BLE001 - the others need not wait for it; the text may name a patient
                log.error("a hold can't be ended", hold=id_, reason=type(error).__name__)  # noqa: TRY400 - as above
        return ended

    async def end_freed_times(self) -> int:
        """Nobody need fill a time that has begun. How many there were."""
        query = compile_query("Task", list(freed.OPEN.items()))
        await self._interactions.store.ensure("Task")
        found = await self._interactions.store.find(query, limit=_MOST_FREED)
        over = [d["_id"] for d in found if (begins := freed.told(d["resource"])[1]) is None or begins <= self._now()]

        async def work(unit: UnitOfWork, id_: str) -> None:
            item = await unit.read("Task", id_)
            if item is not None and item["status"] in task.OPEN:
                await work_items.complete(unit, item, "The time has begun")

        for id_ in over:
            act = Act("freed-time", source="scheduling", detail="over")
            await self._interactions.transact(_ACCESS, act, partial(work, id_=id_))
        return len(over)

    async def _end(self, id_: str, now: datetime) -> int:
        async def work(unit: UnitOfWork) -> int:
            hold = await unit.read("Appointment", id_)
            if hold is None or not occupancy.hold_is_over(hold, now):
                return 0
            await unit.update(occupancy.let_go(hold))
            return 1

        return await self._interactions.transact(_ACCESS, Act("end-hold", source="scheduling"), work)


def _is_over(document: Document, now: datetime) -> bool:
    try:
        return occupancy.hold_is_over(document["resource"], now)
    except ValueError:  # its end is no time: people end it
        log.warning("a hold has no readable end", hold=document["_id"])
        return False
