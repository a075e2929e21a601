"""What the parts of an examination hang on: by which doors ever, a part stays with its order, and all is the same patient's.

    ServiceRequest   a requested procedure: its order (basedOn)
    Task             a step, a reading: its requested procedure (basedOn); a study has one reading at a time
    ImagingStudy     its requested procedures (basedOn)
    Procedure        its requested procedures (basedOn) and the steps that it performs (extension)
    DiagnosticReport once signed, its orders (basedOn) and studies (imagingStudy)
    Appointment      a booking of an order: its patient (participant)
More of them may be added where they are the same patient's. What was found to be somebody else's is moved by `$reconcile` and
`$move`, which are the department's doing; the bridges have rules of their own, by which a doubt becomes a work item.
Of what has been planned, done or charged nothing is deleted: it is cancelled, or entered in error.
"""

from collections.abc import Iterator
from typing import Any, Final

from fhir_server.outcome import fail
from fhir_server.references import Target, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, procedure, service_request, settling, task, terms
from resources.reading import readers, worklist

_PATIENT: Final = {"Task": "for", "ServiceRequest": "subject", "ImagingStudy": "subject"}
_MAY_GO: Final = {
    "ServiceRequest": frozenset({"draft", "entered-in-error"}),
    "Task": frozenset({"draft", "entered-in-error"}),
    "ChargeItem": frozenset({"not-billable", "aborted", "entered-in-error"}),
}


async def check(unit: UnitOfWork, change: Change) -> None:
    """FhirError `business-rule` where a part would leave what it hangs on, or hang on another patient's."""
    part = change.after
    if part is None or not _is_judged(unit, change):
        return
    had, has = dict(_links(change.before)), dict(_links(part))
    if change.before is not None and _stays(change.before) and (gone := had.keys() - has.keys()):
        lost = min(gone, key=str)
        text = f"this is of {lost}, and stays so; $move and $reconcile move it with all that hangs on it"
        raise fail("business-rule", text, had[lost])
    for to in has.keys() - had.keys():
        await _check_patient(unit, part, to, has[to])
    if change.before is None and part["resourceType"] == "Task" and worklist.is_reading(part):
        await _check_only_reading(unit, has)


def _is_judged(unit: UnitOfWork, change: Change) -> bool:
    return unit.is_callers and not unit.access.internal and not change.redirected and not settling.under_way(unit)


def _links(part: Resource | None) -> Iterator[tuple[Target, str]]:
    """What a part hangs on, and the path of the element that says so."""
    kind = (part or {}).get("resourceType")
    if part is None or (kind == "Task" and not (task.is_step(part) or worklist.is_reading(part))):
        return
    if kind == "ServiceRequest" and not service_request.is_procedure(part):
        return
    if kind == "Appointment":
        yield from _targets((p.get("actor") for p in part.get("participant", ())), "Appointment.participant", "Patient")
        return
    yield from _targets(part.get("basedOn", ()), f"{kind}.basedOn", "ServiceRequest")
    if kind == "DiagnosticReport":
        yield from _targets(part.get("imagingStudy", ()), "DiagnosticReport.imagingStudy", "ImagingStudy")
    if kind == "Procedure":
        steps = (e.get("valueReference") for e in part.get("extension", ()) if e.get("url") == terms.SCHEDULED_STEP)
        yield from _targets(steps, "Procedure.extension", "Task")


def _targets(references: Any, path: str, resource_type: str) -> Iterator[tuple[Target, str]]:
    for reference in references:
        to = target(reference)
        if to is not None and to.type == resource_type:
            yield to, path


def _stays(before: Resource) -> bool:
    """Whether what it hung on is settled: a report's with its signature, a booking's while it stands, others' at once."""
    if before["resourceType"] == "Appointment":
        return appointment.is_booked(before) and bool(appointment.orders(before))
    return before["resourceType"] != "DiagnosticReport" or before.get("status") in readers.SIGNED


async def _check_patient(unit: UnitOfWork, part: Resource, to: Target, path: str) -> None:
    if to.type not in _PATIENT or (part["resourceType"] == "Procedure" and procedure.is_in_doubt(part)):
        return
    whose = (await unit.read(to.type, to.id) or {}).get(_PATIENT[to.type], {}).get("reference")
    mine = part.get(_PATIENT.get(part["resourceType"], "subject"), {}).get("reference")
    if whose is not None and mine is not None and whose != mine:
        raise fail("business-rule", f"{to} is another patient's", path)


async def _check_only_reading(unit: UnitOfWork, has: dict[Target, str]) -> None:
    for to in has:
        readings = await unit.search("Task", based_on=str(to), code=terms.READING)
        if open_ := [r for r in readings if worklist.is_open(r)]:
            named = await unit.named("Task", open_[0]["id"])
            raise fail("conflict", f"this is to be read already: {named}", "Task.basedOn")


async def check_deleted(unit: UnitOfWork, change: Change) -> None:
    """FhirError `business-rule` where what was planned, done or charged would be deleted."""
    before = change.before
    if change.after is not None or before is None or not _is_judged(unit, change):
        return
    kind = before["resourceType"]
    if kind == "Task" and not (task.is_step(before) or worklist.is_reading(before)):
        return
    if kind == "ServiceRequest" and not service_request.is_procedure(before):
        return
    if before.get("status") not in _MAY_GO[kind]:
        text = f"this can't be deleted while it is {before.get('status')}: it can be ended, or entered in error"
        raise fail("business-rule", text, f"{kind}.status")


async def check_signature(unit: UnitOfWork, change: Change) -> None:
    """A signature stays as it was made. FhirError `business-rule`."""
    before = change.before
    if before is None or "signature" not in before or not _is_judged(unit, change):
        return
    if change.after is None or any(before.get(e) != change.after.get(e) for e in ("signature", "target")):
        raise fail("business-rule", "a signature can't be changed or deleted", "Provenance.signature")


def register(registry: Registry) -> None:
    for resource_type in ("ServiceRequest", "Task", "ImagingStudy", "Procedure", "DiagnosticReport", "Appointment"):
        registry.rule(resource_type, check)
    for resource_type in _MAY_GO:
        registry.rule(resource_type, check_deleted)
    registry.rule("Provenance", check_signature)
