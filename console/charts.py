"""Charts as inline SVG, made on the server: `bars`, `columns`, `lines`, `ranges`.

A chart is an image to a screen reader, whose label says what the picture says (`label`); the numbers themselves belong into a
table beside it. Marks tell their number when pointed at. Series differ in dash, marker or place as well as in colour, and are
named in a legend. Colours and type are classes of `assets/charts.css`, which a page with charts loads; sizes are SVG's own
attributes. None in the place of a number is a gap.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

Tell = Callable[[float], str]  # how a number is written
WIDTH: Final = 560
_LINE = 16  # height of a line of text
_CHARACTER = 7.1  # width of one, near enough
_PLAIN: Final = (1.0, 2.0, 5.0, 10.0)
_MARKS: Final = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z", "M-3.5,-3.5h7v7h-7z", "M0,-4.5L4.5,3.5H-4.5z", "M0,-5L5,0L0,5L-5,0z",
    "M-4,-1.5h8v3h-8z",
)  # fmt: skip
# Steps of an axis of minutes: to an hour, to a day, then in days.
MINUTES: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 720.0, 1440.0, 2880.0, 10080.0, 40320.0)


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers that belong together, one for each label of the chart."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Range:
    """A row of `ranges`: a bar from nothing to `middle` (a median), a thin line on to `high` (a 90th percentile)."""

    label: str
    middle: float | None
    high: float | None


def bars(label: str, labels: Sequence[str], series: Sequence[Series], tell: Tell) -> Markup:
    """Horizontal bars with their numbers: a row for each label, in it a bar for each series."""
    left, thick = _margin(labels), 18 if len(series) == 1 else 14
    top = _legend_height(series)
    each = thick * len(series) + (10 if len(series) > 1 else 8)
    most = _most(v for s in series for v in s.values)
    room = WIDTH - left - _wide([tell(most)]) - 16
    marks = [_legend(series)]
    for row, name in enumerate(labels):
        y = top + row * each
        marks.append(_text(left - 8, y + thick * len(series) / 2 + 4, _short(name, left), "end", title=name))
        for place, own in enumerate(series):
            value = own.values[row]
            if value is None:
                continue
            long, at = room * max(value, 0) / most, y + place * thick
            told = f"{name}{f', {own.name}' if len(series) > 1 else ''}: {tell(value)}"
            marks.append(_rect(left, at + 1, long, thick - 2, f"s{place + 1}", told))
            marks.append(_text(left + long + 6, at + thick / 2 + 4, tell(value), "start", "value"))
    axis = _line(left, top - 2, left, top + each * len(labels) - 4, "axis")
    return _svg(label, top + each * len(labels) + 4, [*marks, axis])


def ranges(label: str, rows: Sequence[Range], tell: Tell, names: tuple[str, str], steps: Sequence[float] = ()) -> Markup:
    """Horizontal ranges on a common axis. `names`: what middle and high are (median, 90th percentile)."""
    left, top, each = _margin([r.label for r in rows]), 28, 26
    ticks = _ticks(_most(v for r in rows for v in (r.middle, r.high)), steps)
    room, bottom = WIDTH - left - 40, 28 + each * len(rows)
    marks = [_range_legend(names)]
    for tick in ticks:
        x = left + room * tick / ticks[-1]
        marks += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 16, tell(tick), "middle", "tick")]
    for row, range_ in enumerate(rows):
        y = top + row * each + each / 2
        marks.append(_text(left - 8, y + 4, _short(range_.label, left), "end", title=range_.label))
        middle = room * max(range_.middle or 0, 0) / ticks[-1]
        if range_.high is not None:
            high, told = left + room * max(range_.high, 0) / ticks[-1], f"{range_.label}, {names[1]}: {tell(range_.high)}"
            marks += [_line(left + middle, y, high, y, "reach", told), _line(high, y - 6, high, y + 6, "reach", told)]
        if range_.middle is not None:
            marks.append(_rect(left, y - 7, middle, 14, "s1", f"{range_.label}, {names[0]}: {tell(range_.middle)}"))
    return _svg(label, bottom + 24, [*marks, _line(left, top, left, bottom, "axis")])


def columns(label: str, labels: Sequence[str], series: Sequence[Series], tell: Tell, steps: Sequence[float] = ()) -> Markup:
    """Columns side by side: over time, or how something is distributed."""
    frame = _Frame(labels, series, tell, steps)
    whole = min(frame.step * 0.8, 72.0 * len(series))
    wide = whole / max(1, len(series))
    marks = frame.marks()
    for place, own in enumerate(series):
        for n, value in enumerate(own.values):
            if value is not None:
                x = frame.x(n) - whole / 2 + place * wide
                told = f"{labels[n]}{f', {own.name}' if len(series) > 1 else ''}: {tell(value)}"
                y = frame.y(max(value, 0))
                marks.append(_rect(x, y, max(1, wide - 1), frame.bottom - y, f"s{place + 1}", told))
    return _svg(label, frame.height, marks)


def lines(label: str, labels: Sequence[str], series: Sequence[Series], tell: Tell, steps: Sequence[float] = ()) -> Markup:
    """Lines over time; where a number is missing the line is broken."""
    frame = _Frame(labels, series, tell, steps)
    marks = frame.marks()
    for place, own in enumerate(series):
        for run in _runs(own.values):
            way = " ".join(f"{frame.x(n):.1f},{frame.y(max(v, 0)):.1f}" for n, v in run)
            marks.append(Markup('<polyline class="line s{}" points="{}"/>').format(place + 1, way))
            if len(labels) <= 62:
                marks += [_marker(frame.x(n), frame.y(max(v, 0)), place, f"{labels[n]}, {own.name}: {tell(v)}") for n, v in run]
    return _svg(label, frame.height, marks)


class _Frame:
    """The axes of a chart whose labels go from left to right."""

    top, high = 0, 180

    def __init__(self, labels: Sequence[str], series: Sequence[Series], tell: Tell, steps: Sequence[float]) -> None:
        self._labels, self._series, self._tell = labels, series, tell
        self._ticks = _ticks(_most(v for s in series for v in s.values), steps)
        self.top = _legend_height(series) + 8
        self.bottom = self.top + self.high
        self.height = self.bottom + 24
        self._left = _wide([tell(t) for t in self._ticks]) + 12
        self.step = (WIDTH - self._left - 8) / max(1, len(labels))

    def x(self, place: int) -> float:
        return self._left + self.step * (place + 0.5)

    def y(self, value: float) -> float:
        return self.bottom - self.high * value / self._ticks[-1]

    def marks(self) -> list[Markup]:
        """Legend, lines and texts of the axes; of many labels as many as there is room for."""
        marks = [_legend(self._series)]
        for tick in self._ticks:
            marks.append(_line(self._left, self.y(tick), WIDTH - 8, self.y(tick), "grid" if tick else "axis"))
            marks.append(_text(self._left - 8, self.y(tick) + 4, self._tell(tick), "end", "tick"))
        every = max(1, math.ceil((_wide(self._labels) + 14) / self.step))
        shown = range(0, len(self._labels), every)
        return marks + [self._label(n) for n in shown]

    def _label(self, place: int) -> Markup:
        """A label below its place, or ending there where it would be cut off."""
        text, x = self._labels[place], self.x(place)
        over = x + _wide([text]) / 2 > WIDTH
        return _text(WIDTH - 1 if over else x, self.bottom + 18, text, "end" if over else "middle", "tick")


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The values with their places, apart where one is missing."""
    runs: list[list[tuple[int, float]]] = [[]]
    for n, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((n, value))
    return [run for run in runs if run]


