"""The department's time zone (RIS_TIME_ZONE): a day is charged and reconciled by it, and documents tell time in it."""

from datetime import UTC, datetime, tzinfo

_zone: list[tzinfo] = [UTC]


def department() -> tzinfo:
    return _zone[0]


def use(zone: tzinfo) -> None:
    """To be said once, when the process starts."""
    _zone[0] = zone


def told(moment: str) -> str:
    """A FHIR instant or dateTime as a document tells it: 2026-09-07 10:15 CEST. A mere date, or what has no zone, as it is."""
    try:
        at = datetime.fromisoformat(moment) if "T" in moment else None
        return f"{at.astimezone(department()):%Y-%m-%d %H:%M %Z}" if at is not None and at.tzinfo else moment
    except (ValueError, OverflowError):  # a leap second; or the first and the last moments that there are
        return moment
