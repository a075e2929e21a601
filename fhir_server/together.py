"""Doing at once what is asked at the same time: requests that come while the database is busy share the next round trip.

What comes alone starts at once; while others are under way, a further group starts when half as many have come, or when one of
those is done. Under load, the cost of a transaction, its commit and its journal write, or of a query, is spread over those that
share it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Together(Generic[Job]):
    """Runs jobs in groups. Jobs that touch the same thing run in turn, as they came."""

    def __init__(
        self,
        run: Callable[[list[Job]], Awaitable[None]],
        touched: Callable[[Job], Iterable[Hashable]],
        *,
        largest: int,
        in_flight: int = 2,
    ) -> None:
        """`run` does a group of at most `largest`, of which `in_flight` run at a time; `touched` says what a job works on."""
        self._run, self._touched, self._largest, self._at_once = run, touched, largest, in_flight
        self._waiting: list[tuple[Job, set[Hashable], asyncio.Future[None]]] = []
        self._under_way = 0  # jobs in the groups in flight
        self._held: set[Hashable] = set()  # what the groups in flight touch
        self._in_flight: set[asyncio.Task[None]] = set()

    async def do(self, job: Job) -> None:
        """Return when the job's group was run; raises what `run` raised."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, set(self._touched(job)), done))
        self._start()
        await done

    def _start(self) -> None:
        while len(self._in_flight) < self._at_once and self._waiting:
            if 2 * len(self._waiting) < self._under_way:
                return  # more will have come when one of those in flight is done
            group: list[tuple[Job, asyncio.Future[None]]] = []
            left = []
            blocked, taken = set(self._held), set[Hashable]()
            for job, mine, done in self._waiting:
                if len(group) < self._largest and blocked.isdisjoint(mine):
                    group.append((job, done))
                    taken |= mine
                else:
                    left.append((job, mine, done))
                blocked |= mine  # nobody overtakes one that must wait
            if not group:
                return
            self._waiting = left
            self._held |= taken
            self._under_way += len(group)
            self._in_flight.add(asyncio.create_task(self._finish(group, taken)))

    async def _finish(self, group: list[tuple[Job, asyncio.Future[None]]], taken: set[Hashable]) -> None:
        failed: BaseException | None = None
        try:
            await self._run([job for job, _ in group])
        except BaseException as error:  # noqa: BLE001 - every waiter must hear of it, of an end of this task too
            failed = error
        self._held -= taken
        self._under_way -= len(group)
        self._in_flight.discard(asyncio.current_task())
        for _, done in group:
            if done.done():  # its caller has gone
                continue
            if failed is None:
                done.set_result(None)
            else:
                done.set_exception(failed)
        self._start()
