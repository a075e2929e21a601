"""From a resource to its search index: the `search` sub-document that MongoDB's indexes are built on.

`t`  text keys (`keys.py`), one multikey index serving them all.
`d`  dates: parameter -> {s, e}, the half-open interval [s, e) in UTC that the value stands for (FHIR R4 Search, "date"), or a
     list of them where there are several. (An index serves MongoDB for sorting only as long as it holds no lists.)
`n`  numbers: parameter -> {l, h}, or a list (`intervals.py`); `q` quantities: parameter -> a list of {u, l, h}.
`c`  composites: parameter -> a list of groups (`composites.py`), looked at only where a key of `t` has led to the resource.
`g`  places: parameter -> a GeoJSON point.
`by`, `from`, `to`  of types that long lists are made of (LISTED): those keys of `t` by which the lists are narrowed, and the
     first and the last moment of the date that they are in order of. One index has key and date together.
`!denies` among the keys marks an active Consent with a provision that denies something, which rights look for.
`rank` is there for resources with a priority: its place in the request-priority value set, so that sorting means urgency.
"""

import re
from collections.abc import Callable, Collection
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

from fhir_server import definitions
from fhir_server.definitions import SearchParameter
from fhir_server.references import literals, target
from fhir_server.search.composites import Composite, composite
from fhir_server.search.dates import interval
from fhir_server.search.intervals import number, quantities
from fhir_server.search.keys import KEYS, MAX_KEY, plain, shortened
from fhir_server.search.paths import compile_path

# What these refer to may be deleted: they tell what was, or carry resources of elsewhere.
NO_HOLD = frozenset({"AuditEvent", "Provenance", "Bundle"})
RANK = {"routine": 0, "urgent": 1, "asap": 2, "stat": 3}
# Served from the document itself, not from the index.
_BUILT_IN = frozenset({"_id", "_lastUpdated"})
DENIES = "!denies"
LISTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "Observation": ("date", ("patient", "subject", "code")),
    "DiagnosticReport": ("date", ("patient", "subject", "code")),
    "ServiceRequest": ("authored", ("patient", "subject", "code")),
    "ImagingStudy": ("started", ("patient", "subject")),
    "Appointment": ("date", ("patient", "location")),
    "Task": ("authored-on", ("patient", "owner", "code")),
}
"""By type: the date that its lists are in order of, newest first, and the parameters that they are narrowed by."""
# Its definition asks for what sounds alike, which is not what a string index finds.
_UNSUPPORTED = frozenset({"phonetic"})
_TYPES = frozenset({"token", "reference", "string", "date", "uri", "number", "quantity"})

Extractor = Callable[[dict[str, Any]], list[tuple[str, Any]]]


@cache
def parameters(resource_type: str) -> dict[str, tuple[str, Extractor]]:
    """The parameters that this type is indexed by, one value at a time: name -> (type, extractor)."""
    return {
        name: (p.type, compile_path(p.expression, resource_type))
        for name, p in definitions.search_parameters(resource_type).items()
        if p.type in _TYPES and p.expression and name not in _BUILT_IN | _UNSUPPORTED
    }


@cache
def composites(resource_type: str) -> dict[str, Composite]:
    """The composite parameters of this type by name."""
    known = definitions.search_parameters(resource_type)
    return {name: composite(resource_type, p) for name, p in known.items() if p.type == "composite"}


@cache
def _grouped(resource_type: str) -> dict[str, Composite]:
    """Those of them that are indexed."""
    return {name: one for name, one in composites(resource_type).items() if name not in unions(resource_type)}


@cache
def unions(resource_type: str) -> dict[str, tuple[str, ...]]:
    """Parameters that are no more than others together, such as Observation's `combo-code`: name -> those others.

    They are not indexed, but searched for as those.
    """
    known = {
        n: p for n, p in definitions.search_parameters(resource_type).items() if p.type in {"token", "quantity", "composite"}
    }
    looks = {n: _operands(p.expression) for n, p in known.items() if p.expression}
    found: dict[str, tuple[str, ...]] = {}
    for name, operands in looks.items():
        alike = [n for n in looks if known[n].type == known[name].type and _relative(known[n]) == _relative(known[name])]
        parts = tuple(n for n in alike if looks[n] < operands)
        if parts and frozenset[str]().union(*(looks[n] for n in parts)) == operands:
            found[name] = parts
    return found


def _operands(expression: str) -> frozenset[str]:
    return frozenset(operand.strip() for operand in expression.split("|"))


def _relative(parameter: SearchParameter) -> list[str]:
    return [expression for _, expression in parameter.components]


