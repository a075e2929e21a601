"""Is this a valid FHIR R4 resource? Shape, cardinality, formats, required bindings, reference targets, narrative, invariants.

The rules are R4's own element definitions, compiled per type (`compiler`), and their FHIRPath constraints (`invariants`).
"""

from typing import Any

from fhir_server.definitions import elements
from fhir_server.fhir_json import dumps
from fhir_server.outcome import Issue
from fhir_server.validation.characters import check_characters
from fhir_server.validation.compiler import resource_check
from fhir_server.validation.contained import check_contained, may_contain
from fhir_server.validation.invariants import check_invariants
from fhir_server.validation.problems import MAX_PROBLEMS, Problem
from fhir_server.validation.profiles import validate_profile

__all__ = ["validate", "validate_profile"]


def validate(resource: dict[str, Any], *, best_practice: bool = False) -> list[Issue]:
    """What is wrong with a resource in memory (`fhir_json` says how numbers are held): none when it is valid.

    Issue codes: `structure` (unknown element, wrong JSON shape), `required` (missing), `value` (format, reference target),
    `code-invalid` (required binding), `invariant`. `expression` is a FHIRPath such as `Patient.name[0].given[1]`; a choice goes
    by its FHIRPath name (`Observation.value`). Severities: `error`; `warning` where R4's invariant is one; `information` for
    an invariant that could not be evaluated. At most 20 of each. Invariants are looked at once everything else is in order.
    `best_practice` adds dom-6 (a narrative is wanted), which few resources of machines meet.
    """
    problems = resource_check(resource, 0)
    if problems:
        return _errors(resource, problems)
    try:
        written = dumps(resource)
    except TypeError:  # half of a surrogate pair
        written = b"\\u"
    problems = check_characters(resource, written)
    if not problems and may_contain(resource, written):
        problems = check_contained(resource)
    issues = _errors(resource, problems) if problems else []
    start = resource["resourceType"]
    if not problems or problems[0][0] == "invariant":
        violations = check_invariants(resource, written)
        for wanted in ("error", "warning", "information") if violations else ():
            of_kind = [
                Issue("invariant", text, start + path, severity) for severity, text, path in violations if severity == wanted
            ]
            issues += of_kind[:MAX_PROBLEMS]
    if best_practice and "text" in elements(start) and not resource.get("text", {}).get("div"):
        issues.append(Issue("invariant", "dom-6: text.`div`.exists()", start, "warning"))
    return issues


def _errors(resource: Any, problems: list[Problem]) -> list[Issue]:
    name = resource.get("resourceType") if isinstance(resource, dict) else None
    start = name if isinstance(name, str) else "Resource"
    return [Issue(code, text, start[:64] + path) for code, text, path in problems[:MAX_PROBLEMS]]
