"""One value of a search parameter as a MongoDB condition on the index that `index.py` writes, in a form that an index serves."""

import re
from datetime import datetime
from typing import Any

from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.search import dates
from fhir_server.search.index import MAX_KEY, folded_key, shortened, targets
from fhir_server.search.values import implied_systems, split, unescaped

Condition = dict[str, Any]

_PREFIX = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)(?=[0-9])")


def any_of(conditions: list[Condition]) -> Condition:
    """What is true when one of these is."""
    return conditions[0] if len(conditions) == 1 else {"$or": conditions}


def keyed(keys: list[str], *, negated: bool) -> Condition:
    """That a resource has one of these keys, or (`:not`) none of them."""
    wanted = [shortened(key) for key in keys]
    if negated:
        return {"search.t": {"$nin": wanted}}
    return {"search.t": wanted[0] if len(wanted) == 1 else {"$in": wanted}}


def keys(resource_type: str, kind: str, parameter: str, modifier: str, value: str, base_url: str) -> list[str]:
    """The index keys that one value of a token, reference, uri or exact string stands for."""
    if modifier == "identifier":
        return _token(f"{parameter}:identifier", value)
    if kind == "token":
        systems = implied_systems(resource_type, parameter)
        return _code(parameter, value, systems) if systems else _token(parameter, value)
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
    return [f"{name}@{unescaped(system)}|{code}"]


def _code(name: str, value: str, systems: Any) -> list[str]:
    """The same for an element of type `code`, whose system isn't in the resource."""
    system, *rest = split(value, "|")
    if not rest or not system:
        return _token(name, value)
    code = unescaped("|".join(rest))
    codes = systems.get(unescaped(system), frozenset())
    found = sorted(codes) if not code else [code] if code in codes else []
    return [f"{name}={c}" for c in found]


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
    return {"search.t": {"$elemMatch": {"$gte": start, "$lt": start + "\U0010ffff"}}}


def date(parameter: str, value: str) -> Condition:
    """That a date's interval stands to the value's as its prefix says (FHIR R4 Search, "Prefixes")."""
    prefix, start, end = _bounds(parameter, value)
    path = f"search.d.{parameter}"
    s, e = f"{path}.s", f"{path}.e"
    if prefix == "eq":
        # Of several intervals one must lie inside on its own: bounds on `s` and `e` could be met by two.
        several = {"$or": [{f"{path}.0": {"$exists": False}}, {path: {"$elemMatch": {"s": {"$gte": start}, "e": {"$lte": end}}}}]}
        return {"$and": [{s: {"$gte": start, "$lt": end}}, {e: {"$lte": end}}, several]}
    conditions: dict[str, Condition] = {
        "gt": {e: {"$gt": end}},
        "lt": {s: {"$lt": start}},
        "ge": {"$or": [{s: {"$gte": start}}, {e: {"$gt": end}}]},
        "le": {"$or": [{e: {"$lte": end}}, {s: {"$lt": start}}]},
        "sa": {s: {"$gte": end}},
        "eb": {e: {"$lte": start}},
    }
    return conditions[prefix]


def last_updated(value: str) -> Condition:
    """The same for `_lastUpdated`, which is a moment."""
    prefix, start, end = _bounds("_lastUpdated", value)
    conditions: dict[str, Condition] = {
        "eq": {"$gte": start, "$lt": end},
        "gt": {"$gte": end},
        "sa": {"$gte": end},
        "ge": {"$gte": start},
        "lt": {"$lt": start},
        "eb": {"$lt": start},
        "le": {"$lt": end},
    }
    return {"updated": conditions[prefix]}


def _bounds(name: str, value: str) -> tuple[str, datetime, datetime]:
    found = _PREFIX.match(value)
    prefix = found[1] if found else "eq"
    if prefix in {"ne", "ap"}:
        raise fail("not-supported", f"{name}: prefix {prefix} is not supported on dates", status=400)
    try:
        start, end = dates.of_text(value[2:] if found else value)
    except ValueError as error:
        raise fail("invalid", f"{name}: {error}", status=400) from None
    return prefix, start, end
