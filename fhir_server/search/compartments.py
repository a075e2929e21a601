"""Compartment search: what belongs to a patient, an encounter, a device ... (FHIR R4 CompartmentDefinition)."""

from fhir_server import definitions
from fhir_server.outcome import fail
from fhir_server.search.conditions import Condition, any_of, keyed
from fhir_server.search.index import parameters

COMPARTMENTS = ("Device", "Encounter", "Patient", "Practitioner", "RelatedPerson")


def in_compartment(resource_type: str, name: str, id_: str) -> Condition:
    """That a resource is in this compartment. FhirError (404) for a type that never is; its whole is not meant."""
    if name not in COMPARTMENTS:
        raise fail("not-supported", f"there is no {name[:64]} compartment; there is {', '.join(COMPARTMENTS)}", status=404)
    held = definitions.compartment(name).get(resource_type, ())
    keys = [f"{parameter}>{name}/{id_}" for parameter in held if parameter in parameters(resource_type)]
    conditions = [keyed(keys)] if keys else []
    if resource_type == name:
        conditions.append({"_id": id_})
    if not conditions:
        raise fail("not-supported", f"{resource_type} is not in the {name} compartment", status=404)
    return any_of(conditions)
