"""What passes between us and partners: rates, queues, what is set aside and refused. Counts and states, no messages.

Everything is read from the message stores (`bridges/v2/message_log.py`, `fhir_server/outbox.py`) by their indexes; what is
counted over time, from the indexes alone.
"""

import asyncio
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
        counted: list[Document] = [
            {"$match": {"destination": {"$in": list(destinations)}, "state": {"$in": list(states)}}},
            {"$project": {"_id": 0, "destination": 1, "state": 1}},
            {"$group": {"_id": "$destination", "n": {"$sum": 1}}},
        ]
        return {row["_id"]: row["n"] async for row in await self.db[outbox.COLLECTION].aggregate(counted)}

    async def sent(self, destinations: Iterable[str]) -> dict[str, Rate]:
        """The rate of each destination, by when its messages were written."""
        since = _first_hour(clock.now())
        start = int(since.replace(tzinfo=UTC).timestamp()) * 1_000_000_000
        counted: list[Document] = [
            {"$match": {"destination": {"$in": list(destinations)}, "state": {"$in": list(_STATES)}, "key": {"$gte": start}}},
            {"$project": {"_id": 0, "destination": 1, "state": 1, "key": 1}},
            {
                "$group": {
                    "_id": {
                        "of": "$destination",
                        "failed": {"$in": ["$state", list(ASIDE)]},
                        "hour": {"$toInt": {"$floor": {"$divide": [{"$subtract": ["$key", start]}, _HOUR_NS]}}},
                    },
                    "n": {"$sum": 1},
                }
            },
        ]
        found: dict[str, Rate] = {}
        async for row in await self.db[outbox.COLLECTION].aggregate(counted):
            _count(found, row["_id"]["of"], row["_id"]["hour"], row["n"], failed=row["_id"]["failed"])
        return found

    async def received(self, partners: Iterable[str]) -> dict[str, Rate]:
        """The rate of each partner that sends; "" is whoever has no Endpoint."""
        since, messages = _first_hour(clock.now()), self.db[message_log.COLLECTION]
        hour = {"$toInt": {"$floor": {"$divide": [{"$subtract": ["$received", since]}, 3_600_000]}}}
        wanted = list(partners)
        counted: list[Document] = [
            {"$match": {"partner": {"$in": wanted}, "received": {"$gte": since}}},
            {"$project": {"_id": 0, "partner": 1, "received": 1}},
            {"$group": {"_id": {"of": "$partner", "hour": hour}, "n": {"$sum": 1}}},
        ]
        refused: list[Document] = [
            {"$match": {"outcome": {"$in": ["AE", "AR"]}, "received": {"$gte": since}}},
            {"$group": {"_id": {"of": "$partner", "hour": hour}, "n": {"$sum": 1}}},
        ]
        found: dict[str, Rate] = {}
        async for row in await messages.aggregate(counted):
            _count(found, row["_id"]["of"], row["_id"]["hour"], row["n"])
        async for row in await messages.aggregate(refused):
            if row["_id"]["of"] in wanted:
                rate = found.setdefault(row["_id"]["of"], Rate())
                rate.failed[min(HOURS - 1, row["_id"]["hour"])] += row["n"]
        return found

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


def _count(found: dict[str, Rate], of: str, hour: int, n: int, *, failed: bool = False) -> None:
    rate, place = found.setdefault(of, Rate()), max(0, min(HOURS - 1, hour))
    rate.all[place] += n
    if failed:
        rate.failed[place] += n
