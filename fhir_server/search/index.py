"""From a resource to its search index: the `search` sub-document that MongoDB's indexes are built on.

`t` holds text keys, one multikey index serving them all:
    `status=active`            a code, a uri or an exact string
    `code@http://loinc.org|x`  a token with its system (`|x` when it has none), `code@http://loinc.org|` the system alone
    `subject>Patient/1`        a reference
    `>Patient/1`               any reference, for "what refers to this?"
    `family~musterfrau`        a string, folded (case, accents, white space)
Text beyond MAX_KEY is cut: a folded string ends there (it is compared by its beginning), other keys get a hash for the rest.
`d` holds dates: parameter -> {s, e}, the half-open interval [s, e) in UTC that the value stands for (FHIR R4 Search, "date"), or
a list of them where there are several. (An index serves MongoDB for sorting only as long as it holds no lists.)
`rank` is there for resources with a priority: its place in the request-priority value set, so that sorting means urgency.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from fhir_server import definitions
from fhir_server.references import target, walk
from fhir_server.search.dates import interval
from fhir_server.search.paths import compile_path

# The parameter types that are indexed and so can be searched by.
INDEXED = frozenset({"token", "reference", "string", "date", "uri"})
# What these refer to may be deleted: they tell what was, or carry resources of elsewhere.
_NO_HOLD = frozenset({"AuditEvent", "Provenance", "Bundle"})
MAX_KEY = 300
RANK = {"routine": 0, "urgent": 1, "asap": 2, "stat": 3}
# Served from the document itself, not from the index.
_BUILT_IN = frozenset({"_id", "_lastUpdated"})
# Its definition asks for what sounds alike, which is not what a string index finds.
_UNSUPPORTED = frozenset({"phonetic"})

Extractor = Callable[[dict[str, Any]], list[tuple[str, Any]]]


def fold(text: str) -> str:
    """Case, accents and runs of white space removed, as string parameters are compared (FHIR R4 Search, "string")."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())


@cache
def parameters(resource_type: str) -> dict[str, tuple[str, Extractor]]:
    """The parameters that this type is indexed by: name -> (type, extractor)."""
    return {
        name: (p.type, compile_path(p.expression, resource_type))
        for name, p in definitions.search_parameters(resource_type).items()
        if p.type in INDEXED and p.expression and name not in _BUILT_IN | _UNSUPPORTED
    }


def searchable(resource_type: str) -> dict[str, str]:
    """The parameters that a search on this type understands: name -> type. What the CapabilityStatement declares."""
    return {"_id": "token", "_lastUpdated": "date"} | {n: kind for n, (kind, _) in parameters(resource_type).items()}


@cache
def targets(resource_type: str, parameter: str) -> tuple[str, ...]:
    """The resource types that a reference parameter leads to: for `patient` just Patient, whatever else its element may hold."""
    known = definitions.search_parameters(resource_type)[parameter]
    only = re.findall(r"resolve\(\) is (\w+)", known.expression)
    narrowed = len(only) == known.expression.count("|") + 1
    return tuple(t for t in known.targets if t in only) if narrowed else known.targets


@cache
def _by_element(resource_type: str) -> dict[str, tuple[str, ...]]:
    """JSON name of an element of the resource -> the parameters that look there: most resources have few of their elements."""
    known = definitions.elements(resource_type)
    found: dict[str, list[str]] = {}
    for name in parameters(resource_type):
        expression = definitions.search_parameters(resource_type)[name].expression
        looked_at = re.findall(rf"\b(?:Resource|DomainResource|{resource_type})\.([a-z]\w*)", expression)
        for json_name in {j for e in looked_at if e in known for j in known[e].json_names} if looked_at else {"resourceType"}:
            found.setdefault(json_name, []).append(name)
    return {json_name: tuple(names) for json_name, names in found.items()}


def index(resource: dict[str, Any]) -> dict[str, Any]:
    """The `search` sub-document of a resource."""
    resource_type = resource["resourceType"]
    known, by_element = parameters(resource_type), _by_element(resource_type)
    keys: set[str] = set()
    dates: dict[str, list[dict[str, Any]]] = {}
    for name in dict.fromkeys(name for element in resource for name in by_element.get(element, ())):
        kind, extract = known[name]
        for element_type, value in extract(resource):
            if kind == "date":
                if (span := interval(element_type, value)) is not None:
                    dates.setdefault(name, []).append({"s": span[0], "e": span[1]})
            else:
                keys.update(_KEYS[kind](name, element_type, value))
    if resource_type not in _NO_HOLD:
        keys.update(f">{to}" for _, element in walk(resource, "") if (to := target(element)))
    found: dict[str, Any] = {
        "t": sorted(shortened(key) for key in keys),
        "d": {name: spans[0] if len(spans) == 1 else spans for name, spans in dates.items()},
    }
    if resource.get("priority") in RANK:
        found["rank"] = RANK[resource["priority"]]
    return found


def shortened(key: str) -> str:
    """The key as it is, or what stands for one that is too long to index."""
    return key if len(key) <= MAX_KEY else f"{key[:MAX_KEY]}#{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def folded_key(name: str, text: str) -> str:
    """The key of a string, or of its beginning, for comparison by beginning."""
    return f"{name}~{fold(text)}"[:MAX_KEY]


def _token(name: str, element_type: str, value: Any) -> Iterator[str]:
    if element_type == "CodeableConcept":
        for coding in value.get("coding", ()):
            yield from _coded(name, coding.get("system"), coding.get("code"))
    elif element_type == "Coding":
        yield from _coded(name, value.get("system"), value.get("code"))
    elif element_type == "Identifier":
        yield from _coded(name, value.get("system"), value.get("value"))
    elif element_type == "ContactPoint":
        yield from _coded(name, None, value.get("value"))
    elif isinstance(value, bool):
        yield from _coded(name, None, "true" if value else "false")
    elif isinstance(value, (str, int)):
        yield from _coded(name, None, str(value))


def _coded(name: str, system: str | None, code: str | None) -> Iterator[str]:
    if code is not None:
        yield f"{name}={code}"
        yield f"{name}@{system or ''}|{code}"
    if system:
        yield f"{name}@{system}|"


def _reference(name: str, element_type: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):  # canonical and uri: found with and without its version
        yield f"{name}>{value}"
        yield f"{name}>{value.partition('|')[0]}"
    if element_type != "Reference":
        return
    to = target(value)
    if to is not None:
        yield f"{name}>{to}"
    elif isinstance(value.get("reference"), str):
        yield f"{name}>{value['reference']}"
    if isinstance(value.get("identifier"), dict):
        yield from _coded(f"{name}:identifier", value["identifier"].get("system"), value["identifier"].get("value"))


def _string(name: str, element_type: str, value: Any) -> Iterator[str]:
    for text in _texts(element_type, value):
        yield folded_key(name, text)
        yield f"{name}={text}"


def _texts(element_type: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        members = ("text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country")
        for member in members if element_type in {"HumanName", "Address"} else ("text",):
            part = value.get(member)
            yield from (p for p in (part if isinstance(part, list) else [part]) if isinstance(p, str))


def _uri(name: str, _element_type: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield f"{name}={value}"


_KEYS: dict[str, Callable[[str, str, Any], Iterator[str]]] = {
    "token": _token,
    "reference": _reference,
    "string": _string,
    "uri": _uri,
}
