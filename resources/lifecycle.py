"""Allowed status transitions, checked the same way for every resource that has a lifecycle."""

from collections.abc import Mapping
from typing import Any

from fhir_server.outcome import fail
from fhir_server.registry import Change


def check_transition(change: Change, allowed: Mapping[str, frozenset[str]]) -> None:
    """FhirError `business-rule` when the status may not become what the change makes it. Any status may begin."""
    if change.before is None or change.after is None:
        return
    was, becomes = str(change.before.get("status")), str(change.after.get("status"))
    if was == becomes or becomes == "entered-in-error":
        return
    if becomes not in allowed.get(was, frozenset()):
        possible = ", ".join(sorted(allowed.get(was, frozenset()))) or "nothing: it has ended"
        raise fail(
            "business-rule",
            f"{change.type}/{change.id} is {was} and can't become {becomes} (it can become: {possible})",
            f"{change.type}.status",
        )


def check_unchanged(change: Change, *elements: str) -> None:
    """FhirError `business-rule` when one of these elements, once there, would change. Of a reference, the target counts."""
    if change.before is None or change.after is None:
        return
    for element in elements:
        if element in change.before and _meant(change.before[element]) != _meant(change.after.get(element)):
            raise fail("business-rule", f"{change.type}.{element} can't be changed", f"{change.type}.{element}")


def _meant(element: Any) -> Any:
    return element["reference"] if isinstance(element, dict) and "reference" in element else element
