"""Contained resources and the references to them (FHIR R4 2.3.0.2; invariants dom-3, dom-4, dom-5 and ref-1).

dom-2 (none inside another) belongs to the shape. Other than R4's text, and as R4B and R5 have it, ref-1 lets a contained resource
refer to what it is contained in with `#` alone.
"""

from collections.abc import Iterator
from typing import Any

from fhir_server.fhirpath import resource_node
from fhir_server.fhirpath.nodes import Node
from fhir_server.validation.problems import Problem, below, problem

_HOLDERS = frozenset({"Bundle", "Parameters"})
_FRAGMENT_TYPES = frozenset({"canonical", "uri", "url"})


def may_contain(resource: dict[str, Any], written: bytes) -> bool:
    """Whether a resource can hold contained resources or references to them; `written` is its JSON."""
    if "contained" in resource or (b"#" in written and b'"reference":"#' in written):
        return True
    return resource["resourceType"] in _HOLDERS and b'"contained":' in written


def check_contained(resource: dict[str, Any]) -> list[Problem]:
    """The check of a resource whose shape is valid, and of every resource in it that is not a contained one."""
    return [found for place, inner in _resources(resource, "") for found in below(place, _check(inner))]


def _resources(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A resource and those in its entries and parameters, with their places."""
    if type(value) is dict:
        if "resourceType" in value:
            yield place, value
        for key in ("entry", "parameter", "part", "resource", "response", "outcome"):
            if key in value:
                yield from _resources(value[key], f"{place}.{key}")
    elif type(value) is list:
        for index, item in enumerate(value):
            yield from _resources(item, f"{place}[{index}]")


def _check(resource: dict[str, Any]) -> list[Problem]:
    contained: list[dict[str, Any]] = resource.get("contained", [])
    found: list[Problem] = []
    for index, inner in enumerate(contained):
        found += below(f".contained[{index}]", _check_meta(inner.get("meta", {})))
    ids: set[Any] = set()
    for index, inner in enumerate(contained):
        if inner.get("id") in ids - {None}:
            found += problem(
                "invariant", "Another contained resource has this id, too (FHIR R4 2.3.0.2)", f".contained[{index}].id"
            )
        ids.add(inner.get("id"))
    used: set[str] = set()
    for place, literal, is_inside in _fragments(resource, "", False):
        used.add(literal[1:])
        if literal[1:] not in ids and not (literal == "#" and is_inside):
            found += problem("invariant", f"{literal[:70]!r} is not the id of a contained resource (ref-1)", place)
    unused = [(i, inner) for i, inner in enumerate(contained) if inner.get("id") not in used and not _refers_to_container(inner)]
    if unused:
        used = _canonical_uses(resource)
    for index, inner in unused:
        if inner.get("id") not in used:
            found += problem("invariant", "Nothing refers to this contained resource (dom-3)", f".contained[{index}]")
    return found


def _check_meta(meta: dict[str, Any]) -> list[Problem]:
    rules = (("versionId", "dom-4"), ("lastUpdated", "dom-4"), ("security", "dom-5"))
    return [
        ("invariant", f"A contained resource has no meta.{name} ({key})", f".meta.{name}") for name, key in rules if name in meta
    ]


def _fragments(value: Any, place: str, is_inside: bool) -> Iterator[tuple[str, str, bool]]:
    """Every `reference` that begins with `#`, with its place and whether it is inside a contained resource.

    Resources in entries and parameters stand for themselves; those in `contained` are in an array.
    """
    if type(value) is dict:
        literal = value.get("reference")
        if type(literal) is str and literal.startswith("#"):
            yield f"{place}.reference", literal, is_inside
        for key, item in value.items():
            inner_resource = type(item) is dict and "resourceType" in item
            if type(item) in {dict, list} and not inner_resource:
                yield from _fragments(item, f"{place}.{key}", is_inside or (not place and key == "contained"))
    elif type(value) is list:
        for index, item in enumerate(value):
            yield from _fragments(item, f"{place}[{index}]", is_inside)


def _refers_to_container(inner: dict[str, Any]) -> bool:
    return any(literal == "#" for _, literal, _ in _fragments(inner, "", True))


def _canonical_uses(resource: dict[str, Any]) -> set[str]:
    """The ids in `#id` values of canonical, uri and url elements."""
    found: set[str] = set()
    level: list[Node] = [resource_node(resource)]
    while level:
        level = [child for node in level for child in node.children()]
        found |= {
            node.value[1:] for node in level if node.type in _FRAGMENT_TYPES and type(node.value) is str and node.value[:1] == "#"
        }
    return found
