"""Strings: begins-with, :exact and :contains on each part of a value (3.1.1.4.8).

Of a person's name each word may be what the search begins with (R4 Patient, notes on searching names); words are apart by white
space and hyphens. Of a long one only the first count.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from tests.search_oracle.asked import Asked, unescaped

_PARTS = {
    "HumanName": ("text", "family", "given", "prefix", "suffix"),
    "Address": ("text", "line", "city", "district", "state", "postalCode", "country"),
}


def fold(text: str) -> str:
    """Without case, combining marks and punctuation, unless there is nothing else, and with one blank for white space."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = [c for c in decomposed if not unicodedata.combining(c)]
    letters = [c for c in bare if unicodedata.category(c)[0] != "P"]
    return " ".join("".join(letters or bare).split())


def parts(element_type: str, value: Any) -> Iterator[str]:
    """The texts in a value: of a name or an address those elements that are strings."""
    if isinstance(value, str):
        yield value
    for name in _PARTS.get(element_type, ()):
        found = value.get(name, [])
        yield from [found] if isinstance(found, str) else [text for text in found if text is not None]


def matches(asked: Asked, element_type: str, value: Any) -> bool:
    """Whether one part answers the search."""
    wanted, found = unescaped(asked.text), list(parts(element_type, value))
    if asked.modifier == "" and asked.is_name:
        found = [part[begin:] for part in found for begin in _beginnings(part)]
    return any(text_matches(asked.modifier, wanted, part) for part in found)


def _beginnings(name: str) -> list[int]:
    """Where the words of a name begin: the first and at most twenty more."""
    return [0, *(word.start() for word in re.finditer(r"(?<=[\s-])(?=[^\s-])", name) if word.start())][:21]


def text_matches(modifier: str, wanted: str, text: str) -> bool:
    """One text against the one that is looked for."""
    match modifier:
        case "exact":
            return text == wanted
        case "contains":
            return fold(wanted) in fold(text)
        case _:
            return fold(text).startswith(fold(wanted))
