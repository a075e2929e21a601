"""How each scanner usually asks for its worklist, and when one does otherwise: silent, refused, or answered with nothing.

A document of `dicom_scanners`, one a calling AE title:
    {_id: "CT1", asked: date, filled: date,   when it last asked, and when it last got an entry
     answers: so many entries it got when it last asked
     days: {"20261128": {n, gap, empty}},     of each day: queries, the longest time between two, and between two with entries (s)
     refused: date, refused_since: date, refused_times, why, accepted: date}
Processes write what they have seen every few seconds: a query costs no write.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from fhir_server import clock

log = structlog.get_logger()

COLLECTION: Final = "dicom_scanners"
_KEPT_DAYS: Final = 14
_USUAL_DAYS: Final = 3  # a habit takes so many days
_LEAST: Final = timedelta(minutes=10)
_SLACK: Final = 1.5  # times the longest pause that is usual
_REFUSED_FOR: Final = timedelta(minutes=5)
_NO_LONGER_TRIES: Final = timedelta(hours=1)
_FORGOTTEN: Final = timedelta(days=14)  # one that was silent for so long is not expected back
_MOST_TITLES = 2_000


@dataclass(slots=True)
class _Seen:
    """What this process has seen of a scanner since it wrote last."""

    first: datetime | None = None
    last: datetime | None = None
    queries: int = 0
    answers: int = 0
    gap: float = 0
    filled_first: datetime | None = None
    filled: datetime | None = None
    filled_gap: float = 0
    accepted: datetime | None = None
    refused_first: datetime | None = None
    refused: datetime | None = None
    refusals: int = 0
    why: str = ""


class Habits:
    """Collects in memory, and writes with `flush`."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._db = db
        self._seen: dict[str, _Seen] = {}

    def asked(self, title: str, answers: int) -> None:
        """A query that was answered."""
        seen, now = self._of(title), clock.now()
        if seen is None:
            return
        seen.first = seen.first or now
        if seen.last is not None:
            seen.gap = max(seen.gap, (now - seen.last).total_seconds())
        seen.last = now
        seen.queries += 1
        seen.answers = answers
        if answers:
            if seen.filled is not None:
                seen.filled_gap = max(seen.filled_gap, (now - seen.filled).total_seconds())
            seen.filled_first, seen.filled = seen.filled_first or now, now

    def accepted(self, title: str) -> None:
        if (seen := self._of(title)) is not None:
            seen.accepted = clock.now()

    def refused(self, title: str, why: str) -> None:
        if (seen := self._of(title)) is not None:
            seen.refused = clock.now()
            seen.refused_first = seen.refused_first or seen.refused
            seen.refusals += 1
            seen.why = why

    def _of(self, title: str) -> _Seen | None:
        if title not in self._seen and len(self._seen) >= _MOST_TITLES:  # somebody makes up titles
            return None
        return self._seen.setdefault(title, _Seen())

    async def flush(self) -> None:
        """Write what was seen. What can't be written now is kept for the next time."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        try:
            known = {d["_id"]: d async for d in self._db[COLLECTION].find({"_id": {"$in": sorted(seen)}})}
            writes = [UpdateOne({"_id": t}, _update(s, known.get(t, {})), upsert=True) for t, s in seen.items()]
            await self._db[COLLECTION].bulk_write(writes, ordered=False)
        except BaseException:
            self._seen = seen | self._seen
            raise

    async def flushing(self, every: float) -> None:
        """Flush now and then, until cancelled."""
        while True:
            await asyncio.sleep(every)
            try:
                await self.flush()
            except PyMongoError as error:  # it is tried again
                log.warning("dicom.habits_not_written", reason=type(error).__name__)


def _update(seen: _Seen, known: dict[str, Any]) -> dict[str, Any]:
    """The change of a scanner's document. Gaps reach back to what was written before."""
    to: dict[str, Any] = {}
    most: dict[str, Any] = {}
    change: dict[str, Any] = {"$set": to, "$max": most}
    if seen.last is not None and seen.first is not None:
        day = f"days.{seen.last:%Y%m%d}"
        change["$inc"] = {f"{day}.n": seen.queries}
        most["asked"] = clock.naive(seen.last)
        to["answers"] = seen.answers
        most[f"{day}.gap"] = max(seen.gap, _since(known.get("asked"), seen.first))
        if seen.filled is not None and seen.filled_first is not None:
            most["filled"] = clock.naive(seen.filled)
            most[f"{day}.empty"] = max(seen.filled_gap, _since(known.get("filled"), seen.filled_first))
        oldest = f"{seen.last - timedelta(days=_KEPT_DAYS):%Y%m%d}"
        if old := [d for d in known.get("days", {}) if d < oldest]:
            change["$unset"] = {f"days.{d}": "" for d in old}
    if seen.accepted is not None:
        most["accepted"] = clock.naive(seen.accepted)
    if seen.refused is not None and seen.refused_first is not None:
        most["refused"] = clock.naive(seen.refused)
        to["why"] = seen.why
        before = known.get("accepted"), known.get("refused_since")
        if before[1] is None or (before[0] is not None and before[0] > before[1]):
            to["refused_since"] = clock.naive(seen.refused_first)
        change.setdefault("$inc", {})["refused_times"] = seen.refusals
    return {operator: fields for operator, fields in change.items() if fields}


