"""What the department notes on an order or requested procedure, about its authorization or who decided, and nobody else may.

Extensions of a ServiceRequest:
    {"url": "urn:fhir-ris:authorization", "valueReference": {"reference": "ClaimResponse/1"}}
        on a requested procedure: the authorization that one of its units was taken of when it was booked
    {"url": "urn:fhir-ris:authorization-override", "extension": [
        {"url": "reason", "valueString": ...}, {"url": "by", "valueReference": ...}, {"url": "at", "valueInstant": ...}]}
        on an order or requested procedure: it is booked without one (`override.py`; the Provenance says the same)
    {"url": "urn:fhir-ris:decision", "extension": [
        {"url": "by", "valueReference": ...}, {"url": "at", "valueInstant": ...}]}
        on an order: who has accepted, rejected, held or cancelled it last, by an operation (`order_operations.py`)
"""

from typing import Any, Final

from fhir_server.elements import extension, same
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.announced import Announced

AUTHORIZATION: Final = "urn:fhir-ris:authorization"
OVERRIDE: Final = "urn:fhir-ris:authorization-override"
DECISION: Final = "urn:fhir-ris:decision"
_marking: Final = Announced()


def bound(request: Resource | None) -> str | None:
    """The authorization that a requested procedure was booked on: `ClaimResponse/1`."""
    to = target((extension(request or {}, AUTHORIZATION) or {}).get("valueReference"))
    return str(to) if to else None


def is_overridden(*requests: Resource | None) -> bool:
    """Whether somebody who may has said that one of these is booked without an authorization."""
    return any(extension(request or {}, OVERRIDE) for request in requests)


async def mark(unit: UnitOfWork, request: Resource, url: str, value: dict[str, Any] | None) -> Resource:
    """Write the request with one of these extensions (the rest of it, without its url), or (None) without it."""
    others = [e for e in request.get("extension", ()) if e.get("url") != url]
    changed = {k: v for k, v in request.items() if k != "extension"}
    if marked := [*others, *([{"url": url, **value}] if value else ())]:
        changed["extension"] = marked
    with _marking(unit):
        return await unit.update(changed)


async def check(unit: UnitOfWork, change: Change) -> None:
    """Whoever leaves them out gets them back; FhirError `business-rule` for who writes them, or other ones."""
    if change.after is None or unit in _marking:
        return
    for url in (AUTHORIZATION, OVERRIDE, DECISION):
        had, said = extension(change.before or {}, url), extension(change.after, url)
        if had is not None and said is None:
            change.after["extension"] = [*change.after.get("extension", ()), had]
        elif said is not None and not same(had, said):
            text = "this is noted by the department: by booking, or by an operation on the order such as $override-authorization"
            raise fail("business-rule", text, "ServiceRequest.extension")
