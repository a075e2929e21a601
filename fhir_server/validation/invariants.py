"""R4's invariants on a resource whose shape is valid: the constraints of its element definitions, in FHIRPath.

A walker per type visits only what can lead to an element with invariants. A resource without any extension is known to have none
of the data types that only extensions bring, so that most of it need not be visited. What is done on each element with
invariants is looked up by the names that it has; `presence` decides most of it once for all elements that look the same.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from fhir_server.definitions import Element, elements, kind, primitive_types
from fhir_server.definitions.tables import read
from fhir_server.fhir_json import dumps
from fhir_server.fhirpath import Expression, FhirPathError, compile_expression
from fhir_server.fhirpath.nodes import Node
from fhir_server.fhirpath.syntax import Node as Tree
from fhir_server.fhirpath.syntax import parse
from fhir_server.validation.presence import TRUE, mentioned, verdict
from fhir_server.validation.problems import MAX_PROBLEMS

Violation = tuple[str, str, str]
"""Severity, text, and the path below the element that was visited."""

Scope = tuple[dict[str, Any], dict[str, Any]]
"""The resource (`%resource`), and the one that it is contained in or itself (`%rootResource`)."""

Visit = Callable[[Any, Scope], list[Violation] | None]

_EXTENSIONS = frozenset({"extension", "modifierExtension"})
_EXTENDED = b'xtension":'  # the end of both in JSON
_LARGE = 20_000  # bytes of JSON, from where on it pays to look which parts of a resource have extensions
_MAX_PLANS = 1024


class Constraint(NamedTuple):
    """One invariant of a type; `child` names the element that it stands on, where that has a type of its own."""

    key: str
    severity: str
    child: str
    tree: Tree
    expression: Expression


@cache
def constraints() -> dict[str, list[Constraint]]:
    """All of R4's, by the type or backbone element that they stand in."""
    found: dict[str, list[Constraint]] = {}
    for type_name, rows in read("invariants")["invariants"].items():
        for key, severity, below, text in rows:
            path, child = (f"{type_name}.{below}", "") if below else (type_name, "")
            parent, _, last = path.rpartition(".")
            if below and elements(parent)[last].children != path:
                path, child = parent, last
            found.setdefault(path, []).append(Constraint(key, severity, child, parse(text), compile_expression(text)))
    return found


def check_invariants(resource: dict[str, Any], written: bytes) -> list[Violation]:
    """What R4's invariants (other than those that the other checks of this package know) say of a valid resource.

    `written` is its JSON. Severities: `error`, `warning`, and `information` for an invariant that can't be evaluated here.
    """
    scope = (resource, resource)
    extended = _EXTENDED in written
    if not extended or len(written) < _LARGE:
        return _visit_resource(resource, scope, extended) or []
    name = resource["resourceType"]
    plain = {key: item for key, item in resource.items() if key not in _EXTENSIONS and _EXTENDED not in dumps(item)}
    rest = {key: item for key, item in resource.items() if key not in plain}
    visits = (_own_check(name), resource), (_follower(name, False), plain), (_follower(name, True), rest)
    return [violation for visit, part in visits if visit for violation in visit(part, scope) or ()]


def _visit_resource(value: dict[str, Any], scope: Scope, extended: bool) -> list[Violation] | None:
    return _walker(value["resourceType"], extended)(value, scope)


@cache
def _walker(path: str, extended: bool) -> Visit:
    """Visits an element of this type or backbone element, and what is inside."""
    check, follow = _own_check(path), _follower(path, extended)
    if check is None or follow is None:
        return check or follow or (lambda _value, _scope: None)

    def visit(value: Any, scope: Scope) -> list[Violation] | None:
        found = check(value, scope)
        inside = follow(value, scope)
        return found + inside if found and inside else found or inside

    return visit


@cache
def _own_check(path: str) -> Visit | None:
    return _Plans(path, constraints()[path]).check if path in constraints() else None


@cache
def _follower(path: str, extended: bool) -> Visit | None:
    """Visits what is inside an element, but not the element itself."""
    routes = {key: _route(element, type_name, extended) for element, key, type_name in _routes(path, extended)}
    get = routes.get

    def follow(value: Any, scope: Scope) -> list[Violation] | None:
        found: list[Violation] | None = None
        for key, item in value.items():
            route = get(key)
            if route is not None:
                violations = route(item, scope)
                if violations:
                    found = (found or []) + violations
        return found

    return follow if routes else None


def _routes(path: str, extended: bool) -> Iterator[tuple[Element, str, str]]:
    """The JSON names in a type that lead to invariants."""
    for element in elements(path).values():
        for key, type_name in element.json_names.items():
            if type_name in primitive_types():
                if extended:
                    yield element, f"_{key}", "Element"
            elif _leads_somewhere(element.children or type_name, extended) and (extended or element.name not in _EXTENSIONS):
                yield element, key, element.children or type_name


