"""What is asked of the figures: which period, broken down by what; and what is answered, a figure at a time."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo

from pymongo.asynchronous.database import AsyncDatabase

from resources.numbers.exam_rows import DIMENSIONS

Db = AsyncDatabase[dict[str, Any]]
Cell = tuple[str | None, ...]
Stratum = tuple[tuple[str, str | None], ...]

PERSONS: Final = frozenset({"technologist", "reader", "referrer"})
# By the department's clock: how a moment is written (MongoDB $dateToString).
CLOCK: Final = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "weekday": "%u", "hour": "%H"}
EXAM_DIMENSIONS: Final = (*DIMENSIONS, "location", *CLOCK)
ONLY: Final = ("modality", "priority", "scanner", "location")  # what a question may be narrowed to
SMALL: Final = 5  # of fewer examinations, times are shown to administrators only


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `count`: how many examinations, messages, ... it stands on; `strata`: of which part of them it is.

    value: None where nothing can be said; unit: `min` (minutes), `%`, `1` (a plain count)
    """

    group: str
    statistic: str
    value: float | None
    unit: str
    count: int
    strata: Stratum = ()


@dataclass(frozen=True, slots=True)
class Question:
    """The period [start, end) in UTC without tzinfo, and by what it is broken down.

    stratifiers: each the dimensions that are taken together; the whole is answered as well
    basis: the milestone that puts an examination into the period; spans: the intervals asked for, (from, to)
    every_cell: whether the smallest cells are shown
    """

    start: datetime
    end: datetime
    now: datetime
    zone: ZoneInfo
    stratifiers: tuple[tuple[str, ...], ...] = ()
    basis: str = ""
    spans: tuple[tuple[str, str], ...] = ()
    every_cell: bool = True
    # Device reference to that of its location; filled where a location is asked for.
    locations: dict[str, str] = field(default_factory=dict)
    # The values of some of `ONLY` that count; what else there is counts nowhere.
    only: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """All that cells are told apart by, each once."""
        return tuple(dict.fromkeys(d for stratifier in self.stratifiers for d in stratifier))

    def period(self, name: str) -> dict[str, Any]:
        """The condition that a date is in the period."""
        return {name: {"$gte": self.start, "$lt": self.end}}

    def parts(self, n: int) -> "list[Question]":
        """The same of each of so many equal parts of the period."""
        cuts = [self.start + (self.end - self.start) * i / n for i in range(n)] + [self.end]
        return [replace(self, start=begin, end=end) for begin, end in pairwise(cuts)]

    @property
    def scanners(self) -> set[str] | None:
        """The scanners that count; None for all, and for what none has done."""
        if not {"scanner", "location"} & self.only.keys():
            return None
        chosen = set(self.only.get("scanner", self.locations))
        places = self.only.get("location")
        return chosen if places is None else {s for s in chosen if self.locations.get(s) in places}

    def exams(self) -> dict[str, Any]:
        """The condition that an examination is one of those that count."""
        found: dict[str, Any] = {n: {"$in": sorted(self.only[n])} for n in ("modality", "priority") if n in self.only}
        return found if self.scanners is None else found | {"scanner": {"$in": sorted(self.scanners)}}

    def key(self, at: str) -> dict[str, Any]:
        """The `_id` of a $group into cells: the dimensions, those of the clock taken from the date `at`."""
        return {d: self._expression(d, at) for d in self.dimensions}

    def _expression(self, dimension: str, at: str) -> Any:
        if dimension in CLOCK:
            return {"$dateToString": {"date": f"${at}", "format": CLOCK[dimension], "timezone": str(self.zone)}}
        return "$scanner" if dimension == "location" else f"${dimension}"

    def cell(self, found: dict[str, Any]) -> Cell:
        """The cell that a row of such a $group is of."""
        return tuple(self.locations.get(str(found.get(d))) if d == "location" else found.get(d) for d in self.dimensions)

    def strata(self, cells: list[Cell]) -> dict[Stratum, list[Cell]]:
        """The whole, then each stratum of each stratifier in order, with the cells that it is made of."""
        found: dict[Stratum, list[Cell]] = {(): cells}
        for stratifier in self.stratifiers:
            places = [self.dimensions.index(d) for d in stratifier]
            own: dict[Stratum, list[Cell]] = {}
            for cell in cells:
                own.setdefault(tuple((d, cell[i]) for d, i in zip(stratifier, places, strict=True)), []).append(cell)
            found |= {stratum: own[stratum] for stratum in sorted(own, key=_order)}
        return found


def _order(stratum: Stratum) -> tuple[tuple[bool, str], ...]:
    """By value, what has none at the end."""
    return tuple((value is None, value or "") for _, value in stratum)
