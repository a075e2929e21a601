"""What board and pages of this screen say alike: of a step, a scanner, and in the reader's language."""

from datetime import datetime, timedelta
from typing import Any, Final

from console.formats import concept, moment
from fhir_server.registry import Resource
from resources import task

_TRANSLATION: Final = "http://hl7.org/fhir/StructureDefinition/translation"
_OVER: Final = frozenset({"done", "stopped", "left", "cancelled"})


def begin(step: Resource) -> datetime | None:
    """The time that a step is booked for."""
    return moment(step.get("restriction", {}).get("period", {}).get("start"))


def end(step: Resource) -> datetime | None:
    """The end of that time."""
    return moment(step.get("restriction", {}).get("period", {}).get("end"))


def late(step: Resource, state: str, now: datetime) -> timedelta | None:
    """How long ago a step should have begun, or, being examined, should have ended; None when it is in time or over."""
    due = None if state in _OVER else end(step) if state == "in-progress" else begin(step)
    over = now - due if due is not None else timedelta(0)
    return over if over >= timedelta(minutes=1) else None


def exam(step: Resource) -> str:
    """What is examined, in words."""
    return concept(step["code"]) if "code" in step else task.modality(step) or ""


def translated(element: Any, name: str, language: str) -> str:
    """A text of a resource in the reader's language, where it has a translation (FHIR R4 3.1.0.5 translation)."""
    for one in element.get(f"_{name}", {}).get("extension", ()):
        parts = {p["url"]: p for p in one.get("extension", ())}
        if one.get("url") == _TRANSLATION and parts.get("lang", {}).get("valueCode") == language:
            return str(parts["content"]["valueString"])
    return str(element.get(name, ""))
