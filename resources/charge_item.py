"""ChargeItem: what is charged for an examination. How it comes to be, and who looks at it, is in `charging/`."""

from typing import Final

from fhir_server.elements import extension
from fhir_server.references import target
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.lifecycle import check_status, lifecycle

CHARGE: Final = "urn:fhir-ris:charge"  # extension of a catalogue entry, and the system of a charge's identifier
COMPONENT: Final = "urn:fhir-ris:charge-component"  # extension of a ChargeItem: technical or professional
MODIFIER: Final = "urn:fhir-ris:charge-modifier"  # extension of a ChargeItem: a modifier of its code
# Extensions of a ChargeItem, why: it was released although it is unusual; a person has taken it back; something else did.
RELEASED: Final = "urn:fhir-ris:charge-released"
VOIDED: Final = "urn:fhir-ris:charge-voided"
WITHDRAWN: Final = "urn:fhir-ris:charge-withdrawn"
REPLACES: Final = "urn:fhir-ris:charge-replaces"  # extension of a ChargeItem: the one that it takes the place of
TECHNICAL: Final = "technical"
PROFESSIONAL: Final = "professional"
STANDS: Final = frozenset({"planned", "billable", "billed"})
LIFECYCLE: Final = lifecycle(
    "ChargeItem",
    "charge",
    """
    from             | to                     | who               | needs                       | then
    new              | planned                | technologist; RIS |                             | it is on the review list
    new planned      | billable               | technologist; RIS | nothing unusual or released | leaves as DFT
    new              | not-billable           | technologist; RIS |                             |
    not-billable     | billable               | technologist; RIS |                             | leaves as DFT
    planned billable | not-billable           | technologist      |                             | what has left is credited
    billable         | billed                 | technologist      |                             |
    planned billable | aborted                | technologist; RIS |                             | what has left is credited
    not-billable     |                        |                   |                             |
    billed           |                        |                   |                             |
    unknown          | planned billable       | technologist      |                             |
                     | not-billable aborted   |                   |                             |
                     | billed                 |                   |                             |
    *                | entered-in-error       | technologist      |                             | what has left is credited
    """,
)


def component(charge: Resource) -> str:
    """`technical`, `professional`, or empty for a charge of neither kind."""
    return str((extension(charge, COMPONENT) or {}).get("valueCode", ""))


def modifiers(charge: Resource) -> list[Resource]:
    """The modifiers of its code, CodeableConcepts."""
    return [e["valueCodeableConcept"] for e in charge.get("extension", ()) if e.get("url") == MODIFIER]


def procedure_id(charge: Resource) -> str:
    """The id of the requested procedure, or order, that a charge is for; empty for none."""
    found = (target(r) for r in charge.get("supportingInformation", ()))
    return next((to.id for to in found if to and to.type == "ServiceRequest"), "")


async def procedure_of(unit: UnitOfWork, charge: Resource) -> Resource | None:
    """The requested procedure, or order, that a charge is for."""
    found = procedure_id(charge)
    return await unit.read("ServiceRequest", found) if found else None


def without_extension(charge: Resource, *urls: str) -> Resource:
    """The charge without these extensions."""
    kept = [e for e in charge.get("extension", ()) if e.get("url") not in urls]
    rest = {k: v for k, v in charge.items() if k != "extension"}
    return rest | ({"extension": kept} if kept else {})


async def check(unit: UnitOfWork, change: Change) -> None:
    await check_status(unit, change, LIFECYCLE)
