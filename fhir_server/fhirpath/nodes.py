"""What a FHIRPath expression walks over: the elements of a resource, each with its type and its place (FHIRPath N1 2 and 4).

A node is made when a path comes by; the resource itself stays a plain dict. A choice goes by its bare name (`value`), and a
primitive is one node whether it has a value, extensions (`_name` in JSON) or both (FHIR R4 2.6.2).
"""

from functools import cache
from typing import Any, NamedTuple

from fhir_server.definitions import RESOURCE_TYPES, Element, base_of, elements, kind, primitive_types


class Field(NamedTuple):
    """One JSON name of an element."""

    key: str
    extra_key: str  # where the id and extensions of a primitive are, or empty
    type: str
    repeats: bool


class Node:
    """An element: `value` is its JSON (None for a primitive that has only extensions), `extra` what `_name` holds.

    `type` is the name of the FHIR type; a backbone element goes by its path, such as `Observation.component`.
    """

    __slots__ = ("extra", "index", "key", "name", "parent", "type", "value")

    def __init__(
        self,
        value: Any,
        type_name: str,
        extra: dict[str, Any] | None = None,
        parent: "Node | None" = None,
        name: str = "",
        key: str = "",
        index: int | None = None,
    ) -> None:
        self.value, self.type, self.extra = value, type_name, extra
        self.parent, self.name, self.key, self.index = parent, name, key, index

    @property
    def location(self) -> tuple[str | int, ...]:
        """JSON keys and indexes from the node that the evaluation began with: `("name", 0, "given", 1)`."""
        if self.parent is None:
            return ()
        step: tuple[str | int, ...] = (self.key,) if self.index is None else (self.key, self.index)
        return (*self.parent.location, *step)

    @property
    def path(self) -> str:
        """The same in FHIRPath, below where the evaluation began: `.name[0].given[1]`."""
        if self.parent is None:
            return ""
        index = "" if self.index is None else f"[{self.index}]"
        return f"{self.parent.path}.{self.name}{index}"

    def child(self, name: str) -> list["Node"]:
        """The elements of this name directly inside."""
        holder, type_name = (self.value, self.type) if type(self.value) is dict else (self.extra, "Element")
        return _read(self, holder, name, fields(type_name).get(name, ())) if type(holder) is dict else []

    def children(self) -> list["Node"]:
        holder, type_name = (self.value, self.type) if type(self.value) is dict else (self.extra, "Element")
        if type(holder) is not dict:
            return []
        known = _fields_by_key(type_name)
        found: list[Node] = []
        for key in holder:
            name, field = known.get(key, _UNKNOWN)
            if field and (key == field.key or field.key not in holder):  # `_name` beside `name` is the same element
                found += _read(self, holder, name, (field,))
        return found


def resource_node(resource: dict[str, Any]) -> Node:
    """A resource, to begin with."""
    return Node(resource, _type_of(resource, "Resource"))


def _type_of(value: Any, declared: str) -> str:
    if declared != "Resource" or type(value) is not dict:
        return declared
    name = value.get("resourceType")
    return name if type(name) is str and name in RESOURCE_TYPES else "Resource"


def _read(parent: Node, holder: dict[str, Any], name: str, of_name: tuple[Field, ...]) -> list[Node]:
    found: list[Node] = []
    for key, extra_key, type_name, repeats in of_name:
        value = holder.get(key)
        extra = holder.get(extra_key) if extra_key else None
        if value is None and extra is None:
            continue
        if not repeats:
            found.append(Node(value, _type_of(value, type_name), extra, parent, name, key))
            continue
        values = value if type(value) is list else []
        extras = extra if type(extra) is list else []
        for index in range(max(len(values), len(extras))):
            item = values[index] if index < len(values) else None
            beside = extras[index] if index < len(extras) else None
            if item is not None or beside is not None:
                found.append(Node(item, _type_of(item, type_name), beside, parent, name, key, index))
    return found


@cache
def fields(type_name: str) -> dict[str, tuple[Field, ...]]:
    """The elements of a type by their FHIRPath name, with every JSON name that each can have."""
    try:
        known = elements(type_name)
    except KeyError:
        return {}
    return {name: tuple(_field(element, *pair) for pair in element.json_names.items()) for name, element in known.items()}


_UNKNOWN: tuple[str, Field | None] = ("", None)


@cache
def _fields_by_key(type_name: str) -> dict[str, tuple[str, Field | None]]:
    return {key: (name, f) for name, of_name in fields(type_name).items() for f in of_name for key in (f.key, f.extra_key) if key}


def _field(element: Element, key: str, type_name: str) -> Field:
    primitive = type_name in primitive_types()
    child = type_name if primitive or element.choice else element.children or type_name
    return Field(key, f"_{key}" if primitive else "", child, element.max != 1)


# --- types ------------------------------------------------------------------------------------------------------------

_SYSTEM_TYPES = {
    "Boolean": frozenset({"boolean"}),
    "String": frozenset("string code id markdown uri url canonical oid uuid base64Binary xhtml".split()),
    "Integer": frozenset({"integer", "unsignedInt", "positiveInt"}),
    "Decimal": frozenset({"decimal"}),
    "Date": frozenset({"date"}),
    "DateTime": frozenset({"dateTime", "instant"}),
    "Time": frozenset({"time"}),
    "Quantity": frozenset({"Quantity", "Age", "Count", "Distance", "Duration"}),
}


@cache
def is_type(type_name: str, wanted: str) -> bool:
    """Whether a node of this type `is` the wanted one: the same, or derived from it. `wanted` may say `FHIR.` or `System.`."""
    namespace, _, name = wanted.rpartition(".")
    if namespace != "FHIR" and name in _SYSTEM_TYPES and type_name in _SYSTEM_TYPES[name]:
        return True
    return namespace != "System" and name in _ancestry(type_name)


@cache
def _ancestry(type_name: str) -> frozenset[str]:
    found: list[str] = []
    name: str | None = type_name
    while name:
        found.append(name)
        name = base_of(name)
    return frozenset(found)


def is_known_type(wanted: str) -> bool:
    """Whether FHIR R4 or FHIRPath has such a type."""
    namespace, _, name = wanted.rpartition(".")
    if namespace not in {"", "FHIR", "System"}:
        return False
    return (namespace != "FHIR" and name in _SYSTEM_TYPES) or (namespace != "System" and kind(name) is not None)
