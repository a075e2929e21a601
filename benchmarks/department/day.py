"""The day: so many orders, each with its own course, so many at a time, then the closing of the books."""

import asyncio
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

from pymongo import AsyncMongoClient

from benchmarks.department.books import Books
from benchmarks.department.exam import Exam
from benchmarks.department.lives import LIVES, Life
from benchmarks.department.stage import Stage, stage
from benchmarks.stand import embedded_uri

_SLOT = timedelta(minutes=15)


class Day:
    """A day. `seed` decides which order takes which course; `at_once` patients are in the department at a time."""

    def __init__(self, *, exams: int, scanners: int, at_once: int, seed: int) -> None:
        self._scanners, self._at_once = scanners, at_once
        hand = random.Random(seed)
        # Each course at least once; a small day has no room for chance alone.
        lives = [*LIVES, *hand.choices(LIVES, [life.share for life in LIVES], k=max(0, exams - len(LIVES)))][:exams]
        hand.shuffle(lives)
        self._lives = lives
        self.played = Counter(life.name for life in lives)
        self.seconds = 0.0
        self.delivered: dict[str, int] = {}

    async def run(self) -> list[str]:
        """Play it; what doesn't balance at its end."""
        async with stage(self._scanners) as on:
            tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
            locks = [asyncio.Lock() for _ in range(self._scanners)]
            exams = [
                Exam(on, n, n % self._scanners, tomorrow + _SLOT * (n // self._scanners), locks[n % self._scanners])
                for n in range(len(self._lives))
            ]
            began = time.perf_counter()
            faults = await self._play(exams)
            await _all_delivered(on)
            self.seconds = time.perf_counter() - began
            books = Books(on)
            await books.read()
            for life, exam in zip(self._lives, exams, strict=True):
                if exam.order:
                    books.check(life, exam)
            books.check_messages()
            self.delivered = {name: len(listener.received) for name, listener in on.listeners.items()}
            return [*faults, *books.faults]

    async def _play(self, exams: list[Exam]) -> list[str]:
        room = asyncio.Semaphore(self._at_once)
        faults: list[str] = []

        async def one(life: Life, exam: Exam) -> None:
            async with room:
                try:
                    await life.play(exam)
                except (AssertionError, RuntimeError, ConnectionError, TimeoutError) as error:
                    faults.append(f"{exam.placer} ({life.name}) broke off: {error}")

        await asyncio.gather(*(one(life, exam) for life, exam in zip(self._lives, exams, strict=True)))
        return faults


async def _all_delivered(on: Stage) -> None:
    """Wait until nothing waits to be sent any more: two minutes at most, the books show the rest."""
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(embedded_uri(on.server.directory))
    try:
        for _ in range(600):
            if not await client["ris"]["outbox"].count_documents({"state": "pending"}):
                return
            await asyncio.sleep(0.2)
    finally:
        await client.close()