def _since(before: datetime | None, now: datetime) -> float:
    return max((clock.naive(now) - before).total_seconds(), 0.0) if before else 0.0


async def last_asked(db: AsyncDatabase[dict[str, Any]], titles: Iterable[str]) -> dict[str, datetime]:
    """When each of these scanners has asked for its worklist last, of those that have."""
    known = db[COLLECTION].find({"_id": {"$in": sorted(titles)}}, {"asked": 1})
    return {d["_id"]: d["asked"].replace(tzinfo=UTC) async for d in known if "asked" in d}


async def unusual(db: AsyncDatabase[dict[str, Any]], registered: set[str], now: datetime) -> AsyncIterator[tuple[str, str]]:
    """What an operator should be told: (subject, text) of each registered scanner that does not do as it usually does."""
    moment = clock.naive(now)
    async for known in db[COLLECTION].find({"_id": {"$in": sorted(registered)}}):
        title = known["_id"]
        for what, text in findings(known, moment):
            yield f"{what} {title}", f"The scanner {title} {text}"


def usual_pause(known: dict[str, Any], now: datetime) -> timedelta | None:
    """Within which time a scanner usually asks again; None while that isn't known yet."""
    days = _days(known, now)
    return _usual(days, "gap") if len(days) >= _USUAL_DAYS else None


def findings(known: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    """What is unusual about one scanner now (naive UTC), by its document: (`scanner-silent`, `-empty` or `-refused`, text)."""
    days = _days(known, now)
    found = (_silent(known, days, now), _empty(known, days, now), _refused(known, now))
    return [one for one in found if one is not None]


def _days(known: dict[str, Any], now: datetime) -> list[dict[str, Any]]:
    """Its days before today, whose own pauses are no habit yet: a silence would explain itself."""
    return [v for d, v in known.get("days", {}).items() if d < f"{now:%Y%m%d}"]


def _silent(known: dict[str, Any], days: list[dict[str, Any]], now: datetime) -> tuple[str, str] | None:
    asked = known.get("asked")
    if len(days) < _USUAL_DAYS or asked is None or now - asked > _FORGOTTEN or now - asked <= (usual := _usual(days, "gap")):
        return None
    return "scanner-silent", f"has not asked for its worklist since {_clock(asked)}; it usually does within {usual}"


def _empty(known: dict[str, Any], days: list[dict[str, Any]], now: datetime) -> tuple[str, str] | None:
    asked, filled = known.get("asked"), known.get("filled")
    usually = [v for v in days if "empty" in v]
    if asked is None or filled is None or asked <= filled or len(usually) < _USUAL_DAYS:
        return None
    usual = _usual(usually, "empty")
    if asked - filled <= usual or now - asked > usual:
        return None
    return "scanner-empty", f"has had empty worklists since {_clock(filled)}; usually for less than {usual}"


def _refused(known: dict[str, Any], now: datetime) -> tuple[str, str] | None:
    since, refused, accepted = known.get("refused_since"), known.get("refused"), known.get("accepted")
    if since is None or refused is None or (accepted is not None and accepted >= since):
        return None
    if refused - since < _REFUSED_FOR or now - refused > _NO_LONGER_TRIES:
        return None
    return "scanner-refused", f"is refused since {_clock(since)}: {known.get('why', '')}"


def _usual(days: list[dict[str, Any]], name: str) -> timedelta:
    """The longest pause that is usual, with some slack: the second longest of the days, so that one bad day makes no habit."""
    pauses = sorted((v.get(name, 0.0) for v in days), reverse=True)
    seconds = pauses[1] if len(pauses) > 1 else pauses[0]
    return max(timedelta(seconds=round(seconds * _SLACK)), _LEAST)


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
