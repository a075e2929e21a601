"""Tokens: codes, identifiers and other texts that are met as a whole, alone or with their system (3.1.1.4.10).

Comparison is case-sensitive, but for elements of type string. :not is not here: it turns the answer for the whole resource
around (see `oracle.py`).
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from fhir_server.definitions import SearchParameter, elements, value_set
from tests.search_oracle.asked import Asked, split, unescaped
from tests.search_oracle.strings import text_matches

Pair = tuple[str | None, str | None]
"""A system and a code."""


def matches(asked: Asked, element_type: str, value: Any) -> bool:
    """Whether one value answers the search."""
    match asked.modifier:
        case "text":
            return any(text_matches("", unescaped(asked.text), text) for text in texts(element_type, value))
        case "of-type":
            return is_of_type(asked.text, value)
        case _:
            found = pairs(asked.resource_type, asked.parameter, element_type, value)
            return any(pair_matches(asked.text, pair, ignore_case=element_type == "string") for pair in found)


def pair_matches(searched: str, pair: Pair, *, ignore_case: bool = False) -> bool:
    """`code`, `system|code`, `|code` (no system) or `system|` (any code) against a system and a code."""
    system, code = pair
    *wanted_system, wanted = [unescaped(part) for part in split(searched, "|")]
    if wanted_system and (system or "") != wanted_system[0]:
        return False
    if wanted_system and not wanted:
        return True
    return code is not None and (code.casefold() == wanted.casefold() if ignore_case else code == wanted)


def pairs(resource_type: str, parameter: SearchParameter, element_type: str, value: Any) -> Iterator[Pair]:
    """The systems and codes that a value can be found by."""
    match element_type:
        case "CodeableConcept":
            yield from ((coding.get("system"), coding.get("code")) for coding in value.get("coding", ()))
        case "Coding":
            yield value.get("system"), value.get("code")
        case "Identifier":
            yield value.get("system"), value.get("value")
        case "ContactPoint":
            yield None, value.get("value")
        case "boolean":
            yield None, "true" if value else "false"
        case "code":
            yield None, value
            yield from ((system, value) for system in implied_systems(resource_type, parameter.expression, value))
        case _:
            yield None, str(value)


def texts(element_type: str, value: Any) -> list[str]:
    """What :text looks at: CodeableConcept.text and the displays of its codings, Coding.display, Identifier.type.text."""
    match element_type:
        case "CodeableConcept":
            found = [value.get("text"), *(coding.get("display") for coding in value.get("coding", ()))]
        case "Coding":
            found = [value.get("display")]
        case "Identifier":
            found = [value.get("type", {}).get("text")]
        case _:
            found = []
    return [text for text in found if text is not None]


def is_of_type(searched: str, identifier: dict[str, Any]) -> bool:
    """`system|code|value`: the first two are those of Identifier.type."""
    system, code, value = [unescaped(part) for part in split(searched, "|")]
    typed = identifier.get("type", {}).get("coding", ())
    return identifier.get("value") == value and any((c.get("system"), c.get("code")) == (system, code) for c in typed)


@cache
def implied_systems(resource_type: str, expression: str, code: str) -> tuple[str, ...]:
    """The systems that a plain `code` belongs to: those of the value set that its element is bound to by `required`."""
    found: list[str] = []
    for path in expression.split("|"):
        binding = _binding(resource_type, path.strip())
        systems = value_set(binding) if binding else None
        found += [system for system, codes in (systems or {}).items() if code in codes]
    return tuple(found)


def _binding(resource_type: str, path: str) -> str | None:
    """The value set of the element that a plain dotted path ends at."""
    steps = re.sub(r"\.where\([^)]*\)", "", path).split(".")
    if steps[0] != resource_type or not all(step.isalnum() for step in steps):
        return None
    at = resource_type
    for step in steps[1:-1]:
        at = elements(at)[step].children or ""
    return elements(at)[steps[-1]].binding