@cache
def searchable(resource_type: str) -> dict[str, str]:
    """The parameters that a search on this type understands: name -> type. What the CapabilityStatement declares."""
    found = {"_id": "token", "_lastUpdated": "date"} | {n: kind for n, (kind, _) in parameters(resource_type).items()}
    found |= dict.fromkeys(composites(resource_type), "composite")
    return found | ({"near": "special"} if resource_type == "Location" else {})


@cache
def targets(resource_type: str, parameter: str) -> tuple[str, ...]:
    """The resource types that a reference parameter leads to: for `patient` just Patient, whatever else its element may hold."""
    known = definitions.search_parameters(resource_type)[parameter]
    only = re.findall(r"resolve\(\) is (\w+)", known.expression)
    narrowed = len(only) == known.expression.count("|") + 1
    return tuple(t for t in known.targets if t in only) if narrowed else known.targets


@cache
def is_plain(resource_type: str, parameter: str) -> bool:
    """Whether a token parameter looks at primitives only (`code`, `id`, `boolean`, ...), whose values carry no system."""
    extract = compile_path(definitions.search_parameters(resource_type)[parameter].expression, resource_type)
    return extract.types <= definitions.primitive_types()


@cache
def is_of_names(resource_type: str, parameter: str) -> bool:
    """Whether a string parameter looks at persons' names."""
    name = definitions.elements(resource_type).get("name")
    expression = definitions.search_parameters(resource_type)[parameter].expression
    whole = f"{resource_type}.name"
    return name is not None and name.types == ("HumanName",) and expression in {whole, f"{whole}.family", f"{whole}.given"}


@cache
def is_caseless(resource_type: str, parameter: str) -> bool:
    """Whether a token parameter looks at plain text, which has no case for it (FHIR R4 Search, "token")."""
    extract = compile_path(definitions.search_parameters(resource_type)[parameter].expression, resource_type)
    return extract.types == {"string"}


@cache
def _by_element(resource_type: str) -> dict[str, tuple[tuple[str, str, Extractor], ...]]:
    """JSON name of an element of the resource (`meta.tag` in its meta) -> the parameters that look there.

    Most resources have few of their elements, so few of their parameters need a look.
    """
    found: dict[str, list[tuple[str, str, Extractor]]] = {}
    for name, (kind, extract) in parameters(resource_type).items():
        if name not in unions(resource_type):
            row = (name, _kind_of_keys(resource_type, name, kind), extract)
            for json_name in looks_at(resource_type, name):
                found.setdefault(json_name, []).append(row)
    return {json_name: tuple(rows) for json_name, rows in found.items()}


def _kind_of_keys(resource_type: str, parameter: str, kind: str) -> str:
    """What makes the keys of a parameter: that of its type, or a particular one."""
    if kind == "token" and is_plain(resource_type, parameter):
        return "plain"
    return "name" if kind == "string" and is_of_names(resource_type, parameter) else kind


@lru_cache(16_384)  # resources of a source are alike
def _rows(resource_type: str, elements: tuple[str, ...], of_meta: tuple[str, ...]) -> tuple[tuple[str, str, Extractor], ...]:
    """What has to be looked at in a resource that has these elements."""
    by_element = _by_element(resource_type)
    names = [*elements, *(f"meta.{member}" for member in of_meta)]
    return tuple(dict.fromkeys(row for name in names for row in by_element.get(name, ())))


@cache
def looks_at(resource_type: str, parameter: str) -> set[str]:
    """The JSON names that a parameter's expression begins with; `resourceType`, which is always there, if that is not plain."""
    known = definitions.elements(resource_type)
    expression = definitions.search_parameters(resource_type)[parameter].expression
    found: set[str] = set()
    if "exists()" in expression:  # says something of what is not there, too
        return {"resourceType"}
    for element, rest in re.findall(rf"\b(?:Resource|DomainResource|{resource_type})\.([a-z]\w*)([^|]*)", expression):
        if element not in known:
            continue
        names = known[element].json_names
        as_type = re.match(r"\s+as (\w+)|\.(?:as|ofType)\((\w+)\)", rest)
        wanted = (as_type[1] or as_type[2]) if as_type else None
        member = re.match(r"\.(\w+)", rest)
        if element == "meta" and member:
            found.add(f"meta.{member[1]}")
        else:
            found.update(n for n, t in names.items() if wanted not in names.values() or t == wanted)
    return found or {"resourceType"}


@cache
def ranked(resource_type: str) -> bool:
    """Whether the resources of this type have a request-priority."""
    known = definitions.elements(resource_type).get("priority")
    return known is not None and known.types == ("code",)


