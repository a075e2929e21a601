"""One value of a search parameter as a MongoDB condition on the index that `index.py` writes, in a form that an index serves."""

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from fhir_server import clock
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.search import dates, intervals
from fhir_server.search.index import is_caseless, is_plain, targets
from fhir_server.search.keys import MAX_KEY, OVERLAP, fold, folded_key, shortened, word_key
from fhir_server.search.values import implied_systems, split, unescaped

Condition = dict[str, Any]
NOTHING: Condition = {"search.t": {"$in": []}}

_PREFIX = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)(?=[0-9.+\-])")
_EARTH = 6_371_008.8  # metres, the mean radius
_METRES = {"": 1000.0, "km": 1000.0, "m": 1.0, "cm": 0.01, "[mi_us]": 1609.347, "[mi_i]": 1609.344, "[ft_i]": 0.3048}
_PRECISE = Context(prec=60)


def any_of(conditions: list[Condition]) -> Condition:
    """What is true when one of these is."""
    return conditions[0] if len(conditions) == 1 else {"$or": conditions}


class Beginning(str):
    """How keys begin. MongoDB takes an anchored expression in an `$in`, and walks just that part of the index."""

    __slots__ = ()


def keyed(keys: Sequence[str], *, negated: bool = False) -> Condition:
    """That a resource has one of these keys, or (`:not`) none of them."""
    wanted = [re.compile("^" + re.escape(key)) if isinstance(key, Beginning) else shortened(key) for key in keys]
    if negated:
        return {"search.t": {"$nin": wanted}}
    return {"search.t": wanted[0] if len(wanted) == 1 else {"$in": wanted}}


def missing(kind: str, name: str, *, wanted: bool) -> Condition:
    """`:missing`: whether the resource has a value for the parameter at all."""
    if kind in {"date", "number", "quantity", "composite", "special"}:
        path = {"date": "d", "number": "n", "quantity": "q", "composite": "c", "special": "g"}[kind]
        if wanted:
            return {f"search.{path}.{name}": None, "search.t": {"$ne": f"{name}:"}}
        return {"$or": [{f"search.{path}.{name}": {"$ne": None}}, {"search.t": f"{name}:"}]}
    some = {"$elemMatch": {"$gte": f"{name}:", "$lt": f"{name}A"}}  # what follows a name in a key is one of : = > @
    return {"search.t": {"$not": some} if wanted else some}


# Text-like parameters


def keys(resource_type: str, kind: str, parameter: str, modifier: str, value: str, base_url: str) -> list[str]:
    """The index keys, or their Beginning, that one value of a token, reference, uri or exact string stands for."""
    if modifier == "identifier":
        return _token(f"{parameter}:identifier", value)
    if modifier == "of-type":
        return [_of_type(parameter, value)]
    if kind == "token" and is_plain(resource_type, parameter):
        value = value.casefold() if is_caseless(resource_type, parameter) else value
        return _code(parameter, value, implied_systems(resource_type, parameter))
    if kind == "token":
        return _token(parameter, value)
    if kind == "reference":
        return _reference(resource_type, parameter, modifier, unescaped(value), base_url)
    return [f"{parameter}={unescaped(value)}"]


def _token(name: str, value: str) -> list[str]:
    """`code`, `system|code`, `|code` (no system) or `system|` (FHIR R4 Search, "token")."""
    system, *rest = split(value, "|")
    if not rest:
        return [f"{name}={unescaped(value)}"]
    code = unescaped("|".join(rest))
    if not system and not code:
        raise fail("invalid", f"{name} has an empty value", status=400)
    key = f"{name}@{unescaped(system)}|{code}"
    return [key if code else Beginning(key)]


def _code(name: str, value: str, systems: Any) -> list[str]:
    """The same for a primitive. It has no system in the resource, but a `code` may have one by its binding."""
    system, *rest = split(value, "|")
    code = unescaped("|".join(rest) if rest else value)
    if not code and not system:
        raise fail("invalid", f"{name} has an empty value", status=400)
    if not system:
        return [f"{name}={code}"]
    if not rest:
        return [f"{name}={unescaped(value)}"]
    codes = systems.get(unescaped(system), frozenset())
    found = sorted(codes) if not code else [code] if code in codes else []
    return [f"{name}={c}" for c in found]


def _of_type(name: str, value: str) -> str:
    """`system|code|value` of an identifier's type and value (FHIR R4 Search, ":of-type")."""
    parts = [unescaped(part) for part in split(value, "|")]
    if len(parts) != 3 or not all(parts):
        raise fail("invalid", f"{name}:of-type is written system|code|value", status=400)
    return f"{name}:of-type@{'|'.join(parts)}"


