"""Date and time keys of a query: single values and ranges (PS3.4 C.2.2.2.1, C.2.2.2.5; for the worklist also K.6.1.2.2).

A value stands for the whole of what it names: the time `0815` for 08:15:00 to 08:15:59.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from bridges.dicom import dimse

_DATE = re.compile(r"^(\d{4})\.?(\d{2})\.?(\d{2})$")
_TIME = re.compile(r"^([01]\d|2[0-3]):?(?:([0-5]\d):?(?:([0-5]\d|60)(?:\.\d{1,6})?)?)?$")
FIRST_TIME, LAST_TIME = "000000", "235959"


@dataclass(frozen=True, slots=True)
class Span:
    """A key's value: from `low` to `high`, both inclusive; empty where it is open."""

    low: str
    high: str
    is_range: bool

    def contains(self, value: str) -> bool:
        return bool(value) and (not self.low or value >= self.low) and (not self.high or value <= self.high)


def dates(key: str) -> Span:
    """The span of a DA key, as YYYYMMDD. Refused when it isn't one."""
    return _span(key, _date, _date)


def times(key: str) -> Span:
    """The span of a TM key, as HHMMSS."""
    return _span(key, lambda t: _time(t, "00"), lambda t: _time(t, "59"))


@dataclass(frozen=True, slots=True)
class Window:
    """What start date and time together ask for: one interval (YYYYMMDDHHMMSS), and a time of the day if that is separate."""

    low: str = ""
    high: str = ""
    daily: Span | None = None

    def contains(self, start: str) -> bool:
        inside = (not self.low or start >= self.low) and (not self.high or start <= self.high)
        return inside and (self.daily is None or self.daily.contains(start[8:]))


def window(date_key: str, time_key: str) -> Window | None:
    """The window of Scheduled Procedure Step Start Date and Time; None when neither restricts.

    When both are ranges, they are one interval, from the first date's time to the last date's time (PS3.4 K.6.1.2.2).
    """
    day = dates(date_key) if date_key else None
    clock = times(time_key) if time_key else None
    if day is None:
        return Window(daily=clock) if clock else None
    if clock is None or (day.is_range and not clock.is_range):
        low, high = day.low and day.low + FIRST_TIME, day.high and day.high + LAST_TIME
        return Window(low, high, clock)
    low = day.low and day.low + (clock.low or FIRST_TIME)
    high = day.high and day.high + (clock.high or LAST_TIME)
    return Window(low, high)


def _span(key: str, low: Callable[[str], str], high: Callable[[str], str]) -> Span:
    first, dash, last = (part.strip() for part in key.partition("-"))
    if not dash:
        return Span(low(first), high(first), is_range=False)
    if not first and not last:
        raise dimse.Refused(dimse.UNABLE_TO_MATCH, "a range needs a beginning or an end")
    return Span(first and low(first), last and high(last), is_range=True)


def _date(value: str) -> str:
    found = _DATE.match(value)
    if found is None:
        raise dimse.Refused(dimse.UNABLE_TO_MATCH, "a date key is no date or range of dates")
    try:
        date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        raise dimse.Refused(dimse.UNABLE_TO_MATCH, "a date key names a day that does not exist") from None
    return "".join(found.groups())


def _time(value: str, fill: str) -> str:
    found = _TIME.match(value)
    if found is None:
        raise dimse.Refused(dimse.UNABLE_TO_MATCH, "a time key is no time or range of times")
    return "".join(part or fill for part in found.groups())
