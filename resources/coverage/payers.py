"""Where a payer is asked: the Organization's Endpoint with connectionType `hl7-fhir-rest`, and which addresses may be.

Addresses are https, without user, query and fragment; http only on this machine (loopback). That the host is in the public
internet is looked at when it is called (`bridges/payer/client.py`): names may point elsewhere by then.
"""

from typing import Final

from fhir_server.public_hosts import is_loopback
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.endpoint import web_address

FHIR_REST: Final = "hl7-fhir-rest"
_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"


def is_fhir(endpoint: Resource | None) -> bool:
    """Whether an Endpoint is an active FHIR server with an address that we may call."""
    if endpoint is None or endpoint.get("resourceType") != "Endpoint" or endpoint.get("status") != "active":
        return False
    kind = endpoint.get("connectionType", {})
    return kind.get("system") == _SYSTEM and kind.get("code") == FHIR_REST and base_url(endpoint) is not None


def base_url(endpoint: Resource) -> str | None:
    """The FHIR base, without a slash at its end; None when it is no address that we call."""
    if (found := web_address(endpoint)) is None:
        return None
    base, parts = found
    return base if parts.scheme == "https" or is_loopback(parts.hostname or "") else None


async def endpoint_of(unit: UnitOfWork, insurer: object) -> Resource | None:
    """The Endpoint at which an insurer (a reference) is asked; None when it has none that can be."""
    organization = await unit.get(insurer)
    for reference in (organization or {}).get("endpoint", ()):
        found = await unit.get(reference)
        if is_fhir(found):
            return found
    return None
