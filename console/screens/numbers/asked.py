"""What of the figures is wanted, as the address of the page says it; and the figures themselves."""

import json
from base64 import b64decode
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from console.formats import human_name
from console.visit import Visit
from resources.numbers.question import PERSONS
from resources.numbers.turn_around import SPANS

VIEWS: Final = ("turn-around", "volumes", "scanners", "backlog")
ONLY: Final = ("modality", "priority", "scanner", "location")
USUAL_SPANS: Final = tuple(f"{a}-{b}" for a, b in SPANS)
_BY: Final = ("modality", "priority", "scanner", "location", "code", "weekday", "hour")
_DAYS: Final = 30
_MOST_PEOPLE: Final = 500
_LONGEST: Final = 3660  # days
_OLDEST: Final = date(2000, 1, 1)
_LONGEST_FILTER: Final = 400  # several scanners, with commas
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """`start` and `end` are days, both included; `only` what it is narrowed to; `span` a turn-around time; `step` of time."""

    view: str
    start: date
    end: date
    by: str
    span: str
    only: dict[str, str]

    @property
    def step(self) -> str:
        """As fine as there is room for in a chart."""
        days = (self.end - self.start).days
        return "day" if days <= 45 else "week" if days <= 370 else "month"

    def steps(self) -> list[str]:
        """All days, weeks or months of the period, as the figures name them."""
        days = ((self.start + timedelta(days=n)) for n in range((self.end - self.start).days + 1))
        form = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}[self.step]
        return list(dict.fromkeys(day.strftime(form) for day in days))

    def address(self, **other: str) -> str:
        """The address of the page with these parameters instead."""
        mine = {"view": self.view, "from": self.start.isoformat(), "to": self.end.isoformat(), "by": self.by, "span": self.span}
        kept = {name: value for name, value in (mine | self.only | other).items() if value}
        return f"/numbers?{urlencode(kept)}"


@dataclass(frozen=True, slots=True)
class Figures:
    """What came: by group and statistic the whole, and the strata of a dimension in order; the names of references."""

    rows: list[dict[str, Any]]
    names: dict[str, str]
    dimensions: tuple[str, ...]

    def whole(self, group: str, statistic: str) -> dict[str, Any]:
        found = self._of(group, statistic)
        return next((r for r in found if all(r[d] == "all" for d in self.dimensions)), {"value": None, "count": 0})

    def by(self, dimension: str, group: str, statistic: str) -> dict[str, dict[str, Any]]:
        """The row of each value of a dimension."""
        return {r[dimension]: r for r in self._of(group, statistic) if r[dimension] != "all"}

    def values(self, dimension: str) -> list[str]:
        """The values of a dimension in all groups, in order, the unknown last."""
        found = {r[dimension] for r in self.rows if r[dimension] != "all"}
        return sorted(found, key=lambda v: (v == "unknown", v))

    def _of(self, group: str, statistic: str) -> list[dict[str, Any]]:
        return [r for r in self.rows if r["group"] == group and r["statistic"] == statistic]


def read(visit: Visit) -> Asked:
    """What the address says; for what makes no sense, what is usual."""
    view = _one_of(visit.asked("view"), VIEWS)
    end = min(_day(visit.asked("to")) or visit.today, visit.today + timedelta(days=366))
    start = max(_day(visit.asked("from")) or end - timedelta(days=_DAYS - 1), end - timedelta(days=_LONGEST))
    only = {
        name: value
        for name in ONLY
        if (value := visit.asked(name)[:_LONGEST_FILTER]) and (view != "scanners" or name in ONLY[2:])
    }
    return Asked(
        view, min(start, end), end, _one_of(visit.asked("by"), choices(visit, view)),
        _one_of(visit.asked("span") or "ended-final", USUAL_SPANS), only,
    )  # fmt: skip


def choices(visit: Visit, view: str) -> tuple[str, ...]:
    """By what a view can be broken down. Persons are offered to those who look after them."""
    if view == "scanners":
        return ("scanner", "location")
    return (*_BY, *sorted(PERSONS)) if visit.can("Practitioner.u") else _BY


async def figures(visit: Visit, asked: Asked) -> Figures:
    """The figures of a view."""
    found = json.loads(b64decode((await _call(visit, asked))["data"]))
    names = found["names"] | await _people(visit, {r[asked.by] for r in found["figures"]} if asked.by in PERSONS else set())
    return Figures(found["figures"], names, _dimensions(asked))


async def _people(visit: Visit, references: set[str]) -> dict[str, str]:
    """The names of people, whom the figures tell by their references alone."""
    ids = sorted(r.partition("/")[2] for r in references if r.startswith("Practitioner/"))[:_MOST_PEOPLE]
    if not ids:
        return {}
    found = await visit.desk.search("Practitioner", _id=",".join(ids), _elements="name")
    return {f"Practitioner/{p['id']}": human_name(p) for p in found}


async def csv(visit: Visit, asked: Asked) -> bytes:
    """The same as CSV."""
    return b64decode((await _call(visit, asked, format="csv"))["data"])


async def _call(visit: Visit, asked: Asked, **more: str) -> Any:
    start = _OLDEST if asked.view == "backlog" else asked.start
    end = visit.today if asked.view == "backlog" else asked.end
    return await visit.desk.question(
        f"Measure/{asked.view}/$figures", periodStart=start.isoformat(), periodEnd=end.isoformat(),
        group_by=_dimensions(asked), **asked.only, **more,
    )  # fmt: skip


def _dimensions(asked: Asked) -> tuple[str, ...]:
    beside = {"scanners": (), "backlog": ("age",)}.get(asked.view, (asked.step,))
    return (asked.by, *beside)


def _one_of(value: str, known: tuple[str, ...]) -> str:
    return value if value in known else known[0]


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 1990 <= day.year < 2100 else None
