"""What a search parameter asks for: its definition, its modifier, and one of the values that it offers."""

from dataclasses import dataclass
from typing import Any

from fhir_server.definitions import SearchParameter, search_parameters
from fhir_server.search.paths import compile_path

Resource = dict[str, Any]
Node = tuple[str, Any]
"""A FHIR type and a value of it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One value of one parameter. `text` still has its escapes; `base_url` is what the server calls its own base."""

    resource_type: str
    parameter: SearchParameter
    modifier: str
    text: str
    base_url: str = ""

    @property
    def is_name(self) -> bool:
        """Whether it is for a person's name, or a part of one."""
        people = {"Patient", "Person", "Practitioner", "RelatedPerson"}
        return self.resource_type in people and self.parameter.name in {"name", "family", "given"}


def definition(resource_type: str, name: str) -> SearchParameter:
    """R4's definition of a parameter of this type."""
    return search_parameters(resource_type)[name]


def values(resource: Resource, parameter: SearchParameter) -> list[Node]:
    """What the parameter looks at in a resource."""
    return compile_path(parameter.expression, resource["resourceType"])(resource)


def split(text: str, separator: str) -> list[str]:
    r"""The parts between separators, a separator behind `\` being none (3.1.1.4.19). The parts keep their escapes."""
    parts = [""]
    characters = iter(text)
    for character in characters:
        if character == separator:
            parts.append("")
        else:
            parts[-1] += character + (next(characters, "") if character == "\\" else "")
    return parts


def unescaped(text: str) -> str:
    r"""The text without its escapes: `\,` `\|` `\$` and `\\` stand for the character behind the backslash."""
    characters = iter(text)
    return "".join(next(characters, "") if character == "\\" else character for character in characters)


PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")


def prefixed(text: str) -> tuple[str, str]:
    """The prefix of an ordered value, `eq` where there is none, and the rest (3.1.1.4.5)."""
    return (text[:2], text[2:]) if text.startswith(PREFIXES) else ("eq", text)
