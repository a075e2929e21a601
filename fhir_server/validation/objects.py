"""Checks of JSON objects and arrays as FHIR uses them (FHIR R4 2.6.2): names, cardinality, choices, primitive extensions."""

from typing import Any

from fhir_server.validation.primitives import CHECKS
from fhir_server.validation.problems import MAX_PROBLEMS, Check, Problem, below, problem

MAX_DEPTH = 40
"""Elements inside elements. Each takes one or two levels of JSON, which `fhir_json` limits to twice as many."""

_ID_CHECK = CHECKS["string"]
_NULL = "null stands only for a primitive whose id or extensions are in the array of the same name with _"


class ObjectShape:
    """What one type or backbone element allows, filled from the tables before its first use."""

    def __init__(self, path: str, element_check: Check) -> None:
        self.path = path
        self.element_check = element_check  # of a bare Element, which is what `_name` holds
        self.tests: dict[str, Check] = {}
        self.primitives: dict[str, bool] = {}  # JSON name of each primitive, and whether it is single
        self.labels: dict[str, str] = {}  # JSON name to FHIRPath name, where they differ (choices)
        self.required: list[str] = []
        self.choices: list[tuple[str, dict[str, str], bool]] = []  # name, JSON names (with and without _), whether required


def list_check(item_check: Check) -> Check:
    """The check of an element that repeats."""

    def check(value: Any, depth: int) -> list[Problem] | None:
        if type(value) is not list:
            return problem("structure", "This element repeats, so it must be an array")
        if not value:
            return problem("structure", "An array must not be empty")
        found: list[Problem] | None = None
        for index, item in enumerate(value):
            problems = item_check(item, depth)
            if problems:
                found = (found or []) + below(f"[{index}]", problems)
                if len(found) >= MAX_PROBLEMS:
                    break
        return found

    return check


def nullable(primitive_check: Check) -> Check:
    """The check of a primitive in an array: a null is reported as `_NULL`, for the object to judge."""

    def check(value: Any, depth: int) -> list[Problem] | None:
        return problem("structure", _NULL) if value is None else primitive_check(value, depth)

    return check


def object_check(shape: ObjectShape) -> Check:
    """The check of an object; `shape` may be filled later."""
    tests, required, choices = shape.tests, shape.required, shape.choices
    get = tests.get
    is_resource = "resourceType" in tests

    def check(value: Any, depth: int) -> list[Problem] | None:
        if type(value) is not dict:
            return problem("structure", "This must be a JSON object")
        if not value or ("id" in value and len(value) == 1 and not is_resource):
            return problem("invariant", "An element needs a value or elements inside (ele-1)")
        if depth > MAX_DEPTH:
            return problem("structure", f"Elements nest deeper than {MAX_DEPTH} levels")
        found: list[Problem] | None = None
        depth += 1
        for key, item in value.items():
            test = get(key)
            problems = _check_other(shape, value, key, depth) if test is None else test(item, depth)
            if problems:
                found = (found or []) + _named(shape, value, key, problems)
                if len(found) >= MAX_PROBLEMS:
                    return found
        for name in required:
            if name not in value:
                found = (found or []) + _missing(shape, value, name)
        if choices:
            found = (found or []) + _check_choices(shape, value)
        return found

    return check


def _named(shape: ObjectShape, value: dict[str, Any], key: str, problems: list[Problem]) -> list[Problem]:
    """The problems under an element's name, without those nulls that a primitive extension explains."""
    name = key.removeprefix("_")
    siblings = value.get(f"_{name}")
    if name in shape.primitives and type(siblings) is list:
        explained = {f"[{index}]" for index, item in enumerate(siblings) if item is not None}
        problems = [p for p in problems if p[1] is not _NULL or p[2] not in explained]
    return below(f".{shape.labels.get(name, name)}", problems)


def _missing(shape: ObjectShape, value: dict[str, Any], name: str) -> list[Problem]:
    if name in shape.primitives and f"_{name}" in value:
        return []
    return problem("required", f"{shape.path}.{name} is required", f".{name}")


def _check_choices(shape: ObjectShape, value: dict[str, Any]) -> list[Problem]:
    found: list[Problem] = []
    for name, keys, needed in shape.choices:
        given = [key for key in value if key in keys]
        if not given and needed:
            found += problem("required", f"{shape.path}.{name}[x] is required", f".{name}")
        elif len(given) > 1 and len({keys[key] for key in given}) > 1:
            found += problem("structure", f"Only one type of {name}[x] may be given", f".{name}")
    return found


def _check_other(shape: ObjectShape, value: dict[str, Any], key: str, depth: int) -> list[Problem] | None:
    """A name that no element has: `_name` of a primitive, or a mistake."""
    name = key[1:]
    if not key.startswith("_") or name not in shape.primitives:
        return problem("structure", f"{shape.path} has no element {key[:64]!r}")
    item, values = value[key], value.get(name)
    if shape.primitives[name]:
        return _check_primitive_extension(shape, item, values is not None, depth)
    if type(item) is not list or not item:
        return problem("structure", "This element repeats, so it must be an array, and not an empty one")
    if type(values) is list and len(values) != len(item):
        return problem("structure", f"{name} and _{name} must be equally long, with null where one has nothing")
    values = values if type(values) is list else [None] * len(item)
    found: list[Problem] = []
    for index, (extension, given) in enumerate(zip(item, values, strict=True)):
        if extension is not None:
            found += below(f"[{index}]", _check_primitive_extension(shape, extension, given is not None, depth) or [])
        elif given is None:
            found += problem("structure", "There is neither a value nor an extension", f"[{index}]")
    return found


def _check_primitive_extension(shape: ObjectShape, item: Any, has_value: bool, depth: int) -> list[Problem] | None:
    """`_name`: the id and extensions of a primitive (FHIR R4 2.6.2). An id alone will do where there is a value (ele-1)."""
    if has_value and type(item) is dict and item.keys() == {"id"}:
        return below(".id", _ID_CHECK(item["id"], depth) or [])
    return shape.element_check(item, depth)
