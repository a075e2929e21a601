"""Time as FHIR and MongoDB have it: UTC, whole milliseconds."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present in UTC, cut to the millisecond that BSON keeps."""
    present = datetime.now(UTC)
    return present.replace(microsecond=present.microsecond // 1000 * 1000)


def naive(moment: datetime) -> datetime:
    """The same moment as MongoDB stores it: UTC without tzinfo."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def instant(moment: datetime) -> str:
    """A FHIR `instant`, told in UTC whatever zone the moment has: `2026-09-07T08:15:00.000Z`. One without a zone is UTC."""
    return (naive(moment) if moment.tzinfo else moment).isoformat(timespec="milliseconds") + "Z"
