"""ChargeItem: what is charged for an examination, by the charge codes of the procedure catalogue.

A catalogue entry (ActivityDefinition) has an extension `urn:fhir-ris:charge` for each charge:
    {"url": "urn:fhir-ris:charge", "extension": [
        {"url": "component", "valueCode": "technical" | "professional"},
        {"url": "code", "valueCodeableConcept": ...},               the charge code: CPT, HCPCS, OPS, the house's own
        {"url": "modifier", "valueCodeableConcept": ...},           any number
        {"url": "quantity", "valueDecimal": 1}]}
The technical component is charged when the last step of a requested procedure has ended and one was done, the professional
component when its report is signed; each once. When what was charged turns out not to have been (a step, the requested procedure
or its report is withdrawn), the charge is aborted: whoever has the bill gets a credit.
"""

from collections.abc import Iterable
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import extension
from fhir_server.references import ref, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, diagnostic_report, service_request, task
from resources.lifecycle import check_status, lifecycle
from resources.security_labels import labelled

CHARGE: Final = "urn:fhir-ris:charge"  # extension of a catalogue entry, and the system of a charge's identifier
COMPONENT: Final = "urn:fhir-ris:charge-component"  # extension of a ChargeItem: technical or professional
MODIFIER: Final = "urn:fhir-ris:charge-modifier"  # extension of a ChargeItem: a modifier of its code
TECHNICAL: Final = "technical"
PROFESSIONAL: Final = "professional"
STANDS: Final = frozenset({"planned", "billable", "billed"})
_SIGNED: Final = ("final", "amended", "corrected", "appended")
_WITHDRAWN: Final = ("cancelled", "entered-in-error")
LIFECYCLE: Final = lifecycle(
    "ChargeItem",
    "charge",
    """
    from                 | to                                           | who               | needs | then
    new                  | planned billable not-billable                | technologist; RIS |       | a billable one leaves as DFT
    planned not-billable | billable                                     | technologist      |       | leaves as DFT
    planned billable     | not-billable                                 | technologist      |       |
    billable             | billed                                       | technologist      |       |
    planned billable     | aborted                                      | technologist; RIS |       | what has left is credited
    not-billable billed  |                                              |                   |       |
    unknown              | planned billable not-billable aborted billed | technologist      |       |
    *                    | entered-in-error                             | technologist      |       | what has left is credited
    """,
)


def component(charge: Resource) -> str:
    """`technical`, `professional`, or empty for a charge of neither kind."""
    return str((extension(charge, COMPONENT) or {}).get("valueCode", ""))


def modifiers(charge: Resource) -> list[Resource]:
    """The modifiers of its code, CodeableConcepts."""
    return [e["valueCodeableConcept"] for e in charge.get("extension", ()) if e.get("url") == MODIFIER]


async def procedure_of(unit: UnitOfWork, charge: Resource) -> Resource | None:
    """The requested procedure, or order, that a charge is for."""
    for reference in charge.get("supportingInformation", ()):
        if (to := target(reference)) and to.type == "ServiceRequest":
            return await unit.get(reference)
    return None


async def check(unit: UnitOfWork, change: Change) -> None:
    await check_status(unit, change, LIFECYCLE)


# Charging


async def _charge(unit: UnitOfWork, procedure: Resource, which: str, report: Resource | None = None) -> None:
    """Charge a component of a requested procedure, unless a charge for it stands."""
    entry = await activity_definition.catalogue_entry(unit, procedure)
    charges = [c for e in (entry or {}).get("extension", ()) if e.get("url") == CHARGE and (c := _said(e))["component"] == which]
    if not charges:
        return
    study = await _study(unit, procedure)
    had = [c for c in await _of_study(unit, study) if component(c) == which]
    if any(c["status"] in STANDS for c in had):
        return
    for number, said in enumerate(charges, len(had) + 1):
        await unit.create(labelled(_item(unit, procedure, study, said, number, report), procedure))


def _said(element: Resource) -> dict[str, Any]:
    """The parts of a charge in the catalogue."""
    parts = element.get("extension", ())
    value = {p["url"]: next((v for k, v in p.items() if k.startswith("value")), None) for p in parts}
    return {
        "component": value.get("component") or TECHNICAL,
        "code": value.get("code") or {},
        "modifiers": [p["valueCodeableConcept"] for p in parts if p["url"] == "modifier"],
        "quantity": value.get("quantity") or 1,
    }


