"""The arguments of an operation: from the address, or from a Parameters resource (FHIR R4 3.2.0.2, Parameters 2.34)."""

from collections.abc import Iterator
from typing import Any

from fhir_server.operations import Call, Operation, Resource
from fhir_server.outcome import fail
from fhir_server.search.dates import of_text

# What the edge itself looks at, on any address.
_OF_THE_EDGE = frozenset({"_format", "_pretty"})
_COMPLEX = frozenset({"Resource", "Meta"})
MAX_COUNT = 1000


def check_address(operation: Operation, parameters: list[tuple[str, str]]) -> None:
    """Refuse (400) what the operation doesn't take, or takes in a body only: an address holds primitive values alone."""
    for name, _ in parameters:
        if name in _OF_THE_EDGE:
            continue
        if name not in operation.parameters:
            known = ", ".join(sorted(operation.parameters)) or "none"
            raise fail("invalid", f"${operation.name} has no parameter {name[:64]!r}; it has: {known}", status=400)
        if operation.parameters[name] in _COMPLEX:
            raise fail("invalid", f"${operation.name}: {name} is sent in the body of a POST", status=400)


def given(call: Call, name: str) -> list[str]:
    """The values of a primitive parameter as text, those of the address first."""
    found = [value for n, value in call.parameters if n == name]
    for part in parts(call.body, name):
        value = next((v for key, v in part.items() if key.startswith("value")), None)
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise fail("invalid", f"the parameter {name} holds a single primitive value", "Parameters.parameter", status=400)
        found.append(str(value))
    return found


def one(call: Call, name: str) -> str | None:
    """The value of a primitive parameter that is given once at most."""
    values = given(call, name)
    if len(values) > 1:
        raise fail("invalid", f"the parameter {name} is given once", status=400)
    if values and not values[0].strip():
        raise fail("invalid", f"the parameter {name} has an empty value", status=400)
    return values[0] if values else None


def moment(call: Call, name: str) -> str | None:
    """The same for a date, dateTime or instant, as it is written. An unencoded + of its zone arrives as a space."""
    value = one(call, name)
    if value is None:
        return None
    value = value.replace(" ", "+")
    try:
        of_text(value)
    except ValueError as error:
        raise fail("invalid", f"{name}: {error}", status=400) from None
    return value


def count(call: Call, default: int) -> int:
    """`_count`: how many on a page, 1 to 1000."""
    value = one(call, "_count")
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal() and len(value) <= 9 and int(value)):
        raise fail("invalid", "_count takes a whole number from 1 on", status=400)
    return min(int(value), MAX_COUNT)


def parts(body: Resource | None, name: str) -> Iterator[dict[str, Any]]:
    """The parameters with this name in a Parameters resource; none in anything else."""
    if body is None or body.get("resourceType") != "Parameters":
        return
    rows = body.get("parameter", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise fail("structure", "this element is a list of objects", "Parameters.parameter", status=400)
    yield from (row for row in rows if row.get("name") == name)


def check_body(operation_name: str, body: Resource | None, names: frozenset[str]) -> None:
    """Refuse (400) a body that is no Parameters resource, or has a parameter that the operation doesn't know."""
    if body is None:
        return
    if body.get("resourceType") != "Parameters":
        raise fail("structure", f"${operation_name} is sent a Parameters resource", "Resource.resourceType", status=400)
    rows = body.get("parameter", [])
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("name") not in names:
            text = f"${operation_name} has no parameter {str(row.get('name'))[:64]!r}; it has: {', '.join(sorted(names))}"
            raise fail("invalid", text, "Parameters.parameter", status=400)
