"""Why a request is in the status that it is in: the extension request-statusReason (FHIR R4 extensibility, Request pattern)."""

from fhir_server.elements import extension
from fhir_server.registry import Resource
from resources import terms


def put(request: Resource, reason: Resource | None) -> Resource:
    """The request with this reason (a CodeableConcept) for its status; without one, that of an earlier status goes."""
    kept = [e for e in request.get("extension", ()) if e.get("url") != terms.STATUS_REASON]
    if reason is not None:
        kept.append({"url": terms.STATUS_REASON, "valueCodeableConcept": reason})
    bare = {element: value for element, value in request.items() if element != "extension"}
    return bare | ({"extension": kept} if kept else {})


def of(request: Resource) -> Resource | None:
    """The reason, a CodeableConcept."""
    found: Resource | None = (extension(request, terms.STATUS_REASON) or {}).get("valueCodeableConcept")
    return found
