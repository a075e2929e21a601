"""Dates and times of any precision, and their order (FHIRPath N1 4.1, 6.2; FHIR R4 2.24.0.1)."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache

_DATE = r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?"
_TIME = r"([0-9]{2})(?::([0-9]{2})(?::([0-9]{2}(?:\.[0-9]+)?))?)?"
_DATE_TIME = re.compile(rf"{_DATE}(?:T{_TIME}(Z|[+-][0-9]{{2}}:[0-9]{{2}})?)?")
_TIME_ONLY = re.compile(rf"T?{_TIME}")

Part = int | Decimal


@dataclass(frozen=True, slots=True)
class Temporal:
    """`parts` from the largest: year, month, day, hour, minute, second (with its fraction); a time begins with the hour.

    `offset` is in minutes east of UTC. `text` is what it was read from.
    """

    text: str
    parts: tuple[Part, ...]
    is_time: bool
    offset: int | None

    @staticmethod
    @lru_cache(maxsize=1024)
    def parse(text: str) -> "Temporal | None":
        """A FHIR date, dateTime, instant or time (or one as FHIRPath writes them); None if it is not one."""
        match = _TIME_ONLY.fullmatch(text) if text[:1] == "T" or text[2:3] == ":" else _DATE_TIME.fullmatch(text)
        if match is None:
            return None
        is_time = match.re is _TIME_ONLY
        groups = match.groups() if is_time else match.groups()[:6]
        parts: list[Part] = [Decimal(g) if "." in g else int(g) for g in groups if g is not None]
        return Temporal(text, tuple(parts), is_time, None if is_time else _offset(match[7]))

    def __str__(self) -> str:
        return self.text


def _offset(zone: str | None) -> int | None:
    if zone is None or zone == "Z":
        return None if zone is None else 0
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    return -minutes if zone[0] == "-" else minutes


def _in_utc(value: Temporal) -> tuple[Part, ...]:
    year, month, day, hour, *rest = value.parts
    try:
        days = date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        return value.parts
    minutes = (days * 24 + hour) * 60 + (rest[0] if rest else 0) - (value.offset or 0)
    return (minutes, *rest[1:])


def compare(left: Temporal, right: Temporal) -> int | None:
    """-1, 0 or 1; None where the precision of one leaves it open (FHIRPath N1 6.2), or one has a zone and the other has not."""
    if left.is_time != right.is_time:
        return None
    ours, theirs = left.parts, right.parts
    timed = len(ours) > 3 and len(theirs) > 3 and not left.is_time
    if timed and left.offset is not None and right.offset is not None and left.offset != right.offset:
        ours, theirs = _in_utc(left), _in_utc(right)
    elif timed and (left.offset is None) != (right.offset is None):
        return None
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            return -1 if mine < other else 1
    return 0 if len(ours) == len(theirs) else None
