"""What both kinds of patch may not do, and how they refuse."""

from typing import Any

from fhir_server import fhir_json
from fhir_server.elements import Resource
from fhir_server.outcome import FhirError, fail

MAX_OPERATIONS = 1000
MAX_BYTES = 20 * 1024 * 1024
"""Bytes of JSON of the resource and all that a patch adds and copies; also a bound on the work that copies of copies make."""


def malformed(text: str, where: str) -> FhirError:
    return fail("structure", text, where, status=400)


def inapplicable(text: str, where: str) -> FhirError:
    return fail("value", text, where, status=422)


def check_operations(operations: list[Any], where: str) -> None:
    if len(operations) > MAX_OPERATIONS:
        raise fail("too-long", f"a patch has at most {MAX_OPERATIONS} operations", where)


def check_identity(patched: Any, resource: Resource, where: str) -> None:
    """A patch changes neither the type of a resource nor its id (FHIR R4 3.1.0.7)."""
    for name in ("resourceType", "id"):
        if not isinstance(patched, dict) or patched.get(name) != resource.get(name):
            raise inapplicable(f"a patch can't change the {name} of a resource", where)


class Growth:
    """How much a patch may still put into a resource."""

    def __init__(self, resource: Resource) -> None:
        self._left = MAX_BYTES - len(fhir_json.dumps(resource))

    def place(self, value: Any, depth: int, where: str) -> None:
        """Accounts for a value that goes in inside `depth` objects and arrays."""
        if depth + _levels(value) > fhir_json.MAX_NESTING:
            raise fail("too-long", f"the patched resource nests deeper than {fhir_json.MAX_NESTING} levels", where)
        self._left -= len(fhir_json.dumps(value))
        if self._left < 0:
            raise fail("too-long", f"the patch makes a resource of more than {MAX_BYTES // 1024 // 1024} MiB", where)


def _levels(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max((_levels(item) for item in (value.values() if isinstance(value, dict) else value)), default=0)


def without_empty(value: Any) -> Any:
    """Without the empty objects and arrays that removals leave, which FHIR JSON does not have (R4 2.6.2).

    In the arrays of ids and extensions of primitives (`_given`) null keeps the place of an empty object.
    """
    return _without_empty(value, keeps_places=False)


def _without_empty(value: Any, *, keeps_places: bool) -> Any:
    if isinstance(value, dict):
        members = {name: _without_empty(item, keeps_places=name.startswith("_")) for name, item in value.items()}
        return {name: item for name, item in members.items() if item not in ({}, [])}
    if isinstance(value, list):
        items = [_without_empty(item, keeps_places=False) for item in value]
        if keeps_places:
            items = [None if item == {} else item for item in items]
            return items if any(item is not None for item in items) else []
        return [item for item in items if item not in ({}, [])]
    return value
