"""Launch context: what an app is launched for (SMART App Launch 2.2, "Launch context arrives with your access_token").

As JSON, in a launch, a grant and the token response alike: `patient` and `encounter` (logical ids), `fhirContext` (objects with
`reference`, `canonical` or `identifier`), `intent`, `need_patient_banner`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fhir_server.definitions import RESOURCE_TYPES
from smart_auth import granting

Context = dict[str, Any]

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_REFERENCE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})")
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,500}|[a-z][a-z0-9-]{0,63}")
_LONGEST = 500
_MOST = 50
MEMBERS = ("patient", "encounter", "fhirContext", "intent", "need_patient_banner")
# Those that have a parameter of their own, and are no fhirContext unless in a role (SMART App Launch 2.2, "fhirContext").
_OWN_PARAMETER = ("Patient", "Encounter")


class ContextError(ValueError):
    """The context is not one; the text says why, and quotes nothing."""


def checked(given: Mapping[str, Any]) -> Context:
    """The context among the members of a request, as it is kept. Raises ContextError."""
    context: Context = {}
    for name in ("patient", "encounter"):
        if name in given:
            if not isinstance(given[name], str) or not _ID.fullmatch(given[name]):
                raise ContextError(f"{name} must be the logical id of a resource")
            context[name] = given[name]
    if "fhirContext" in given:
        items = given["fhirContext"]
        if not isinstance(items, list) or len(items) > _MOST:
            raise ContextError(f"fhirContext must be a list of at most {_MOST} objects")
        context["fhirContext"] = [_checked_item(item) for item in items]
    if "intent" in given:
        if not isinstance(given["intent"], str) or not 0 < len(given["intent"]) <= _LONGEST:
            raise ContextError("intent must be a text")
        context["intent"] = given["intent"]
    if "need_patient_banner" in given:
        if not isinstance(given["need_patient_banner"], bool):
            raise ContextError("need_patient_banner must be true or false")
        context["need_patient_banner"] = given["need_patient_banner"]
    return context


def references(context: Context) -> list[str]:
    """What the context leads to, as `Type/id`."""
    found = [f"{name.capitalize()}/{context[name]}" for name in ("patient", "encounter") if name in context]
    return found + [item["reference"] for item in context.get("fhirContext", ()) if "reference" in item]


def has_type(context: Context, resource_type: str) -> bool:
    """Whether the context holds something of this type."""
    if resource_type in _OWN_PARAMETER and resource_type.lower() in context:
        return True
    return any(resource_type == _type_of(item) for item in context.get("fhirContext", ()))


def unmet(context: Context, scopes: Iterable[str]) -> list[str]:
    """The scopes that ask for context that isn't there, such as `launch/imagingstudy` in a launch without a study."""
    wanted = {text: granting.context_type(text) for text in scopes}
    return [text for text, resource_type in wanted.items() if resource_type and not has_type(context, resource_type)]


def parameters(context: Context, scopes: Iterable[str], style_url: str) -> Context:
    """What of the context the token response carries, for the scopes that were granted."""
    if not any(text == granting.LAUNCH or granting.context_type(text) or text.startswith("patient/") for text in scopes):
        return {}
    given = dict(context)
    if "patient" in given:
        # Whoever launches an app inside a frame that names the patient says so; otherwise the app must name him itself.
        given.setdefault("need_patient_banner", True)
    return {**given, "smart_style_url": style_url}


def _checked_item(item: Any) -> Context:
    if not isinstance(item, Mapping) or not {"reference", "canonical", "identifier"} & set(item):
        raise ContextError("each fhirContext must be an object with a reference, a canonical or an identifier")
    if set(item) - {"reference", "canonical", "identifier", "type", "role"}:
        raise ContextError("a fhirContext has the members reference, canonical, identifier, type and role, and no other")
    reference = item.get("reference")
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if "reference" in item and (match is None or match[1] not in RESOURCE_TYPES):
        raise ContextError("a reference of fhirContext must be relative, such as ImagingStudy/123")
    for name in ("canonical", "type", "role"):
        if name in item and (not isinstance(item[name], str) or not 0 < len(item[name]) <= _LONGEST):
            raise ContextError(f"{name} of a fhirContext must be a text that is not empty")
    if "role" in item and not _ROLE.fullmatch(item["role"]):
        raise ContextError("role of a fhirContext must be a URI, or launch")
    if "type" in item and item["type"] not in RESOURCE_TYPES:
        raise ContextError("type of a fhirContext must be a FHIR resource type")
    if "identifier" in item and not _is_identifier(item["identifier"]):
        raise ContextError("identifier of a fhirContext must be a FHIR Identifier with a value")
    if _type_of(item) in _OWN_PARAMETER and item.get("role", "launch") == "launch":
        raise ContextError("a Patient or an Encounter has a member of its own; in fhirContext it needs another role")
    return dict(item)


def _is_identifier(value: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("value"), str) or set(value) - {"system", "value"}:
        return False
    return all(isinstance(text, str) and len(text) <= _LONGEST for text in value.values())


def _type_of(item: Mapping[str, Any]) -> str | None:
    if "reference" in item:
        return str(item["reference"]).partition("/")[0]
    return item.get("type")
