"""What hangs on an order or a study: what goes with it to another patient, and what would contradict itself then."""

from collections.abc import Collection, Iterable
from typing import Final

from fhir_server.outcome import fail
from fhir_server.references import Target, literals, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork

# By type: the elements by which a resource hangs on what it is of. What merely mentions something, stays where it is.
_HANGS: Final[dict[str, tuple[str, ...]]] = {
    "ServiceRequest": ("basedOn",),
    "Task": ("basedOn", "focus", "partOf"),
    "Appointment": ("basedOn",),
    "AppointmentResponse": ("appointment",),
    "Procedure": ("basedOn", "partOf"),
    "ImagingStudy": ("basedOn",),
    "DiagnosticReport": ("basedOn", "imagingStudy"),
    "Observation": ("basedOn", "partOf"),
    "Media": ("basedOn", "partOf"),
    "DocumentReference": ("context",),
    "ChargeItem": ("service", "supportingInformation"),
    "Communication": ("basedOn", "about"),
    "CommunicationRequest": ("basedOn", "about"),
    "MedicationAdministration": ("partOf",),
    "QuestionnaireResponse": ("basedOn", "partOf"),
}
# What a resource holds of its own: the results of a report go where it goes.
_HOLDS: Final[dict[str, tuple[str, ...]]] = {
    "DiagnosticReport": ("result",),
    "Observation": ("hasMember",),
}
MOST: Final = 500
Moved = dict[Target, Resource]


def own(resource: Resource) -> Target:
    return Target(resource["resourceType"], resource["id"])


async def of(unit: UnitOfWork, roots: Iterable[Resource], patient: Target, left: Collection[Target] = ()) -> Moved:
    """The roots and everything of this patient that hangs on them, but for what hangs on what is `left` behind.

    FhirError `too-costly` for more than MOST.
    """
    found: Moved = {own(r): r for r in roots}
    fresh = list(found)
    await unit.flush()
    while fresh:
        near = await _hanging(unit, fresh)
        for to in fresh:
            near += await _held(unit, found[to])
        fresh = []
        for resource in near:
            stays = any(to in left for to in _of(resource, _HANGS.get(resource["resourceType"], ())))
            if own(resource) not in found and str(patient) in literals(resource) and not stays:
                found[own(resource)] = resource
                fresh.append(own(resource))
        if len(found) > MOST:
            raise fail("too-costly", f"more than {MOST} resources would have to be moved")
    return found


async def _held(unit: UnitOfWork, resource: Resource) -> list[Resource]:
    references = (r for e in _HOLDS.get(resource["resourceType"], ()) for r in resource.get(e, ()))
    return [r for reference in references if (r := await unit.get(reference)) is not None]


async def _hanging(unit: UnitOfWork, on: list[Target]) -> list[Resource]:
    """What hangs on one of these."""
    names = {str(to) for to in on}
    found: list[Resource] = []
    for resource_type, elements in _HANGS.items():
        where = {"search.t": {"$in": [f">{name}" for name in sorted(names)]}}
        rows = unit.db[resource_type].find(where, {"_id": 1}, limit=MOST + 1, session=unit.session)
        for id_ in [row["_id"] async for row in rows]:
            resource = await unit.read(resource_type, id_)
            if resource is not None and any(str(to) in names for to in _of(resource, elements)):
                found.append(resource)
    return found


def _of(resource: Resource, elements: Iterable[str]) -> list[Target]:
    texts = literals([resource.get(element) for element in elements])
    return [to for text in texts if (to := target(text)) is not None]


async def refuse_shared(unit: UnitOfWork, moved: Moved, patient: Target) -> None:
    """FhirError `conflict` when something that would go is also of something of the patient that stays."""
    for to, resource in moved.items():
        for other in _of(resource, _HANGS.get(to.type, ())):
            if other in moved or other.type not in _HANGS:
                continue
            stays = await unit.read(*other)
            if stays is not None and str(patient) in literals(stays):
                text = f"{to} is also of {other}, which would stay with {patient}: separate them first"
                raise fail("conflict", text, f"{to.type}.{_HANGS[to.type][0]}")


async def bare(unit: UnitOfWork, resource: Resource, moved: Moved, patient: Target) -> Resource:
    """The resource without what is the former patient's alone: visit, insurance, account, findings that stay."""
    kept = {k: v for k, v in resource.items() if k not in {"encounter", "insurance", "account"}}
    if resource["resourceType"] in {"ChargeItem", "MedicationAdministration"}:
        kept.pop("context", None)
    for element in ("reasonReference", "supportingInfo"):
        if element in kept:
            rest = [r for r in kept[element] if await _may_stay(unit, target(r), moved, patient)]
            kept = {k: v for k, v in kept.items() if k != element} | ({element: rest} if rest else {})
    return kept


async def _may_stay(unit: UnitOfWork, to: Target | None, moved: Moved, patient: Target) -> bool:
    if to is None or to in moved:
        return True
    other = await unit.read(*to)
    return other is None or str(patient) not in literals(other)


async def check(unit: UnitOfWork, change: Change) -> None:
    """What comes for an order after it has gone to another patient is not written for the former one."""
    made = change.after
    if made is None or change.before is not None:
        return
    for to in _of(made, _HANGS[change.type]):
        request = await unit.read(*to) if to.type == "ServiceRequest" else None
        if request is not None and target(request.get("subject")) != target(made.get("subject")):
            raise fail("business-rule", f"it is for another patient than {to}", f"{change.type}.subject")


def register(registry: Registry) -> None:
    """For types whose own rules don't say so."""
    for resource_type in ("Communication", "CommunicationRequest", "QuestionnaireResponse", "Media"):
        registry.rule(resource_type, check)
