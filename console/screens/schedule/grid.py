"""A board as the rows and cells of a table: pure, over what is in each column at which minutes of its day.

A row is so many minutes; a cell goes over as many rows as what is in it lasts. What overlaps (two patients at once) is in one
cell. What only follows within a row (a booking that begins where another has ended) begins with the next row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

_HOUR = 60
_DAY = 24 * _HOUR
_STEPS = (60, 30, 20, 15, 10, 5)  # minutes that a row can have
_OTHERWISE = (8 * _HOUR, 17 * _HOUR)  # when nothing says when it is open


@dataclass(frozen=True, slots=True)
class Item:
    """What is from one minute of the day to another: `free`, `past` (free, but over), `booking`, `blocked` or `taken`."""

    kind: str
    start: int
    end: int
    what: Any = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell over so many rows; without items it is closed, or `over`: no slots are made for times that are past."""

    column: int
    rows: int
    items: tuple[Item, ...] = ()
    over: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row that begins at this minute, and the cells that begin in it."""

    minute: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """The rows, each of so many minutes."""

    step: int
    rows: tuple[Row, ...]


def lay(columns: Sequence[Sequence[Item]], over: Sequence[int] = ()) -> Grid:
    """The table of these columns. `over`: the minute up to which each column's day is past."""
    step = _step(columns)
    first, last = _hours(columns, step)
    begins: dict[int, list[Cell]] = {}
    for number, items in enumerate(columns):
        past = (over[number] - first) // step if over else 0
        for row, cell in _column(number, items, first, (last - first) // step, step, past):
            begins.setdefault(row, []).append(cell)
    rows = ((last - first) // step) if last > first else 0
    return Grid(step, tuple(Row(first + n * step, tuple(begins.get(n, ()))) for n in range(rows)))


def besides(when: tuple[int, int], others: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts of a time that none of the others has."""
    begin, end = when
    for first, last in sorted(others):
        if first < end and begin < last:
            if begin < first:
                yield begin, first
            begin = max(begin, last)
    if begin < end:
        yield begin, end


def _step(columns: Iterable[Sequence[Item]]) -> int:
    """The longest row that the slots of all columns begin and end with; bookings alone don't make rows shorter."""
    slots = [i for items in columns for i in items if i.kind in {"free", "past", "blocked"}]
    found = gcd(*(n for i in slots for n in (i.start, i.end - i.start))) if slots else 30
    return next((step for step in _STEPS if found and found % step == 0), _STEPS[-1])


def _hours(columns: Iterable[Sequence[Item]], step: int) -> tuple[int, int]:
    """From when to when there is something on the board, in whole hours."""
    items = [i for column in columns for i in column]
    first = min((i.start for i in items), default=_OTHERWISE[0]) // _HOUR * _HOUR
    last = -(-max((i.end for i in items), default=_OTHERWISE[1]) // _HOUR) * _HOUR
    return first, min(max(last, first + step), _DAY)


def _column(number: int, items: Iterable[Item], first: int, rows: int, step: int, past: int) -> Iterator[tuple[int, Cell]]:
    """Each cell of a column with the row that it begins in. `past`: so many of its rows are over."""
    at = 0
    for begin, end, together in [*_runs(items, first, rows, step), (rows, rows, ())]:
        turns = min(max(at, past), begin)
        if at < turns:
            yield at, Cell(number, turns - at, over=True)
        if turns < begin:
            yield turns, Cell(number, begin - turns)
        if together:
            yield begin, Cell(number, end - begin, together)
        at = end


def _runs(items: Iterable[Item], first: int, rows: int, step: int) -> Iterator[tuple[int, int, tuple[Item, ...]]]:
    """From row to row, and what is there."""
    run: list[Item] = []
    begin = end = 0
    for item in sorted(items, key=lambda i: (i.start, i.end)):
        row = max(0, (item.start - first) // step)
        until = min(rows, max(row + 1, -(-(item.end - first) // step)))
        if run and row < end < until and item.start >= max(i.end for i in run):
            row = end
        if run and row < end:
            run.append(item)
            end = max(end, until)
            continue
        if run:
            yield begin, end, tuple(run)
        run, begin, end = [item], row, until
    if run:
        yield begin, end, tuple(run)
