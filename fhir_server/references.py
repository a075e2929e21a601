"""Literal references between resources (FHIR R4 2.3.0.1)."""

import re
from typing import Any, NamedTuple

_LOCAL = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")

_CONDITIONAL = re.compile(r"[A-Z][A-Za-z]+\?.+")


class Target(NamedTuple):
    """What a local literal reference points to."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"


def target(reference: object, base_url: str = "") -> Target | None:
    """The local target of a reference string (or Reference element); None for contained, logical and outside ones."""
    text = reference.get("reference") if isinstance(reference, dict) else reference
    if not isinstance(text, str):
        return None
    if base_url and text.startswith(base_url + "/"):
        text = text[len(base_url) + 1 :]
    found = _LOCAL.fullmatch(text)
    return Target(found[1], found[2]) if found else None


def named_version(reference: str) -> str:
    """The version that a local literal reference names; "" for the one that is current."""
    return reference.partition("/_history/")[2]


def conditional(element: dict[str, Any]) -> bool:
    """Whether a Reference names its target by a search, as `Patient?identifier=1` (FHIR R4 http, "Conditional References")."""
    return _CONDITIONAL.fullmatch(element["reference"]) is not None


def ref(resource: dict[str, Any], display: str | None = None) -> dict[str, Any]:
    """A Reference to this stored resource."""
    reference = {"reference": f"{resource['resourceType']}/{resource['id']}"}
    if display:
        reference["display"] = display
    return reference


def walk(element: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
    """Every Reference element (an object with a string `reference`) below an element, with its FHIRPath."""
    found: list[tuple[str, dict[str, Any]]] = []
    _collect(element, [path], found)
    return found


def _collect(element: Any, path: list[str], found: list[tuple[str, dict[str, Any]]]) -> None:
    if type(element) is dict:
        if type(element.get("reference")) is str:
            found.append(("".join(path), element))
        for name, value in element.items():
            if type(value) is dict or type(value) is list:
                path.append(f".{name}")
                _collect(value, path, found)
                path.pop()
    elif type(element) is list:
        for i, value in enumerate(element):
            if type(value) is dict or type(value) is list:
                path.append(f"[{i}]")
                _collect(value, path, found)
                path.pop()


def literals(element: Any) -> list[str]:
    """The same references as texts, without where they stand."""
    found: list[str] = []
    pending = [element]
    for item in pending:  # which grows as it is walked
        if type(item) is dict:
            if "reference" in item and type(text := item["reference"]) is str:
                found.append(text)
            item = item.values()
        pending += [value for value in item if type(value) is dict or type(value) is list]
    return found