def _most(values: Iterable[float | None]) -> float:
    return max((v for v in values if v is not None and v > 0), default=1)


def _ticks(most: float, steps: Sequence[float] = ()) -> list[float]:
    """Whole numbers from 0 to at least the most, as round as possible, and no more than six of them."""
    size = 10.0 ** math.floor(math.log10(most / 4))
    known = steps or [max(1.0, size * s) for s in _PLAIN]
    step = next((s for s in known if s * 5 >= most), math.ceil(most / 5 / known[-1]) * known[-1])
    return [n * step for n in range(math.ceil(most / step) + 1)]


def _wide(texts: Sequence[str]) -> float:
    return max((len(t) for t in texts), default=0) * _CHARACTER


def _margin(labels: Sequence[str]) -> float:
    return min(220.0, max(48.0, _wide(labels) + 12))


def _short(text: str, room: float) -> str:
    fits = int((room - 8) / _CHARACTER)
    return text if len(text) <= fits else text[: fits - 1] + "…"


def _legend_height(series: Sequence[Series]) -> int:
    return _LINE + 12 if len(series) > 1 else 4


def _legend(series: Sequence[Series]) -> Markup:
    """The names of several series, each with its colour and marker."""
    marks, x = [], 0.0
    for place, own in enumerate(series if len(series) > 1 else ()):
        marks += [_marker(x + 7, 9, place), _text(x + 18, 13, own.name, "start", "named")]
        x += 18 + _wide([own.name]) + 20
    return Markup("").join(marks)


def _range_legend(names: tuple[str, str]) -> Markup:
    x = 26 + _wide([names[0]]) + 24
    marks = [_rect(0, 4, 18, 10, "s1"), _text(24, 13, names[0], "start", "named")]
    marks += [
        _line(x, 9, x + 18, 9, "reach"),
        _line(x + 18, 3, x + 18, 15, "reach"),
        _text(x + 26, 13, names[1], "start", "named"),
    ]
    return Markup("").join(marks)


def _svg(label: str, height: float, marks: Sequence[Markup]) -> Markup:
    begin = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {:.0f}" width="{}" height="{:.0f}">')
    return begin.format(label, WIDTH, height, WIDTH, height) + Markup("").join(marks) + Markup("</svg>")


def _title(told: str) -> Markup:
    return Markup("<title>{}</title>").format(told) if told else Markup("")


def _text(x: float, y: float, text: str, anchor: str, kind: str = "label", title: str = "") -> Markup:
    made = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}{}</text>')
    return made.format(kind, x, y, anchor, text, _title(title if title != text else ""))


def _rect(x: float, y: float, width: float, height: float, kind: str, told: str = "") -> Markup:
    made = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">{}</rect>')
    return made.format(kind, x, y, width, height, _title(told))


def _line(x: float, y: float, to_x: float, to_y: float, kind: str, told: str = "") -> Markup:
    made = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}">{}</line>')
    return made.format(kind, x, y, to_x, to_y, _title(told))


def _marker(x: float, y: float, place: int, told: str = "") -> Markup:
    """A dot, square, triangle or diamond: the shape of a series."""
    made = Markup('<path class="mark s{}" transform="translate({:.1f},{:.1f})" d="{}">{}</path>')
    return made.format(place + 1, x, y, _MARKS[place % len(_MARKS)], _title(told))
