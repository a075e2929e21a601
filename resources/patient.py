"""Patient: who it is. Found by identifier and assigning authority, never by position or name alone."""

from collections.abc import Iterable

from fhir_server.outcome import fail
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork


async def match(unit: UnitOfWork, identifiers: Iterable[Resource]) -> Resource | None:
    """The one active Patient that has one of these identifiers under the same authority.

    The authority is the identifier's system (an OID), or its assigner's name where one side has no OID.
    FhirError `multiple-matches` when they point to different patients. Takes the identity locks, so that two messages
    about a new patient don't make two.
    """
    wanted = list(identifiers)
    await unit.lock(*(f"patient:{i['value']}" for i in wanted))
    found: dict[str, Resource] = {}
    for identifier in wanted:
        value = identifier["value"].replace("\\", "\\\\").replace(",", "\\,").replace("$", "\\$").replace("|", "\\|")
        for patient in await unit.search("Patient", identifier=value):
            if patient.get("active", True) and any(same_identifier(identifier, i) for i in patient.get("identifier", ())):
                found[patient["id"]] = patient
    if len(found) > 1:
        raise fail(
            "multiple-matches",
            f"these identifiers belong to different patients: {', '.join(sorted(found))}",
            "Patient.identifier",
        )
    return next(iter(found.values()), None)


def same_identifier(one: Resource, other: Resource) -> bool:
    """Whether two identifiers are the same value under the same assigning authority."""
    if one.get("value") != other.get("value"):
        return False
    if one.get("system") and one.get("system") == other.get("system"):
        return True
    names = [i.get("assigner", {}).get("display") for i in (one, other)]
    both_oids = all(str(i.get("system", "")).startswith("urn:oid:") for i in (one, other))
    return names[0] is not None and names[0] == names[1] and not both_oids
