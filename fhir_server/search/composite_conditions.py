"""A value of a composite parameter as a condition: its parts, joined by `$`, must be met by one group (`composites.py`)."""

from itertools import product
from typing import Any

from fhir_server.outcome import fail
from fhir_server.search.composites import Component, Composite
from fhir_server.search.conditions import (
    Beginning,
    Condition,
    any_of,
    begins,
    date_tests,
    keyed,
    keys,
    number_tests,
    quantity_tests,
)
from fhir_server.search.values import split, unescaped


def condition(resource_type: str, composite: Composite, value: str, base_url: str) -> Condition:
    """That one element of a resource meets all parts of the value (FHIR R4 Search, "composite")."""
    parts = split(value, "$")
    if len(parts) != len(composite.components) or not all(parts):
        names = "$".join(c.name for c in composite.components)
        raise fail("invalid", f"{composite.name} is written {names}", status=400)
    alternatives = [
        _part(resource_type, component, str(i), part, base_url)
        for i, (component, part) in enumerate(zip(composite.components, parts, strict=True))
    ]
    groups = [{"$elemMatch": {"$and": list(chosen)}} for chosen in product(*alternatives)]
    inside = any_of([{f"search.c.{composite.name}": group} for group in groups])
    leading = _leading(composite.name, parts[0])
    return {"$and": [keyed(leading), inside]}


def _part(resource_type: str, component: Component, number: str, value: str, base_url: str) -> list[Condition]:
    """What a group must meet for one component: one of these."""
    tests: list[dict[str, Any]]
    if component.kind == "quantity":
        tests = quantity_tests(component.name, value)
    elif component.kind == "number":
        tests = number_tests(component.name, value)
    elif component.kind == "date":
        tests = date_tests(component.name, value)
    elif component.kind == "string":
        return [{"k": begins(number, unescaped(value))["search.t"]}]
    else:
        return [{"k": keyed(_keys(resource_type, component, number, value, base_url))["search.t"]}]
    return [{number: {"$elemMatch": test}} for test in tests]


def _keys(resource_type: str, component: Component, number: str, value: str, base_url: str) -> list[str]:
    """The keys of a component, with its number in place of its name."""
    found = keys(resource_type, component.kind, component.name, "", value, base_url)
    return [type(key)(number + key.removeprefix(component.name)) for key in found]


def _leading(name: str, value: str) -> list[str]:
    """What leads to the resource: the code alone; where only its system is asked for, any code, or that system without one."""
    system, *rest = split(value, "|")
    code = unescaped("|".join(rest) if rest else value)
    return [f"{name}$={code}"] if code else [Beginning(f"{name}$="), f"{name}$@{unescaped(system)}|"]
