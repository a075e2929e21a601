"""Placing examinations into free time: pure, over what is free of each scanner and person.

A visit is several examinations of one patient one after the other, in the order that ends soonest, with no longer wait between
two than is said.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import permutations

from resources.scheduling.hours import Interval, merged, overlap


@dataclass(frozen=True, slots=True)
class Option:
    """A way to do an examination: the scanners that it takes, and groups of which somebody or something each is needed."""

    stations: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """An examination to be placed: how long, not before when, and the ways to do it, the preferred first."""

    length: timedelta
    earliest: datetime
    options: Sequence[Option]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where and when; `number` is that of what was wanted, `chosen` who and what beside the stations."""

    number: int
    start: datetime
    end: datetime
    stations: tuple[str, ...]
    chosen: tuple[str, ...]


class FreeTime:
    """What is free of each scanner and person: given as slots, which need not be in order."""

    def __init__(self, slots: dict[str, list[Interval]], busy: Sequence[Interval] = ()) -> None:
        """busy: when the patient is somewhere else."""
        self._stretches = {actor: merged(of) for actor, of in slots.items()}
        self._starts = {actor: sorted({start for start, _ in of}) for actor, of in slots.items()}
        self._busy = busy

    def starts(self, actor: str, earliest: datetime, latest: datetime) -> Sequence[datetime]:
        """When a slot begins, from `earliest` on and before `latest`."""
        known = self._starts.get(actor, [])
        return known[bisect_left(known, earliest) : bisect_left(known, latest)]

    def is_free(self, actor: str, when: Interval) -> bool:
        stretches = self._stretches.get(actor, [])
        i = bisect_right(stretches, when[0], key=lambda stretch: stretch[0]) - 1
        return i >= 0 and when[1] <= stretches[i][1]

    def place(self, number: int, wanted: Wanted, option: Option, start: datetime) -> Placed | None:
        """The examination at this moment in this way, if that can be."""
        when = start, start + wanted.length
        if any(overlap(when, other) for other in self._busy) or not all(self.is_free(s, when) for s in option.stations):
            return None
        chosen: list[str] = []
        for group in option.groups:
            one = next((a for a in group if a not in chosen and a not in option.stations and self.is_free(a, when)), None)
            if one is None:
                return None
            chosen.append(one)
        return Placed(number, *when, option.stations, tuple(chosen))

    def first(self, number: int, wanted: Wanted, earliest: datetime, latest: datetime) -> Placed | None:
        """The first time that it can be, beginning before `latest`."""
        best: Placed | None = None
        for option in wanted.options:
            for start in self.starts(option.stations[0], max(earliest, wanted.earliest), latest):
                if best is not None and start >= best.start:
                    break
                if found := self.place(number, wanted, option, start):
                    best = found
                    break
        return best


def visits(
    free: FreeTime, wanted: Sequence[Wanted], earliest: datetime, latest: datetime, wait: timedelta
) -> Iterator[list[Placed]]:
    """The visits that begin from `earliest` on and before `latest`, the first ones first.

    Of one examination: each time and way that it can be. Of several: for each time that the visit can begin, the one that ends
    soonest.
    """
    if len(wanted) == 1:
        one = wanted[0]
        tries = [(s, n) for n, option in enumerate(one.options) for s in _starts(free, one, option, earliest, latest)]
        for start, n in sorted(tries):
            option = one.options[n]
            if found := free.place(0, one, option, start):
                yield [found]
        return
    begins = {s for one in wanted for option in one.options for s in _starts(free, one, option, earliest, latest)}
    for start in sorted(begins):
        if not _may_fit(free, wanted, start, wait):
            continue
        tried = [v for order in permutations(range(len(wanted))) if (v := _visit(free, wanted, order, start, wait))]
        if tried:
            yield min(tried, key=lambda visit: visit[-1].end)


def _may_fit(free: FreeTime, wanted: Sequence[Wanted], start: datetime, wait: timedelta) -> bool:
    """Whether each examination can be at some time of a visit that begins then: else no order of them need be tried."""
    longest = sum((one.length for one in wanted), timedelta(0)) + wait * len(wanted)
    return all(free.first(n, one, start, start + longest) is not None for n, one in enumerate(wanted))


def _starts(free: FreeTime, one: Wanted, option: Option, earliest: datetime, latest: datetime) -> Sequence[datetime]:
    return free.starts(option.stations[0], max(earliest, one.earliest), latest)


def _visit(
    free: FreeTime, wanted: Sequence[Wanted], order: Sequence[int], start: datetime, wait: timedelta
) -> list[Placed] | None:
    visit: list[Placed] = []
    for number in order:
        begins = visit[-1].end if visit else start
        latest = begins + wait if visit else start
        found = free.first(number, wanted[number], begins, latest + timedelta(microseconds=1))
        if found is None:
            return None
        visit.append(found)
    return visit
