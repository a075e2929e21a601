"""The search compiler: from search parameters to one MongoDB filter on the index that `index.py` writes (FHIR R4 Search)."""

from dataclasses import dataclass, field
from typing import Any

from fhir_server import definitions
from fhir_server.outcome import FhirError, fail
from fhir_server.search import conditions
from fhir_server.search.index import searchable, targets
from fhir_server.search.values import split, unescaped

MAX_COUNT = 1000
DEFAULT_COUNT = 20

_MODIFIERS = {
    "token": {"not"},
    "reference": {"identifier", *definitions.RESOURCE_TYPES},
    "string": {"exact"},
    "uri": set[str](),
    "date": set[str](),
}
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
    """A compiled search on one type. `base_url` is the server's own FHIR base, which references may be written with."""

    type: str
    base_url: str = ""
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
        """All conditions but those of chains."""
        return {"$and": self.filters} if len(self.filters) > 1 else self.filters[0] if self.filters else {}


def compile_query(resource_type: str, parameters: list[tuple[str, str]], base_url: str = "") -> Query:
    """The query of these parameters, in the order given. FhirError `invalid` or `not-supported` names what is wrong."""
    query = Query(resource_type, base_url)
    for name, value in parameters:
        if name in _RESULT:
            _result_parameter(query, name, value)
        else:
            _condition(query, name, value)
    return query


def _condition(query: Query, name: str, value: str) -> None:
    """`parameter`, `parameter:modifier`, `parameter.chained` or `parameter:Type.chained` (FHIR R4 Search)."""
    head, chained, inner = name.partition(".")
    parameter, _, modifier = head.partition(":")
    kind = _kind(query.type, parameter)
    if chained:
        query.chains.append(Chain(parameter, _chain_target(query.type, parameter, modifier, inner), [(inner, value)]))
        return
    if modifier and modifier not in _MODIFIERS[kind]:
        raise fail("not-supported", f"modifier :{modifier} is not supported on {query.type}.{parameter}", status=400)
    values = split(value, ",")
    if not all(unescaped(v).strip() for v in values):
        raise fail("invalid", f"{name} has an empty value", status=400)
    if parameter == "_id":
        query.filters.append({"_id": {"$nin" if modifier else "$in": [unescaped(v) for v in values]}})
    elif parameter == "_lastUpdated":
        query.filters.append(conditions.any_of([conditions.last_updated(v) for v in values]))
    elif kind == "date":
        query.filters.append(conditions.any_of([conditions.date(parameter, v) for v in values]))
    elif kind == "string" and modifier != "exact":
        query.filters.append(conditions.any_of([conditions.begins(parameter, unescaped(v)) for v in values]))
    else:
        keys = [k for v in values for k in conditions.keys(query.type, kind, parameter, modifier, v, query.base_url)]
        query.filters.append(conditions.keyed(keys, negated=modifier == "not"))


def _kind(resource_type: str, parameter: str) -> str:
    known = searchable(resource_type)
    if parameter not in known:
        text = f"{resource_type} has no search parameter {parameter[:64]!r}; it has: {', '.join(sorted(known))}"
        raise fail("invalid", text, status=400)
    return known[parameter]


def _chain_target(source: str, parameter: str, named: str, inner: str) -> str:
    if _kind(source, parameter) != "reference":
        raise fail("invalid", f"{source}.{parameter} is no reference: nothing can be chained to it", status=400)
    leads_to = targets(source, parameter)
    if not named and len(leads_to) != 1:
        raise fail("invalid", f"{parameter} can refer to {', '.join(leads_to)}: say which, as {parameter}:{leads_to[0]}.{inner}")
    if (named and named not in leads_to) or not inner:
        raise fail("invalid", f"{source}.{parameter} does not refer to {named[:64]!r}", status=400)
    return named or leads_to[0]


def _result_parameter(query: Query, name: str, value: str) -> None:
    if name == "_count":
        count = number("_count", value)
        query.count = min(count, MAX_COUNT)
        query.only_count |= count == 0
    elif name == "_sort":
        query.sort = _sort(query.type, value)
    elif name == "_total":
        if value not in {"none", "accurate", "estimate"}:
            raise fail("invalid", "_total is none, estimate or accurate", status=400)
        query.total = value != "none"
    elif name == "_summary":
        if value not in {"count", "false"}:
            raise fail("not-supported", f"_summary={value[:64]} is not supported; count and false are", status=400)
        query.only_count |= value == "count"
    elif name == "_include":
        query.includes.append(_include(query.type, value, reverse=False))
    elif name == "_revinclude":
        query.revincludes.append(_include(query.type, value, reverse=True))
    elif name == "_cursor":
        query.cursor = value


def number(name: str, value: str) -> int:
    """The whole number that a result parameter holds."""
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise fail("invalid", f"{name} takes a whole number", status=400)
    return int(value)


def _sort(resource_type: str, value: str) -> list[tuple[str, int]]:
    keys = [_sort_key(resource_type, key) for key in value.split(",")]
    if len({path for path, _ in keys}) != len(keys):
        raise fail("invalid", "_sort names a parameter twice", status=400)
    return keys


def _sort_key(resource_type: str, key: str) -> tuple[str, int]:
    direction = -1 if key.startswith("-") else 1
    name = key.removeprefix("-")
    kind = searchable(resource_type).get(name)
    if name == "_id":
        return "_id", direction
    if name == "_lastUpdated":
        return "updated", direction
    if name == "priority" and kind == "token":
        return "search.rank", direction
    if kind == "date":
        return (f"search.d.{name}.s" if direction == 1 else f"search.d.{name}.e"), direction
    raise _unsortable(resource_type, name)


def _unsortable(resource_type: str, name: str) -> FhirError:
    text = f"{resource_type} can't be sorted by {name[:64]!r}: dates, priority, _id and _lastUpdated can"
    return fail("not-supported", text, status=400)


def _include(resource_type: str, value: str, *, reverse: bool) -> Include:
    """`Type:parameter` or `Type:parameter:Target` (FHIR R4 Search, "Including other resources in result")."""
    source, parameter, target = [*value.split(":"), "", ""][:3]
    if len(value.split(":")) not in {2, 3} or (not reverse and source != resource_type):
        raise fail("invalid", f"an include is written Type:parameter or Type:parameter:Target, not {value[:64]!r}", status=400)
    if source not in definitions.RESOURCE_TYPES or searchable(source).get(parameter) != "reference":
        raise fail("invalid", f"{source[:64]} has no reference parameter {parameter[:64]!r}", status=400)
    leads_to = targets(source, parameter)
    if (target and target not in leads_to) or (reverse and (target or resource_type) != resource_type):
        raise fail("invalid", f"{source}.{parameter} does not refer to {(target or resource_type)[:64]}", status=400)
    if reverse and resource_type not in leads_to:
        raise fail("invalid", f"{source}.{parameter} does not refer to {resource_type}", status=400)
    return Include(source, parameter, target or None)
