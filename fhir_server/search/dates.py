"""Dates as intervals: what a date of any precision stands for, in UTC (FHIR R4 Search, "date")."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

EARLIEST = datetime(1, 1, 1)  # noqa: DTZ001 - UTC without tzinfo, as MongoDB keeps it
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999000)  # noqa: DTZ001

Interval = tuple[datetime, datetime]

_TIME = r"T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?(?:(Z)|([+-])([0-9]{2}):([0-9]{2}))?"
_DATE = re.compile(rf"([0-9]{{4}})(?:-([0-9]{{2}})(?:-([0-9]{{2}})(?:{_TIME})?)?)?")


def of_text(text: str) -> Interval:
    """[start, end) of a FHIR date, dateTime or instant; a time without a zone is taken as UTC. ValueError when it is none.

    What lies beyond the years 1 to 9999 in UTC is cut off there.
    """
    found = _DATE.fullmatch(text)
    if not found:
        raise ValueError(f"{text[:64]!r} is not a FHIR date")
    year, month, day, hour, minute, second, fraction, _, sign, zone_hours, zone_minutes = found.groups()
    start = datetime(int(year), int(month or 1), int(day or 1))  # noqa: DTZ001 - made UTC below, or a plain date
    if hour is None:
        return start, _next(start, day, month)
    # Python has no leap second: it is taken as the one before.
    start = start.replace(hour=int(hour), minute=int(minute), second=59 if second == "60" else int(second or 0))
    if sign:
        offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
        start = plus(start, -offset if sign == "+" else offset)
    if fraction:
        start = plus(start, timedelta(milliseconds=int(fraction[:3].ljust(3, "0"))))
        return start, plus(start, timedelta(milliseconds=10 ** max(0, 3 - len(fraction))))
    return start, plus(start, timedelta(seconds=1) if second else timedelta(minutes=1))


def moment(text: str) -> datetime:
    """The moment, in UTC, of a FHIR instant or dateTime: as `of_text` reads it, which knows the leap second. ValueError."""
    return of_text(text)[0].replace(tzinfo=UTC)


def plus(moment: datetime, span: timedelta) -> datetime:
    """A moment moved, but not beyond the years 1 to 9999."""
    try:
        return moment + span
    except OverflowError:
        return LATEST if span > timedelta(0) else EARLIEST


def _next(start: datetime, day: str | None, month: str | None) -> datetime:
    if day:
        return plus(start, timedelta(days=1))
    year, following = (start.year + start.month // 12, start.month % 12 + 1) if month else (start.year + 1, 1)
    return start.replace(year=year, month=following) if year <= LATEST.year else LATEST


def interval(element_type: str, value: Any) -> Interval | None:
    """[start, end) of a date element: date, dateTime, instant, Period or Timing; None when it holds no date."""
    try:
        if isinstance(value, str):
            start, end = of_text(value)
            # An instant has no width (FHIR R4 Search, "date"), but for the millisecond that is kept.
            return (start, plus(start, timedelta(milliseconds=1))) if element_type == "instant" else (start, end)
        if element_type == "Period":
            return _period(value)
        if element_type == "Timing":
            return _timing(value)
    except ValueError:
        return None
    return None


def _period(value: dict[str, Any]) -> Interval | None:
    if "start" not in value and "end" not in value:
        return None
    return (
        of_text(value["start"])[0] if "start" in value else EARLIEST,
        of_text(value["end"])[1] if "end" in value else LATEST,
    )


def _timing(value: dict[str, Any]) -> Interval | None:
    spans = [of_text(event) for event in value.get("event", ()) if event is not None]
    bounds = value.get("repeat", {}).get("boundsPeriod")
    if bounds and (span := _period(bounds)):
        spans.append(span)
    return (min(s for s, _ in spans), max(e for _, e in spans)) if spans else None