def _reference(resource_type: str, parameter: str, modifier: str, value: str, base_url: str) -> list[str]:
    """`id`, `Type/id` or a URL, which may be our own (FHIR R4 Search, "reference")."""
    to = target(value, base_url)
    if to is not None:
        if modifier and to.type != modifier:
            raise fail("invalid", f"{parameter}:{modifier} can't be {to}", status=400)
        return [f"{parameter}>{to}"]
    if "/" in value or ":" in value:
        return [f"{parameter}>{value}"]
    leads_to = targets(resource_type, parameter)
    if modifier and modifier not in leads_to:
        raise fail("invalid", f"{resource_type}.{parameter} does not refer to {modifier}", status=400)
    return [f"{parameter}>{t}/{value}" for t in ((modifier,) if modifier else leads_to)]


def begins(parameter: str, value: str) -> Condition:
    """That a string begins with this one, case and accents aside."""
    start = folded_key(parameter, value)
    if start == f"{parameter}~":
        raise fail("invalid", f"{parameter} has an empty value", status=400)
    if len(start) >= MAX_KEY:
        raise fail("invalid", f"{parameter}: the text is longer than what is indexed", status=400)
    return between(start)


def begins_word(parameter: str, value: str) -> Condition:
    """That a person's name, or what of it follows after a word, begins with this."""
    return {"$or": [begins(parameter, value), between(word_key(parameter, value))]}


def between(start: str) -> Condition:
    """That a resource has a key with this beginning."""
    return {"search.t": {"$elemMatch": {"$gte": start, "$lt": start + "\U0010ffff"}}}


def contains(parameter: str, value: str) -> Condition:
    """`:contains`: that a string has this one in it. It looks through the index of the parameter, not through the resources."""
    wanted = fold(value)
    if not wanted or len(wanted) > OVERLAP or "\0" in wanted:
        raise fail("invalid", f"{parameter}:contains takes a text of 1 to {OVERLAP} characters", status=400)
    looked_for = re.escape(wanted)
    return {"$or": [{"search.t": {"$regex": f"^{re.escape(parameter)}{sign}.*{looked_for}"}} for sign in ("~", r"\^")]}


def below(parameter: str, value: str) -> Condition:
    """`:below` of a uri: the value itself and what its path leads to."""
    start = f"{parameter}={value.rstrip('/')}/"
    if len(start) > MAX_KEY:
        raise fail("invalid", f"{parameter}: the uri is longer than what is indexed", status=400)
    return {"$or": [keyed([f"{parameter}={value}"]), between(start)]}


def above(parameter: str, value: str) -> Condition:
    """`:above` of a uri: the value itself and the paths that lead to it."""
    scheme, slashes, rest = value.partition("://")
    if not slashes:
        return keyed([f"{parameter}={value}"])
    parts = rest.split("/")
    paths = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)][-100:]
    return keyed([f"{parameter}={scheme}://{path}{end}" for path in paths for end in ("", "/")])


# Intervals: dates, numbers, quantities


def _within(path: str, tests: dict[str, Condition]) -> Condition:
    """That one interval at `path` (an object, or a list of them) meets all these tests on its members."""
    flat = {f"{path}.{member}": test for member, test in tests.items()}
    if len(tests) == 1 and len(next(iter(tests.values()))) == 1:
        return flat
    # Of several intervals one must meet them on its own: bounds could be met by two.
    several = {"$or": [{f"{path}.0": {"$exists": False}}, {path: {"$elemMatch": tests}}]}
    return {"$and": [flat, several]}


def date_tests(name: str, value: str) -> list[dict[str, Condition]]:
    """What an interval {s, e} must meet, one of these, to stand to the value as its prefix says (FHIR R4 Search, "Prefixes")."""
    prefix, start, end = _bounds(name, value)
    slack = abs(clock.naive(clock.now()) - start) / 10
    tests: dict[str, list[dict[str, Condition]]] = {
        "eq": [{"s": {"$gte": start, "$lt": end}, "e": {"$lte": end}}],
        "ne": [{"s": {"$lt": start}}, {"e": {"$gt": end}}],
        "gt": [{"e": {"$gt": end}}],
        "lt": [{"s": {"$lt": start}}],
        "ge": [{"s": {"$gte": start}}, {"e": {"$gt": end}}],
        "le": [{"e": {"$lte": end}}, {"s": {"$lt": start}}],
        "sa": [{"s": {"$gte": end}}],
        "eb": [{"e": {"$lte": start}}],
        "ap": [{"s": {"$lt": dates.plus(end, slack)}, "e": {"$gt": dates.plus(start, -slack)}}],
    }
    return tests[prefix]


def date(parameter: str, value: str) -> Condition:
    """That a date's interval stands to the value's as its prefix says."""
    return any_of([_within(f"search.d.{parameter}", tests) for tests in date_tests(parameter, value)])


