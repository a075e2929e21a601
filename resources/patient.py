"""Patient: who it is. Found by identifier and assigning authority, never by position or name alone."""

from collections.abc import Iterable

from fhir_server.outcome import fail
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.identifiers import carriers


async def match(unit: UnitOfWork, identifiers: Iterable[Resource]) -> Resource | None:
    """The one Patient that has one of these identifiers under the same authority; an inactive one if there is no other.

    FhirError `multiple-matches` when they point to different patients, `deleted` when the record was merged into another.
    """
    found = await carriers(unit, "Patient", identifiers)
    active = [p for p in found if p.get("active", True)]
    if len(active) > 1:
        ids = ", ".join(sorted(p["id"] for p in active))
        raise fail("multiple-matches", f"these identifiers belong to different patients: {ids}", "Patient.identifier")
    if active or not found:
        return active[0] if active else None
    if any(link.get("type") == "replaced-by" for p in found for link in p.get("link", ())):
        raise fail("deleted", "the patient with this identifier was merged into another", "Patient.identifier")
    return found[0]


async def claim(unit: UnitOfWork, identifiers: Iterable[Resource]) -> None:
    """To be called after `match`, before one of these identifiers is given to a patient.

    Whoever claimed it since our transaction began makes ours start again, so that two messages about a new patient don't
    make two.
    """
    await unit.lock(*(f"patient:{i['value']}" for i in identifiers))
