"""A resource against a profile: a StructureDefinition that constrains a resource type (FHIR R4 5.1.0, `$validate`).

Checked: cardinality, types, reference targets by type, fixed[x] and pattern[x], minValue[x], maxValue[x], maxLength, required
bindings whose codes are known, slices, FHIRPath constraints, the profiles of extensions and data types that are loaded, and
the profile's own base where it has no snapshot. What can't be checked is said so by an `information` issue.
"""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

from fhir_server.definitions import RESOURCE_TYPES, kind
from fhir_server.definitions.tables import read
from fhir_server.fhirpath import FhirPathError, Node, compile_expression, resource_node
from fhir_server.fhirpath.functions import resolved
from fhir_server.fhirpath.items import compare
from fhir_server.outcome import Issue
from fhir_server.validation.profiles.definitions import STRUCTURE, Rule, is_allowed, rule_tree
from fhir_server.validation.profiles.matching import Lookup, codes_of, is_coded, is_fixed, matches_pattern
from fhir_server.validation.profiles.slicing import UnsupportedSlicingError, belongs_to

__all__ = ["Lookup", "validate_profile"]

MAX_ISSUES = 100
_MAX_BASES = 10
_OF_DATA_TYPES = {STRUCTURE + "SimpleQuantity", STRUCTURE + "MoneyQuantity"}


def validate_profile(resource: dict[str, Any], structure_definition: dict[str, Any], lookup: Lookup | None = None) -> list[Issue]:
    """What a resource that is valid R4 (`validate` first: its rules are not repeated here) lacks to conform to a profile.

    `lookup` finds other loaded StructureDefinitions, ValueSets and CodeSystems by canonical URL. At most 100 issues: `required`,
    `structure`, `value`, `code-invalid`, `invariant`, and `not-supported` with severity `information`.
    """
    check = _ProfileCheck(resource, lookup or (lambda _canonical: None))
    wanted = structure_definition.get("type")
    if wanted != resource.get("resourceType"):
        return [Issue("structure", f"The profile is about {wanted}, not {resource.get('resourceType')}", check.start)]
    check.conforms(resource_node(resource), structure_definition)
    return list(dict.fromkeys(check.issues))[:MAX_ISSUES]


