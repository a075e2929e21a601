"""The search compiler: from search parameters to one MongoDB filter on the index that `index.py` writes (FHIR R4 3.1.1)."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fhir_server import definitions
from fhir_server.outcome import fail
from fhir_server.search import dates
from fhir_server.search.index import INDEXED, fold

MAX_COUNT = 1000
DEFAULT_COUNT = 20

_MODIFIERS = {
    "token": {"not"},
    "reference": {"identifier", "[type]"},
    "string": {"exact"},
    "uri": set[str](),
    "date": set[str](),
}
_PREFIX = re.compile(r"^(eq|ne|gt|lt|ge|le|sa|eb|ap)(?=\d)")
_RESULT = frozenset({"_count", "_sort", "_total", "_summary", "_include", "_revinclude", "_cursor", "_format", "_pretty"})


@dataclass(frozen=True, slots=True)
class Chain:
    """A condition on what a reference points to: `subject:Patient.identifier=x`. Resolved to ids before the query runs."""

    parameter: str
    target: str
    inner: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Include:
    """`_include` or `_revinclude`: source type, reference parameter, and the target type if named."""

    source: str
    parameter: str
    target: str | None = None


@dataclass(slots=True)
class Query:
    """A compiled search on one type."""

    type: str
    filters: list[dict[str, Any]] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)
    sort: list[tuple[str, int]] = field(default_factory=list)
    count: int = DEFAULT_COUNT
    total: bool = False
    only_count: bool = False
    includes: list[Include] = field(default_factory=list)
    revincludes: list[Include] = field(default_factory=list)
    cursor: str | None = None

    @property
    def filter(self) -> dict[str, Any]:
        return {"$and": self.filters} if self.filters else {}


def searchable(resource_type: str) -> dict[str, str]:
    """The parameters that a search on this type understands: name -> type. What the CapabilityStatement declares."""
    return {n: p.type for n, p in definitions.search_parameters(resource_type).items() if p.type in INDEXED}


def compile_query(resource_type: str, parameters: list[tuple[str, str]]) -> Query:
    """The query of these parameters, in the order given. FhirError `invalid` or `not-supported` names what is wrong."""
    query = Query(resource_type)
    for name, value in parameters:
        if name in _RESULT:
            _result_parameter(query, name, value)
        else:
            _condition(query, name, value)
    return query


def _condition(query: Query, name: str, value: str) -> None:
    bare, _, rest = name.partition(":")
    bare, dot, chained = (bare, ".", "") if "." in rest else bare.partition(".")
    known = searchable(query.type)
    if bare not in known:
        raise fail("invalid", f"{query.type} has no search parameter {bare!r}; it has: {', '.join(sorted(known))}", status=400)
    if dot:
        query.chains.append(_chain(query.type, bare, rest, chained, value))
        return
    kind, modifier = known[bare], rest
    if modifier == "missing" or (modifier and modifier not in _MODIFIERS[kind] and not _names_type(kind, modifier)):
        raise fail("not-supported", f"modifier :{modifier} is not supported on {query.type}.{bare}", status=400)
    values = [_unescape(v) for v in re.split(r"(?<!\\),", value)]
    if any(not v for v in values):
        raise fail("invalid", f"{name} has an empty value", status=400)
    if bare == "_id":
        query.filters.append({"_id": {"$in": values}})
    elif bare == "_lastUpdated":
        query.filters.append(_any([_moment(v) for v in values]))
    else:
        query.filters.append(_any_of(query.type, kind, bare, modifier, values))


def _names_type(kind: str, modifier: str) -> bool:
    return kind == "reference" and modifier in definitions.RESOURCE_TYPES


def _chain(source: str, parameter: str, rest: str, chained: str, value: str) -> Chain:
    """`subject.name`, or `subject:Patient.name`, whose target type the modifier names."""
    target_type, _, inner = rest.partition(".") if rest and not chained else ("", "", chained)
    targets = definitions.search_parameters(source)[parameter].targets
    if not target_type:
        if len(targets) != 1:
            raise fail(
                "invalid", f"{parameter} can refer to {', '.join(targets)}: say which, as {parameter}:{targets[0]}.{inner}"
            )
        target_type = targets[0]
    if target_type not in targets or not inner:
        raise fail("invalid", f"{source}.{parameter} does not refer to {target_type}", status=400)
    return Chain(parameter, target_type, [(inner, value)])


def _any_of(resource_type: str, kind: str, name: str, modifier: str, values: list[str]) -> dict[str, Any]:
    if kind == "date":
        return _any([_date(name, v) for v in values])
    if kind == "string" and modifier != "exact":
        return _any([_prefix(f"{name}~{fold(v)}") for v in values])
    keys = [key for v in values for key in _keys(resource_type, kind, name, modifier, v)]
    if modifier == "not":
        return {"search.t": {"$nin": keys}}
    return {"search.t": keys[0] if len(keys) == 1 else {"$in": keys}}


def _keys(resource_type: str, kind: str, name: str, modifier: str, value: str) -> list[str]:
    if kind == "token" or modifier == "identifier":
        base = f"{name}:identifier" if modifier == "identifier" else name
        return [f"{base}@{value}" if "|" in value else f"{base}={value}"]
    if kind == "reference":
        if "/" in value or ":" in value:
            return [f"{name}>{value}"]
        types = (modifier,) if modifier else definitions.search_parameters(resource_type)[name].targets
        return [f"{name}>{t}/{value}" for t in types]
    return [f"{name}={value}"]


def _prefix(start: str) -> dict[str, Any]:
    return {"search.t": {"$elemMatch": {"$gte": start, "$lt": start + "\uffff"}}}


def _date(name: str, value: str) -> dict[str, Any]:
    prefix, start, end = _bounds(name, value)
    path = f"search.d.{name}"
    inside = {"s": {"$gte": start}, "e": {"$lte": end}}
    conditions: dict[str, dict[str, Any]] = {
        "eq": {path: {"$elemMatch": inside}},
        "gt": {path: {"$elemMatch": {"e": {"$gt": end}}}},
        "lt": {path: {"$elemMatch": {"s": {"$lt": start}}}},
        "ge": {path: {"$elemMatch": {"$or": [{"s": {"$gte": start}}, {"e": {"$gt": end}}]}}},
        "le": {path: {"$elemMatch": {"$or": [{"e": {"$lte": end}}, {"s": {"$lt": start}}]}}},
        "sa": {path: {"$elemMatch": {"s": {"$gte": end}}}},
        "eb": {path: {"$elemMatch": {"e": {"$lte": start}}}},
    }
    return conditions[prefix]


def _moment(value: str) -> dict[str, Any]:
    prefix, start, end = _bounds("_lastUpdated", value)
    conditions: dict[str, dict[str, Any]] = {
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


def _any(filters: list[dict[str, Any]]) -> dict[str, Any]:
    return filters[0] if len(filters) == 1 else {"$or": filters}


def _unescape(value: str) -> str:
    return re.sub(r"\\([,$|\\])", r"\1", value)


def _result_parameter(query: Query, name: str, value: str) -> None:
    if name == "_count":
        if not value.isdecimal():
            raise fail("invalid", "_count takes a whole number", status=400)
        query.count = min(int(value), MAX_COUNT)
        query.only_count |= int(value) == 0
    elif name == "_sort":
        query.sort = [_sort_key(query.type, key) for key in value.split(",")]
    elif name == "_total":
        if value not in {"none", "accurate", "estimate"}:
            raise fail("invalid", "_total is none, estimate or accurate", status=400)
        query.total = value != "none"
    elif name == "_summary":
        if value not in {"count", "false"}:
            raise fail("not-supported", f"_summary={value} is not supported; count and false are", status=400)
        query.only_count |= value == "count"
    elif name == "_include":
        query.includes.append(_include(value, query.type))
    elif name == "_revinclude":
        query.revincludes.append(_include(value, None))
    elif name == "_cursor":
        query.cursor = value


def _sort_key(resource_type: str, key: str) -> tuple[str, int]:
    direction = -1 if key.startswith("-") else 1
    name = key.lstrip("-")
    kind = searchable(resource_type).get(name)
    if name == "_id":
        return "_id", direction
    if name == "_lastUpdated":
        return "updated", direction
    if name == "priority":
        return "search.rank", direction
    if kind == "date":
        return (f"search.d.{name}.s" if direction == 1 else f"search.d.{name}.e"), direction
    raise fail(
        "not-supported", f"{resource_type} can't be sorted by {name!r}: dates, priority, _id and _lastUpdated can", status=400
    )


def _include(value: str, source: str | None) -> Include:
    parts = value.split(":")
    if len(parts) not in {2, 3} or (source and parts[0] != source):
        raise fail("invalid", f"an include is written Type:parameter or Type:parameter:Target, not {value!r}", status=400)
    if parts[0] not in definitions.RESOURCE_TYPES or searchable(parts[0]).get(parts[1]) != "reference":
        raise fail("invalid", f"{parts[0]} has no reference parameter {parts[1]!r}", status=400)
    return Include(parts[0], parts[1], parts[2] if len(parts) == 3 else None)
