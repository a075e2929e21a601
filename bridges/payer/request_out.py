"""What a payer is sent: a CoverageEligibilityRequest that stands for itself (FHIR R4 12.2).

A payer can't follow our references. Of what the request names, what a payer needs is copied into it (contained): of a patient the
identifiers, name, sex and birth date, of a diagnosis its code, no more. What else is named is named by its identifier.
"""

from typing import Any, Final

from fhir_server.elements import Resource
from fhir_server.references import target, walk
from fhir_server.unit_of_work import UnitOfWork
from resources.coverage.submission import contained_id

# What of a resource a payer is sent.
_COPIED: Final = {
    "Patient": "identifier active name gender birthDate deceasedBoolean",
    "Coverage": "identifier status type policyHolder subscriber subscriberId beneficiary dependent relationship period payor "
    "class order network",
    "Organization": "identifier active type name",
    "Practitioner": "identifier active name",
    "PractitionerRole": "identifier active practitioner organization code specialty",
    "Location": "identifier status name",
    "Condition": "identifier clinicalStatus code subject",
}  # fmt: skip
_LEFT_OUT: Final = ("id", "meta", "text", "implicitRules", "extension", "contained")
_DEPTH: Final = 3  # a Coverage names a payor; whom that one names, nobody needs to know


async def message(unit: UnitOfWork, request: Resource) -> Resource:
    """The request as it is sent, under its own id."""
    sent = {k: v for k, v in request.items() if k not in _LEFT_OUT}
    contained: dict[str, Resource] = {}
    await _take_in(unit, sent, contained, _DEPTH)
    return {"resourceType": sent.pop("resourceType"), "id": request["id"], "contained": list(contained.values()), **sent}


async def _take_in(unit: UnitOfWork, element: Resource, contained: dict[str, Resource], depth: int) -> None:
    """Point the references below an element to copies of what they name; those copies go to `contained`."""
    for _, reference in walk(element, ""):
        to = target(reference)
        if to is None:
            continue
        id_ = contained_id(reference)
        if id_ not in contained:
            found = await unit.get(reference)
            if found is None or to.type not in _COPIED or not depth:
                _by_identifier(reference, to.type, found)
                continue
            copy = {k: v for k, v in found.items() if k in _COPIED[to.type].split()}
            contained[id_] = {"resourceType": to.type, "id": id_, **copy}
            await _take_in(unit, contained[id_], contained, depth - 1)
        reference["reference"] = f"#{id_}"


def _by_identifier(reference: Resource, resource_type: str, found: Resource | None) -> None:
    del reference["reference"]
    reference["type"] = resource_type
    known: list[Any] = (found or {}).get("identifier", [])
    if known and isinstance(known, list):
        reference.setdefault("identifier", known[0])
    elif "display" not in reference:
        reference["display"] = f"a {resource_type}"