@cache
def _leads_somewhere(path: str, extended: bool) -> bool:
    if extended or kind(path) == "resource":
        return True
    seen, level = {path}, [path]
    while level:
        if any(name in constraints() for name in level):
            return True
        inside = {
            element.children or type_name
            for name in level
            for element in elements(name).values()
            for type_name in element.json_names.values()
            if element.name not in _EXTENSIONS and type_name not in primitive_types()
        }
        level = list(inside - seen)
        seen |= inside
        if any(kind(name) == "resource" for name in level):
            return True
    return False


def _route(element: Element, type_name: str, extended: bool) -> Visit:
    """From an element to what it leads to; the walker there is made on first use, for types hold themselves."""
    step = f".{element.name}"
    inner = _resource_visit(element.name == "contained", extended) if type_name == "Resource" else None
    skips: Callable[[Any], bool] | None = None
    if type_name != "Resource" and type_name not in constraints():
        skips = frozenset(key for _, key, _ in _routes(type_name, extended)).isdisjoint

    def visit_one(value: Any, scope: Scope) -> list[Violation] | None:
        nonlocal inner
        if skips is not None and skips(value):
            return None
        if inner is None:
            inner = _walker(type_name, extended)
        found = inner(value, scope)
        return [(severity, text, step + path) for severity, text, path in found] if found else None

    def visit_list(value: Any, scope: Scope) -> list[Violation] | None:
        nonlocal inner
        if inner is None:
            inner = _walker(type_name, extended)
        found: list[Violation] = []
        errors = 0
        for index, item in enumerate(value):
            if item is None or (skips is not None and skips(item)):
                continue
            for severity, text, path in inner(item, scope) or ():
                found.append((severity, text, f"{step}[{index}]{path}"))
                errors += severity == "error"
            if errors >= MAX_PROBLEMS:
                break
        return found

    return visit_one if element.max == 1 else visit_list


def _resource_visit(is_contained: bool, extended: bool) -> Visit:
    def visit(value: Any, scope: Scope) -> list[Violation] | None:
        return _visit_resource(value, (value, scope[1] if is_contained else value), extended)

    return visit


def _is_plainly_in_order(period: dict[str, Any]) -> bool:
    """Whether per-1 holds by the look of it: both ends with the same precision and the same offset, in order as text."""
    start, end = period.get("start"), period.get("end")
    if start is None or end is None or len(start) != len(end) or start > end:
        return False
    return len(start) <= 10 or (start[-1] == "Z" == end[-1]) or start[-6:] == end[-6:]


class _Plans:
    """Which invariants of a type must be evaluated on an element, by the names that it has."""

    def __init__(self, path: str, of_type: list[Constraint]) -> None:
        self._path = path
        self._constraints = of_type
        self._is_period = path == "Period"  # the one that is everywhere, and needs an evaluation
        names = {name for c in of_type for name in (mentioned(c.tree) if not c.child else {c.child})}
        self._names: dict[str, str] = {}  # JSON name to FHIRPath name
        for element in elements(path).values():
            if element.name in names:
                self._names |= {key: element.name for json in element.json_names for key in (json, f"_{json}")}
        self._keys = frozenset(self._names)
        self._plans: dict[frozenset[str], tuple[Constraint, ...]] = {}

    def check(self, value: dict[str, Any], scope: Scope) -> list[Violation] | None:
        keys = self._keys.intersection(value)
        plan = self._plans.get(keys)
        if plan and self._is_period and _is_plainly_in_order(value):
            return None
        if plan is None:
            plan = self._plan(keys)
        return self._evaluate(plan, value, scope) if plan else None

    def _plan(self, keys: frozenset[str]) -> tuple[Constraint, ...]:
        present = frozenset(self._names[key] for key in keys)
        plan = tuple(c for c in self._constraints if (c.child in present if c.child else verdict(c.tree, present) != TRUE))
        if len(self._plans) < _MAX_PLANS:
            self._plans[keys] = plan
        return plan

    def _evaluate(self, plan: tuple[Constraint, ...], value: dict[str, Any], scope: Scope) -> list[Violation] | None:
        found: list[Violation] = []
        type_name = self._path
        node = Node(value, type_name)
        resource = node if scope[0] is value else Node(scope[0], scope[0]["resourceType"])
        root = resource if scope[1] is scope[0] else Node(scope[1], scope[1]["resourceType"])
        for constraint in plan:
            for place in node.child(constraint.child) if constraint.child else (node,):
                try:
                    if constraint.expression.is_met(place, resource, root):
                        continue
                    text, severity = f"{constraint.key}: {constraint.expression.text}", constraint.severity
                except FhirPathError as error:
                    text, severity = f"{constraint.key} can't be evaluated: {error}", "information"
                found.append((severity, text, place.path))
        return found or None
