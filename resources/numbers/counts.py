"""Volumes, and what waits: counts of examinations."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Final

from resources.numbers.exam_rows import COLLECTION
from resources.numbers.question import Cell, Db, Figure, Question

# What is counted to the milestone that puts an examination into the period.
VOLUMES: Final = {
    "ordered": "ordered",
    "scheduled": "scheduled",
    "performed": "ended",
    "reported": "final",
    "cancelled": "cancelled",
}
WAITING: Final = ("booking", "release", "arrival", "start", "end", "reading", "signature")
AGE: Final = "age"
_AGES: Final = (
    ("under 4 hours", timedelta(0)), ("4 to 24 hours", timedelta(hours=4)), ("1 to 3 days", timedelta(days=1)),
    ("3 to 7 days", timedelta(days=3)), ("7 to 30 days", timedelta(days=7)), ("over 30 days", timedelta(days=30)),
)  # fmt: skip


async def volumes(db: Db, asked: Question) -> list[Figure]:
    """How many examinations reached each of these in the period."""

    def of(milestone: str) -> Awaitable[dict[Cell, int]]:
        stages = [{"$match": asked.period(milestone) | asked.exams()}, _counted(asked.key(milestone))]
        return _cells(db, asked, stages, {milestone: 1})

    found = await asyncio.gather(*map(of, VOLUMES.values()))
    return [figure for group, cells in zip(VOLUMES, found, strict=True) for figure in _figures(group, asked, cells)]


async def backlog(db: Db, asked: Question) -> list[Figure]:
    """How many examinations wait now, of those that have waited since a moment in the period; by what for, and how long."""
    branches = [{"case": {"$lte": ["$since", asked.now - least]}, "then": name} for name, least in reversed(_AGES)]
    age = {"$switch": {"branches": branches, "default": _AGES[0][0]}}
    figures: list[Figure] = []
    for group in WAITING:
        key = asked.key("since") | ({AGE: age} if AGE in asked.dimensions else {})
        stages = [{"$match": {"waiting": group} | asked.period("since") | asked.exams()}, _counted(key)]
        figures += _figures(group, asked, await _cells(db, asked, stages, {"waiting": 1, "since": 1}))
    return figures


def _counted(key: dict[str, Any]) -> dict[str, Any]:
    return {"$group": {"_id": key, "n": {"$sum": 1}}}


async def _cells(db: Db, asked: Question, stages: list[dict[str, Any]], hint: dict[str, int]) -> dict[Cell, int]:
    found: dict[Cell, int] = {}
    async for row in await db[COLLECTION].aggregate(stages, allowDiskUse=True, hint=hint):
        cell = asked.cell(row["_id"])
        found[cell] = found.get(cell, 0) + int(row["n"])
    return found


def _figures(group: str, asked: Question, cells: dict[Cell, int]) -> list[Figure]:
    return [
        Figure(group, "count", n, "1", n, stratum)
        for stratum, own in asked.strata(list(cells)).items()
        for n in [sum(cells[c] for c in own)]
    ]
