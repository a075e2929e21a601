"""Composites: values joined by `$`, all to be met by one and the same element (3.1.1.4.17)."""

from collections.abc import Callable
from typing import Any

from fhir_server.search.paths import PathError, compile_path
from tests.search_oracle.asked import Asked, Node, Resource, definition, split

Judge = Callable[[Asked, str, Any], bool]


def matches(asked: Asked, element: Node, resource: Resource, judges: dict[str, Judge]) -> bool:
    """Whether an element has, for each component, a value that answers its part of the search."""
    parts = split(asked.text, "$")
    components = asked.parameter.components
    if len(parts) != len(components):
        return False
    return all(
        _component_matches(asked, name, expression, text, element, resource, judges)
        for (name, expression), text in zip(components, parts, strict=True)
    )


def _component_matches(
    asked: Asked, name: str, expression: str, text: str, element: Node, resource: Resource, judges: dict[str, Judge]
) -> bool:
    parameter = definition(asked.resource_type, name)
    inner = Asked(asked.resource_type, parameter, "", text, asked.base_url)
    return any(judges[parameter.type](inner, kind, value) for kind, value in inside(element, expression, resource))


def inside(element: Node, expression: str, resource: Resource) -> list[Node]:
    """What a component looks at, from the element; nothing where the element has no such member."""
    try:
        return compile_path(expression, element[0])(element[1], resource)
    except PathError:
        return []
