"""From a resource to its search index: the `search` sub-document that MongoDB's indexes are built on.

`t` holds text keys, one multikey index serving them all:
    `status=active`            a code, a uri or an exact string
    `code@http://loinc.org|x`  a token with its system (`|x` when it has none), `code@http://loinc.org|` the system alone
    `subject>Patient/1`        a reference
    `>Patient/1`               any reference, for "what refers to this?"
    `family~musterfrau`        a string, folded (case, accents, white space)
`d` holds dates: parameter -> list of {s, e}, the half-open interval [s, e) in UTC that the value stands for (FHIR R4 3.1.1.5.2).
`rank` is there for resources with a priority: its place in the request-priority value set, so that sorting means urgency.
"""

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
# What these refer to may be deleted: they tell what was.
_ABOUT_THE_PAST = frozenset({"AuditEvent", "Provenance"})
RANK = {"routine": 0, "urgent": 1, "asap": 2, "stat": 3}
# Served from the document itself, not from the index.
_BUILT_IN = frozenset({"_id", "_lastUpdated"})

Extractor = Callable[[dict[str, Any]], list[tuple[str, Any]]]


def fold(text: str) -> str:
    """Case, accents and runs of white space removed, as string parameters are compared (FHIR R4 3.1.1.5.4)."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())


@cache
def parameters(resource_type: str) -> dict[str, tuple[str, Extractor]]:
    """The parameters that this type is indexed by: name -> (type, extractor)."""
    return {
        name: (p.type, compile_path(p.expression, resource_type))
        for name, p in definitions.search_parameters(resource_type).items()
        if p.type in INDEXED and p.expression and name not in _BUILT_IN
    }


def index(resource: dict[str, Any]) -> dict[str, Any]:
    """The `search` sub-document of a resource."""
    keys: set[str] = set()
    dates: dict[str, list[dict[str, Any]]] = {}
    for name, (kind, extract) in parameters(resource["resourceType"]).items():
        for element_type, value in extract(resource):
            if kind == "date":
                if (span := interval(element_type, value)) is not None:
                    dates.setdefault(name, []).append({"s": span[0], "e": span[1]})
            else:
                keys.update(_KEYS[kind](name, element_type, value))
    if resource["resourceType"] not in _ABOUT_THE_PAST:
        keys.update(f">{to}" for _, element in walk(resource, "") if (to := target(element)))
    found: dict[str, Any] = {"t": sorted(keys), "d": dates}
    if resource.get("priority") in RANK:
        found["rank"] = RANK[resource["priority"]]
    return found


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
    if element_type != "Reference":  # canonical and uri
        yield f"{name}>{value}"
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
        yield f"{name}~{fold(text)}"
        yield f"{name}={text}"


def _texts(element_type: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        members = ("text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country")
        for member in members if element_type in {"HumanName", "Address"} else ("text",):
            part = value.get(member)
            yield from part if isinstance(part, list) else [part] if isinstance(part, str) else []


def _uri(name: str, _element_type: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield f"{name}={value}"


_KEYS: dict[str, Callable[[str, str, Any], Iterator[str]]] = {
    "token": _token,
    "reference": _reference,
    "string": _string,
    "uri": _uri,
}