def _item(
    unit: UnitOfWork, procedure: Resource, study: Resource | None, said: dict[str, Any], number: int, report: Resource | None
) -> Resource:
    which = said["component"]
    item: Resource = {
        "resourceType": "ChargeItem",
        "extension": [
            {"url": COMPONENT, "valueCode": which},
            *({"url": MODIFIER, "valueCodeableConcept": m} for m in said["modifiers"]),
        ],
        "identifier": [{"system": CHARGE, "value": f"{procedure['id']}-{which}-{number}"}],
        "status": "billable",
        "code": said["code"],
        "subject": procedure["subject"],
        "occurrenceDateTime": (report or {}).get("issued") or clock.instant(unit.now),
        "quantity": {"value": said["quantity"]},
        "enteredDate": clock.instant(unit.now),
        "supportingInformation": [ref(procedure)],
    }
    services = [ref(r) for r in (study, report) if r is not None]
    performers = [{"actor": r} for r in (report or {}).get("resultsInterpreter", ())]
    optional = {
        "context": procedure.get("encounter"),
        "service": services,
        "reason": procedure.get("reasonCode"),
        "performer": performers,
    }
    return item | {k: v for k, v in optional.items() if v}


async def _study(unit: UnitOfWork, procedure: Resource) -> Resource | None:
    studies = await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}")
    return studies[0] if studies else None


async def _of_study(unit: UnitOfWork, study: Resource | None) -> list[Resource]:
    return [] if study is None else await unit.search("ChargeItem", service=f"ImagingStudy/{study['id']}")


async def _withdraw(unit: UnitOfWork, procedure: Resource, which: Iterable[str]) -> None:
    """Abort what stands of these components."""
    wanted = set(which)
    for charge in await _of_study(unit, await _study(unit, procedure)):
        if component(charge) in wanted and charge["status"] in STANDS:
            await unit.update(charge | {"status": "aborted"})


# Reactions


async def follow_step(unit: UnitOfWork, change: Change) -> None:
    """The technical component, with the end of the last step."""
    step = change.after
    if step is None or not task.is_step(step):
        return
    ended = change.became("status", "completed", "failed", "cancelled")
    withdrawn = (change.before or {}).get("status") == "completed" and step["status"] == "entered-in-error"
    procedure = await unit.get(step.get("focus")) if ended or withdrawn else None
    if procedure is None:
        return
    ends = {s["status"] for s in await task.steps_of(unit, procedure["id"])}
    if "completed" not in ends:
        if withdrawn:
            await _withdraw(unit, procedure, (TECHNICAL,))
    elif not ends & task.OPEN and ended:
        await _charge(unit, procedure, TECHNICAL)


async def follow_report(unit: UnitOfWork, change: Change) -> None:
    """The professional component, with the signature."""
    report = change.after
    if report is None:
        return
    before = change.before or {}
    if report["status"] in _SIGNED and (before.get("status") not in _SIGNED or diagnostic_report.is_unnamed(before)):
        for procedure in await diagnostic_report.signed_for(unit, report):
            await _charge(unit, procedure, PROFESSIONAL, report)
    elif change.became("status", *_WITHDRAWN) and before.get("status") in _SIGNED:
        for procedure in await diagnostic_report.signed_for(unit, report):
            if not await diagnostic_report.is_signed(unit, procedure):
                await _withdraw(unit, procedure, (PROFESSIONAL,))


async def follow_request(unit: UnitOfWork, change: Change) -> None:
    """A requested procedure that should never have been is not charged."""
    request = change.after
    if request is None or not service_request.is_procedure(request) or change.before is None:
        return
    if change.became("status", "revoked", "entered-in-error"):
        await _withdraw(unit, request, (TECHNICAL, PROFESSIONAL))


def register(registry: Registry) -> None:
    registry.rule("ChargeItem", check)
    registry.reaction("Task", follow_step)
    registry.reaction("DiagnosticReport", follow_report)
    registry.reaction("ServiceRequest", follow_request)
