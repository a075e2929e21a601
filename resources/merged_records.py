"""A record that was merged into another is nobody's any more: nothing new is filed under it, and only `$unmerge` brings it back.

What is filed there is seen by no rule about the patient (an allergy, when contrast is given). So whatever door it comes by, it is
refused, and its sender told which record to name. Merged is what has the link `replaced-by`, whatever `active` says.

Provenance and AuditEvent tell of records without being theirs. A Task is work, on what is a patient's or on the record itself.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fhir_server import definitions
from fhir_server.outcome import fail
from fhir_server.references import Target, target, walk
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.patient import merged_into

_WHOSE: Final = ("subject", "patient", "beneficiary", "individual", "candidate", "participant", "actor")
_BEGINNINGS: Final = frozenset({"ServiceRequest", "Encounter", "Appointment"})


async def check_subject(unit: UnitOfWork, change: Change) -> None:
    """Nothing new is of a record that was merged into another. FhirError `deleted` (422).

    What belongs to something that is still of the record comes along with that (a large merge is under way), or stays with it
    (the link was written by a system, and moved nothing): an examination that has begun goes on.
    """
    after = change.after
    if after is None or (after["resourceType"] == "ServiceRequest" and after.get("intent") == "filler-order"):
        return
    before, named = _patients(change.before or {}), _patients(after)
    for to in named.keys() - before.keys():
        patient = await unit.read(to.type, to.id)
        if patient is None or (into := merged_into(patient)) is None:
            continue
        if change.type in _BEGINNINGS or not await _belongs(unit, after, to):
            shown = await unit.named("Patient", into.removeprefix("Patient/"))
            raise fail("deleted", f"{to} was merged into {shown}", f"{change.type}.{named[to]}", status=422)


async def _belongs(unit: UnitOfWork, resource: Resource, to: Target) -> bool:
    others = [await unit.get(element) for _, element in walk(resource, "")]
    return any(to in _patients(other) for other in others if other is not None)


async def check_links(unit: UnitOfWork, change: Change) -> None:
    """A record is replaced by another with all that refers to it, or not at all; and is given back in the same way.

    A system may write the link of a record that has it from elsewhere, but nobody takes it away, or makes the record active.
    """
    before, after = change.before, change.after
    if not before or not after or not unit.is_callers:
        return
    was, into = merged_into(before), merged_into(after)
    if was != into and (was or unit.access.person):
        text = "one record takes the place of another by $merge, and gives it back by $unmerge"
        raise fail("business-rule", text, "Patient.link")
    if into and after.get("active", True) and before.get("active") != after.get("active"):
        raise fail("business-rule", "a record that was merged into another is made active by $unmerge", "Patient.active")


def _patients(resource: Resource) -> Mapping[Target, str]:
    """The patients whose a resource is, and the elements that say so. It may not be valid."""
    return {to: name for name in _WHOSE for e in _elements(resource.get(name)) if (to := target(e)) and to.type == "Patient"}


def _elements(value: Any) -> Iterator[Any]:
    for element in value if isinstance(value, list) else [value]:
        yield element.get("actor", element) if isinstance(element, dict) else None


def _types() -> list[str]:
    held = definitions.compartment("Patient").keys() - {"Patient"}
    return sorted(t for t in held if any(name in definitions.elements(t) for name in _WHOSE))


def register(registry: Registry) -> None:
    registry.rule("Patient", check_links)
    for resource_type in _types():
        registry.rule(resource_type, check_subject, reads=_patients)
