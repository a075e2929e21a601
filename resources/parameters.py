"""Arguments of the department's operations, typed. FhirError 400 for what is something else."""

from dataclasses import replace
from typing import Any

from fhir_server.operations import Call, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.registry import Resource
from resources.department_operation import reference


def concepts(call: Call, name: str) -> list[Resource]:
    """CodeableConcepts, given as valueCodeableConcept or valueCoding; each says something."""
    found = []
    for part in arguments.parts(call.body, name):
        value = part.get("valueCodeableConcept") or ({"coding": [part["valueCoding"]]} if "valueCoding" in part else None)
        if not isinstance(value, dict) or not (value.get("coding") or value.get("text")):
            raise fail("value", f"{name} is a valueCodeableConcept or a valueCoding", "Parameters.parameter", status=400)
        found.append(value)
    return found


def concept(call: Call, name: str) -> Resource | None:
    """The same, given once at most."""
    found = concepts(call, name)
    if len(found) > 1:
        raise fail("value", f"{name} is given once", "Parameters.parameter", status=400)
    return found[0] if found else None


def required(value: Any, name: str, text: str) -> Any:
    """The value, which has to be there."""
    if value is None or value == []:
        raise fail("required", f"{name} {text}", "Parameters.parameter", status=400)
    return value


def flag(call: Call, name: str) -> bool:
    """A valueBoolean; false where it isn't given."""
    found = list(arguments.parts(call.body, name))
    if len(found) > 1 or any(not isinstance(p.get("valueBoolean"), bool) for p in found):
        raise fail("value", f"{name} is one valueBoolean", "Parameters.parameter", status=400)
    return bool(found and found[0]["valueBoolean"])


def number(call: Call, name: str, least: int = 0) -> int | None:
    """A whole number, not less than `least`."""
    value = arguments.one(call, name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 7 and int(value) >= least):
        raise fail("value", f"{name} is a whole number, {least} at least", "Parameters.parameter", status=400)
    return int(value)


def quantity(call: Call, name: str) -> Resource | None:
    """A valueQuantity with a value."""
    found = [p.get("valueQuantity") for p in arguments.parts(call.body, name)]
    if len(found) > 1 or any(not isinstance(q, dict) or "value" not in q for q in found):
        raise fail("value", f"{name} is one valueQuantity with a value", "Parameters.parameter", status=400)
    return found[0] if found else None


def references(call: Call, name: str, *types: str) -> list[Target]:
    """valueReferences to resources of these types."""
    found = list(arguments.parts(call.body, name))
    each = (reference(_only(call, name, part), name, *types) for part in found)
    return [to for to in each if to is not None]


def _only(call: Call, name: str, part: dict[str, Any]) -> Call:
    return replace(call, body={"resourceType": "Parameters", "parameter": [part | {"name": name}]})
