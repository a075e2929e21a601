"""Whose a resource is: the patient compartment (FHIR R4 CompartmentDefinition/patient) as rights see it.

Only the definition's own parameters make a resource a patient's; that it mentions one elsewhere (`Observation.focus`) doesn't.
Two things differ from the definition, both on the side of caution:
- a Patient is its own only, and not that of others that it links to: a link may be a mistake, or a mere resemblance;
- a few types that R4 left out belong to their patient too: a Task to whom it is `for`, a Device to whom it is implanted in,
  a Binary to the patient whose access to it is governed like (`securityContext`).
"""

from collections.abc import Iterable
from functools import cache

from fhir_server import definitions
from fhir_server.search.conditions import Condition, keyed
from fhir_server.search.index import parameters

# Belong to nobody, and are read with any patient's data; under patient/ scopes only when the scope names the type.
SHARED = frozenset("Practitioner PractitionerRole Organization Location Medication HealthcareService Endpoint Device".split())
# By parameter; "" is any reference at all, which of a Binary can only be its securityContext.
_BESIDE = {
    "Task": ("patient",),
    "Device": ("patient",),
    "GuidanceResponse": ("patient",),
    "Contract": ("patient",),
    "Binary": ("",),
}


@cache
def ways(resource_type: str) -> tuple[str, ...]:
    """The reference parameters that make a resource of this type a patient's; none for types that never are, and for Patient."""
    if resource_type == "Patient":
        return ()
    named = definitions.compartment("Patient").get(resource_type, ())
    return (*(n for n in named if n in parameters(resource_type)), *_BESIDE.get(resource_type, ()))


def belongs(resource_type: str) -> bool:
    """Whether resources of this type are patients', or patients."""
    return resource_type == "Patient" or bool(ways(resource_type))


def of(resource_type: str, patients: Iterable[str]) -> Condition:
    """That a resource is of one of these patients (logical ids)."""
    ids = sorted(patients)
    if resource_type == "Patient":
        return {"_id": {"$in": ids}}
    return keyed([f"{way}>Patient/{id_}" for way in ways(resource_type) for id_ in ids])


def not_of(resource_type: str, patients: Iterable[str]) -> Condition:
    """That it is of none of them."""
    ids = sorted(patients)
    if resource_type == "Patient":
        return {"_id": {"$nin": ids}}
    return keyed([f"{way}>Patient/{id_}" for way in ways(resource_type) for id_ in ids], negated=True)


def of_nobody(resource_type: str) -> Condition:
    """That a resource of a shared type is no patient's."""
    without = [
        {"search.t": {"$not": {"$elemMatch": {"$gte": f"{way}>Patient/", "$lt": f"{way}>Patient0"}}}}  # "0" follows "/"
        for way in ways(resource_type)
    ]
    return without[0] if len(without) == 1 else {"$and": without}
