"""Turns the element tables into checks, one per type or backbone element, on first use.

Every check is a closure over what its type allows, and calls the checks of its parts. There is no code for any one resource type.
"""

from typing import Any

from fhir_server.definitions import RESOURCE_TYPES, Element, elements, primitive_types, value_set
from fhir_server.validation.objects import ObjectShape, list_check, nullable, object_check
from fhir_server.validation.primitives import CHECKS, code_from
from fhir_server.validation.problems import Check, Problem, problem
from fhir_server.validation.references import reference_check


def resource_check(value: Any, depth: int) -> list[Problem] | None:
    """The check of a whole resource, at the top or inside another."""
    if type(value) is not dict:
        return problem("structure", "A resource is a JSON object")
    name = value.get("resourceType")
    if type(name) is not str or name not in RESOURCE_TYPES:
        text = "A resource needs a resourceType" if name is None else f"R4 has no resource type {str(name)[:64]!r}"
        return problem("structure", text)
    return shape_check(name)(value, depth)


def _contained_check(value: Any, depth: int) -> list[Problem] | None:
    problems = resource_check(value, depth)
    if not problems and "contained" in value:
        return problem("invariant", "A contained resource must not contain others (dom-2)", ".contained")
    return problems


_checks: dict[str, Check] = {}


def shape_check(path: str) -> Check:
    """The check of a complex type, resource type or backbone element, by the key that `definitions.elements` takes.

    It is kept before it is filled, since types hold themselves (an Extension holds Extensions).
    """
    known = _checks.get(path)
    if known:
        return known
    shape = ObjectShape(path, lambda value, depth: shape_check("Element")(value, depth))
    if path in RESOURCE_TYPES:
        shape.tests["resourceType"] = _resource_type_given
    check = object_check(shape)
    _checks[path] = _extension(check) if path == "Extension" else check
    _fill(shape)
    return _checks[path]


def _resource_type_given(_value: Any, _depth: int) -> None:
    """`resource_check` has looked at it already."""


def _fill(shape: ObjectShape) -> None:
    for element in elements(shape.path).values():
        names = element.json_names
        for name, type_name in names.items():
            primitive = type_name in primitive_types()
            check = _element_check(element, type_name)
            if element.max != 1:
                check = list_check(nullable(check) if primitive else check)
            shape.tests[name] = check
            if primitive and not _is_attribute(shape, name):
                shape.primitives[name] = element.max == 1
            if element.choice:
                shape.labels[name] = element.name
        if element.choice:
            keys = {key: name for name in names for key in (name, f"_{name}")}
            shape.choices.append((element.name, keys, element.min > 0))
        elif element.min:
            shape.required.append(element.name)


def _is_attribute(shape: ObjectShape, name: str) -> bool:
    """Element.id and Extension.url are attributes in XML: they have no extensions, and so no `_id` and `_url` in JSON."""
    return (name == "id" and "resourceType" not in shape.tests) or (name == "url" and shape.path == "Extension")


def _element_check(element: Element, type_name: str) -> Check:
    if type_name == "Resource":
        return _contained_check if element.name == "contained" else resource_check
    if type_name in CHECKS:
        codes = value_set(element.binding) if element.binding and type_name == "code" else None
        if codes is None:
            return CHECKS[type_name]
        assert element.binding
        return code_from(frozenset().union(*codes.values()), element.binding)
    check = shape_check(element.children or type_name)
    if type_name == "Reference":
        return reference_check(check, element.targets)
    if type_name == "Quantity" and element.simple:
        return _simple_quantity(check)
    if type_name == "CodeableConcept" and element.binding:
        return _bound_concept(check, element.binding)
    return check


def _simple_quantity(shape: Check) -> Check:
    def check(value: Any, depth: int) -> list[Problem] | None:
        problems = shape(value, depth)
        if not problems and "comparator" in value:
            return problem("invariant", "A SimpleQuantity has no comparator (sqt-1)", ".comparator")
        return problems

    return check


def _bound_concept(shape: Check, binding: str) -> Check:
    """A CodeableConcept with a required binding: at least one coding is in the value set (FHIR R4, binding strengths)."""
    systems = value_set(binding)
    if systems is None:
        return shape

    def check(value: Any, depth: int) -> list[Problem] | None:
        problems = shape(value, depth)
        if problems or value.keys() <= {"id", "extension"}:
            return problems
        if any(coding.get("code") in systems.get(coding.get("system"), ()) for coding in value.get("coding", ())):
            return None
        return problem("code-invalid", f"No coding is from {binding} (required binding)")

    return check


_EXTENSION_FRAME = frozenset({"id", "extension", "url"})


def _extension(shape: Check) -> Check:
    def check(value: Any, depth: int) -> list[Problem] | None:
        problems = shape(value, depth)
        if not problems and ("extension" in value) == any(key not in _EXTENSION_FRAME for key in value):
            return problem("invariant", "An extension has either a value or extensions inside (ext-1)")
        return problems

    return check
