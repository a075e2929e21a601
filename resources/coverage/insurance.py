"""Whose insurance it is: what an order, a request to a payer or an answer names is the patient's own."""

from collections.abc import Iterator

from fhir_server.outcome import fail
from fhir_server.references import Target, target
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork

# Where a resource that is named says whose it is.
_WHOSE = {
    "Coverage": "beneficiary",
    "ClaimResponse": "patient",
    "CoverageEligibilityRequest": "patient",
    "ServiceRequest": "subject",
}


async def check(unit: UnitOfWork, change: Change) -> None:
    """FhirError `business-rule` when what is named newly is somebody else's."""
    resource = change.after
    if resource is None:
        return
    patient = resource.get("subject" if change.type == "ServiceRequest" else "patient", {}).get("reference")
    known = {to for to, _ in _named(change.before)} if change.before else set()
    for to, path in _named(resource):
        found = await unit.read(*to) if to not in known else None
        whose = (found or {}).get(_WHOSE[to.type], {}).get("reference")
        if found is not None and whose != patient:
            raise fail("business-rule", f"this {to.type} is another patient's", path)


def _named(resource: Resource) -> Iterator[tuple[Target, str]]:
    """The references of an order, a request to a payer or an answer that must be the patient's, and where they stand."""
    kind = resource["resourceType"]
    if kind == "ServiceRequest":
        named = [(r, f"ServiceRequest.insurance[{i}]") for i, r in enumerate(resource.get("insurance", ()))]
    else:
        insurances = enumerate(resource.get("insurance", ()))
        named = [(one.get("coverage"), f"{kind}.insurance[{i}].coverage") for i, one in insurances]
        named.append((resource.get("request"), f"{kind}.request"))
        items = enumerate(resource.get("item", ()))
        named += [(d, f"{kind}.item[{i}].detail[{j}]") for i, item in items for j, d in enumerate(item.get("detail", ()))]
    for reference, path in named:
        to = target(reference)
        if to is not None and to.type in _WHOSE:
            yield to, path
