"""Composite parameters: several values that must be met by one and the same element (FHIR R4 Search, "composite").

Each element with a value for every component becomes a group: {k: the keys of its text-like components, each led by the
component's number, and under that number the intervals of the others}. The keys of the first component, a token in all of R4's,
are also in `t` under `<parameter>$`, so that an index leads to the resource and only the few found are looked into.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from fhir_server import definitions
from fhir_server.definitions import SearchParameter
from fhir_server.search.intervals import spans
from fhir_server.search.keys import KEYS, shortened
from fhir_server.search.paths import CompiledPath, PathError, compile_path

Group = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Component:
    """One part: the parameter whose values it takes, and that one's type."""

    name: str
    kind: str
    expression: str


@dataclass(frozen=True, slots=True)
class Composite:
    """A composite parameter of one resource type."""

    name: str
    elements: CompiledPath
    components: tuple[Component, ...]
    # The JSON names of which a resource must have one to have any group: most have none.
    needed: frozenset[str]

    def groups(self, resource: dict[str, Any]) -> list[Group]:
        """The groups of a resource: those elements that have a value for each component."""
        found = (self._group(element_type, element, resource) for element_type, element in self.elements(resource))
        return [group for group in found if group is not None]

    def _group(self, element_type: str, element: Any, resource: dict[str, Any]) -> Group | None:
        # The last component is the value, which is most often of another type: it is looked for first.
        found: list[list[tuple[str, Any]]] = []
        for component in reversed(self.components):
            values = _extractor(component.expression, element_type)(element, resource)
            if not values:
                return None
            found.append(values)
        group: Group = {}
        keys: list[str] = []
        for i, (component, values) in enumerate(zip(self.components, reversed(found), strict=True)):
            before = len(keys)
            intervals: list[Any] = []
            for value_type, value in values:
                if component.kind in KEYS:
                    keys += (shortened(k) for k in KEYS[component.kind](str(i), value_type, value))
                else:
                    intervals += spans(component.kind, value_type, value)
            if len(keys) == before and not intervals:
                return None
            if intervals:
                group[str(i)] = intervals
        return {"k": keys, **group}

    def leading_keys(self, groups: list[Group]) -> Iterator[str]:
        """The codes of the first component, or its system where it has no code, for the text index."""
        wanted = (key for group in groups for key in group["k"] if key[:2] == "0=" or (key[:2] == "0@" and key[-1] == "|"))
        return (f"{self.name}${key[1:]}" for key in wanted)


def composite(resource_type: str, parameter: SearchParameter) -> Composite:
    """The composite parameter of this definition."""
    known = definitions.search_parameters(resource_type)
    parts = tuple(Component(name, _kind(known, name), expression) for name, expression in parameter.components)
    return Composite(parameter.name, compile_path(parameter.expression, resource_type), parts, _needed(resource_type, parameter))


def _needed(resource_type: str, parameter: SearchParameter) -> frozenset[str]:
    """For `Type.element` the names of that; for the resource itself those of the last component, its value."""
    found: set[str] = set()
    for operand in parameter.expression.split("|"):
        _, _, path = operand.strip().partition(".")
        value = parameter.components[-1][1]
        name = re.findall(r"\w+", path or value)[0]
        kinds = compile_path(value, resource_type).types if not path else frozenset()
        names = definitions.elements(resource_type)[name].json_names
        found |= {json_name for json_name, kind in names.items() if path or kind in kinds}
    return frozenset(found)


def _kind(known: Any, name: str) -> str:
    kind: str = known[name].type
    return kind


@cache
def _extractor(expression: str, element_type: str) -> Any:
    try:
        return compile_path(expression, element_type)
    except PathError:  # this element has no such member
        return _nothing


def _nothing(*_: Any) -> list[Any]:
    return []
