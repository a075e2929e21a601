"""When a scanner or a person can be booked: weekly hours and exceptions as FHIR has them, on the department's clock.

HealthcareService and PractitionerRole have `availableTime` (days of the week with hours) and `notAvailable` (periods). A moment
is open when the clock on the wall says so: on the night when the clock goes forward there is no 02:30, and of hours from 02:30 to
04:00 one is left, from 03:00; when it goes back, hours that are there twice are open twice.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from fhir_server.search import dates

Interval = tuple[datetime, datetime]  # half-open, in UTC
Element = dict[str, Any]
T = TypeVar("T", int, datetime)

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
_MINUTE = timedelta(minutes=1)
_BEGINNING, _END = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def slots(sources: Sequence[Element], day: date, minutes: int, zone: ZoneInfo) -> list[Interval]:
    """The slots of a day, of so many minutes each, for a Schedule with these sources of hours.

    It is open when all of its sources that have hours are open; without any it never is. The slots follow each other from the
    beginning of each stretch; those that a period of `notAvailable` touches are left out, and the others stay where they are.
    """
    with_hours = [source["availableTime"] for source in sources if source.get("availableTime")]
    if not with_hours:
        return []
    stretches = opening(with_hours[0], day, zone)
    for hours in with_hours[1:]:
        stretches = common(stretches, opening(hours, day, zone))
    closed = [period(n["during"], zone) for s in sources for n in s.get("notAvailable", ()) if "during" in n]
    length = timedelta(minutes=minutes)
    return [slot for stretch in stretches for slot in _cut(stretch, length) if not any(overlap(slot, c) for c in closed)]


def _cut(stretch: Interval, length: timedelta) -> Iterator[Interval]:
    start, end = stretch
    while start + length <= end:
        yield start, start + length
        start += length


def overlap(one: Interval, other: Interval) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def opening(hours: Iterable[Element], day: date, zone: ZoneInfo) -> list[Interval]:
    """The stretches of this day, as the department's clock has it, in which these hours (`availableTime`) are open."""
    windows = merged(
        [*_windows(hours, day, after_midnight=False), *_windows(hours, day - timedelta(days=1), after_midnight=True)]
    )
    midnight, following = _instant(day, zone), _instant(day + timedelta(days=1), zone)
    if following - midnight == timedelta(days=1):
        return [(midnight + a * _MINUTE, midnight + b * _MINUTE) for a, b in windows]
    stretches: list[Interval] = []
    moment = midnight
    while moment < following:
        wall = moment.astimezone(zone)
        minute = wall.hour * 60 + wall.minute
        if any(a <= minute < b for a, b in windows):
            if stretches and stretches[-1][1] == moment:
                stretches[-1] = stretches[-1][0], moment + _MINUTE
            else:
                stretches.append((moment, moment + _MINUTE))
        moment += _MINUTE
    return stretches


def _windows(hours: Iterable[Element], day: date, *, after_midnight: bool) -> Iterator[tuple[int, int]]:
    """Minutes since midnight, from and to. Hours that end before they begin go on after midnight."""
    name = _DAYS[day.weekday()]
    for entry in hours:
        if name not in entry.get("daysOfWeek", _DAYS):
            continue
        start = 0 if entry.get("allDay") else _minute(entry.get("availableStartTime"), 0)
        end = _DAY if entry.get("allDay") else _minute(entry.get("availableEndTime"), _DAY)
        overnight = end <= start
        if after_midnight and overnight and end:
            yield 0, end
        elif not after_midnight:
            yield start, _DAY if overnight else end


def _minute(said: str | None, default: int) -> int:
    if said is None:
        return default
    hour, minute, *_ = said.split(":")
    return int(hour) * 60 + int(minute)


def merged(intervals: Iterable[tuple[T, T]]) -> list[tuple[T, T]]:
    """The same stretches in order, those that meet or overlap as one."""
    result: list[tuple[T, T]] = []
    for start, end in sorted(intervals):
        if result and start <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((start, end))
    return result


def common(some: Iterable[Interval], others: Iterable[Interval]) -> list[Interval]:
    """What is in both."""
    both = [(max(a, c), min(b, d)) for a, b in some for c, d in others]
    return [(start, end) for start, end in sorted(both) if start < end]


def period(during: Element, zone: ZoneInfo) -> Interval:
    """A Period as moments: dates are days on the department's clock, the last one included (FHIR R4 2.24.0.18)."""
    start, end = during.get("start"), during.get("end")
    return (_moment(start, zone, last=False) if start else _BEGINNING), (_moment(end, zone, last=True) if end else _END)


def _moment(said: str, zone: ZoneInfo, *, last: bool) -> datetime:
    """The first moment of what is said, or with `last` that after it; beyond the years that there are, their edge."""
    try:
        return _told(said, zone, last=last)
    except (OverflowError, ValueError):
        return _BEGINNING if said.startswith("0") else _END


def _told(said: str, zone: ZoneInfo, *, last: bool) -> datetime:
    if "T" in said:
        return dates.moment(said)
    year, month, day = (int(part) for part in [*re.split("-", said), "0", "0"][:3])
    if not last:
        return _instant(date(year, month or 1, day or 1), zone)
    if day:
        return _instant(date(year, month, day) + timedelta(days=1), zone)
    return _instant(date(year + (month or 12) // 12, (month or 12) % 12 + 1, 1), zone)


def _instant(day: date, zone: ZoneInfo) -> datetime:
    """When this day begins."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
