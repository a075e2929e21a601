"""Turn-around times: how long it takes from one milestone to another.

MongoDB finds the examinations of the period by an index, puts them into cells and sends the twelve milestones of each in 48 bytes
(a year of 200,000 in 10 MB); the percentiles are taken here, exactly: of n values in order, the p-th percentile is the one at
place ceil(n * p / 100) (nearest rank). Times are whole seconds. A span that ends before it began (images that came before the
end) counts as it is, below zero.
"""

import asyncio
import math
import sys
from array import array
from collections.abc import Iterable
from itertools import chain
from typing import Any, Final, TypeAlias

from resources.numbers.exam_rows import COLLECTION, NEVER
from resources.numbers.milestones import MILESTONES
from resources.numbers.question import SMALL, Cell, Db, Figure, Question

PERCENTILES: Final = {"median": 50, "p90": 90}
BASIS: Final = "ended"
SPANS: Final = (
    ("ordered", "accepted"), ("accepted", "scheduled"), ("scheduled", "arrived"), ("arrived", "started"), ("started", "ended"),
    ("ended", "images"), ("ended", "claimed"), ("ended", "preliminary"), ("preliminary", "final"), ("ended", "final"),
    ("final", "delivered"), ("ended", "charged"), ("ordered", "final"),
)  # fmt: skip
_WIDTH: Final = len(MILESTONES)
_PARTS: Final = 3  # that are looked at at once
Times: TypeAlias = "array[int]"  # of each examination its twelve seconds


async def evaluate(db: Db, asked: Question) -> list[Figure]:
    """Median and 90th percentile of each span, of the whole and of each stratum."""
    cells = await _cells(db, asked)
    return await asyncio.to_thread(_figures, cells, asked)


def percentile(ordered: list[int], p: int) -> int:
    """The p-th percentile of values in order, at least one, by nearest rank."""
    return ordered[max(0, math.ceil(len(ordered) * p / 100) - 1)]


async def _cells(db: Db, asked: Question) -> dict[Cell, Times]:
    """The milestones of the period's examinations by cell: twelve seconds each, one examination after the other."""
    found: dict[Cell, Times] = {}
    # MongoDB works at an aggregation with one core.
    for groups in await asyncio.gather(*(_groups(db, part) for part in asked.parts(_PARTS))):
        for group in groups:
            found.setdefault(asked.cell(group["_id"]), array("i")).frombytes(b"".join(group["times"]))
    if sys.byteorder == "big":
        for times in found.values():
            times.byteswap()
    return found


async def _groups(db: Db, asked: Question) -> list[dict[str, Any]]:
    basis = asked.basis
    # A document holds 16 MB: what is sent is cut into months, of which a department has none that large (350,000 examinations).
    month = {"$dateTrunc": {"date": f"${basis}", "unit": "month"}}
    stages = [
        {"$match": asked.period(basis) | asked.exams()},
        {"$group": {"_id": asked.key(basis) | {"_month": month}, "times": {"$push": "$times"}}},
    ]
    found = await db[COLLECTION].aggregate(stages, allowDiskUse=True, hint={basis: 1})
    return await found.to_list()


def _figures(cells: dict[Cell, Times], asked: Question) -> list[Figure]:
    strata = asked.strata(list(cells))
    figures: list[Figure] = []
    for begin, end in asked.spans:
        spans = {cell: _spans(times, begin, end) for cell, times in cells.items()}
        for stratum, own in strata.items():
            # What is in order already in parts, is quickly put in order as a whole.
            ordered = sorted(chain.from_iterable(spans[c] for c in own)) if len(own) != 1 else spans[own[0]]
            shown = ordered if asked.every_cell or len(ordered) >= SMALL else []
            for name, p in PERCENTILES.items():
                value = round(percentile(shown, p) / 60, 2) if shown else None
                figures.append(Figure(f"{begin}-{end}", name, value, "min", len(ordered), stratum))
    return figures


def _spans(times: Times, begin: str, end: str) -> list[int]:
    """The spans of the examinations that have reached both, in order."""
    pairs: Iterable[tuple[int, int]] = zip(
        times[MILESTONES.index(begin) :: _WIDTH], times[MILESTONES.index(end) :: _WIDTH], strict=True
    )
    return sorted(b - a for a, b in pairs if a != NEVER != b)
