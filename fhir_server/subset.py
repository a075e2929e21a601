"""Parts of resources: `_summary` and `_elements` (FHIR R4 3.1.1.5.8, 3.1.1.5.9).

What stays is worked out once a type, then looked up by JSON name. Mandatory elements, `id`, `meta`, `implicitRules` and modifier
extensions always stay; so do, in a summary, the `id` and the extensions of a data type that stays, as they may say that it has
no value, or what it means. Contained resources go like any element that is not asked for.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

from fhir_server.definitions import RESOURCE_TYPES, Element, kind, primitive_types
from fhir_server.definitions import elements as elements_of
from fhir_server.elements import Resource
from fhir_server.outcome import FhirError, Issue, fail

MAX_STEPS = 16
"""Steps of one dotted path in `_elements`."""

SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
_ALWAYS = frozenset({"id", "meta", "implicitRules", "modifierExtension"})
_WITH_DATA_TYPES = frozenset({"id", "extension", "modifierExtension"})
_NOTHING: Any = object()


class Part(NamedTuple):
    """What stays of one element: all of it, or what the plan of `path` says; `tree` for what `_elements` names inside."""

    path: str
    mandatory: bool
    tree: "Tree | None" = None


Plan = Mapping[str, Part | None]  # JSON name to what stays of it; None: all of it
Tree = tuple[tuple[str, "Tree | None"], ...]  # element name to what is named inside it; None: all of it


def subset(resource: Resource, summary: str | None, elements: tuple[str, ...]) -> Resource:
    """What `_summary` (`true`, `text`, `data`; `false` and None leave all) and `_elements` leave of a resource.

    With both, what each of them would leave. The answer has the tag SUBSETTED whenever something may be missing, and shares its
    parts with the argument, which is not changed. Names that the type doesn't have are passed over: `check_elements` is for them.
    """
    resource_type = resource["resourceType"]
    found = resource
    if summary == "true":
        found = _kept(resource, _summary_plan(resource_type))
    elif summary == "text":
        found = _kept(resource, _text_plan(resource_type))
    elif summary == "data":
        found = {name: value for name, value in resource.items() if name != "text"}
    if elements:
        found = _kept(found, _elements_plan(resource_type, elements))
    return resource if found is resource else _tagged(found)


def elements_named(value: str) -> tuple[str, ...]:
    """`_elements`."""
    elements = tuple(name.strip() for name in value.split(","))
    if not all(elements):
        raise fail("invalid", "_elements names elements, with commas between them", status=400)
    return elements


def check_elements(resource_type: str, elements: tuple[str, ...]) -> None:
    """Raises FhirError (`invalid`, 400) that names each of `_elements` that the resource type doesn't have."""
    unknown = [name for name in elements if not _is_known(resource_type, name)]
    if unknown:
        raise FhirError(*(Issue("invalid", f"_elements: {resource_type} has no element {name[:128]!r}") for name in unknown))


# --- keeping ----------------------------------------------------------------------------------------------------------


