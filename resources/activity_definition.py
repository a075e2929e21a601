"""ActivityDefinition: the procedure catalogue. What an ordered code means for the department."""

from fhir_server.elements import codes, codings
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms


async def modality(unit: UnitOfWork, request: Resource) -> str | None:
    """The modality that a requested procedure needs: as the order says, else by the catalogue. None when neither knows."""
    for element in ("orderDetail", "category"):
        if said := codes(request.get(element), terms.DCM):
            return said[0]
    entry = await catalogue_entry(unit, request)
    found = codes((entry or {}).get("topic"), terms.DCM)
    return found[0] if found else None


async def catalogue_entry(unit: UnitOfWork, request: Resource) -> Resource | None:
    """The active catalogue entry whose code is one of the request's codes.

    R4 can't search ActivityDefinition by code, so an entry also carries its procedure code as an identifier.
    """
    for coding in codings(request.get("code")):
        token = f"{coding.get('system', '')}|{coding.get('code', '')}"
        for entry in await unit.search("ActivityDefinition", identifier=token):
            if entry.get("status") == "active":
                return entry
    return None
