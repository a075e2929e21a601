"""The values of search parameters: separators and their escapes (FHIR R4 Search), and the systems that codes imply."""

import re
from collections.abc import Mapping
from functools import cache

from fhir_server import definitions

_ESCAPED = re.compile(r"\\([,$|\\])")


def split(value: str, separator: str) -> list[str]:
    """The parts between separators that no backslash escapes; their escapes stay as they are."""
    if "\\" not in value:
        return value.split(separator)
    found = [""]
    position = 0
    while position < len(value):
        character = value[position]
        if character == separator:
            found.append("")
        else:
            length = 2 if character == "\\" else 1
            found[-1] += value[position : position + length]
            position += length - 1
        position += 1
    return found


def unescaped(value: str) -> str:
    """The value meant by one whose `,`, `$`, `|` and backslashes are escaped by a backslash."""
    return _ESCAPED.sub(r"\1", value) if "\\" in value else value


def escaped(text: str) -> str:
    """A text as a value: the inverse of `unescaped`."""
    return re.sub(r"([,$|\\])", r"\\\1", text)


@cache
def implied_systems(resource_type: str, parameter: str) -> Mapping[str, frozenset[str]]:
    """Code system to codes for a token parameter on a `code` element, whose required binding implies its system; else empty."""
    path: str | None = resource_type
    first, *steps = definitions.search_parameters(resource_type)[parameter].expression.split(".")
    element = None
    for step in steps if first == resource_type else ():
        element = definitions.elements(path).get(step) if path else None
        path = element.children if element else None
    if element is None or element.types != ("code",) or element.binding is None:
        return {}
    return definitions.value_set(element.binding) or {}
