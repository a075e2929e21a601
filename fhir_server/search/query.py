"""The search compiler: from search parameters to one MongoDB filter on the index that `index.py` writes (FHIR R4 Search).

What can be said without looking into the database becomes a condition at once. Chains, `_has`, `_list`, value sets and
hierarchies are kept as `pending` until `resolve.py` has looked.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fhir_server import definitions
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.search import composite_conditions, conditions, listing
from fhir_server.search.includes import Include, include
from fhir_server.search.index import composites, is_of_names, searchable, targets, unions
from fhir_server.search.sorting import SortKey, sort_keys
from fhir_server.search.values import split, unescaped
from fhir_server.subset import elements_named

LONGEST_SEARCH = 30_000  # milliseconds that a search, and each look of MongoDB's for it, may take
MAX_COUNT = 1000
DEFAULT_COUNT = 20
MAX_PARAMETERS = 100
MAX_INCLUDES = 1000
MAX_VALUES = 1000  # alternatives in all of them
_ONCE = frozenset({"_count", "_sort", "_total", "_summary", "_explain"})
_MAX_DEPTH = 8  # links of a chain, `_has` included

_MODIFIERS = {
    "token": {"not", "text", "in", "not-in", "below", "above", "of-type", "missing"},
    "reference": {"identifier", "missing", "below", "above", *definitions.RESOURCE_TYPES},
    "string": {"exact", "contains", "missing"},
    "uri": {"below", "above", "missing"},
    "date": {"missing"},
    "number": {"missing"},
    "quantity": {"missing"},
    "composite": {"missing"},
    "special": {"missing"},
}
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
SUMMARIES = frozenset({"true", "text", "data", "count", "false"})


@dataclass(frozen=True, slots=True)
class Chain:
    """A condition on what a reference points to: `subject:Patient.identifier=x`. `inner` is the search on that."""

    parameter: str
    inner: "Query"


@dataclass(frozen=True, slots=True)
class Has:
    """A condition on what refers to a resource: `_has:Observation:patient:code=x`. `inner` is the search on that."""

    parameter: str
    inner: "Query"


@dataclass(frozen=True, slots=True)
class Members:
    """`_list`: that a List names the resource."""

    lists: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InValueSet:
    """`:in` and `:not-in`: that a token is (not) in a value set, named by its canonical URL or as ValueSet/id."""

    parameters: tuple[str, ...]
    value_set: str
    negated: bool


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """`:below` and `:above` of a token (its code system's hierarchy) or a reference (such as Location.partof)."""

    parameters: tuple[str, ...]
    kind: str
    value: str
    down: bool


Pending = Chain | Has | Members | InValueSet | Hierarchy


class NotUnderstood(FhirError):
    """A parameter that this server does not know or support: refused, or ignored where the client asks for lenience."""


@dataclass(slots=True)
class Query:
    """A compiled search on one type. `base_url` is the server's own FHIR base, which references may be written with."""

    type: str
    base_url: str = ""
    filters: list[dict[str, Any]] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    sort: list[SortKey] = field(default_factory=list)
    count: int = DEFAULT_COUNT
    total: bool = False
    only_count: bool = False
    includes: list[Include] = field(default_factory=list)
    summary: str | None = None
    elements: tuple[str, ...] = ()
    explain: bool = False
    walks: listing.Walks | None = None  # if it is one of the lists that have an index of their own
    # The parameters that were understood, and what is to be said of the others (`handling=lenient`).
    used: list[tuple[str, str]] = field(default_factory=list)
    notes: list[Issue] = field(default_factory=list)

    @property
    def filter(self) -> dict[str, Any]:
        """All conditions but the pending ones."""
        return {"$and": self.filters} if len(self.filters) > 1 else self.filters[0] if self.filters else {}

    @property
    def has_condition(self) -> bool:
        """Whether anything narrows this search."""
        return bool(self.filters or self.pending)


def compile_query(
    resource_type: str, parameters: list[tuple[str, str]], base_url: str = "", *, lenient: bool = False, depth: int = 0
) -> Query:
    """The query of these parameters, in the order given. FhirError `invalid` or `not-supported` names what is wrong.

    `lenient` leaves out what is not understood, and notes it (`Prefer: handling=lenient`). `depth` is how many links of a chain
    have led here.
    """
    query = Query(resource_type, base_url)
    _check_numbers(parameters)
    for name, value in parameters:
        try:
            if name.partition(":")[0] in RESULT_PARAMETERS:
                _result_parameter(query, name, value)
            else:
                _condition(query, name, value, depth)
        except NotUnderstood as error:
            if not lenient:
                raise
            query.notes.append(Issue("not-supported", f"ignored: {error}", severity="warning"))
        else:
            query.used.append((name, value))
    listing.serve(query)
    return query


def _check_numbers(parameters: list[tuple[str, str]]) -> None:
    """Not more than is sensible of anything, and one of what can be there once."""
    included = sum("include" in name for name, _ in parameters)
    others = len(parameters) - included
    if others > MAX_PARAMETERS or included > MAX_INCLUDES or sum(v.count(",") for _, v in parameters) > MAX_VALUES:
        raise fail("too-costly", f"a search takes at most {MAX_PARAMETERS} parameters and {MAX_VALUES} values", status=400)
    names = [name for name, _ in parameters if name in _ONCE]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise fail("invalid", f"{twice} is given twice", status=400)


def not_understood(text: str, code: str = "not-supported") -> NotUnderstood:
    """The refusal of a parameter or modifier that isn't there."""
    return NotUnderstood(Issue(code, text), status=400)


# Conditions


def _condition(query: Query, name: str, value: str, depth: int) -> None:
    """`parameter`, `parameter:modifier`, `parameter.chained`, `parameter:Type.chained` or `_has:...` (FHIR R4 Search)."""
    if depth > _MAX_DEPTH:
        raise fail("too-costly", f"a chain has at most {_MAX_DEPTH} links", status=400)
    if name.startswith("_has:"):
        query.pending.append(_has(query, name, value, depth))
        return
    head, chained, inner = name.partition(".")
    parameter, _, modifier = head.partition(":")
    if parameter == "_list" and not chained and not modifier:
        lists = tuple(unescaped(v).removeprefix("List/") for v in split(value, ","))
        if not all(_ID.fullmatch(list_) for list_ in lists):
            raise fail("not-supported", "_list takes the ids of Lists; $current-... is not supported", status=400)
        query.pending.append(Members(lists))
        return
    kind = _kind(query.type, parameter)
    if chained:
        leads_to = _chain_target(query.type, parameter, modifier, inner)
        query.pending.append(Chain(parameter, compile_query(leads_to, [(inner, value)], query.base_url, depth=depth + 1)))
        return
    if modifier and modifier not in _MODIFIERS[kind]:
        raise not_understood(f"modifier :{modifier[:64]} does not apply to {query.type}.{parameter}, which is a {kind}")
    if parameter == "_id" and modifier not in {"", "not", "missing"}:
        raise not_understood(f"modifier :{modifier} does not apply to _id")
    if modifier == "missing":
        if value not in {"true", "false"}:
            raise fail("invalid", f"{name} is true or false", status=400)
        query.filters.append(_missing(query.type, kind, parameter, wanted=value == "true"))
        return
    values = split(value, ",")
    if not all(unescaped(v).strip() for v in values):
        raise fail("invalid", f"{name[:100]} has an empty value", status=400)
    if len(values) > MAX_VALUES:
        raise fail("too-costly", f"{name[:100]} takes at most {MAX_VALUES} values", status=400)
    _add(query, kind, parameter, modifier, values)


def _missing(resource_type: str, kind: str, parameter: str, *, wanted: bool) -> conditions.Condition:
    if parameter in {"_id", "_lastUpdated"}:  # every resource has them
        return conditions.NOTHING if wanted else {"_id": {"$exists": True}}
    each = [conditions.missing(kind, name, wanted=wanted) for name in _indexed(resource_type, parameter)]
    return {"$and": each} if wanted else conditions.any_of(each)


def _indexed(resource_type: str, parameter: str) -> tuple[str, ...]:
    """The names that a parameter is indexed under."""
    return unions(resource_type).get(parameter, (parameter,))


def _add(query: Query, kind: str, parameter: str, modifier: str, values: list[str]) -> None:
    """The condition, or what is pending, of the alternatives of one parameter."""
    names = _indexed(query.type, parameter)
    if parameter == "_id":
        query.filters.append({"_id": {"$nin" if modifier else "$in": [unescaped(v) for v in values]}})
    elif parameter == "_lastUpdated":
        query.filters.append(conditions.any_of([conditions.last_updated(v) for v in values]))
    elif modifier in {"in", "not-in"}:
        if len(values) > 1:
            raise fail("invalid", f"{parameter}:{modifier} takes one value set", status=400)
        query.pending.append(InValueSet(names, unescaped(values[0]), modifier == "not-in"))
    elif modifier in {"below", "above"} and kind != "uri":
        if len(values) > 1:
            raise fail("invalid", f"{parameter}:{modifier} takes one value", status=400)
        query.pending.append(_hierarchy(query.type, kind, parameter, values[0], down=modifier == "below"))
    elif kind == "composite":
        known = composites(query.type)
        parts = [composite_conditions.condition(query.type, known[n], v, query.base_url) for n in names for v in values]
        query.filters.append(conditions.any_of(parts))
    elif (each := _EACH.get((_told_apart(query.type, kind, parameter), modifier)) or _EACH.get((kind, modifier))) is not None:
        query.filters.append(conditions.any_of([each(n, v) for n in names for v in values]))
    else:
        keys = [k for n in names for v in values for k in conditions.keys(query.type, kind, n, modifier, v, query.base_url)]
        query.filters.append(conditions.keyed(keys, negated=modifier == "not"))


def _begins(parameter: str, value: str) -> conditions.Condition:
    return conditions.begins(parameter, unescaped(value))


def _told_apart(resource_type: str, kind: str, parameter: str) -> str:
    return "name" if kind == "string" and is_of_names(resource_type, parameter) else kind


_EACH: dict[tuple[str, str], Callable[[str, str], conditions.Condition]] = {
    ("date", ""): conditions.date,
    ("number", ""): conditions.number,
    ("quantity", ""): conditions.quantity,
    ("special", ""): lambda _, value: conditions.near(value),
    ("string", ""): _begins,
    ("name", ""): lambda parameter, value: conditions.begins_word(parameter, unescaped(value)),
    ("string", "contains"): lambda parameter, value: conditions.contains(parameter, unescaped(value)),
    ("token", "text"): lambda parameter, value: _begins(f"{parameter}:text", value),
    ("uri", "below"): lambda parameter, value: conditions.below(parameter, unescaped(value)),
    ("uri", "above"): lambda parameter, value: conditions.above(parameter, unescaped(value)),
}


def _kind(resource_type: str, parameter: str) -> str:
    known = searchable(resource_type)
    if parameter not in known:
        text = f"{resource_type} has no search parameter {parameter[:64]!r}; it has: {', '.join(sorted(known))}"
        raise not_understood(text, "invalid")
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


def _has(query: Query, name: str, value: str, depth: int) -> Has:
    """`_has:Type:parameter:search`, where the last part is any search parameter, a chain or another `_has`."""
    _, source, parameter, inner = [*name.split(":", 3), "", "", ""][:4]
    if source not in definitions.RESOURCE_TYPES or not inner:
        raise fail("invalid", f"{name[:100]} is not written _has:Type:parameter:search", status=400)
    if searchable(source).get(parameter) != "reference" or query.type not in targets(source, parameter):
        raise fail("invalid", f"{source} has no parameter {parameter[:64]!r} that refers to {query.type}", status=400)
    return Has(parameter, compile_query(source, [(inner, value)], query.base_url, depth=depth + 1))


def _hierarchy(resource_type: str, kind: str, parameter: str, value: str, *, down: bool) -> Hierarchy:
    if kind == "reference" and resource_type not in targets(resource_type, parameter):
        raise not_understood(f"{resource_type}.{parameter} is no hierarchy: :below and :above do not apply")
    if kind == "token" and len(split(value, "|")) != 2:
        raise fail("invalid", f"{parameter}:{'below' if down else 'above'} is written system|code", status=400)
    return Hierarchy(_indexed(resource_type, parameter), kind, value if kind == "token" else unescaped(value), down)


# Parameters of the result


def _result_parameter(query: Query, name: str, value: str) -> None:
    parameter, _, modifier = name.partition(":")
    if modifier and (parameter not in {"_include", "_revinclude"} or modifier not in {"iterate", "recurse"}):
        raise not_understood(f"modifier :{modifier[:64]} does not apply to {parameter}")
    RESULT_PARAMETERS[parameter](query, name, value)


def _count(query: Query, _name: str, value: str) -> None:
    count = number("_count", value)
    query.count = min(count, MAX_COUNT)
    query.only_count |= count == 0


def _sort(query: Query, _name: str, value: str) -> None:
    query.sort = sort_keys(query.type, value)


def _total(query: Query, _name: str, value: str) -> None:
    if value not in {"none", "accurate", "estimate"}:
        raise fail("invalid", "_total is none, estimate or accurate", status=400)
    query.total = value != "none"


def _summary(query: Query, _name: str, value: str) -> None:
    if value not in SUMMARIES:
        raise fail("invalid", f"_summary is one of {', '.join(sorted(SUMMARIES))}", status=400)
    query.summary = value
    query.only_count |= value == "count"


def _elements(query: Query, _name: str, value: str) -> None:
    query.elements += elements_named(value)


def _include(query: Query, name: str, value: str) -> None:
    if (wanted := include(query.type, name, value)) not in query.includes:
        query.includes.append(wanted)


def _explain(query: Query, _name: str, value: str) -> None:
    if value not in {"true", "false"}:
        raise fail("invalid", "_explain is true or false", status=400)
    query.explain = value == "true"


def _of_the_edge(_query: Query, _name: str, _value: str) -> None:
    """What the HTTP edge has already acted on."""


RESULT_PARAMETERS: dict[str, Callable[[Query, str, str], None]] = {
    "_count": _count,
    "_sort": _sort,
    "_total": _total,
    "_summary": _summary,
    "_elements": _elements,
    "_include": _include,
    "_revinclude": _include,
    "_explain": _explain,
    "_format": _of_the_edge,
    "_pretty": _of_the_edge,
    "_type": _of_the_edge,
}


def number(name: str, value: str) -> int:
    """The whole number that a result parameter holds."""
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise fail("invalid", f"{name} takes a whole number", status=400)
    return int(value)
