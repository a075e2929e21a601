"""The CapabilityStatement (FHIR R4 3.1.0.6), computed from what router and search compiler use: declared is implemented."""

from functools import cache
from typing import Any

from fhir_server import definitions
from fhir_server.operations.dispatch import available
from fhir_server.registry import Registry
from fhir_server.search.compartments import COMPARTMENTS
from fhir_server.search.index import searchable, targets
from smart_auth.endpoints import Endpoints

# What the REST edge does for every type, and for all of them together.
INTERACTIONS = (
    "read",
    "vread",
    "update",
    "patch",
    "delete",
    "history-instance",
    "history-type",
    "create",
    "search-type",
)
SYSTEM_INTERACTIONS = ("transaction", "batch", "search-system", "history-system")
JSON_PATCH = "application/json-patch+json"
_SERVICE = "http://terminology.hl7.org/CodeSystem/restful-security-service"


def capability_statement(
    base_url: str, version: str, started: str, registry: Registry, *, strict_references: bool = True
) -> dict[str, Any]:
    """The statement of this server; `started` is a FHIR dateTime, `registry` holds the operations."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": started,
        "kind": "instance",
        "software": {"name": "fhir-ris", "version": version},
        "implementation": {"description": "Radiology information system", "url": f"{base_url}/fhir"},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "patchFormat": [JSON_PATCH, "application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "security": _security(base_url),
                "resource": [_resource(t, registry, strict_references) for t in sorted(definitions.RESOURCE_TYPES)],
                "interaction": [{"code": code} for code in SYSTEM_INTERACTIONS],
                "searchParam": _common_parameters(),
                **_operations(registry, None),
                "compartment": [_compartment(name) for name in COMPARTMENTS],
            }
        ],
    }


def terminology_capabilities(base_url: str, version: str, started: str) -> dict[str, Any]:
    """What `metadata?mode=terminology` says: code systems and value sets are resources here, and there are no operations on them.

    Searches use those that are loaded (`:in`, `:not-in`, `:below`, `:above`).
    """
    return {
        "resourceType": "TerminologyCapabilities",
        "status": "active",
        "date": started,
        "kind": "instance",
        "software": {"name": "fhir-ris", "version": version},
        "implementation": {"description": "Radiology information system", "url": f"{base_url}/fhir"},
        "lockedDate": False,
    }


def _security(base_url: str) -> dict[str, Any]:
    endpoints = Endpoints.under(base_url)
    return {
        "extension": [
            {
                "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                "extension": [
                    {"url": name, "valueUri": url}
                    for name, url in (
                        ("authorize", endpoints.authorize),
                        ("token", endpoints.token),
                        ("introspect", endpoints.introspect),
                        ("revoke", endpoints.revoke),
                        ("manage", endpoints.manage),
                    )
                ],
            }
        ],
        "cors": True,
        "service": [{"coding": [{"system": _SERVICE, "code": "SMART-on-FHIR"}]}],
    }


def _resource(resource_type: str, registry: Registry, strict_references: bool) -> dict[str, Any]:
    parameters = searchable(resource_type)
    known = definitions.search_parameters(resource_type)
    return {
        "type": resource_type,
        "interaction": [{"code": code} for code in INTERACTIONS],
        "versioning": "versioned-update",
        "readHistory": True,
        "updateCreate": True,
        "conditionalCreate": True,
        "conditionalRead": "full-support",
        "conditionalUpdate": True,
        "conditionalDelete": "multiple",
        "referencePolicy": ["literal", "logical", *(["enforced"] if strict_references else [])],
        "searchInclude": ["*", *(f"{resource_type}:{n}" for n, kind in sorted(parameters.items()) if kind == "reference")],
        "searchRevInclude": ["*", *_referring().get(resource_type, ())],
        "searchParam": [{"name": n, "definition": known[n].definition, "type": kind} for n, kind in sorted(parameters.items())],
        **_operations(registry, resource_type),
    }


@cache
def _referring() -> dict[str, list[str]]:
    """Resource type -> the reference parameters that can lead to it, as `Type:parameter`."""
    found: dict[str, list[str]] = {}
    for source in sorted(definitions.RESOURCE_TYPES):
        for name, kind in sorted(searchable(source).items()):
            for to in targets(source, name) if kind == "reference" else ():
                found.setdefault(to, []).append(f"{source}:{name}")
    return found


def _common_parameters() -> list[dict[str, Any]]:
    """What every type can be searched by, which a search over several types takes (with `_type`)."""
    of_one = searchable("Basic")
    shared = {n: kind for n, kind in of_one.items() if all(n in searchable(t) for t in definitions.RESOURCE_TYPES)}
    known = definitions.search_parameters("Basic")
    return [{"name": n, "definition": known[n].definition, "type": kind} for n, kind in sorted(shared.items())]


def _operations(registry: Registry, resource_type: str | None) -> dict[str, Any]:
    """`operation` of the whole server, or of a type and its instances; left out where there is none."""
    levels = (None, "1") if resource_type is not None else (None,)
    found = {(name, o.definition) for id_ in levels for name, o in available(registry, resource_type, id_).items()}
    named = [{"name": name, "definition": definition} for name, definition in sorted(found)]
    return {"operation": named} if named else {}


def _compartment(name: str) -> str:
    return f"http://hl7.org/fhir/CompartmentDefinition/{name[0].lower()}{name[1:]}"
