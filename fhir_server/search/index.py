"""From a resource to its search index: the `search` sub-document that MongoDB's indexes are built on.

`t`  text keys (`keys.py`), one multikey index serving them all.
`d`  dates: parameter -> {s, e}, the half-open interval [s, e) in UTC that the value stands for (FHIR R4 Search, "date"), or a
     list of them where there are several. (An index serves MongoDB for sorting only as long as it holds no lists.)
`n`  numbers: parameter -> {l, h}, or a list (`intervals.py`); `q` quantities: parameter -> a list of {u, l, h}.
`c`  composites: parameter -> a list of groups (`composites.py`), looked at only where a key of `t` has led to the resource.
`g`  places: parameter -> a GeoJSON point.
`by`, `from`, `to`  of types that long lists are made of (LISTED): those keys of `t` by which the lists are narrowed, and the
     first and the last moment of the date that they are in order of. One index has key and date together. Where these are more
     than SHORT apart, the keys are marked (`lasting`): the last moment of all others says nearly when they began, too.
`!denies` among the keys marks an active Consent with a provision that denies something, which rights look for.
`rank` is there for resources with a priority: its place in the request-priority value set, so that sorting means urgency.
"""

import re
from collections.abc import Collection
from datetime import timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from fhir_server import definitions
from fhir_server.definitions import SearchParameter
from fhir_server.search.composites import Composite, composite
from fhir_server.search.index_writer import Extractor, Row, Writer, referred_to
from fhir_server.search.keys import MAX_KEY, shortened
from fhir_server.search.paths import compile_path

# What these refer to may be deleted: they tell what was, or carry resources of elsewhere.
NO_HOLD = frozenset({"AuditEvent", "Provenance", "Bundle"})
RANK = {"routine": 0, "urgent": 1, "asap": 2, "stat": 3}
_OF_LISTS = frozenset("=@>")  # a code, a token with its system, a reference: not the text beside them
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
SHORT = timedelta(days=1)
# Its definition asks for what sounds alike, which is not what a string index finds.
_UNSUPPORTED = frozenset({"phonetic"})
_TYPES = frozenset({"token", "reference", "string", "date", "uri", "number", "quantity"})


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
def _by_element(resource_type: str) -> dict[str, tuple[Row, ...]]:
    """JSON name of an element of the resource (`meta.tag` in its meta) -> the parameters that look there and nowhere else.

    Under `resourceType`, which is always there, those that look at the whole. Most resources have few of their elements, so few
    of their parameters need a look.
    """
    listed = LISTED.get(resource_type, ("", ()))[1]
    found: dict[str, list[Row]] = {}
    for name, (kind, extract) in parameters(resource_type).items():
        if name not in unions(resource_type):
            row = Row(name, _kind_of_keys(resource_type, name, kind), extract, name in listed)
            for json_name in looks_at(resource_type, name):
                found.setdefault(json_name, []).append(row)
    return {json_name: tuple(rows) for json_name, rows in found.items()}


def _kind_of_keys(resource_type: str, parameter: str, kind: str) -> str:
    """What makes the keys of a parameter: that of its type, or a particular one."""
    if kind == "token" and is_plain(resource_type, parameter):
        return "plain"
    return "name" if kind == "string" and is_of_names(resource_type, parameter) else kind


@cache
def looks_at(resource_type: str, parameter: str) -> set[str]:
    """The JSON names that a parameter's expression begins with; `resourceType`, which is always there, if that is not plain."""
    known = definitions.elements(resource_type)
    expression = definitions.search_parameters(resource_type)[parameter].expression
    found: set[str] = set()
    if "exists()" in expression or "%resource" in expression:  # says something of what is not there, or elsewhere, too
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
    rows, held = _by_element(resource_type), resource_type not in NO_HOLD
    writer = Writer()
    for element, value in resource.items():
        if element == "resourceType":
            writer.add(rows.get(element, ()), resource)
        elif element == "meta":
            for member in value:
                writer.add(rows.get(f"meta.{member}", ()), resource)
            if held:
                writer.keys.update(referred_to(value))
        else:
            writer.add_element(resource_type, element, value, rows.get(element, ()), held=held)
    keys = writer.keys
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


def _of_lists(resource_type: str, writer: Writer) -> dict[str, Any]:
    date, names = LISTED[resource_type]
    by = [key for name in names for key in writer.by_parameter.get(name, ()) if key[len(name)] in _OF_LISTS]
    found: dict[str, Any] = {"by": _shortened(by)}
    if spans := writer.dates.get(date):
        first = last = spans[0]
        if len(spans) > 1:
            first, last = min(spans, key=lambda span: span["s"]), max(spans, key=lambda span: span["e"])
        found["from"], found["to"] = first["s"], last["e"]
        if last["e"] - first["s"] > SHORT:
            found["by"] = [lasting(key) for key in found["by"]]
    return found


def lasting(key: str) -> str:
    """The key in `by` of what lasts longer than SHORT."""
    return f"~{key}"


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


def _point(location: dict[str, Any]) -> dict[str, Any] | None:
    """GeoJSON of Location.position, where it is on the globe."""
    position = location.get("position", {})
    longitude, latitude = position.get("longitude"), position.get("latitude")
    if not isinstance(longitude, (int, Decimal)) or not isinstance(latitude, (int, Decimal)):
        return None
    if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):
        return None
    return {"type": "Point", "coordinates": [float(longitude), float(latitude)]}
