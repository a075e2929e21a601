"""Element shapes of resource types, data types and the backbone elements inside them (FHIR R4 StructureDefinitions)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from fhir_server.definitions.tables import read


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a type.

    `name` is without `[x]`, and `choice` says that it had one. `max` is None for `*`. `children` is the key that
    `elements` takes for what is inside: a data type, a backbone path such as `Observation.component` (the path that a
    content reference points to, where there is one), or None for primitives, choices and resources.
    """

    name: str
    types: tuple[str, ...]
    min: int
    max: int | None
    choice: bool
    children: str | None
    targets: tuple[str, ...]  # resource types that a Reference may point to; empty: any
    binding: str | None  # canonical of the value set of a required binding
    simple: bool  # SimpleQuantity: a Quantity without comparator
    summary: bool

    @property
    def json_names(self) -> dict[str, str]:
        """The names in JSON and the type of each: `{"valueString": "string", ...}` for a choice, else one (FHIR R4 2.6.2)."""
        if not self.choice:
            return {self.name: self.types[0]}
        return {self.name + t[0].upper() + t[1:]: t for t in self.types}


@cache
def _types() -> dict[str, dict[str, Any]]:
    types: dict[str, dict[str, Any]] = read("elements")["types"]
    return types


@cache
def primitive_types() -> frozenset[str]:
    """The names of the primitive types, such as `dateTime`."""
    return frozenset(name for name, row in _types().items() if row["kind"] == "primitive")


def kind(type_name: str) -> str | None:
    """`resource`, `complex` or `primitive`; None when R4 has no such type."""
    row = _types().get(type_name)
    return row["kind"] if row else None


@cache
def base_of(path: str) -> str | None:
    """The type that a type (or backbone element, by its path) is derived from; None for Element and Resource.

    Raises KeyError when R4 has no such type or backbone element.
    """
    type_name, *steps = path.split(".")
    row = _types()[type_name]
    for step in steps:
        row = row["elements"][step]
    base: str | None = row["types"][0] if steps else row.get("base")
    return base


@cache
def elements(path: str) -> Mapping[str, Element]:
    """The elements inside a type or backbone element by name, inherited ones first; a primitive has `id` and `extension`.

    Raises KeyError when R4 has no such type or backbone element.
    """
    type_name, *steps = path.split(".")
    row = _types()[type_name]
    for step in steps:
        row = row["elements"][step]
    if steps:
        bases, own = row["types"], row
    else:
        bases, own = [row["base"]] if "base" in row else [], row
    found = {name: element for base in bases for name, element in elements(base).items()}
    found |= {e.name: e for e in _own_elements(path, own)}
    return MappingProxyType(found)


def _own_elements(path: str, row: dict[str, Any]) -> Iterator[Element]:
    for name, shape in row.get("elements", {}).items():
        plain = name.removesuffix("[x]")
        content = shape.get("content")
        types = tuple(shape["types"]) if content is None else _content_types(content)
        maximum = shape.get("max", "1")
        yield Element(
            name=plain,
            types=types,
            min=shape.get("min", 0),
            max=None if maximum == "*" else int(maximum),
            choice=name != plain,
            children=content or (f"{path}.{plain}" if "elements" in shape else _children(types, name)),
            targets=tuple(shape.get("targets", ())),
            binding=shape.get("binding"),
            simple=shape.get("simple", False),
            summary=shape.get("summary", False),
        )


def _content_types(content: str) -> tuple[str, ...]:
    type_name, *steps = content.split(".")
    row = _types()[type_name]
    for step in steps:
        row = row["elements"][step]
    return tuple(row["types"])


def _children(types: tuple[str, ...], name: str) -> str | None:
    if name.endswith("[x]") or types[0] == "Resource" or types[0] in primitive_types():
        return None
    return types[0]
