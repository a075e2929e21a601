"""The operations of a FHIRPath Patch as its Parameters say them (FHIR R4 3.1.0.7, "FHIRPath Patch")."""

from dataclasses import dataclass
from typing import Any

from fhir_server.patch.limits import check_operations, malformed

_NEEDS = {
    "add": {"path", "name", "value"},
    "insert": {"path", "index", "value"},
    "delete": {"path"},
    "replace": {"path", "value"},
    "move": {"path", "source", "destination"},
}
_TEXTS = ("valueString", "valueCode")
_NUMBERS = ("valueInteger", "valueUnsignedInt", "valuePositiveInt")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `value` is its part as it stands; `where` and `places` are FHIRPath to it and to its parts by name."""

    type: str
    path: str
    name: str
    index: int
    source: int
    destination: int
    value: dict[str, Any]
    where: str
    places: dict[str, str]


def operations_of(parameters: Any) -> list[Operation]:
    """The operations in a Parameters resource, in their order. Raises FhirError (`structure`, 400) where it is no such patch."""
    if not isinstance(parameters, dict) or parameters.get("resourceType") != "Parameters":
        raise malformed("a FHIRPath Patch is a Parameters resource", "Parameters")
    given = parameters.get("parameter", [])
    if not isinstance(given, list):
        raise malformed("parameter is a list", "Parameters.parameter")
    check_operations(given, "Parameters.parameter")
    return [_operation(one, f"Parameters.parameter[{number}]") for number, one in enumerate(given)]


def parts_of(parameter: Any, where: str) -> list[tuple[str, dict[str, Any], str]]:
    """Name, content and place of each part."""
    parts = parameter.get("part", [])
    if not isinstance(parts, list):
        raise malformed("part is a list", f"{where}.part")
    found = []
    for number, part in enumerate(parts):
        place = f"{where}.part[{number}]"
        if not isinstance(part, dict) or not isinstance(part.get("name"), str):
            raise malformed("a part is an object with a name", place)
        found.append((part["name"], part, place))
    return found


def _operation(parameter: Any, where: str) -> Operation:
    if not isinstance(parameter, dict) or parameter.get("name") != "operation":
        raise malformed("the parameters of a FHIRPath Patch are all named operation", where)
    parts: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    for name, part, place in parts_of(parameter, where):
        if name in parts:
            raise malformed(f"{name[:64]} is given twice", place)
        parts[name], places[name] = part, place
    operation_type = _text(parts, "type", places, where)
    if operation_type not in _NEEDS:
        raise malformed(f"type is one of {', '.join(_NEEDS)}", places["type"])
    needs = _NEEDS[operation_type]
    for name in parts:
        if name not in needs and name != "type":
            raise malformed(f"{operation_type} does not take {name[:64]!r}", places[name])
    return Operation(
        type=operation_type,
        path=_text(parts, "path", places, where),
        name=_text(parts, "name", places, where) if "name" in needs else "",
        index=_number(parts, "index", places, where) if "index" in needs else 0,
        source=_number(parts, "source", places, where) if "source" in needs else 0,
        destination=_number(parts, "destination", places, where) if "destination" in needs else 0,
        value=_part(parts, "value", where) if "value" in needs else {},
        where=where,
        places=places,
    )


def _part(parts: dict[str, dict[str, Any]], name: str, where: str) -> dict[str, Any]:
    if name not in parts:
        raise malformed(f"the part {name} is missing", where)
    return parts[name]


def _text(parts: dict[str, dict[str, Any]], name: str, places: dict[str, str], where: str) -> str:
    part = _part(parts, name, where)
    value = next((part[key] for key in _TEXTS if key in part), None)
    if not isinstance(value, str):
        raise malformed(f"{name} is a string", places[name])
    return value


def _number(parts: dict[str, dict[str, Any]], name: str, places: dict[str, str], where: str) -> int:
    part = _part(parts, name, where)
    value = next((part[key] for key in _NUMBERS if key in part), None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise malformed(f"{name} is a whole number, counted from 0", places[name])
    return value
