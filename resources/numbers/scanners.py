"""Scanners: how much of their offered time was booked and used, and how many patients didn't come.

offered      minutes of the Slots of the Schedules whose actor the scanner is, but for those that are blocked (busy-unavailable)
booked       minutes of bookings that were not cancelled
busy         minutes from the start to the end of the steps that it did, by when they ended
utilisation  busy in percent of offered; where nothing is offered, it can't be said
no-show-rate bookings whose patient didn't come, in percent of those whose patient came or should have
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from resources.numbers import bookings, exam_rows
from resources.numbers.question import Cell, Db, Figure, Question, Stratum

DIMENSIONS: Final = ("scanner", "location")
GROUPS: Final = {
    "offered": ("sum",), "booked": ("sum",), "busy": ("sum",), "utilisation": ("rate",), "no-show-rate": ("rate",),
    "bookings": ("count",), "no-shows": ("count",), "cancellations": ("count",),
}  # fmt: skip
# A period's slots with all that is asked of them.
SLOTS: Final = [("search.d.start.s", 1), ("resource.status", 1), ("resource.schedule.reference", 1), ("resource.end", 1)]
_ACTOR: Final = "actor>Device/"
Amounts = dict[str, float]
Sums = dict[str, Amounts]  # scanner -> what -> how much


async def ensure_indexes(db: Db) -> None:
    await db["Slot"].create_index(SLOTS)


async def evaluate(db: Db, asked: Question) -> list[Figure]:
    sums: Sums = {}
    await asyncio.gather(_bookings(db, asked, sums), _runs(db, asked, sums), _offered(db, asked, sums))
    cells: dict[Cell, list[Amounts]] = {}
    counting = asked.scanners
    for scanner, amounts in sums.items():
        if counting is not None and scanner not in counting:
            continue
        cells.setdefault(asked.cell(dict.fromkeys(DIMENSIONS, scanner)), []).append(amounts)
    figures: list[Figure] = []
    for stratum, own in asked.strata(list(cells)).items():
        total: Amounts = defaultdict(float)
        for name, amount in (pair for cell in own for amounts in cells[cell] for pair in amounts.items()):
            total[name] += amount
        figures += _figures(total, stratum)
    return figures


def _figures(total: Amounts, stratum: Stratum) -> Iterable[Figure]:
    for name, of in (("offered", "slots"), ("booked", "bookings"), ("busy", "runs")):
        yield Figure(name, "sum", round(total[name], 2), "min", int(total[of]), stratum)
    expected = total["came"] + total["no-shows"]
    yield Figure("utilisation", "rate", _percent(total["busy"], total["offered"]), "%", int(total["runs"]), stratum)
    yield Figure("no-show-rate", "rate", _percent(total["no-shows"], expected), "%", int(expected), stratum)
    for name in ("bookings", "no-shows", "cancellations"):
        yield Figure(name, "count", int(total[name]), "1", int(total[name]), stratum)


def _percent(part: float, whole: float) -> float | None:
    return round(100 * part / whole, 2) if whole else None


def _add(sums: Sums, scanner: str, **amounts: float) -> None:
    own = sums.setdefault(scanner, defaultdict(float))
    for name, amount in amounts.items():
        own[name.replace("_", "-")] += amount


async def _bookings(db: Db, asked: Question, sums: Sums) -> None:
    stages: list[dict[str, Any]] = [
        {"$match": asked.period("start")},
        {"$unwind": "$scanners"},
        {"$group": {"_id": {"scanner": "$scanners", "status": "$status"}, "n": {"$sum": 1}, "minutes": {"$sum": "$minutes"}}},
    ]
    async for row in await db[bookings.COLLECTION].aggregate(stages):
        scanner, status, n = row["_id"]["scanner"], row["_id"]["status"], row["n"]
        if status == "cancelled":
            _add(sums, scanner, cancellations=n)
            continue
        came, missed = n if status in bookings.CAME else 0, n if status == "noshow" else 0
        _add(sums, scanner, bookings=n, booked=row["minutes"], came=came, no_shows=missed)


async def _runs(db: Db, asked: Question, sums: Sums) -> None:
    minutes = {"$divide": [{"$subtract": ["$runs.ended", "$runs.started"]}, 60_000]}
    stages: list[dict[str, Any]] = [
        {"$match": {"runs": {"$elemMatch": asked.period("ended")}}},
        {"$unwind": "$runs"},
        {"$match": asked.period("runs.ended")},
        {"$group": {"_id": "$runs.scanner", "n": {"$sum": 1}, "minutes": {"$sum": minutes}}},
    ]
    async for row in await db[exam_rows.COLLECTION].aggregate(stages, hint={"runs.ended": 1}):
        _add(sums, row["_id"], runs=row["n"], busy=row["minutes"])


async def _offered(db: Db, asked: Question, sums: Sums) -> None:
    scanners = await _scanners_of_schedules(db)
    # To read a date from its text costs much: once for all slots with the same times.
    times = {"start": "$search.d.start.s", "end": "$resource.end"}
    length = {"$divide": [{"$subtract": [{"$toDate": "$_id.end"}, "$_id.start"]}, 60_000]}
    stages: list[dict[str, Any]] = [
        {"$match": asked.period("search.d.start.s") | {"resource.status": {"$in": ["free", "busy", "busy-tentative"]}}},
        {"$group": {"_id": times, "of": {"$push": "$resource.schedule.reference"}}},
        {"$set": {"minutes": length}},
        {"$unwind": "$of"},
        {"$group": {"_id": "$of", "n": {"$sum": 1}, "minutes": {"$sum": "$minutes"}}},
    ]
    async for row in await db["Slot"].aggregate(stages, hint=dict(SLOTS)):
        for scanner in scanners.get(row["_id"], ()):
            _add(sums, scanner, slots=row["n"], offered=row["minutes"])


async def _scanners_of_schedules(db: Db) -> dict[str, list[str]]:
    """Reference to a Schedule -> the scanners that are among its actors."""
    where = {"search.t": {"$regex": f"^{_ACTOR}"}}
    found: dict[str, list[str]] = {}
    async for document in db["Schedule"].find(where, {"resource.actor": 1}):
        actors = [str(a.get("reference", "")) for a in document["resource"].get("actor", ())]
        found[f"Schedule/{document['_id']}"] = [a for a in actors if a.startswith("Device/")]
    return found
