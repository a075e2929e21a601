"""Is this a valid FHIR R4 resource? Shape, cardinality, formats, required bindings, reference targets, narrative.

The rules are R4's own element definitions, compiled per type (`compiler`). Profiles and FHIRPath invariants are not checked here.
"""

from typing import Any

from fhir_server.outcome import Issue
from fhir_server.validation.characters import check_characters
from fhir_server.validation.compiler import resource_check
from fhir_server.validation.problems import MAX_PROBLEMS

__all__ = ["validate"]


def validate(resource: dict[str, Any]) -> list[Issue]:
    """What is wrong with a resource in memory (`fhir_json` says how numbers are held): at most 20 issues, none when it is valid.

    Issue codes: `structure` (unknown element, wrong JSON shape), `required` (missing), `value` (format, reference target),
    `code-invalid` (required binding), `invariant`. `expression` is a FHIRPath such as `Patient.name[0].given[1]`; a choice goes
    by its FHIRPath name (`Observation.value`).
    """
    problems = resource_check(resource, 0) or check_characters(resource)
    if not problems:
        return []
    name = resource.get("resourceType") if isinstance(resource, dict) else None
    start = name if isinstance(name, str) else "Resource"
    return [Issue(code, text, start[:64] + path) for code, text, path in problems[:MAX_PROBLEMS]]
