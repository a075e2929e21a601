"""Collects the search index of one resource, element by element.

Resources of a source are alike: categories, codes, patients and statuses come again and again. What such an element adds to the
index, where that is text keys alone, is remembered.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import orjson

from fhir_server.references import literals, target
from fhir_server.search.intervals import spans
from fhir_server.search.keys import KEYS, plain

Extractor = Callable[[dict[str, Any]], list[tuple[str, Any]]]

_INTERVALS = {"date": "dates", "number": "numbers", "quantity": "quantities"}
# Elements that are hardly ever the same twice.
_UNIQUE = frozenset({"id", "identifier", "text", "contained"})
_LARGEST = 512  # bytes of JSON of an element that is remembered
_MOST = 8_192


class Row(NamedTuple):
    """A parameter: its name, what makes its keys or intervals, and where its values are; `listed`: lists are narrowed by it."""

    name: str
    kind: str
    extract: Extractor
    listed: bool = False


_known: dict[tuple[str, str, bytes], tuple[frozenset[str], dict[str, list[str]]]] = {}


class Writer:
    """The index as it grows."""

    __slots__ = ("by_parameter", "dates", "keys", "numbers", "quantities")

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.by_parameter: dict[str, list[str]] = {}
        self.dates: dict[str, list[dict[str, Any]]] = {}
        self.numbers: dict[str, list[dict[str, Any]]] = {}
        self.quantities: dict[str, list[dict[str, Any]]] = {}

    def add_element(self, resource_type: str, element: str, value: Any, rows: Collection[Row], *, held: bool) -> None:
        """What parameters (`rows`) make of one element of a resource, and, where it is `held`, what the element refers to."""
        inner = type(value) is dict or type(value) is list
        if not rows and not inner:
            return
        key = _remembered_as(resource_type, element, value, rows) if inner else None
        known = _known.get(key) if key is not None else None
        if known is None:
            own = Writer() if key is not None else self
            own.add(rows, {"resourceType": resource_type, element: value})
            if held and inner:
                own.keys.update(referred_to(value))
            if key is None:
                return
            if len(_known) >= _MOST:
                _known.clear()
            known = _known[key] = frozenset(own.keys), own.by_parameter
        keys, by_parameter = known
        self.keys |= keys
        for name, made in by_parameter.items():
            self.by_parameter.setdefault(name, []).extend(made)

    def add(self, rows: Collection[Row], resource: dict[str, Any]) -> None:
        """What parameters make of a resource. Values that nothing can be made of are at least known to be there (`:missing`)."""
        for name, kind, extract, listed in rows:
            values = extract(resource)
            if not values:
                continue
            if kind == "plain":
                self.keys.update([f"{name}={value.casefold() if t == 'string' else plain(value)}" for t, value in values])
            elif (make := KEYS.get(kind)) is not None:
                for element_type, value in values:
                    made = list(make(name, element_type, value)) or [f"{name}:"]
                    self.keys.update(made)
                    if listed:
                        self.by_parameter.setdefault(name, []).extend(made)
            else:
                into: dict[str, list[dict[str, Any]]] = getattr(self, _INTERVALS[kind])
                for element_type, value in values:
                    if found := spans(kind, element_type, value):
                        into.setdefault(name, []).extend(found)
                    else:
                        self.keys.add(f"{name}:")


def _remembered_as(resource_type: str, element: str, value: Any, rows: Collection[Row]) -> tuple[str, str, bytes] | None:
    if element in _UNIQUE or any(row.kind in _INTERVALS for row in rows):
        return None
    try:
        written = orjson.dumps(value)
    except TypeError:  # decimals in it
        return None
    return (resource_type, element, written) if len(written) <= _LARGEST else None


def referred_to(element: Any) -> list[str]:
    """The keys of the local resources that an element refers to, at any depth."""
    return [f">{to}" for text in literals(element) if (to := target(text))]
