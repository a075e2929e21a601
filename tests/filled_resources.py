"""Resources with values for nearly every search parameter, for tests of indexes: many of a type, different from each other.

They have the shape that search expressions look for and are not valid otherwise.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from fhir_server.definitions import Element, SearchParameter, elements, search_parameters, value_set

Resource = dict[str, Any]

SYSTEM = "urn:example:codes"
UCUM = "http://unitsofmeasure.org"
_START = datetime(2024, 1, 1, tzinfo=UTC)
_WHERE = re.compile(r"\.where\((?:[^()]|\(\))*\)")
_AS = re.compile(r"\(?([A-Z][\w.]*?)(?:\[\d\])? as (\w+)\)?(?:\.(\w+))?|([A-Z][\w.]*)\.(?:as|ofType)\((\w+)\)")


def filled(resource_type: str, number: int, share: float = 0.4) -> Resource:
    """The resource with this number, with values for a share of its parameters: another number, other values and parameters."""
    resource: Resource = {"resourceType": resource_type, "id": f"n{number}"}
    parameters = [p for p in search_parameters(resource_type).values() if p.expression and p.type not in {"composite", "special"}]
    # In any order, so that an element of several types has another one in each resource.
    for parameter in Random(number).sample(parameters, round(len(parameters) * share)):
        for operand in re.split(r"\s\|\s", parameter.expression):
            _fill(resource, resource_type, parameter, operand, number)
    resource["meta"] = {
        "tag": [_coding(number)],
        "security": [_coding(number)],
        "profile": [f"http://example.org/profiles/{number}"],
        "source": f"http://example.org/sources/{number}",
    }
    if resource_type == "Location":
        resource["position"] = {"longitude": Decimal(number % 180), "latitude": Decimal(number % 90)}
    return resource


def _fill(resource: Resource, resource_type: str, parameter: SearchParameter, operand: str, number: int) -> None:
    path, wanted = _WHERE.sub("", operand.strip()), ""
    if found := _AS.fullmatch(path):
        path, wanted = (found[1] or found[4]), (found[2] or found[5])
        path = f"{path}.{found[3]}" if found[3] else path
    steps = path.split(".")
    if steps[0] == resource_type and len(steps) > 1 and all(re.fullmatch(r"\w+", step) for step in steps):
        referred = re.findall(r"resolve\(\) is (\w+)", operand) or list(parameter.targets)
        _place(resource, resource_type, steps[1:], wanted, _Values(number, referred))
        if condition := re.search(r"\.(\w+)\.where\((\w+)='([\w-]+)'\)", operand):
            resource[condition[1]][0][condition[2]] = condition[3]


def _place(node: Resource, path: str, steps: list[str], wanted: str, values: "_Values") -> None:
    """A value at the end of the steps, unless there is one."""
    element = elements(path)[steps[0]]
    names = {t: json_name for json_name, t in element.json_names.items()}
    kind = wanted if wanted in names else element.types[0]
    name = names[kind]
    if element.choice and any(other in node for other in names.values()) and name not in node:
        return
    if len(steps) == 1:
        if name not in node:
            value = values.of(kind, element)
            node[name] = value if element.max == 1 else [value]
        return
    if name not in node:
        node[name] = {} if element.max == 1 else [{}]
    inner = node[name] if element.max == 1 else node[name][0]
    _place(inner, element.children or kind, steps[1:], wanted, values)


class _Values:
    """The values of one resource."""

    def __init__(self, number: int, referred: list[str]) -> None:
        self._number = number
        self._referred = referred

    def of(self, kind: str, element: Element) -> Any:
        """A value of a type."""
        number = self._number
        when = (_START + timedelta(hours=number % 8760)).isoformat().replace("+00:00", "Z")
        amount = {"value": Decimal(number % 5000), "unit": "mg", "system": UCUM, "code": "mg"}
        made: dict[str, Any] = {
            "boolean": number % 2 == 0,
            "date": when[:10],
            "dateTime": when,
            "instant": when,
            "Period": {"start": when, "end": (_START + timedelta(hours=number % 8760 + 2)).isoformat()},
            "Timing": {"event": [when]},
            "decimal": Decimal(number % 5000),
            "Quantity": amount,
            "Age": {**amount, "unit": "a", "code": "a"},
            "Duration": {**amount, "unit": "min", "code": "min"},
            "Range": {"low": amount, "high": {**amount, "value": Decimal(number % 5000 + 1)}},
            "Money": {"value": Decimal(number % 5000), "currency": "EUR"},
            "Coding": _coding(number),
            "CodeableConcept": {"coding": [_coding(number)], "text": f"Wording {number % 2000}"},
            "Identifier": {
                "system": SYSTEM,
                "value": f"I{number}",
                "type": {"coding": [{"system": "urn:example:type", "code": "MR"}], "text": f"Kind {number % 2000}"},
            },
            "ContactPoint": {"system": "phone", "value": f"+43 {number}"},
            "HumanName": {"family": f"Maier {number}", "given": [f"Ada {number % 2000}"]},
            "Address": {"city": f"City {number % 2000}", "line": [f"Road {number}"], "country": "AT"},
            "code": self._code(element),
            "id": f"n{number}",
        }
        if kind == "Reference":
            target = next((t for t in self._referred if not element.targets or t in element.targets), "Patient")
            return {"reference": f"{target}/n{number % 5000}", "identifier": {"system": SYSTEM, "value": f"R{number}"}}
        if kind in {"uri", "url", "canonical"}:
            return f"http://example.org/{element.name}/{number}"
        return made.get(kind, f"Text {number} of {element.name}")

    def _code(self, element: Element) -> str:
        systems = value_set(element.binding) if element.binding else None
        codes = sorted(code for found in (systems or {}).values() for code in found)
        return codes[self._number % len(codes)] if codes else f"c{self._number % 10}"


def _coding(number: int) -> Resource:
    return {"system": SYSTEM, "code": f"C{number % 2000}", "display": f"Display {number % 2000}"}
