"""Alerts about interfaces: what is looked at, and from when on it is not as usual.

Each finder gives what is wrong now, by subject: `silent Endpoint/his` -> a text for people, without any patient's data.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from bridges.v2 import message_log
from bridges.v2.partner import Partner, duration, headers
from fhir_server import clock, outbox

Document = dict[str, Any]
Findings = AsyncIterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Habits:
    """From when on something is not as usual.

    shortest_silence: shorter ones are nothing
    enough: so many messages must have come, at the same time of earlier weeks or days, for silence to be odd
    refused_window, refused_least, refused_share: so many refusals in so long, and this share of all, are odd
    refused_times: and so many times the share that is usual
    oldest: how long a message may wait to be sent, where its Endpoint doesn't say (`alert-after`)
    longest_queue: how many may
    """

    shortest_silence: timedelta = timedelta(minutes=15)
    enough: int = 5
    refused_window: timedelta = timedelta(minutes=15)
    refused_least: int = 10
    refused_share: float = 0.2
    refused_times: float = 3.0
    oldest: timedelta = timedelta(minutes=10)
    longest_queue: int = 1000


@dataclass(frozen=True, slots=True)
class Looks:
    """The finders over one database."""

    db: AsyncDatabase[Document]
    habits: Habits = field(default_factory=Habits)

    async def silent(self, partners: Iterable[Partner], now: datetime) -> Findings:
        """Partners that have sent nothing for longer than usual."""
        messages = self.db[message_log.COLLECTION]
        for partner in partners:
            newest = await messages.find_one({"partner": partner.reference}, {"received": 1}, sort=[("received", -1)])
            if newest is not None:
                last = newest["received"]
            elif partner.expect_every is not None and partner.since is not None:
                last = clock.naive(partner.since)
            else:
                continue
            silence = clock.naive(now) - last
            if partner.expect_every is not None:
                odd = silence > partner.expect_every
            else:
                odd = silence > self.habits.shortest_silence and await self._is_odd(partner, last, clock.naive(now))
            if odd:
                never = "" if newest else ", when it was registered: nothing has ever come"
                text = f"{partner.reference} ({partner.application}) has sent nothing since {last:%Y-%m-%d %H:%M} UTC{never}"
                yield f"silent {partner.reference}", text

    async def _is_odd(self, partner: Partner, last: datetime, now: datetime) -> bool:
        """Whether messages came at the same time of earlier weeks or, while there are no two weeks yet, days."""
        messages = self.db[message_log.COLLECTION]
        oldest = await messages.find_one({"partner": partner.reference}, {"received": 1}, sort=[("received", 1)])
        assert oldest is not None
        for step in (timedelta(weeks=1), timedelta(days=1)):
            known = [n * step for n in range(1, 5) if last - n * step >= oldest["received"]]
            if len(known) >= 2:
                counts = [
                    await messages.count_documents(
                        {"partner": partner.reference, "received": {"$gt": last - back, "$lte": now - back}},
                        limit=self.habits.enough,
                    )
                    for back in known
                ]
                return min(counts) >= self.habits.enough
        return False

    async def refusing(self, now: datetime) -> Findings:
        """Partners of which we refuse much more than usual."""
        messages, since = self.db[message_log.COLLECTION], clock.naive(now - self.habits.refused_window)
        recent: list[Document] = [
            {"$match": {"received": {"$gt": since, "$lte": clock.naive(now)}, "final": True}},
            {"$group": {"_id": "$partner", "all": {"$sum": 1}, "bad": {"$sum": {"$cond": [{"$eq": ["$outcome", "AA"]}, 0, 1]}}}},
        ]
        async for row in await messages.aggregate(recent):
            share = row["bad"] / row["all"]
            if row["bad"] < self.habits.refused_least or share < self.habits.refused_share:
                continue
            before = {"partner": row["_id"], "received": {"$lte": since}, "final": True}
            known = await messages.find(before, {"outcome": 1}, sort=[("received", -1)], limit=1000).to_list()
            usual = sum(d["outcome"] != "AA" for d in known) / len(known) if known else 0.0
            if share >= self.habits.refused_times * usual:
                who = row["_id"] or "senders without an Endpoint"
                yield f"refusals {who}", f"{row['bad']} of {row['all']} messages of {who} were refused, {usual:.0%} is usual"

    async def waiting(self, now: datetime) -> Findings:
        """Destinations whose messages wait too long, or are too many."""
        pending: list[Document] = [
            {"$match": {"state": "pending"}},
            {"$group": {"_id": "$destination", "n": {"$sum": 1}, "oldest": {"$min": "$created"}}},
        ]
        async for row in await self.db[outbox.COLLECTION].aggregate(pending):
            age = clock.naive(now) - row["oldest"]
            if age > await self._patience(row["_id"]) or row["n"] > self.habits.longest_queue:
                minutes = int(age.total_seconds() // 60)
                yield f"queue {row['_id']}", f"{row['n']} messages wait for {row['_id']}, the oldest for {minutes} minutes"

    async def _patience(self, destination: str) -> timedelta:
        found = await self.db["Endpoint"].find_one({"_id": destination.partition("/")[2]}, {"resource.header": 1})
        said = headers(found["resource"]) if found else {}
        try:
            return duration(said["alert-after"])
        except (KeyError, ValueError):
            return self.habits.oldest