class _ProfileCheck:
    """One validation: the issues found so far."""

    def __init__(self, resource: dict[str, Any], lookup: Lookup) -> None:
        self.issues: list[Issue] = []
        self.start = str(resource.get("resourceType"))
        self._lookup = lookup

    def _error(self, code: str, text: str, path: str, severity: str = "error") -> None:
        self.issues.append(Issue(code, text, self.start + path, severity))

    def _unchecked(self, text: str, path: str) -> None:
        self._error("not-supported", f"Not checked: {text}", path, "information")

    def conforms(self, node: Node, structure: dict[str, Any]) -> None:
        """Against a profile, and against those that it is based on where it has no snapshot."""
        for definition in self._with_bases(structure, node.path):
            tree = rule_tree(definition)
            if tree is None:
                self._unchecked(f"{definition.get('url')} has neither snapshot nor differential", node.path)
            else:
                self._node(tree, node)

    def _with_bases(self, structure: dict[str, Any], path: str) -> Iterator[dict[str, Any]]:
        for _ in range(_MAX_BASES):
            yield structure
            base = str(structure.get("baseDefinition", "")).split("|")[0]
            if "snapshot" in structure or not base or kind(base.removeprefix(STRUCTURE)) is not None:
                return
            found = self._lookup(base)
            if found is None:
                self._unchecked(f"the base profile {base} is not loaded", path)
                return
            structure = found
        self._unchecked("the chain of base profiles is too long", path)

    # One element

    def _element(self, rule: Rule, parent: Node) -> None:
        nodes = parent.child(rule.name)
        path = f"{parent.path}.{rule.name}"
        self._count(rule, len(nodes), path)
        for node in nodes:
            self._node(rule, node)
        if rule.slices:
            try:
                self._slices(rule, nodes, path)
            except UnsupportedSlicingError as error:
                self._unchecked(f"slices: {error}", path)

    def _count(self, rule: Rule, count: int, path: str) -> None:
        least, most = rule.definition.get("min", 0), rule.definition.get("max", "*")
        what = f"{path[1:]} (slice {rule.slice_name})" if rule.slice_name else path[1:]
        if count < least:
            self._error("required", f"{what}: at least {least} needed, {count} found", path)
        if most != "*" and count > int(most):
            self._error("structure", f"{what}: at most {most} allowed, {count} found", path)

    def _slices(self, rule: Rule, nodes: list[Node], path: str) -> None:
        for part in rule.slices:
            if "/" in part.slice_name:
                self._unchecked(f"the slice within a slice {part.slice_name}", path)
        slices = [part for part in rule.slices if "/" not in part.slice_name]
        members = [next((s for s in slices if belongs_to(node, rule, s, self._lookup)), None) for node in nodes]
        for part in slices:
            self._count(part, sum(member is part for member in members), path)
        rules = rule.slicing.get("rules")
        for node, member in zip(nodes, members, strict=True):
            if member is not None:
                self._node(member, node)
            elif rules == "closed":
                self._error("structure", f"{rule.name} is in none of the slices, and there may be no others", node.path)
        if rules == "openAtEnd" and any(a is None and b is not None for a, b in pairwise(members)):
            self._error("structure", f"{rule.name}: what is in no slice comes last", path)
        places = [slices.index(member) for member in members if member is not None]
        if rule.slicing.get("ordered") and places != sorted(places):
            self._error("structure", f"The slices of {rule.name} are not in the profile's order", path)

    def _node(self, rule: Rule, node: Node) -> None:
        if len(self.issues) > 2 * MAX_ISSUES:
            return
        if self._types(rule, node):
            self._values(rule, node)
            self._binding(rule, node)
        self._constraints(rule, node)
        for child in rule.children.values():
            self._element(child, node)

    def _types(self, rule: Rule, node: Node) -> bool:
        types = rule.types
        if types and not any(is_allowed(node.type, wanted) for wanted in types):
            self._error("structure", f"The type is {node.type}, and the profile wants {' or '.join(types)}", node.path)
            return False
        for row in rule.definition.get("type", ()):
            if is_allowed(node.type, row.get("code", "")):
                self._targets([str(url) for url in row.get("targetProfile", ())], node)
                self._profiles([str(url).split("|")[0] for url in row.get("profile", ())], node)
        return True

    def _targets(self, profiles: list[str], node: Node) -> None:
        found = resolved(node, _root(node)) if profiles and type(node.value) is dict else None
        if found is None:
            return
        allowed: set[str] = set()
        for url in profiles:
            name = url.removeprefix(STRUCTURE)
            if name not in RESOURCE_TYPES and name != "Resource":
                self._unchecked(f"whether what is referred to conforms to {url}", node.path)
                name = str((self._lookup(url.split("|")[0]) or {}).get("type", "Resource"))
            allowed.add(name)
        if not any(is_allowed(found.type, name) for name in allowed):
            self._error("value", f"Refers to {found.type}, and the profile wants {' or '.join(sorted(allowed))}", node.path)

    def _profiles(self, urls: list[str], node: Node) -> None:
        """The profiles of an extension or data type: one of them must be met."""
        others = [url for url in urls if url not in _OF_DATA_TYPES]
        loaded = [self._lookup(url) for url in others]
        if not others:
            return
        if None in loaded or len(loaded) > 1:
            self._unchecked(f"conformity to {' or '.join(others)}", node.path)
        elif loaded[0] is not None:
            self.conforms(node, loaded[0])

    def _values(self, rule: Rule, node: Node) -> None:
        fixed, pattern, longest = rule.value("fixed"), rule.value("pattern"), rule.definition.get("maxLength")
        if fixed is not None and not is_fixed(node.value, fixed):
            self._error("value", "The value is not the one that the profile fixes", node.path)
        if pattern is not None and not matches_pattern(node.value, pattern):
            self._error("value", "The value does not match the profile's pattern", node.path)
        if longest is not None and type(node.value) is str and len(node.value) > longest:
            self._error("value", f"Longer than {longest} characters", node.path)
        for prefix, sign in (("minValue", -1), ("maxValue", 1)):
            limit = rule.value(prefix)
            if limit is not None:
                self._limit(node, Node(limit, node.type), sign, prefix)

    def _limit(self, node: Node, limit: Node, sign: int, name: str) -> None:
        try:
            order = compare(node, limit)
        except FhirPathError:
            order = None
        if order is None:
            self._unchecked(f"{name}, which can't be compared with the value", node.path)
        elif order == sign:
            self._error("value", f"Beyond the profile's {name}", node.path)

    def _binding(self, rule: Rule, node: Node) -> None:
        binding = rule.definition.get("binding", {})
        if binding.get("strength") != "required" or "valueSet" not in binding or node.value is None:
            return
        codes = codes_of(binding["valueSet"], self._lookup)
        if codes is None:
            self._unchecked(f"the codes of {binding['valueSet']} (required binding) are not known", node.path)
        elif not is_coded(node.value, codes):
            self._error("code-invalid", f"No code of {binding['valueSet']} (required binding)", node.path)

    def _constraints(self, rule: Rule, node: Node) -> None:
        root = _root(node)
        for row in rule.definition.get("constraint", ()):
            key, expression = str(row.get("key")), row.get("expression")
            if (key, expression) in _r4_invariants() or key in _r4_keys():
                continue
            try:
                if expression is None:
                    raise FhirPathError("it has no FHIRPath expression")
                if not compile_expression(str(expression)).is_met(node, root, root):
                    self._error("invariant", f"{key}: {expression}", node.path, str(row.get("severity", "error")))
            except FhirPathError as error:
                self._unchecked(f"the constraint {key}: {error}", node.path)


def _root(node: Node) -> Node:
    while node.parent is not None:
        node = node.parent
    return node


@cache
def _r4_invariants() -> frozenset[tuple[str, str]]:
    return frozenset((key, expression) for rows in read("invariants")["invariants"].values() for key, _, _, expression in rows)


@cache
def _r4_keys() -> frozenset[str]:
    """Of the invariants that `validate` checks in another way than by R4's expression."""
    table = read("invariants")
    return frozenset(table["native"]) | frozenset(table["corrected"])
