"""Where a Reference may point: literal references by their type, `Reference.type` by its value (FHIR R4 2.3.0)."""

import re
from typing import Any

from fhir_server.definitions import RESOURCE_TYPES
from fhir_server.validation.problems import Check, Problem, problem

_ID = r"[A-Za-z0-9\-.]{1,64}"
_RELATIVE = re.compile(rf"([A-Z][A-Za-z]+)/{_ID}(?:/_history/{_ID})?").fullmatch
_ABSOLUTE = re.compile(rf"https?://[^?#]+/([A-Z][A-Za-z]+)/{_ID}(?:/_history/{_ID})?").fullmatch
_CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?.+").fullmatch
_ELSEWHERE = re.compile(r"#.*|[A-Za-z][A-Za-z0-9+.\-]*:.+").fullmatch
_STRUCTURE = "http://hl7.org/fhir/StructureDefinition/"


def reference_check(shape: Check, targets: tuple[str, ...]) -> Check:
    """The check of a Reference element. `shape` checks its parts; empty `targets`: any resource type.

    `#contained`, `urn:` and identifier-only references say nothing of a type and pass, as do absolute URLs that are not RESTful.
    """
    allowed = frozenset(targets) or RESOURCE_TYPES

    def check(value: Any, depth: int) -> list[Problem] | None:
        problems = shape(value, depth)
        if problems:
            return problems
        literal = value.get("reference")
        if literal is not None:
            match = _RELATIVE(literal)
            if match is None or match[1] not in allowed:
                problems = _check_literal(literal, allowed)
        return problems or (_check_type(value, allowed) if "type" in value else None)

    return check


def _check_literal(literal: str, allowed: frozenset[str]) -> list[Problem] | None:
    local = _RELATIVE(literal) or _CONDITIONAL(literal)
    if local is None and not _ELSEWHERE(literal):
        return problem("value", "A reference is Type/id, an absolute URL, a urn: or #id", ".reference")
    match = local or _ABSOLUTE(literal)
    if match is None or match[1] in allowed or (local is None and match[1] not in RESOURCE_TYPES):
        return None
    return problem("value", _expected(match[1], allowed), ".reference")


def _check_type(value: dict[str, Any], allowed: frozenset[str]) -> list[Problem] | None:
    name = value["type"].removeprefix(_STRUCTURE)
    if name not in RESOURCE_TYPES:
        return None if ":" in name else problem("value", f"R4 has no resource type {name[:64]!r}", ".type")
    if name not in allowed:
        return problem("value", _expected(name, allowed), ".type")
    literal = value.get("reference", "")
    match = _RELATIVE(literal) or _CONDITIONAL(literal)
    if match and match[1] != name:
        return problem("invariant", f"The type is {name}, but the reference points to {match[1]}", ".type")
    return None


def _expected(name: str, allowed: frozenset[str]) -> str:
    if name not in RESOURCE_TYPES:
        return f"R4 has no resource type {name[:64]!r}"
    return f"This may not refer to {name}, but to: {', '.join(sorted(allowed))}"
