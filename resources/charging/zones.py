"""The department's time zone (RIS_TIME_ZONE): what happens on one day is charged and reconciled by it."""

from zoneinfo import ZoneInfo

_zone = [ZoneInfo("UTC")]


def department() -> ZoneInfo:
    return _zone[0]


def use(zone: ZoneInfo) -> None:
    """To be said once, when the process starts."""
    _zone[0] = zone
