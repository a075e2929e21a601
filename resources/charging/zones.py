"""The department's time zone (RIS_TIME_ZONE): what happens on one day is charged and reconciled by it."""

from datetime import UTC, tzinfo

_zone: list[tzinfo] = [UTC]


def department() -> tzinfo:
    return _zone[0]


def use(zone: tzinfo) -> None:
    """To be said once, when the process starts."""
    _zone[0] = zone
