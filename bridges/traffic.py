"""What passes between us and partners: rates, queues, what is set aside and refused. Counts and states, no messages.

Everything is read from the message stores (`bridges/v2/message_log.py`, `fhir_server/outbox.py`) by their indexes; what is
counted over time, from the indexes alone.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pymongo.asynchronous.database import AsyncDatabase

from bridges.v2 import message_log
from fhir_server import clock, outbox

Document = dict[str, Any]
ASIDE: Final = ("refused", "dead", "invalid")
HOURS: Final = 24
_HOUR: Final = timedelta(hours=1)
_HOUR_NS: Final = 3_600_000_000_000
_REMEMBERED: Final = 60.0  # seconds
_MOST_REMEMBERED: Final = 200
_over: dict[tuple[str, ...], tuple[float, list[Document]]] = {}
_STATES: Final = ("pending", "delivered", *ASIDE, "cancelled")


@dataclass(slots=True)
class Rate:
    """Messages of each of the last 24 hours, the oldest first, and how many of them failed."""

    all: list[int] = field(default_factory=lambda: [0] * HOURS)
    failed: list[int] = field(default_factory=lambda: [0] * HOURS)

    @property
    def total(self) -> int:
        return sum(self.all)

    @property
    def failures(self) -> int:
        return sum(self.failed)


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for a destination: how many, since when the oldest, and how it goes with the one that is next.

    refused: its receiver answers, and doesn't want it
    """

    count: int
    oldest: datetime
    error: str = ""
    refused: bool = False
    attempts: int = 0
    next_attempt: datetime | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Messages that were refused, or set aside, for one reason.

    partner: from or to whom, `Endpoint/his` or MSH-3 and MSH-4; message: the id of the newest
    """

    partner: str
    sent: bool
    reason: str
    count: int
    last: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of one database."""

    db: AsyncDatabase[Document]

    async def queues(self, destinations: Iterable[str]) -> dict[str, Queue]:
        """Of those destinations (`Endpoint/ehr`, `dicom:Endpoint/pacs`) for whom something waits."""
        counts = await self._counts(destinations, ["pending"])
        found: dict[str, Queue] = {}
        for to, count in counts.items():
            where = {"destination": to, "state": "pending"}
            first = await self.db[outbox.COLLECTION].find_one(where, {"message": 0}, sort=[("key", 1)])
            if first is not None:
                refused, again = bool(first.get("refusals")), first.get("next_attempt")
                found[to] = Queue(count, first["created"], first.get("error") or "", refused, first["attempts"], again)
        return found

    async def aside(self, destinations: Iterable[str]) -> dict[str, int]:
        """How many messages of each destination are set aside, and wait for a person."""
        return await self._counts(destinations, ASIDE)

    async def _counts(self, destinations: Iterable[str], states: Iterable[str]) -> dict[str, int]:
        match = {"destination": {"$in": list(destinations)}, "state": {"$in": list(states)}}
        return {row["_id"]["of"]: row["n"] for row in await self._counted(outbox.COLLECTION, match, {"of": "$destination"})}

    async def sent(self, destinations: Iterable[str]) -> dict[str, Rate]:
        """The rate of each destination, by when its messages were written."""
        of = sorted(destinations)
        match = {"destination": {"$in": of}, "state": {"$in": list(_STATES)}}
        hour = {"$subtract": ["$key", {"$mod": ["$key", _HOUR_NS]}]}
        by = {"of": "$destination", "state": "$state", "hour": hour}
        found: dict[str, Rate] = {}
        for row in await self._by_hour(outbox.COLLECTION, of, match, "key", by):
            rate, place = found.setdefault(row["_id"]["of"], Rate()), _place(row["_id"]["hour"] // 1_000_000_000)
            rate.all[place] += row["n"]
            rate.failed[place] += row["n"] if row["_id"]["state"] in ASIDE else 0
        return found

    async def received(self, partners: Iterable[str]) -> dict[str, Rate]:
        """The rate of each partner that sends."""
        of, hour = sorted(partners), {"$hour": "$received"}
        found: dict[str, Rate] = {}
        match, by = {"partner": {"$in": of}}, {"of": "$partner", "hour": hour}
        first = _first_hour(clock.now())
        for row in await self._by_hour(message_log.COLLECTION, of, match, "received", by):
            found.setdefault(row["_id"]["of"], Rate()).all[(row["_id"]["hour"] - first.hour) % HOURS] += row["n"]
        refused = {"outcome": {"$in": ["AE", "AR"]}, "received": {"$gte": first}}
        for row in await self._counted(message_log.COLLECTION, refused, by):
            if row["_id"]["of"] in found:
                found[row["_id"]["of"]].failed[(row["_id"]["hour"] - first.hour) % HOURS] += row["n"]
        return found

    async def _by_hour(self, collection: str, of: list[str], match: Document, when: str, by: Document) -> list[Document]:
        """Counts of the last 24 hours. Those of the hours that are over are remembered for a minute."""
        first = _first_hour(clock.now())
        begin, now = (m if when == "received" else _nanoseconds(m) for m in (first, first + (HOURS - 1) * _HOUR))
        key = (self.db.name, collection, str(first), *of)
        known = _over.get(key)
        if known is None or time.monotonic() - known[0] > _REMEMBERED:
            if len(_over) >= _MOST_REMEMBERED:
                _over.clear()
            rows = await self._counted(collection, match | {when: {"$gte": begin, "$lt": now}}, by)
            known = _over[key] = (time.monotonic(), rows)
        return [*known[1], *await self._counted(collection, match | {when: {"$gte": now}}, by)]

    async def _counted(self, collection: str, match: Document, by: Document) -> list[Document]:
        pipeline: list[Document] = [{"$match": match}, {"$group": {"_id": by, "n": {"$sum": 1}}}]
        return await (await self.db[collection].aggregate(pipeline)).to_list()

    async def newest(self, destinations: Iterable[str], partners: Iterable[str]) -> dict[str, datetime]:
        """When each destination was last delivered something, and each partner (`from Endpoint/his`) last sent something."""

        async def delivered(destination: str) -> tuple[str, datetime | None]:
            where = {"destination": destination, "state": "delivered"}
            document = await self.db[outbox.COLLECTION].find_one(where, {"delivered": 1, "created": 1}, sort=[("key", -1)])
            return destination, (document.get("delivered") or document["created"]) if document else None

        async def came(partner: str) -> tuple[str, datetime | None]:
            where, order = {"partner": partner}, [("received", -1)]
            document = await self.db[message_log.COLLECTION].find_one(where, {"_id": 0, "received": 1}, sort=order)
            return f"from {partner}", document["received"] if document else None

        found = await asyncio.gather(*(delivered(d) for d in destinations), *(came(p) for p in partners))
        return {of: at for of, at in found if at is not None}

    async def strangers(self) -> list[tuple[str, int, datetime]]:
        """Who has sent without an Endpoint in the last 24 hours: MSH-3 and MSH-4, how many messages, and the last."""
        counted: list[Document] = [
            {"$match": {"partner": "", "received": {"$gte": _first_hour(clock.now())}}},
            {"$group": {"_id": "$sender", "n": {"$sum": 1}, "last": {"$max": "$received"}}},
            {"$sort": {"last": -1}},
            {"$limit": 50},
        ]
        return [(r["_id"], r["n"], r["last"]) async for r in await self.db[message_log.COLLECTION].aggregate(counted)]

    async def refusals(self, partner: str | None = None, most: int = 12) -> list[Refusal]:
        """Why messages were refused in the last 24 hours, and why others are set aside, the newest first."""
        return sorted(
            [*await self._refused(partner, most), *await self._aside(partner, most)], key=lambda r: r.last, reverse=True
        )

    async def _refused(self, partner: str | None, most: int) -> Iterator[Refusal]:
        match: Document = {"outcome": {"$in": ["AE", "AR"]}, "received": {"$gte": _first_hour(clock.now())}}
        counted: list[Document] = [
            {"$match": match | ({} if partner is None else {"partner": partner})},
            {"$sort": {"received": -1}},
            {
                "$group": {
                    "_id": {"of": "$partner", "sender": "$sender", "why": {"$first": "$errors"}},
                    "n": {"$sum": 1},
                    "last": {"$first": "$received"},
                    "message": {"$first": "$_id"},
                }
            },
            {"$sort": {"last": -1}},
            {"$limit": most},
        ]
        rows = await (await self.db[message_log.COLLECTION].aggregate(counted)).to_list()
        return (_refusal(r, r["_id"]["of"] or r["_id"].get("sender", ""), sent=False) for r in rows)

    async def _aside(self, partner: str | None, most: int) -> Iterator[Refusal]:
        match: Document = {"state": {"$in": list(ASIDE)}}
        if partner is not None:
            match["destination"] = {"$in": destinations_of(partner)}
        counted: list[Document] = [
            {"$match": match},
            {"$sort": {"key": -1}},
            {
                "$group": {
                    "_id": {"of": "$destination", "why": "$error"},
                    "n": {"$sum": 1},
                    "last": {"$first": "$created"},
                    "message": {"$first": "$_id"},
                }
            },
            {"$sort": {"last": -1}},
            {"$limit": most},
        ]
        rows = await (await self.db[outbox.COLLECTION].aggregate(counted)).to_list()
        return (_refusal(r, reference_of(r["_id"]["of"]), sent=True) for r in rows)


def destinations_of(reference: str) -> list[str]:
    """How an Endpoint is called in the outbox, by whichever bridge it gets something."""
    return [reference, f"{outbox.DICOM}{reference}", f"{outbox.PAYER}{reference}"]


def reference_of(destination: str) -> str:
    """The Endpoint of a destination."""
    return destination.removeprefix(outbox.DICOM).removeprefix(outbox.PAYER)


def _refusal(row: Document, partner: str, *, sent: bool) -> Refusal:
    return Refusal(partner, sent, row["_id"].get("why") or "", row["n"], row["last"], str(row["message"]))


def _first_hour(now: datetime) -> datetime:
    """The beginning of the first of the last 24 hours, which end with the next full one; naive UTC."""
    return clock.naive(now.replace(minute=0, second=0, microsecond=0)) - (HOURS - 1) * _HOUR


def _nanoseconds(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def _place(seconds: int) -> int:
    """Which of the last 24 hours a moment (seconds since 1970) is in."""
    return max(0, min(HOURS - 1, (seconds - _nanoseconds(_first_hour(clock.now())) // 1_000_000_000) // 3600))
