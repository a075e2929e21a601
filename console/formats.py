"""Dates, times, names and numbers as a reader has them: the filters of the templates.

Moments are FHIR's (`2026-11-29T08:30:00Z`) and are shown in the department's time zone.
"""

import functools
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final

from babel import Locale, dates, numbers, units
from jinja2 import pass_context
from jinja2.runtime import Context

from fhir_server.registry import Resource

NONE: Final = "–"
_MRN: Final = "MR"
_ISOLATE: Final = "\u2068"
_UNTIL_HERE: Final = "\u2069"
# By HumanName.use, the one to be shown first.
_NAMES: Final = {"official": 0, "usual": 1, None: 2, "temp": 3, "nickname": 4, "anonymous": 5, "old": 6, "maiden": 7}


def moment(text: str | datetime | None) -> datetime | None:
    """A FHIR instant or dateTime with a time, or one as MongoDB gives it (UTC); None for nothing or for a mere date."""
    if isinstance(text, datetime):
        return text if text.tzinfo else text.replace(tzinfo=UTC)
    if text is None:
        return None
    return _read(text) if "T" in text else None


@pass_context
def day(context: Context, value: str | datetime | date | None, form: str = "medium") -> str:
    """A date: 29 Nov 2026. Of a partial date (2026-11, 2026), what there is. `form`: Babel's short, medium, long, full."""
    return NONE if value is None else day_as(value, context["t"].locale, context["visit"].zone, form)


def day_as(value: str | datetime | date, locale: Locale, zone: tzinfo, form: str = "medium") -> str:
    """The same for whoever reads it."""
    if isinstance(value, str) and len(value) == 4:
        return value
    if isinstance(value, str) and len(value) == 7:
        return dates.format_skeleton("yMMM", date.fromisoformat(f"{value}-01"), locale=locale)
    at = _in_zone(value, zone)
    return _date(at.date() if isinstance(at, datetime) else at, form if form in _FORMS else "medium", locale)


@pass_context
def weekday(context: Context, value: str | datetime | date | None) -> str:
    """A date with its day of the week: Sun 29 Nov."""
    return NONE if value is None else dates.format_skeleton("MMMEd", _local(context, value), locale=context["t"].locale)


@pass_context
def clock_time(context: Context, value: str | datetime | None) -> str:
    """A time of day: 14:05."""
    at = moment(value)
    return NONE if at is None else dates.format_time(_local(context, at), "short", locale=context["t"].locale)


@pass_context
def at_moment(context: Context, value: str | datetime | None) -> str:
    """A moment: today's as a time alone, another day's with its date."""
    at = moment(value)
    if at is None:
        return day(context, value)
    local = _local(context, at)
    time = dates.format_time(local, "short", locale=context["t"].locale)
    return time if local.date() == context["visit"].today else f"{day(context, local)}, {time}"


@pass_context
def full_moment(context: Context, value: str | datetime | None) -> str:
    """A moment with its date and seconds."""
    return NONE if value is None else full_as(value, context["t"].locale, context["visit"].zone)


def full_as(value: str | datetime, locale: Locale, zone: tzinfo) -> str:
    """The same for whoever reads it."""
    at = moment(value)
    if at is None:
        return day_as(value, locale, zone)
    return dates.format_datetime(_in_zone(at, zone), "medium", locale=locale)


