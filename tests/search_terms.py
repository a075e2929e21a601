"""What to search for to find a given resource: the text of each parameter, with every modifier and prefix that applies."""

from collections.abc import Iterator
from typing import Any

from fhir_server.definitions import SearchParameter, search_parameters
from tests.search_oracle import strings, tokens
from tests.search_oracle.asked import PREFIXES, Node, Resource, values
from tests.search_oracle.composites import inside
from tests.search_oracle.searched_values import escaped

Term = tuple[str, str]
"""The name of a parameter with its modifier, and the text that is searched for."""


def terms(resource: Resource, parameter: SearchParameter) -> Iterator[Term]:
    """The searches by a parameter that the resource has a value for; none if it has none."""
    nodes = values(resource, parameter)
    texts = [text for node in nodes if (text := _text(resource, parameter, node))]
    if texts:
        yield parameter.name, texts[0]
        yield from _with_prefixes(parameter, texts[0])
        yield from _with_modifiers(parameter, texts[0], nodes[0])


def _with_prefixes(parameter: SearchParameter, text: str) -> Iterator[Term]:
    if parameter.type in {"date", "number", "quantity"}:
        yield from ((parameter.name, prefix + text) for prefix in PREFIXES)


def _with_modifiers(parameter: SearchParameter, text: str, node: Node) -> Iterator[Term]:
    name = parameter.name
    if parameter.type != "composite":
        yield f"{name}:missing", "true"
        yield f"{name}:missing", "false"
    match parameter.type:
        case "token":
            yield f"{name}:not", text
            if parameter.name != "_id":
                yield from ((f"{name}:text", escaped(beside)) for beside in tokens.texts(*node))
            if node[0] == "Identifier":
                yield f"{name}:of-type", f"urn:example:type|MR|{escaped(node[1]['value'])}"
        case "string":
            yield f"{name}:exact", text
            yield f"{name}:contains", text[1:]
        case "uri":
            yield f"{name}:below", text
            yield f"{name}:above", f"{text}/more"
        case "reference" if node[0] == "Reference":
            target, _, id_ = text.partition("/")
            yield f"{name}:{target}", id_
            yield f"{name}:identifier", f"{node[1]['identifier']['system']}|{node[1]['identifier']['value']}"
            yield name, id_


def _text(resource: Resource, parameter: SearchParameter, node: Node) -> str | None:
    """The text that a value is found by."""
    kind, value = node
    match parameter.type:
        case "token":
            pairs = tokens.pairs(resource["resourceType"], parameter, kind, value)
            return next(("|".join(escaped(part) for part in pair if part) for pair in pairs if pair[1]), None)
        case "string":
            return next((escaped(text) for text in strings.parts(kind, value)), None)
        case "reference":
            return str(value["reference"] if kind == "Reference" else value)
        case "date":
            return _date(kind, value)
        case "number":
            return None if kind == "Range" else str(value)
        case "quantity":
            return _quantity(value)
        case "composite":
            return _composite(resource, parameter, node)
    return str(value)


def _date(kind: str, value: Any) -> str | None:
    if isinstance(value, dict):
        value = value["start"] if kind == "Period" else value["event"][0] if kind == "Timing" else None
    return value if kind in {"date", "dateTime", "instant", "Period", "Timing"} else None


def _quantity(value: Resource) -> str | None:
    value = value.get("low", value)
    if "currency" in value:
        return f"{value['value']}|urn:iso:std:iso:4217|{value['currency']}"
    return f"{value['value']}|{value['system']}|{value['code']}" if "code" in value else None


def _composite(resource: Resource, parameter: SearchParameter, element: Node) -> str | None:
    known = search_parameters(resource["resourceType"])
    parts = []
    for name, expression in parameter.components:
        found = (_text(resource, known[name], node) for node in inside(element, expression, resource))
        parts.append(next((text for text in found if text), None))
    return None if None in parts else "$".join(str(part) for part in parts)
