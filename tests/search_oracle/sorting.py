"""_sort (3.1.1.5.1): several keys, missing values last in both directions, the id where all else is equal.

Of several values the one counts that comes first in the direction asked for: the least ascending, the greatest descending. Dates
and Ranges go by their start ascending and by their end descending. The priority of a request goes by its urgency.
"""

from collections.abc import Iterator
from typing import Any

from tests.search_oracle import dates, numbers, strings, tokens
from tests.search_oracle.asked import Resource, definition, values
from tests.search_oracle.references import local

_URGENCY = ("routine", "urgent", "asap", "stat")


def in_order(resources: list[Resource], sort: str, base_url: str) -> list[Resource]:
    """The resources in the order of a `_sort`; an empty one is by ascending id."""
    keys = [key for key in sort.split(",") if key]
    backwards = bool(keys) and keys[-1].startswith("-")
    found = sorted(resources, key=lambda r: str(r["id"]), reverse=backwards)
    for key in reversed(keys):  # sorting is stable: the first key last
        found = _by(found, key.removeprefix("-"), base_url, descending=key.startswith("-"))
    return found


def _by(resources: list[Resource], name: str, base_url: str, *, descending: bool) -> list[Resource]:
    keyed = [(_key(resource, name, base_url, descending=descending), resource) for resource in resources]
    present = sorted((pair for pair in keyed if pair[0] is not None), key=lambda pair: pair[0], reverse=descending)
    return [resource for _, resource in present] + [resource for key, resource in keyed if key is None]


def _key(resource: Resource, name: str, base_url: str, *, descending: bool) -> Any:
    """What the resource is sorted by; None when it has nothing to be sorted by."""
    found = list(_keys(resource, name, base_url, descending=descending))
    if not found:
        return None
    return max(found) if descending else min(found)


def _keys(resource: Resource, name: str, base_url: str, *, descending: bool) -> Iterator[Any]:
    parameter = definition(resource["resourceType"], name)
    for element_type, value in values(resource, parameter):
        if name == "priority" and value in _URGENCY:
            yield _URGENCY.index(value)
            continue
        match parameter.type:
            case "date":
                span = dates.interval(element_type, value)
                yield from [] if span is None else [span.end if descending else span.start]
            case "string":
                yield from (strings.fold(text) for text in strings.parts(element_type, value))
            case "token":
                pairs = tokens.pairs(resource["resourceType"], parameter, element_type, value)
                yield from (code for _, code in pairs if code is not None)
            case "reference":
                yield from _reference(value, base_url)
            case "number":
                number = numbers.span(element_type, value)
                yield from [] if number is None else [number.high if descending else number.low]
            case _:
                yield str(value)


def _reference(value: Any, base_url: str) -> list[str]:
    """`Type/id` of a local reference, the text of another."""
    text = value.get("reference") if isinstance(value, dict) else value
    to = local(text, base_url)
    return [f"{to.type}/{to.id}"] if to else [text] if text else []
