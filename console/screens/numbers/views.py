"""The views of the figures: each some charts, and tables with the same numbers."""

import re
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from console import charts
from console.charts import MINUTES, Range, Series
from console.screens.numbers.asked import USUAL_SPANS, Asked, Figures
from console.screens.numbers.words import Words
from console.visit import Visit
from resources.numbers.counts import VOLUMES, WAITING
from resources.numbers.scanners import GROUPS

_AGES = ("under 4 hours", "4 to 24 hours", "1 to 3 days", "3 to 7 days", "7 to 30 days", "over 30 days")
_DRAWN = ("ordered", "performed", "reported")
_MOST_BARS = 24
_STATISTICS = ("median", "p90")
_NONE: dict[str, Any] = {"value": None, "count": 0}


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture under its title; "" where nothing can be said."""

    title: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the heads of its columns, and rows of a name and numbers as they are written."""

    title: str
    heads: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(slots=True)
class Shown:
    """A view. `small`: whether something is not shown for being too small."""

    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    small: bool = False
    empty: bool = False


class View:
    """What the views are made of: the figures, and how they are written."""

    def __init__(self, visit: Visit, asked: Asked, figures: Figures) -> None:
        self._t, self._asked, self._figures = visit.t, asked, figures
        self._words = Words(visit, figures.names)

    def shown(self) -> Shown:
        """The view that was asked for."""
        made = {"turn-around": self._turn_around, "volumes": self._volumes, "scanners": self._scanners, "backlog": self._backlog}
        shown = made[self._asked.view]()
        shown.small = any(r["value"] is None and r["count"] and r["unit"] == "min" for r in self._figures.rows)
        shown.empty = not any(r["count"] for r in self._figures.rows)
        return shown

    def _turn_around(self) -> Shown:
        span, by = self._asked.span, self._asked.by
        name = self._span(span)
        names = (self._t("numbers.median"), self._t("numbers.p90"))
        whole = [(self._span(s), *(self._figures.whole(s, p) for p in _STATISTICS)) for s in USUAL_SPANS]
        of_values = [self._figures.by(by, span, p) for p in _STATISTICS]
        each = [(self._words.value(by, v), *(f.get(v, _NONE) for f in of_values)) for v in self._values(by)]
        told = self._words.minutes
        over = [Series(n, self._over_time(span, p)) for n, p in zip(names, _STATISTICS, strict=True)]
        heads = [self._t("numbers.count"), *names]

        def ranges(found: list[Any]) -> list[Range]:
            return [Range(n, m["value"], p["value"]) for n, m, p in found if m["count"]]

        def rows(found: list[Any]) -> list[tuple[str, list[str]]]:
            return [(n, [self._words.number(m["count"]), told(m["value"]), told(p["value"])]) for n, m, p in found]

        return Shown(
            [
                self._chart("spans", charts.ranges, ranges(whole), told, names, MINUTES),
                self._chart("span-over-time", charts.lines, self._labels(), over, told, MINUTES, span=name),
                self._chart("span-by", charts.ranges, ranges(each)[:_MOST_BARS], told, names, MINUTES, span=name, by=self._by()),
            ],
            [
                Table(self._title("spans"), [self._t("numbers.span"), *heads], rows(whole)),
                Table(
                    self._title("span-by", span=name, by=self._by()),
                    [self._by(), *heads],
                    rows(each),
                ),
            ],
        )

    def _volumes(self) -> Shown:
        by, told = self._asked.by, self._words.number
        groups = {group: self._t(f"numbers.volume.{group}") for group in VOLUMES}
        over = [Series(groups[g], self._over_time(g, "count", 0)) for g in _DRAWN]
        counted = {g: self._figures.by(by, g, "count") for g in VOLUMES}
        values = self._values(by)
        table = [(self._words.value(by, v), [told(counted[g].get(v, {}).get("value", 0)) for g in VOLUMES]) for v in values]
        whole = (self._t("numbers.all"), [told(self._figures.whole(g, "count")["value"] or 0) for g in VOLUMES])
        performed = sorted(values, key=lambda v: -(counted["performed"].get(v, {}).get("value") or 0))[:_MOST_BARS]
        if by in {"weekday", "hour"}:
            performed = values
        bars = [Series(groups["performed"], [counted["performed"].get(v, {}).get("value", 0) for v in performed])]
        return Shown(
            [
                self._chart("volumes", charts.lines, self._labels(), over, told),
                self._chart("volumes-by", charts.bars, [self._words.value(by, v) for v in performed], bars, told, by=self._by()),
            ],
            [Table(self._t("numbers.title.volumes"), [self._by(), *groups.values()], [whole, *table])],
        )

    def _scanners(self) -> Shown:
        by = self._asked.by
        values = self._values(by)
        labels = [self._words.value(by, v) for v in values]

        def series(group: str, statistic: str) -> list[Series]:
            found = self._figures.by(by, group, statistic)
            return [Series(self._t(f"numbers.scanner.{group}"), [found.get(v, {}).get("value") for v in values])]

        def told(unit: str, value: float | None) -> str:
            return {"min": self._words.minutes, "%": self._words.percent}.get(unit, self._words.number)(value)

        columns = [(group, statistic) for group, (statistic,) in GROUPS.items()]
        found = {group: self._figures.by(by, group, statistic) for group, statistic in columns}
        wholes = [self._figures.whole(group, statistic) for group, statistic in columns]
        rows = [(self._t("numbers.all"), [told(w.get("unit", "1"), w["value"]) for w in wholes])]
        for value, label in zip(values, labels, strict=True):
            cells = [found[group].get(value, {"unit": "1", "value": None}) for group, _ in columns]
            rows.append((label, [told(c["unit"], c["value"]) for c in cells]))
        return Shown(
            [
                self._percentages("utilisation", labels, series("utilisation", "rate")),
                self._percentages("no-shows", labels, series("no-show-rate", "rate")),
            ],
            [
                Table(
                    self._t("numbers.title.scanners"), [self._by(), *(self._t(f"numbers.scanner.{g}") for g, _ in columns)], rows
                )
            ],
        )

    def _backlog(self) -> Shown:
        by, told = self._asked.by, self._words.number
        waits = {group: self._t(f"numbers.waits.{group}") for group in WAITING}
        wholes = [self._figures.whole(group, "count")["value"] or 0 for group in WAITING]
        by_age = {group: self._figures.by("age", group, "count") for group in WAITING}
        ages = [sum(by_age[g].get(age, {}).get("value") or 0 for g in WAITING) for age in _AGES]
        each = {group: self._figures.by(by, group, "count") for group in WAITING}
        values = self._values(by)
        sums = [sum(each[g].get(v, {}).get("value") or 0 for g in WAITING) for v in values]
        labels = [self._words.value(by, v) for v in values]
        waiting = [Series(self._t("numbers.waiting"), wholes)]
        heads = [self._words.value("age", age) for age in _AGES]
        rows = [
            (waits[g], [told(n), *(told(by_age[g].get(a, {}).get("value") or 0) for a in _AGES)])
            for g, n in zip(WAITING, wholes, strict=True)
        ]
        return Shown(
            [
                self._chart("backlog", charts.bars, list(waits.values()), waiting, told),
                self._chart("ages", charts.columns, heads, [Series(self._t("numbers.waiting"), ages)], told),
                self._chart("backlog-by", charts.bars, labels[:_MOST_BARS], [Series("", sums[:_MOST_BARS])], told, by=self._by()),
            ],
            [
                Table(self._t("numbers.title.backlog"), [self._t("numbers.waits-for"), self._t("numbers.all"), *heads], rows),
                Table(
                    self._title("backlog-by", by=self._by()),
                    [self._by(), *waits.values()],
                    [
                        (n, [told(each[g].get(v, {}).get("value") or 0) for g in WAITING])
                        for v, n in zip(values, labels, strict=True)
                    ],
                ),
            ],
        )

    def _percentages(self, title: str, labels: list[str], series: list[Series]) -> Chart:
        """Bars, where there is anything to say."""
        if all(v is None for v in series[0].values):
            return Chart(self._title(title), Markup(""))
        return self._chart(title, charts.bars, labels, series, self._words.percent)

    def _chart(self, title: str, draw: Any, *drawn: Any, **named: str) -> Chart:
        """A chart under a title, which is what it says to those who don't see it: the numbers stand in the table."""
        told = self._title(title, **named)
        return Chart(told, draw(self._t("numbers.picture", title=told), *drawn))

    def _title(self, title: str, **named: str) -> str:
        told = self._t(f"numbers.title.{title}", **named) if named else self._t(f"numbers.title.{title}")
        return told[0].upper() + told[1:]

    def _values(self, dimension: str) -> list[str]:
        """The values of a dimension; scanners and places by their names."""
        values = self._figures.values(dimension)
        if dimension not in {"scanner", "location"}:
            return values
        parts = {v: re.split(r"(\d+)", self._words.value(dimension, v).casefold()) for v in values}
        return sorted(values, key=lambda v: [(int(p), "") if p.isdecimal() else (-1, p) for p in parts[v]])

    def _labels(self) -> list[str]:
        return [self._words.value(self._asked.step, v) for v in self._asked.steps()]

    def _over_time(self, group: str, statistic: str, otherwise: float | None = None) -> list[float | None]:
        found = self._figures.by(self._asked.step, group, statistic)
        return [found.get(v, {}).get("value", otherwise) for v in self._asked.steps()]

    def _by(self) -> str:
        return self._t(f"numbers.by.{self._asked.by}")

    def _span(self, span: str) -> str:
        begin, _, end = span.partition("-")
        return self._t("numbers.from-to", begin=self._t(f"numbers.at.{begin}"), end=self._t(f"numbers.at.{end}"))
