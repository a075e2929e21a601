"""Elements made of what the `value` part of a FHIRPath Patch gives, and elements put into and taken out of JSON.

A primitive in JSON is a value and, under `_name`, its id and extensions (FHIR R4 2.6.2): here always both, as a pair.
"""

from functools import cache
from typing import Any, NamedTuple

from fhir_server.definitions import RESOURCE_TYPES, Element, elements, primitive_types
from fhir_server.elements import duplicate
from fhir_server.patch.limits import inapplicable, malformed
from fhir_server.patch.operations import parts_of

_QUANTITIES = frozenset({"Quantity", "Age", "Count", "Distance", "Duration"})

Pair = tuple[Any, Any]


class Content(NamedTuple):
    """An element to be written: its name in JSON, its value, and what `_name` holds beside it."""

    key: str
    value: Any
    extra: Any

    @property
    def pair(self) -> Pair:
        return self.value, self.extra


# --- what is given ----------------------------------------------------------------------------------------------------


def element_named(path: str, name: str, where: str) -> tuple[Element, str | None]:
    """The element of a type (or backbone path) by its name, or by the JSON name of one type of a choice: then with that name."""
    try:
        known = elements(path)
    except KeyError:
        known = {}
    if name in known:
        return known[name], None
    for element in known.values():
        if name in element.json_names:
            return element, name
    raise inapplicable(f"{path} has no element {name[:64]!r}", where)


def content(element: Element, key: str | None, part: dict[str, Any], where: str) -> Content:
    """What a `value` part makes of an element; `key` is its JSON name where that is already known.

    The part has a value[x], a resource, or parts that are the elements inside (for backbone elements, and for data types that a
    Parameters resource has no value[x] for).
    """
    values = {name: type_name for name, type_name in _value_names().items() if name in part or f"_{name}" in part}
    if len(values) + ("part" in part) + ("resource" in part) != 1:
        raise malformed("one value[x], one resource or parts are expected", where)
    if "resource" in part:
        return _resource(element, part["resource"], where)
    if "part" in part:
        return _of_parts(element, key, part, where)
    [(name, type_name)] = values.items()
    value, extra = part.get(name), part.get(f"_{name}")
    if type_name in primitive_types():
        is_sound = not isinstance(value, dict | list) and isinstance(extra, dict | None) and (value, extra) != (None, None)
    else:
        is_sound = isinstance(value, dict) and extra is None
    if not is_sound:
        raise malformed(f"this is not a {type_name}", where)
    return Content(_key(element, key, type_name, where), duplicate(value), duplicate(extra))


@cache
def _value_names() -> dict[str, str]:
    return elements("Parameters.parameter")["value"].json_names


def _key(element: Element, key: str | None, type_name: str, where: str) -> str:
    """The JSON name for a value of this type; primitives may stand for one another, as the validator looks at what they are."""
    if element.choice:
        found = next((name for name, of_name in element.json_names.items() if of_name == type_name), None)
        if found is None or key not in {None, found}:
            raise inapplicable(f"{key or element.name + '[x]'} can't be a {type_name}", where)
        return found
    declared = element.types[0]
    alike = type_name == declared or {type_name, declared} <= _QUANTITIES or {type_name, declared} <= primitive_types()
    if not alike:
        raise inapplicable(f"{element.name} is a {declared}, not a {type_name}", where)
    return element.name


def _resource(element: Element, resource: Any, where: str) -> Content:
    if element.types != ("Resource",) or not isinstance(resource, dict) or resource.get("resourceType") not in RESOURCE_TYPES:
        raise inapplicable(f"{element.name} can't be this resource", where)
    return Content(element.name, duplicate(resource), None)


def _of_parts(element: Element, key: str | None, part: dict[str, Any], where: str) -> Content:
    inside = element.json_names[key] if element.choice and key is not None else element.children
    if inside is None or inside in primitive_types():
        raise inapplicable(f"{element.name} is not made of parts", where)
    made: dict[str, Any] = {}
    for name, inner, place in parts_of(part, where):
        of_name, inner_key = element_named(inside, name, place)
        add(made, of_name, content(of_name, inner_key, inner, place), place)
    return Content(key or element.name, made, None)


# --- elements in JSON -------------------------------------------------------------------------------------------------


def pairs(holder: dict[str, Any], key: str) -> list[Pair]:
    """The items of a repeating element."""
    values, extras = (found if isinstance(found, list) else [] for found in (holder.get(key), holder.get(f"_{key}")))
    padding = len(values) - len(extras)
    return list(zip(values + [None] * -padding, extras + [None] * padding, strict=True))


def put_pairs(holder: dict[str, Any], key: str, items: list[Pair]) -> None:
    for name, column in ((key, [value for value, _ in items]), (f"_{key}", [extra for _, extra in items])):
        if any(item is not None for item in column):
            holder[name] = column
        else:
            holder.pop(name, None)


def put_single(holder: dict[str, Any], element: Element, new: Content | None) -> None:
    """Writes an element that does not repeat in place of what it was, of whatever type; None takes it out."""
    wanted = {} if new is None else {new.key: new.value, f"_{new.key}": new.extra}
    for key in element.json_names:
        for name in (key, f"_{key}"):
            if wanted.get(name) is None:
                holder.pop(name, None)
    holder.update({name: value for name, value in wanted.items() if value is not None})


def add(holder: dict[str, Any], element: Element, new: Content, where: str) -> None:
    """Appends to an element that repeats; any other may not be there yet (FHIR R4 3.1.0.7, add)."""
    if element.max != 1:
        put_pairs(holder, new.key, [*pairs(holder, new.key), new.pair])
    elif any(name in holder or f"_{name}" in holder for name in element.json_names):
        raise inapplicable(f"{element.name} is there already, and does not repeat", where)
    else:
        put_single(holder, element, new)
