"""v2 times (DT, TM, TS, DTM: HL7 v2.5.1 2.A.21 to 2.A.77) to and from FHIR date, dateTime, instant and time (FHIR R4 2.24.0.1).

A v2 time says as much as it has digits for, and may leave out its offset: then it is local time of `zone`, the partner's or
the department's. FHIR needs minutes, seconds and an offset with any time, so these are filled up; `precision` tells what the
sender gave. Where clocks change, a time that comes twice is the first of the two, and a time that is skipped has the offset
from before the change (`fold=0`, PEP 495).

All functions raise ValueError when a value is no time or can't be. Its text is for the sender, and holds nothing of the
value: times of birth and death don't belong in logs.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Final, Literal, TypeVar

T = TypeVar("T")
Precision = Literal["year", "month", "day", "hour", "minute", "second", "fraction"]

_PRECISIONS: Final[tuple[Precision, ...]] = ("year", "month", "day", "hour", "minute", "second", "fraction")
_LOWEST: Final = {"month": 1, "day": 1}
_OFFSET: Final = r"(?P<offset>[+-]\d\d(?::?\d\d)?)?"
_TIME: Final = r"(?P<hour>\d\d)(?:(?P<minute>\d\d)(?:(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?)?"
_TS: Final = re.compile(rf"(?P<year>\d{{4}})(?:(?P<month>\d\d)(?:(?P<day>\d\d)(?:{_TIME})?)?)?{_OFFSET}", re.ASCII)
_TM: Final = re.compile(_TIME + _OFFSET, re.ASCII)
_FHIR: Final = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:T(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?(?P<offset>Z|[+-]\d\d:\d\d))?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time as it was given. `local` has the filled-up parts as their lowest value and no zone; `fraction` are its digits."""

    local: datetime
    precision: Precision
    fraction: str = ""
    offset: timezone | None = None

    @property
    def has_time(self) -> bool:
        return self.precision not in _PRECISIONS[:3]

    def aware(self, zone: tzinfo) -> datetime:
        """With the offset that was sent, else in `zone`."""
        return self.local.replace(tzinfo=self.offset or zone)


def parse_ts(text: str) -> Stamp:
    """A TS, DTM or DT: `YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZ[ZZ]]`, with up to nine digits after the point."""
    match = _TS.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a v2 time (YYYY[MM[DD[HH[MM[SS[.SSSS]]]]]][+/-ZZZZ])")
    return _stamp(match)


def precision(text: str) -> Precision:
    """The last part that a v2 time gives."""
    return parse_ts(text).precision


def to_date(text: str) -> str:
    """FHIR date, as precise as was sent, to the day: `20260907` is `2026-09-07`. It is the date on the sender's calendar."""
    stamp = parse_ts(text)
    return _date(stamp.local, stamp.precision)


def to_datetime(text: str, zone: tzinfo) -> str:
    """FHIR dateTime: as `to_date` where no time was sent, else with seconds and the offset sent or that of `zone`."""
    stamp = parse_ts(text)
    return _fhir_instant(stamp, zone) if stamp.has_time else _date(stamp.local, stamp.precision)


def to_instant(text: str, zone: tzinfo) -> str:
    """FHIR instant. A value without a time of day is refused: which second it means, nobody knows."""
    stamp = parse_ts(text)
    if not stamp.has_time:
        raise ValueError("a time of day is needed, and only a date was given")
    return _fhir_instant(stamp, zone)


def to_aware(text: str, zone: tzinfo) -> datetime:
    """For reckoning. Parts that were not sent count as their lowest value (January, the first, midnight)."""
    return parse_ts(text).aware(zone)


def to_time(text: str) -> str:
    """FHIR time of a TM (`0830` is `08:30:00`). FHIR's time has no offset: one that was sent is refused, not dropped."""
    match = _TM.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a v2 time of day (HH[MM[SS[.SSSS]]])")
    if match["offset"]:
        raise ValueError("a time of day with an offset has no place in FHIR")
    at = _checked(lambda: time(int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0)))
    return at.isoformat() + _fraction(match["fraction"] or "")