def _kept(value: dict[str, Any], plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        if name not in plan:
            continue
        part = plan[name]
        kept = item if part is None else _part_of(item, part)
        if kept is not _NOTHING:
            found[name] = kept
    return found


def _part_of(item: Any, part: Part) -> Any:
    """What stays of an element; a mandatory one of which nothing would stay stays whole, any other goes."""
    plan = _summary_plan(part.path) if part.tree is None else _inner_plan(part.path, part.tree)
    many = item if isinstance(item, list) else [item]
    kept = [left for one in many if isinstance(one, dict) and (left := _kept(one, plan))]
    if not kept:
        return item if part.mandatory else _NOTHING
    return kept if isinstance(item, list) else kept[0]


def is_part(tags: Iterable[Resource]) -> bool:
    """Whether one of these tags says that a resource isn't whole."""
    return any(t.get("code") == SUBSETTED["code"] and t.get("system") == SUBSETTED["system"] for t in tags)


def _tagged(resource: Resource) -> Resource:
    """The same with the tag; `resource` is ours, its meta is not."""
    meta = resource.get("meta", {})
    tags = meta.get("tag", [])
    if not is_part(tags):
        resource["meta"] = meta | {"tag": [*tags, dict(SUBSETTED)]}
    return resource


# --- plans ------------------------------------------------------------------------------------------------------------


def _names(element: Element) -> Iterator[tuple[str, str | None]]:
    """The JSON names of an element, `_name` of primitives too, and where the elements inside each are described."""
    for name, type_name in element.json_names.items():
        if type_name in primitive_types():
            yield name, None
            yield f"_{name}", None
        else:
            yield name, type_name if element.choice else element.children


def _is_in_summary(path: str, element: Element) -> bool:
    always = _ALWAYS if kind(path) == "resource" else _WITH_DATA_TYPES
    return element.summary or element.min > 0 or element.name in always


@cache
def _summary_plan(path: str) -> Plan:
    plan: dict[str, Part | None] = {"resourceType": None}
    for element in elements_of(path).values():
        if _is_in_summary(path, element):
            for name, inner in _names(element):
                whole = inner is None or element.name in {"extension", "modifierExtension"} or _is_all_summary(inner)
                plan[name] = None if whole or inner is None else Part(inner, element.min > 0)
    return plan


@cache
def _is_all_summary(path: str) -> bool:
    """Whether a summary leaves out nothing at any depth, so that there is no need to look inside (Coding, Period, ...)."""
    seen, waiting = {path}, [path]
    while waiting:
        here = waiting.pop()
        for element in elements_of(here).values():
            if element.name in _WITH_DATA_TYPES:
                continue
            if not _is_in_summary(here, element):
                return False
            inside = {inner for _, inner in _names(element) if inner is not None} - seen
            seen |= inside
            waiting += inside
    return True


@cache
def _text_plan(resource_type: str) -> Plan:
    return _plan_of(resource_type, (("text", None),))


def _plan_of(path: str, tree: Tree) -> Plan:
    """The named elements, and those that always stay, whole."""
    named = dict(tree)
    plan: dict[str, Part | None] = {"resourceType": None}
    for element in elements_of(path).values():
        always = element.min > 0 or element.name in _ALWAYS
        for name, inner in _names(element):
            wanted = [n for n in (element.name, name.removeprefix("_")) if n in named]
            if any(named[n] is None for n in wanted) or (always and not wanted):
                plan[name] = None
            elif wanted:
                merged = tuple(step for n in dict.fromkeys(wanted) for step in named[n] or ())
                plan[name] = None if inner is None else Part(inner, element.min > 0, merged)
    return plan


@lru_cache(maxsize=1024)
def _inner_plan(path: str, tree: Tree) -> Plan:
    return _plan_of(path, tree)


@lru_cache(maxsize=1024)
def _elements_plan(resource_type: str, elements: tuple[str, ...]) -> Plan:
    known = [name for name in elements if _is_known(resource_type, name)]
    return _plan_of(resource_type, _tree([_steps(name) for name in known]))


def _tree(paths: list[list[str]]) -> Tree:
    """The paths as a tree; what is asked for as a whole and in part is asked for as a whole."""
    inside: dict[str, list[list[str]]] = {}
    for first, *rest in paths:
        inside.setdefault(first, []).append(rest)
    return tuple((name, _tree(rests) if all(rests) else None) for name, rests in inside.items())


def _steps(name: str) -> list[str]:
    """`Patient.name.family` and `name.family` as `["name", "family"]`; `value[x]` as `["value"]`."""
    steps = name.split(".", MAX_STEPS + 1)
    if len(steps) > 1 and steps[0] in RESOURCE_TYPES:
        del steps[0]
    return [step.removesuffix("[x]") for step in steps]


def _is_known(resource_type: str, name: str) -> bool:
    first, dot, _ = name.partition(".")
    if dot and first in RESOURCE_TYPES and first != resource_type:
        return False
    steps = _steps(name)
    places: set[str] = {resource_type}
    for number, step in enumerate(steps):
        found = [_named(place, step) for place in places]
        if not any(hits is not None for hits in found) or number == MAX_STEPS:
            return False
        places = {inner for hits in found for inner in hits or ()}
    return True


def _named(path: str, name: str) -> set[str] | None:
    """Where the elements inside the element (or its form of this JSON name) are described; None when there is no such element."""
    for element in elements_of(path).values():
        forms = {form: inner for form, inner in _names(element) if not form.startswith("_")}
        if name == element.name or name in forms:
            return {inner for form, inner in forms.items() if inner is not None and name in {element.name, form}}
    return None
