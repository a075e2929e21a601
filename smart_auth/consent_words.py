"""Scopes in plain sentences, for the consent page (SMART App Launch 2.2: what is asked must be understood)."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from smart_auth import granting
from smart_auth.scopes import Action, Scope, parse_scope

_TYPES = {
    "Patient": "name, birth date, address and other details of a person",
    "Practitioner": "names and details of staff",
    "PractitionerRole": "what staff work as",
    "Organization": "hospitals, departments and other organizations",
    "ServiceRequest": "orders",
    "DiagnosticReport": "reports",
    "ImagingStudy": "which images there are",
    "Observation": "findings, measurements and laboratory values",
    "Condition": "diagnoses and problems",
    "AllergyIntolerance": "allergies",
    "Appointment": "appointments",
    "Encounter": "visits and stays",
    "Task": "work steps",
    "Procedure": "examinations and procedures that were done",
    "Coverage": "insurance",
    "Communication": "messages about a patient",
    "DocumentReference": "documents",
    "Medication": "medicines",
    "MedicationRequest": "prescriptions",
    "Immunization": "vaccinations",
    "AuditEvent": "who accessed what",
    "Endpoint": "connections to other systems",
    "Location": "rooms and places",
    "Device": "devices",
    "Consent": "consents of patients",
}
_VERBS: dict[Action, str] = {"r": "read", "s": "search for", "c": "add", "u": "change", "d": "delete"}
_OTHER = {
    granting.OPENID: "Know that it is you who logged in",
    granting.FHIR_USER: "Know who you are in this system: your entry in the staff directory",
    granting.PROFILE: "Know who you are in this system: your entry in the staff directory (profile)",
    granting.ONLINE: "Keep working as long as you are logged in here",
    granting.OFFLINE: "Keep access when you are not here, until you or the administration end it",
}
_WARNINGS = {granting.OFFLINE: "It keeps access also after you have logged out."}


@dataclass(frozen=True, slots=True)
class Sentence:
    """One scope in words. `asked`: it can be unticked; what isn't is what the app is told with the rest."""

    scope: str
    text: str
    warning: str = ""
    asked: bool = True


def sentence(text: str) -> Sentence:
    """What an app could do with a scope."""
    scope = parse_scope(text)
    if scope is not None:
        return Sentence(text, _resource(scope), _warning(scope))
    if text == granting.LAUNCH:
        return Sentence(text, "What you have open: patient, visit, images or report", asked=False)
    if resource_type := granting.context_type(text):
        return Sentence(text, f"Which {_word(resource_type)} you have open or choose", asked=False)
    return Sentence(text, _OTHER.get(text, text), _WARNINGS.get(text, ""))


def _resource(scope: Scope) -> str:
    verbs = [_VERBS[action] for action in ("r", "s", "c", "u", "d") if action in scope.actions]
    what = (
        "everything" if scope.resource_type == "*" else _TYPES.get(scope.resource_type, f"{_word(scope.resource_type)} entries")
    )
    whose = "of the one patient it is opened for" if scope.level == "patient" else "that you may see and do yourself"
    words = f"{_listed(verbs).capitalize()} {what}, {whose}"
    return f"{words}, only where {_listed([_condition(part) for part in scope.query.split('&')])}" if scope.query else words


def _condition(part: str) -> str:
    """`category=http://...|laboratory` is: category is laboratory."""
    name, _, value = part.partition("=")
    codes = [code.rpartition("|")[2] or code for code in unquote(value).split(",")]
    return f"{name.replace('-', ' ')} is {' or '.join(codes)}"


def _warning(scope: Scope) -> str:
    if scope.resource_type == "*":
        return "This is every kind of information there is, and every kind that may be added later."
    return ""


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _word(resource_type: str) -> str:
    """`ImagingStudy` is: imaging study."""
    return re.sub(r"(?<!^)([A-Z])", r" \1", resource_type).lower()
