"""Dates as intervals: what a date of any precision stands for, in UTC (FHIR R4 3.1.1.5.2, 3.1.1.5.3)."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

EARLIEST = datetime(1, 1, 1)  # noqa: DTZ001 - UTC without tzinfo, as MongoDB keeps it
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999000)  # noqa: DTZ001

Interval = tuple[datetime, datetime]

_DATE = re.compile(r"^(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?)?)?$")


def of_text(text: str) -> Interval:
    """[start, end) of a FHIR date, dateTime or instant; a time without a zone is taken as UTC. ValueError when it is none."""
    found = _DATE.match(text)
    if not found:
        raise ValueError(f"{text!r} is not a FHIR date")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if hour is None:
        start = datetime(int(year), int(month or 1), int(day or 1))  # noqa: DTZ001 - made UTC below, or a plain date
        return start, _next(start, day, month)
    moment = f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}"
    start = datetime.fromisoformat(moment + (zone or "+00:00").replace("Z", "+00:00")).astimezone(UTC).replace(tzinfo=None)
    if fraction:
        millis = int(fraction[:3].ljust(3, "0"))
        start += timedelta(milliseconds=millis)
        return start, start + timedelta(milliseconds=10 ** max(0, 3 - len(fraction)))
    return start, start + (timedelta(seconds=1) if second else timedelta(minutes=1))


def _next(start: datetime, day: str | None, month: str | None) -> datetime:
    try:
        if day:
            return start + timedelta(days=1)
        if month:
            return start.replace(year=start.year + 1, month=1) if start.month == 12 else start.replace(month=start.month + 1)
        return start.replace(year=start.year + 1)
    except (ValueError, OverflowError):
        return LATEST


def interval(element_type: str, value: Any) -> Interval | None:
    """[start, end) of a date element: date, dateTime, instant, Period or Timing; None when it holds no date."""
    try:
        if isinstance(value, str):
            return of_text(value)
        if element_type == "Period":
            return (
                of_text(value["start"])[0] if "start" in value else EARLIEST,
                of_text(value["end"])[1] if "end" in value else LATEST,
            )
        if element_type == "Timing":
            return _timing(value)
    except ValueError:
        return None
    return None


def _timing(value: dict[str, Any]) -> Interval | None:
    spans = [of_text(event) for event in value.get("event", ())]
    bounds = value.get("repeat", {}).get("boundsPeriod")
    if bounds and (span := interval("Period", bounds)):
        spans.append(span)
    return (min(s for s, _ in spans), max(e for _, e in spans)) if spans else None
