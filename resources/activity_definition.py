"""ActivityDefinition: the procedure catalogue. What an ordered code means for the department."""

from fhir_server.elements import codes, codings, extension
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.identifiers import token

# Extension (boolean): an order for the procedure must say why.
REASON_REQUIRED = "urn:fhir-ris:reason-required"


def needs_reason(entry: Resource | None) -> bool:
    """Whether the catalogue entry asks for a reason."""
    found = extension(entry or {}, REASON_REQUIRED)
    return bool(found and found.get("valueBoolean"))


async def modality(unit: UnitOfWork, request: Resource) -> str | None:
    """The modality that a requested procedure needs: as the order says, else by the catalogue. None when neither knows."""
    for element in ("orderDetail", "category"):
        if said := codes(request.get(element), terms.DCM):
            return said[0]
    entry = await catalogue_entry(unit, request)
    found = codes((entry or {}).get("topic"), terms.DCM)
    return found[0] if found else None


async def catalogue_entry(unit: UnitOfWork, request: Resource) -> Resource | None:
    """The active catalogue entry of the request's code; of several codings the first that the catalogue knows counts.

    R4 can't search ActivityDefinition by code, so an entry also carries its procedure code as an identifier.
    """
    wanted = [(c.get("system", ""), c["code"]) for c in codings(request.get("code")) if "code" in c]
    if not wanted:
        return None
    found = await unit.search("ActivityDefinition", identifier=",".join(token(*w) for w in wanted), status="active")
    entries = {(i.get("system", ""), i.get("value")): e for e in found for i in e.get("identifier", ())}
    return next((entries[w] for w in wanted if w in entries), None)