def date_limits(name: str, value: str) -> tuple[datetime, datetime]:
    """When a date that meets the value must end at the earliest, and begin at the latest."""
    prefix, start, end = _bounds(name, value)
    lowest = {"eq": start, "ge": start, "gt": end, "sa": end}.get(prefix, dates.EARLIEST)
    highest = {"eq": end, "le": end, "lt": start, "eb": start}.get(prefix, dates.LATEST)
    return lowest, highest


def last_updated(value: str) -> Condition:
    """The same for `_lastUpdated`, which is a moment: an interval of one millisecond."""
    millisecond = timedelta(milliseconds=1)
    found: list[Condition] = []
    for tests in date_tests("_lastUpdated", value):
        moved = {
            op: dates.plus(bound, -millisecond) if member == "e" else bound
            for member, test in tests.items()
            for op, bound in test.items()
        }
        found.append({"updated": moved})
    return any_of(found)


def _bounds(name: str, value: str) -> tuple[str, datetime, datetime]:
    prefix, text = _prefixed(value)
    try:
        start, end = dates.of_text(text)
    except ValueError as error:
        raise fail("invalid", f"{name}: {error}", status=400) from None
    return prefix, start, end


def _prefixed(value: str) -> tuple[str, str]:
    found = _PREFIX.match(value)
    return (found[1], value[2:]) if found else ("eq", value)


def number_tests(name: str, value: str, unit: tuple[str, str] | None = None) -> list[dict[str, Condition]]:
    """What an interval {l, h} of a number must meet, one of these. `unit` is the system and code that the value is given in."""
    prefix, text = _prefixed(value)
    try:
        at, half = intervals.of_text(text)
    except ValueError as error:
        raise fail("invalid", f"{name}: {error}", status=400) from None
    tenth = _PRECISE.multiply(abs(at), Decimal("0.1"))
    spread = tenth if prefix == "ap" else half if prefix in {"eq", "ne"} else Decimal(0)
    bounds = _PRECISE.subtract(at, spread), _PRECISE.add(at, spread)
    if unit is not None:
        _, bounds = intervals.in_unit(*unit, bounds)
    low, high = (intervals.stored(b) for b in bounds)
    tests: dict[str, list[dict[str, Condition]]] = {
        "eq": [{"l": {"$gte": low, "$lt": high}, "h": {"$lt": high}}],
        "ne": [{"l": {"$lt": low}}, {"h": {"$gte": high}}],
        "gt": [{"h": {"$gt": low}}],
        "lt": [{"l": {"$lt": low}}],
        "ge": [{"h": {"$gte": low}}],
        "le": [{"l": {"$lte": low}}],
        "sa": [{"l": {"$gt": low}}],
        "eb": [{"h": {"$lt": low}}],
        "ap": [{"l": {"$lte": high}, "h": {"$gte": low}}],
    }
    return tests[prefix]


def number(parameter: str, value: str) -> Condition:
    """That a number stands to the value as its prefix says (FHIR R4 Search, "number")."""
    return any_of([_within(f"search.n.{parameter}", tests) for tests in number_tests(parameter, value)])


def quantity_tests(name: str, value: str) -> list[dict[str, Any]]:
    """What an entry {u, l, h} of a quantity must meet: `number`, `number|system|code` or `number||code`."""
    text, *unit = split(value, "|")
    if len(unit) not in {0, 2} or (unit and not unit[1]):
        raise fail("invalid", f"{name} is written number, number|system|code or number||code", status=400)
    system, code = (unescaped(part) for part in unit) if unit else ("", "")
    if not unit or not system:
        return [{"u": f"|{code}" if unit else "", **tests} for tests in number_tests(name, text)]
    key, _ = intervals.in_unit(system, code, (Decimal(0), Decimal(0)))
    return [{"u": key, **tests} for tests in number_tests(name, text, (system, code))]


def quantity(parameter: str, value: str) -> Condition:
    """That a quantity stands to the value as its prefix says (FHIR R4 Search, "quantity")."""
    return any_of([{f"search.q.{parameter}": {"$elemMatch": tests}} for tests in quantity_tests(parameter, value)])


# Special


def near(value: str) -> Condition:
    """`latitude|longitude|distance|unit` of Location's `near`: within that distance, 1 km if none is given (FHIR R4 Location)."""
    parts = [unescaped(part) for part in split(value, "|")]
    text, unit = (parts[2] if len(parts) > 2 and parts[2] else "1"), parts[3] if len(parts) > 3 else ""
    try:
        latitude, longitude, distance = float(parts[0]), float(parts[1]), float(text) * _METRES[unit]
    except (IndexError, ValueError, KeyError):
        raise fail("invalid", "near is written latitude|longitude|distance|unit, in km, m or [mi_us]", status=400) from None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and 0 <= distance < math.inf):
        raise fail("invalid", "near: there is no such place or distance", status=400)
    radius = min(distance / _EARTH, math.pi)
    return {"search.g.near": {"$geoWithin": {"$centerSphere": [[longitude, latitude], radius]}}}
