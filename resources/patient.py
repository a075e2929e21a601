"""Patient: who it is. Found by identifier and assigning authority, never by position or name alone."""

from collections.abc import Iterable

from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.identifiers import carriers, same

_LONGEST_CHAIN = 50


async def match(unit: UnitOfWork, identifiers: Iterable[Resource]) -> Resource | None:
    """The one Patient that has one of these identifiers under the same authority; an inactive one if there is no other.

    FhirError `multiple-matches` when they point to different patients, `deleted` when all that is named was merged into another
    record, or replaced by another identifier (`use` old).
    """
    wanted = list(identifiers)
    found = await carriers(unit, "Patient", wanted)
    active = [p for p in found if p.get("active", True)]
    if len(active) > 1:
        ids = ", ".join(sorted(p["id"] for p in active))
        raise fail("multiple-matches", f"these identifiers belong to different patients: {ids}", "Patient.identifier")
    if active and names_now(active[0], wanted):
        return active[0]
    if any(merged_into(p) for p in found):
        text = "the patient with this identifier was merged into another record, which is to be named by its own identifier"
        raise fail("deleted", text, "Patient.identifier")
    if active:
        text = "this identifier was replaced, or merged into another: the patient is to be named by the present one"
        raise fail("deleted", text, "Patient.identifier")
    return found[0] if found else None


def names_now(patient: Resource, identifiers: Iterable[Resource]) -> bool:
    """Whether one of these is an identifier that the patient still has."""
    current = [i for i in patient.get("identifier", ()) if i.get("use") != "old"]
    return any(same(wanted, own) for wanted in identifiers for own in current)


def merged_into(patient: Resource) -> str | None:
    """The reference to the record that has replaced this one."""
    for link in patient.get("link", ()):
        if link.get("type") == "replaced-by" and (to := target(link.get("other"))):
            return str(to)
    return None


async def successors(unit: UnitOfWork, patient: Resource) -> list[Resource]:
    """The records that have replaced this one, one after the other: the last is the one that the patient has now."""
    found: list[Resource] = []
    seen = {patient["id"]}
    while (reference := merged_into(patient)) and len(seen) < _LONGEST_CHAIN:
        following = await unit.get(reference)
        if following is None or following["id"] in seen:
            break
        seen.add(following["id"])
        found.append(following)
        patient = following
    return found


async def claim(unit: UnitOfWork, identifiers: Iterable[Resource]) -> None:
    """To be called after `match`, before one of these identifiers is given to a patient.

    Whoever claimed it since our transaction began makes ours start again, so that two messages about a new patient don't
    make two.
    """
    await unit.lock(*(f"patient:{i['value']}" for i in identifiers))
