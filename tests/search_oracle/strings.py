"""Strings: begins-with, :exact and :contains on each part of a value (3.1.1.4.8)."""

import unicodedata
from collections.abc import Iterator
from typing import Any

from tests.search_oracle.asked import Asked, unescaped

_PARTS = {
    "HumanName": ("text", "family", "given", "prefix", "suffix"),
    "Address": ("text", "line", "city", "district", "state", "postalCode", "country"),
}


def fold(text: str) -> str:
    """Without case, without combining marks, and with one blank for a run of white space."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())


def parts(element_type: str, value: Any) -> Iterator[str]:
    """The texts in a value: of a name or an address those elements that are strings."""
    if isinstance(value, str):
        yield value
    for name in _PARTS.get(element_type, ()):
        found = value.get(name, [])
        yield from [found] if isinstance(found, str) else [text for text in found if text is not None]


def matches(asked: Asked, element_type: str, value: Any) -> bool:
    """Whether one part answers the search."""
    return any(text_matches(asked.modifier, unescaped(asked.text), part) for part in parts(element_type, value))


def text_matches(modifier: str, wanted: str, text: str) -> bool:
    """One text against the one that is looked for."""
    match modifier:
        case "exact":
            return text == wanted
        case "contains":
            return fold(wanted) in fold(text)
        case _:
            return fold(text).startswith(fold(wanted))