@pass_context
def span(context: Context, value: timedelta | float | None) -> str:
    """A duration (seconds, or a timedelta) in its largest unit or two: 2 h 15 min."""
    if value is None:
        return NONE
    seconds = int(value.total_seconds() if isinstance(value, timedelta) else value)
    size = abs(seconds)
    parts = [size // 86400, size % 86400 // 3600, size % 3600 // 60]
    locale = context["t"].locale
    shown = [(unit, n) for unit, n in zip(_UNITS, parts, strict=True) if n][:2] or [("minute", 0)]
    told = " ".join(_unit(n, f"duration-{unit}", locale) for unit, n in shown)
    return f"−{told}" if seconds <= -60 else told


@pass_context
def since(context: Context, value: str | datetime | None) -> str:
    """How long ago a moment is (or, with a minus, how far ahead)."""
    at = moment(value)
    return NONE if at is None else span(context, context["visit"].now - at)


@pass_context
def number(context: Context, value: float | None, digits: int | None = None) -> str:
    """A number with the reader's separators."""
    if value is None:
        return NONE
    form = None if digits is None else "#,##0." + "0" * digits if digits else "#,##0"
    return numbers.format_decimal(value, form, locale=context["t"].locale)


@pass_context
def percent(context: Context, value: float | None) -> str:
    """0.25 as 25%."""
    return NONE if value is None else numbers.format_percent(value, locale=context["t"].locale)


def human_name(names: Any) -> str:
    """FHIR HumanNames (or a resource that has them) as one: "Muster, Anna Maria". The official or usual one first.

    One that is written from right to left is isolated, lest it draws what follows in the line to its other side (UAX #9).
    """
    if isinstance(names, dict) and "resourceType" in names:
        names = names.get("name")
    listed = [names] if isinstance(names, dict) else [n for n in names or () if isinstance(n, dict)]
    if not listed:
        return NONE
    name = min(listed, key=lambda n: _NAMES.get(n.get("use"), 2)) if len(listed) > 1 else listed[0]
    given = " ".join(str(g) for g in name.get("given", ()) if g)
    told = ", ".join(part for part in (name.get("family"), given) if part) or name.get("text") or NONE
    return f"{_ISOLATE}{told}{_UNTIL_HERE}" if any(unicodedata.bidirectional(c) in {"R", "AL"} for c in told) else told


def identifier(resource: Resource | None, code: str = _MRN) -> str:
    """The value of a resource's identifier of a type (v2-0203: MR, PLAC, FILL, ACSN); of a patient without MR, the first one."""
    listed = [i for i in (resource or {}).get("identifier", ()) if i.get("value")]
    typed = [i for i in listed if any(c.get("code") == code for c in i.get("type", {}).get("coding", ()))]
    found = typed or (listed if code == _MRN else [])
    return str(found[0]["value"]) if found else NONE


def concept(value: Any) -> str:
    """A CodeableConcept, or a Coding, by its text, its display or its code."""
    if not isinstance(value, dict):
        return NONE
    codings = value.get("coding") or ([value] if "code" in value else [])
    told = [value.get("text"), *(c.get("display") for c in codings), *(c.get("code") for c in codings)]
    return next((str(text) for text in told if text), NONE)


@pass_context
def age(context: Context, birth: str | None) -> str:
    """Whole years since a birth date; for small children, months or days."""
    if not birth or len(birth) < 10:
        return NONE
    born, today = date.fromisoformat(birth[:10]), context["visit"].today
    months = (today.year - born.year) * 12 + today.month - born.month - (today.day < born.day)
    t = context["t"]
    if months >= 36:
        return str(t.count("person.years", months // 12))
    return str(t.count("person.months", months) if months >= 2 else t.count("person.days", (today - born).days))


# Long lists say the same again and again, and Babel takes its time.
@functools.lru_cache(8192)
def _date(value: date, form: str, locale: Locale) -> str:
    return dates.format_date(value, form, locale=locale)


@functools.lru_cache(4096)
def _unit(number: int, unit: str, locale: Locale) -> str:
    return units.format_unit(number, unit, "short", locale=locale)


_UNITS: Final = ("day", "hour", "minute")
_FORMS: Final = frozenset({"short", "medium", "long", "full"})


def _read(text: str) -> datetime:
    """A FHIR instant; a leap second, which FHIR has and Python hasn't, as the one before it."""
    return datetime.fromisoformat(re.sub(r"(T\d\d:\d\d):60", r"\1:59", text))


def _local(context: Context, value: str | datetime | date) -> Any:
    return _in_zone(value, context["visit"].zone)


def _in_zone(value: str | datetime | date, zone: tzinfo) -> Any:
    if isinstance(value, str):
        value = _read(value) if "T" in value else date.fromisoformat(value)
    if not isinstance(value, datetime):
        return value
    at = value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        return at.astimezone(zone)
    except OverflowError:  # within hours of the first or the last moment that there is: "no end"
        return at


FILTERS: dict[str, Callable[..., str]] = {
    "day": day,
    "weekday": weekday,
    "time": clock_time,
    "at": at_moment,
    "full": full_moment,
    "span": span,
    "since": since,
    "number": number,
    "percent": percent,
    "name": human_name,
    "identifier": identifier,
    "concept": concept,
    "age": age,
}
