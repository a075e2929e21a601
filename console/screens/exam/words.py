"""What the parts of an exam and their states are called."""

from typing import Final

from console.formats import concept
from console.texts import Texts
from fhir_server.elements import has_code
from fhir_server.registry import Resource
from resources import terms
from resources.report_section import is_section

_STATES: Final = {"ServiceRequest": "order", "Task": "step", "Appointment": "appointment", "DiagnosticReport": "report"}
_CHIPS: Final = {
    "completed": "good", "fulfilled": "good", "final": "good", "amended": "good", "corrected": "good", "appended": "good",
    "available": "good", "billed": "good", "billable": "good", "revoked": "bad", "cancelled": "bad", "rejected": "bad",
    "failed": "bad", "stopped": "bad", "entered-in-error": "bad", "aborted": "bad", "on-hold": "warn", "noshow": "warn",
    "requested": "new", "registered": "new", "proposed": "new",
}  # fmt: skip


def kind(resource: Resource) -> str:
    """What a part is: its type, but for `procedure`, `step`, `reading` and (work) `item`, and a report's `section`."""
    resource_type = str(resource.get("resourceType", ""))
    if resource_type == "ServiceRequest":
        return "procedure" if resource.get("intent") == "filler-order" else resource_type
    if resource_type == "Task":
        if resource.get("intent") == "plan":
            return "step"
        return "reading" if has_code(resource.get("code"), terms.TASK_CODE, terms.INTERPRETATION) else "item"
    if resource_type == "Observation" and is_section(resource):
        return "section"
    return resource_type


def name(t: Texts, resource: Resource) -> str:
    """What a part is called: "Step", "Work item: Held", "Result: Findings"."""
    what = kind(resource)
    called = t.code("exam.part", what)
    if what in {"item", "section", "Observation", "ChargeItem"} and "code" in resource:
        said = concept(resource["code"])
        return f"{called}: {t.code('orders.kind', said) if what == 'item' else said}"
    return called


def status(t: Texts, resource: Resource) -> str:
    """What its state is called."""
    section = _STATES.get(str(resource.get("resourceType"))) if kind(resource) not in {"reading", "item"} else None
    code = resource.get("status")
    return t.code(f"state.{section}", code) if section else t.code("exam.state", code)


def chip(resource: Resource) -> str:
    """The kind of the chip for it."""
    return _CHIPS.get(str(resource.get("status")), "busy")
