"""fixed[x], pattern[x] and lists of codes: whether a value is what a profile wants (FHIR R4 ElementDefinition 2.28.2)."""

from collections.abc import Callable, Mapping
from typing import Any

from fhir_server.definitions import value_set
from fhir_server.fhirpath.items import frozen

Lookup = Callable[[str], dict[str, Any] | None]
"""From the canonical URL of a StructureDefinition, ValueSet or CodeSystem to the resource, if it is loaded."""

Codes = Mapping[str, frozenset[str]]
"""Code system to codes."""


def is_fixed(value: Any, wanted: Any) -> bool:
    """Whether a value is exactly the wanted one."""
    return bool(frozen(value) == frozen(wanted))


def matches_pattern(value: Any, pattern: Any) -> bool:
    """Whether a value has all that the pattern has: every member, and for every item of an array one that matches it."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            key in value and matches_pattern(value[key], part) for key, part in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(matches_pattern(item, part) for item in value) for part in pattern)
    return is_fixed(value, pattern)


def codes_of(canonical: str, lookup: Lookup) -> Codes | None:
    """The codes of a value set: R4's own for required bindings, else of a loaded one that lists them. None: not known."""
    url = canonical.split("|")[0]
    known = value_set(url)
    if known is not None:
        return known
    loaded = lookup(url)
    if loaded is None or loaded.get("resourceType") != "ValueSet":
        return None
    if "expansion" in loaded:
        found: dict[str, set[str]] = {}
        _expanded(loaded["expansion"].get("contains", ()), found)
    else:
        composed = _composed(loaded.get("compose", {}), lookup)
        if composed is None:
            return None
        found = composed
    return {system: frozenset(codes) for system, codes in found.items()}


def _expanded(contains: Any, found: dict[str, set[str]]) -> None:
    for concept in contains:
        if "code" in concept and not concept.get("abstract"):
            found.setdefault(concept.get("system", ""), set()).add(concept["code"])
        _expanded(concept.get("contains", ()), found)


def _composed(compose: dict[str, Any], lookup: Lookup) -> dict[str, set[str]] | None:
    found: dict[str, set[str]] = {}
    if "exclude" in compose:
        return None
    for part in compose.get("include", ()):
        if "filter" in part or "valueSet" in part or "system" not in part:
            return None
        if "concept" in part:
            codes = {concept["code"] for concept in part["concept"]}
        else:
            system = lookup(part["system"])
            if system is None or system.get("content") != "complete":
                return None
            codes = set(_declared(system.get("concept", ())))
        found.setdefault(part["system"], set()).update(codes)
    return found


def _declared(concepts: Any) -> list[str]:
    return [code for c in concepts for code in (c["code"], *_declared(c.get("concept", ())))]


def is_coded(value: Any, codes: Codes) -> bool:
    """Whether a code, Coding, Quantity or CodeableConcept is from these codes."""
    if isinstance(value, str):
        return any(value in of_system for of_system in codes.values())
    codings = value.get("coding", [] if "text" in value else [value]) if isinstance(value, dict) else []
    return any(coding.get("code") in codes.get(coding.get("system"), ()) for coding in codings)
