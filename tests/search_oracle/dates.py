"""Dates: everything is an interval [start, end) in UTC (3.1.1.4.5, 3.1.1.4.7).

A date without a time is the whole day, month or year; a time without a zone is UTC; an instant is one millisecond, the smallest
that the server tells apart; a Period without an end goes on for ever; of a Timing only the outer limits count.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tests.search_oracle.asked import Asked, prefixed

EVER_BEFORE = datetime(1, 1, 1, tzinfo=UTC)
EVER_AFTER = datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Interval(NamedTuple):
    """From `start` until just before `end`."""

    start: datetime
    end: datetime


def matches(asked: Asked, element_type: str, value: Any) -> bool:
    """Whether a date, dateTime, instant, Period or Timing answers the search."""
    stored = interval(element_type, value)
    prefix, text = prefixed(asked.text)
    return stored is not None and compare(prefix, stored, of_text(text))


def compare(prefix: str, stored: Interval, searched: Interval) -> bool:
    """The table of prefixes (3.1.1.4.5) in terms of the limits of both intervals."""
    inside = searched.start <= stored.start and stored.end <= searched.end
    match prefix:
        case "eq":
            return inside
        case "ne":
            return not inside
        case "gt":
            return stored.end > searched.end
        case "lt":
            return stored.start < searched.start
        case "ge":
            return inside or stored.end > searched.end
        case "le":
            return inside or stored.start < searched.start
        case "sa":
            return stored.start >= searched.end
        case "eb":
            return stored.end <= searched.start
        case _:
            gap = abs(datetime.now(UTC) - searched.start) / 10
            return stored.start < searched.end + gap and stored.end > searched.start - gap


def interval(element_type: str, value: Any) -> Interval | None:
    """What a value stands for; None for one that holds no date, such as the text or the age of an onset."""
    match element_type:
        case "date" | "dateTime":
            return of_text(value)
        case "instant":
            start = of_text(value).start
            return Interval(start, start + _MILLISECOND)
        case "Period":
            return _period(value)
        case "Timing":
            return _timing(value)
    return None


def _period(value: dict[str, Any]) -> Interval | None:
    if "start" not in value and "end" not in value:
        return None
    start = of_text(value["start"]).start if "start" in value else EVER_BEFORE
    end = of_text(value["end"]).end if "end" in value else EVER_AFTER
    return Interval(start, end)


def _timing(value: dict[str, Any]) -> Interval | None:
    bounds = _period(value.get("repeat", {}).get("boundsPeriod", {}))
    spans = [of_text(event) for event in value.get("event", ())] + ([bounds] if bounds else [])
    return Interval(min(s.start for s in spans), max(s.end for s in spans)) if spans else None


_TEXT = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d)"
    r"(T(?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d)(\.(?P<fraction>\d+))?)?(?P<zone>Z|[+-]\d\d:\d\d)?)?)?)?"
)


def of_text(text: str) -> Interval:
    """The interval that a date of any precision covers."""
    found = _TEXT.fullmatch(text)
    assert found, text
    year, month, day = int(found["year"]), int(found["month"] or 1), int(found["day"] or 1)
    hour, minute, second = (int(found[part] or 0) for part in ("hour", "minute", "second"))
    start = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _offset(found["zone"])
    if found["fraction"]:
        start += timedelta(milliseconds=int(found["fraction"][:3].ljust(3, "0")))
        return Interval(start, start + timedelta(seconds=1) / 10 ** min(3, len(found["fraction"])))
    if found["day"] is None:
        return Interval(start, _next_month(start) if found["month"] else start.replace(year=start.year + 1))
    smallest = next(part for part in ("second", "minute", "day") if found[part])
    return Interval(start, start + timedelta(**{f"{smallest}s": 1}))


def _offset(zone: str | None) -> timedelta:
    if zone in {None, "Z"}:
        return timedelta()
    assert zone
    sign = -1 if zone[0] == "-" else 1
    return sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))


def _next_month(start: datetime) -> datetime:
    return (start + timedelta(days=31)).replace(day=1)