def index(resource: dict[str, Any]) -> dict[str, Any]:
    """The `search` sub-document of a resource."""
    resource_type = resource["resourceType"]
    writer = _Writer()
    for name, kind, extract in _rows(resource_type, tuple(resource), tuple(resource.get("meta", ()))):
        writer.add(kind, name, extract(resource))
    keys = writer.keys
    if resource_type not in NO_HOLD:
        keys.update(f">{to}" for text in literals(resource) if (to := target(text)))
    found: dict[str, Any] = {"d": _single(writer.dates)}
    if resource_type in LISTED:
        found |= _of_lists(resource_type, writer)
    if writer.numbers:
        found["n"] = _single(writer.numbers)
    if writer.quantities:
        found["q"] = writer.quantities
    grouped = _grouped(resource_type)
    present = resource.keys()
    if groups := {n: g for n, one in grouped.items() if not one.needed.isdisjoint(present) and (g := one.groups(resource))}:
        found["c"] = groups
        keys.update(key for name, one in groups.items() for key in grouped[name].leading_keys(one))
    if resource_type == "Location" and (point := _point(resource)):
        found["g"] = {"near": point}
    if resource_type == "Consent" and resource.get("status") == "active" and denies(resource.get("provision")):
        keys.add(DENIES)
    if isinstance(priority := resource.get("priority"), str) and priority in RANK:
        found["rank"] = RANK[priority]
    return {"t": sorted(_shortened(keys)), **found}


def _of_lists(resource_type: str, writer: "_Writer") -> dict[str, Any]:
    date, names = LISTED[resource_type]
    by = [key for name in names for key in writer.by_parameter.get(name, ()) if key[len(name)] in _OF_LISTS]
    found: dict[str, Any] = {"by": _shortened(by)}
    if spans := writer.dates.get(date):
        first = last = spans[0]
        if len(spans) > 1:
            first, last = min(spans, key=lambda span: span["s"]), max(spans, key=lambda span: span["e"])
        found["from"], found["to"] = first["s"], last["e"]
    return found


def _shortened(keys: Collection[str]) -> Collection[str]:
    """The keys as they are to be indexed; hardly ever is one too long."""
    return [shortened(key) for key in keys] if keys and max(map(len, keys)) > MAX_KEY else keys


def denies(provision: Any) -> bool:
    """Whether a provision of a Consent, or one inside it, denies."""
    if not isinstance(provision, dict):
        return False
    return provision.get("type") == "deny" or any(denies(inner) for inner in provision.get("provision", ()))


def _single(intervals: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Lists of one as that one."""
    return {name: spans[0] if len(spans) == 1 else spans for name, spans in intervals.items()}


class _Writer:
    """Collects the index of one resource."""

    __slots__ = ("by_parameter", "dates", "keys", "numbers", "quantities")

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.by_parameter: dict[str, list[str]] = {}
        self.dates: dict[str, list[dict[str, Any]]] = {}
        self.numbers: dict[str, list[dict[str, Any]]] = {}
        self.quantities: dict[str, list[dict[str, Any]]] = {}

    def add(self, kind: str, name: str, values: list[tuple[str, Any]]) -> None:
        """The values of one parameter. What nothing can be made of is at least known to be there (`:missing`)."""
        if kind == "plain":
            self.keys.update([f"{name}={value.casefold() if t == 'string' else plain(value)}" for t, value in values])
        elif (make := KEYS.get(kind)) is not None:
            for element_type, value in values:
                made = list(make(name, element_type, value)) or [f"{name}:"]
                self.keys.update(made)
                if name in _LISTED_BY:
                    self.by_parameter.setdefault(name, []).extend(made)
        else:
            into: dict[str, list[dict[str, Any]]] = getattr(self, _INTERVALS[kind])
            for element_type, value in values:
                if found := _intervals(kind, element_type, value):
                    into.setdefault(name, []).extend(found)
                else:
                    self.keys.add(f"{name}:")


_LISTED_BY = frozenset(name for _, names in LISTED.values() for name in names)
_OF_LISTS = frozenset("=@>")  # a code, a token with its system, a reference: not the text beside them
_INTERVALS = {"date": "dates", "number": "numbers", "quantity": "quantities"}


def _intervals(kind: str, element_type: str, value: Any) -> list[dict[str, Any]]:
    if kind == "date":
        span = interval(element_type, value)
        return [{"s": span[0], "e": span[1]}] if span else []
    if kind == "number":
        at = number(value)
        return [at] if at else []
    return quantities(value)


def _point(location: dict[str, Any]) -> dict[str, Any] | None:
    """GeoJSON of Location.position, where it is on the globe."""
    position = location.get("position", {})
    longitude, latitude = position.get("longitude"), position.get("latitude")
    if not isinstance(longitude, (int, Decimal)) or not isinstance(latitude, (int, Decimal)):
        return None
    if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):
        return None
    return {"type": "Point", "coordinates": [float(longitude), float(latitude)]}
