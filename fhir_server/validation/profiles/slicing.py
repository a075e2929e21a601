"""To which slice of a profile an element belongs, by its discriminators (FHIR R4 5.1.0.7).

Supported: value and pattern (by fixed[x], pattern[x] or a required binding, on the element or on what holds it), exists, type,
and extensions by url. A path may go through names, `$this`, `extension('url')` and `ofType(T)`; not through `resolve()`.
"""

import re
from typing import Any

from fhir_server.fhirpath import FhirPathError, Node, select
from fhir_server.fhirpath.items import plain
from fhir_server.validation.profiles.definitions import Rule, is_allowed
from fhir_server.validation.profiles.matching import Lookup, codes_of, is_coded, is_fixed, matches_pattern

_STEP = re.compile(r"(?:(\w+)(?:\.ofType\(\w+\))?|extension\('([^']+)'\))(?:\.|$)")


class UnsupportedSlicingError(Exception):
    """The discriminator is one that is not evaluated here."""


def belongs_to(node: Node, sliced: Rule, part: Rule, lookup: Lookup) -> bool:
    """Whether an element is in this slice. Raises UnsupportedSlicingError."""
    if part.choice_key:
        return node.key == part.choice_key
    discriminators = sliced.discriminators
    if not discriminators:
        raise UnsupportedSlicingError(f"the slices of {sliced.name} have no discriminator")
    return all(_agrees(kind, path, node, part, lookup) for kind, path in discriminators)


def _agrees(kind: str, path: str, node: Node, part: Rule, lookup: Lookup) -> bool:
    try:
        found = [item for item in select(path, node, trusted=False) if isinstance(item, Node)]
    except FhirPathError as error:
        raise UnsupportedSlicingError(f"the discriminator {path}: {error}") from None
    steps = _steps(path)
    match kind:
        case "value" | "pattern":
            if path == "url" and (urls := _profile_urls(part)):
                return any(node.value in urls for node in found)
            return _has_value([plain(item) for item in found], part, steps, lookup)
        case "exists":
            rule = _rule_at(part, steps)
            return bool(found) if rule is None or rule.definition.get("max") != "0" else not found
        case "type":
            rule = _rule_at(part, steps)
            types = rule.types if rule else []
            if not types:
                raise UnsupportedSlicingError(f"the slice {part.slice_name} names no type at {path}")
            return any(is_allowed(item.type, wanted) for item in found for wanted in types)
    raise UnsupportedSlicingError(f"slices by {kind} are not supported")


def _profile_urls(part: Rule) -> set[str]:
    """The urls of an extension slice, which its type's profiles name."""
    return {url.split("|")[0] for row in part.definition.get("type", ()) for url in row.get("profile", ())}


def _steps(path: str) -> list[str]:
    """The names of a discriminator's path; an extension goes by its url."""
    if path == "$this":
        return []
    rest = path.removeprefix("$this.")
    steps: list[str] = []
    while rest:
        match = _STEP.match(rest)
        if match is None:
            raise UnsupportedSlicingError(f"the discriminator {path}")
        steps.append(match[1] or f"extension:{match[2]}")
        rest = rest[match.end() :]
    return steps


def _step(rule: Rule, step: str) -> Rule | None:
    if not step.startswith("extension:"):
        return rule.children.get(step)
    url = step.removeprefix("extension:")
    extensions = rule.children.get("extension")
    return next((s for s in extensions.slices if url in _profile_urls(s)), None) if extensions else None


def _rule_at(rule: Rule | None, steps: list[str]) -> Rule | None:
    for step in steps:
        rule = _step(rule, step) if rule else None
    return rule


def _has_value(values: list[Any], part: Rule, steps: list[str], lookup: Lookup) -> bool:
    rule: Rule | None = part
    for index in range(len(steps) + 1):
        if rule is None:
            break
        rest = steps[index:]
        fixed, pattern = rule.value("fixed"), rule.value("pattern")
        if fixed is not None or pattern is not None:
            wanted = _inside(pattern if fixed is None else fixed, rest)
            if wanted:
                test = is_fixed if fixed is not None and not rest else matches_pattern
                return any(test(value, one) for value in values for one in wanted)
        if not rest:
            return _is_bound(values, rule, lookup)
        rule = _step(rule, rest[0])
    raise UnsupportedSlicingError(f"the slice {part.slice_name} fixes no value for its discriminator")


def _is_bound(values: list[Any], rule: Rule, lookup: Lookup) -> bool:
    binding = rule.definition.get("binding", {})
    codes = codes_of(binding["valueSet"], lookup) if binding.get("strength") == "required" and "valueSet" in binding else None
    if codes is None:
        raise UnsupportedSlicingError(f"no value, and no known value set, tells the slices of {rule.name}")
    return any(is_coded(value, codes) for value in values)


def _inside(value: Any, steps: list[str]) -> list[Any]:
    """What a fixed value or pattern has at a path."""
    values = [value]
    for step in steps:
        values = [found for holder in values if isinstance(holder, dict) and (found := holder.get(step)) is not None]
        values = [item for found in values for item in (found if isinstance(found, list) else [found])]
    return values