def from_fhir(value: str, zone: tzinfo, *, offset: bool = True, precision: Precision | None = None) -> str:
    """v2 TS of a FHIR date, dateTime or instant.

    Times are told in `zone`, with its offset or without; a fraction is cut to the four digits that v2 has. Dates stay as
    they are. `precision` shortens, so that what was filled up on the way in goes out as it came; it never lengthens.
    """
    match = _FHIR.fullmatch(value)
    if match is None:
        raise ValueError("not a FHIR date, dateTime or instant")
    stamp = _stamp(match)
    kept = min(stamp.precision, precision or stamp.precision, key=_PRECISIONS.index)
    if not stamp.has_time:
        return _digits(stamp.local, kept, "")
    local = _checked(lambda: stamp.aware(UTC).astimezone(zone))
    return _digits(local, kept, stamp.fraction) + (_v2_offset(local) if offset and kept not in _PRECISIONS[:3] else "")


def from_datetime(when: datetime, *, offset: bool = True) -> str:
    """v2 TS of an aware time, to the second, in its own zone: for MSH-7 and other times of our own."""
    if when.tzinfo is None:
        raise ValueError("a time without a zone")
    return _digits(when, "second", "") + (_v2_offset(when) if offset else "")


def from_date(day: date) -> str:
    """v2 DT of a date."""
    return f"{day.year:04}{day.month:02}{day.day:02}"


def _stamp(match: re.Match[str]) -> Stamp:
    given = match.groupdict()
    year, month, day, hour, minute, second = (int(given[p] or _LOWEST.get(p, 0)) for p in _PRECISIONS[:6])
    fraction = given["fraction"] or ""
    leap = second == 60  # a leap second, which FHIR's pattern allows and Python's clock doesn't
    micro = int(fraction[:6].ljust(6, "0"))
    local = _checked(lambda: datetime(year, month, day, hour, minute, 59 if leap else second, micro))  # noqa: DTZ001 - a local time is what it is
    if leap:
        local = _checked(lambda: local + timedelta(seconds=1))
    named = [p for p in _PRECISIONS if given[p] is not None]
    return Stamp(local, named[-1], fraction, _read_offset(given["offset"]))


def _read_offset(offset: str | None) -> timezone | None:
    if not offset:
        return None
    if offset == "Z":
        return UTC
    digits = offset[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    if minutes > 14 * 60 or int(digits[2:]) > 59:
        raise ValueError("no such offset from UTC")
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def _checked(make: Callable[[], T]) -> T:
    try:
        return make()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no such date or time: {error}") from None


def _date(day: datetime, precision: Precision) -> str:
    return day.date().isoformat()[: {"year": 4, "month": 7}.get(precision, 10)]


def _fhir_instant(stamp: Stamp, zone: tzinfo) -> str:
    local = stamp.aware(zone)
    return local.replace(tzinfo=None, microsecond=0).isoformat() + _fraction(stamp.fraction) + _offset(local, ":")


def _fraction(digits: str) -> str:
    return f".{digits}" if digits else ""


def _digits(local: datetime, precision: Precision, fraction: str) -> str:
    text = f"{local.year:04}{local.month:02}{local.day:02}{local.hour:02}{local.minute:02}{local.second:02}"
    length = {"year": 4, "month": 6, "day": 8, "hour": 10, "minute": 12}.get(precision, 14)
    return text[:length] + (_fraction(fraction[:4]) if precision == "fraction" else "")


def _v2_offset(local: datetime) -> str:
    return _offset(local, "")


def _offset(local: datetime, separator: str) -> str:
    """To the minute, which is all that either format has: local mean times of the nineteenth century are rounded."""
    minutes = round((local.utcoffset() or timedelta()).total_seconds() / 60)
    hours, minutes_left = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours:02}{separator}{minutes_left:02}"
