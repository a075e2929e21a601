"""The CapabilityStatement (FHIR R4 3.1.0.6), computed from what router and search compiler use: declared is implemented."""

from typing import Any

from fhir_server import definitions
from fhir_server.search.index import searchable

# What the REST edge does for every type.
INTERACTIONS = ("read", "vread", "update", "delete", "history-instance", "create", "search-type")


def capability_statement(base_url: str, version: str, started: str) -> dict[str, Any]:
    """The statement of this server; `started` is a FHIR dateTime."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": started,
        "kind": "instance",
        "software": {"name": "fhir-ris", "version": version},
        "implementation": {"description": "Radiology information system", "url": f"{base_url}/fhir"},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "cors": False,
                    "service": [
                        {
                            "coding": [
                                {
                                    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                                    "code": "SMART-on-FHIR",
                                }
                            ]
                        }
                    ],
                    "extension": [
                        {
                            "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                            "extension": [{"url": "token", "valueUri": f"{base_url}/oauth/token"}],
                        }
                    ],
                },
                "resource": [_resource(t) for t in sorted(definitions.RESOURCE_TYPES)],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
            }
        ],
    }


def _resource(resource_type: str) -> dict[str, Any]:
    parameters = searchable(resource_type)
    known = definitions.search_parameters(resource_type)
    references = sorted(n for n, kind in parameters.items() if kind == "reference")
    return {
        "type": resource_type,
        "interaction": [{"code": code} for code in INTERACTIONS],
        "versioning": "versioned-update",
        "readHistory": True,
        "updateCreate": True,
        "conditionalCreate": False,
        "conditionalRead": "not-match",
        "conditionalUpdate": False,
        "conditionalDelete": "not-supported",
        "referencePolicy": ["literal", "logical", "local"],
        **({"searchInclude": [f"{resource_type}:{n}" for n in references]} if references else {}),
        "searchParam": [{"name": n, "definition": known[n].definition, "type": kind} for n, kind in sorted(parameters.items())],
    }
