"""When something is charged, and when it is taken back.

The technical component is charged when the last step of a requested procedure has ended and one was done, the professional
component when its report is signed; each once. When what was charged turns out not to have been (a step, the requested procedure
or its report is withdrawn), the charge is aborted: whoever has the bill gets a credit.
"""

from typing import Final

from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import diagnostic_report, imaging_study, service_request, task
from resources.charge_item import PROFESSIONAL, TECHNICAL
from resources.charging import making, review
from resources.security_labels import labelled

SIGNED: Final = ("final", "amended", "corrected", "appended")
_WITHDRAWN: Final = ("cancelled", "entered-in-error")


async def follow_step(unit: UnitOfWork, change: Change) -> None:
    """The technical component, with the end of the last step; back, when what was done turns out not to have been."""
    step = change.after
    if step is None or not task.is_step(step):
        return
    ended = change.became("status", "completed", "failed", "cancelled")
    withdrawn = (change.before or {}).get("status") in {"completed", "failed"} and step["status"] not in {"completed", "failed"}
    procedure = await unit.get(step.get("focus")) if ended or withdrawn else None
    if procedure is None:
        return
    ends = {s["status"] for s in await task.steps_of(unit, procedure["id"])}
    # What is left of an examination is charged anew: its units, and what of it was stopped, are others now.
    if withdrawn and not await making.withdraw(unit, procedure, (TECHNICAL,), "the examination was withdrawn, or a part of it"):
        return
    if not ends & task.OPEN:
        await charge_ended(unit, procedure, ends)


async def charge_ended(unit: UnitOfWork, procedure: Resource, ends: set[str]) -> list[Resource]:
    """The technical component of a requested procedure whose steps have ended so."""
    if "completed" in ends:
        return await making.charge(unit, procedure, TECHNICAL)
    if "failed" in ends and any(_has_images(s) for s in await imaging_study.of_procedure(unit, procedure["id"])):
        return await making.charge(unit, procedure, TECHNICAL, discontinued=True)
    return []


def _has_images(study: Resource | None) -> bool:
    """Whether images are known of, by their series or by their number only."""
    return study is not None and ("series" in study or bool(study.get("numberOfInstances")))


async def follow_images(unit: UnitOfWork, change: Change) -> None:
    """Images of an examination that was stopped may come to be known after its end."""
    if change.after is None or _has_images(change.before) or not _has_images(change.after):
        return
    for reference in change.after.get("basedOn", ()):
        procedure = await unit.get(reference)
        if procedure is not None and service_request.is_procedure(procedure):
            ends = {s["status"] for s in await task.steps_of(unit, procedure["id"])}
            if "failed" in ends and not ends & {*task.OPEN, "completed"}:
                await charge_ended(unit, procedure, ends)


async def follow_report(unit: UnitOfWork, change: Change) -> None:
    """The professional component, with the signature; what waited for a diagnosis has one now."""
    report = change.after
    if report is None:
        return
    before = change.before or {}
    if report["status"] in SIGNED:
        new = before.get("status") not in SIGNED or diagnostic_report.is_unnamed(before)
        if new or before.get("conclusionCode") != report.get("conclusionCode"):
            for procedure in await diagnostic_report.signed_for(unit, report):
                if new:
                    await making.charge(unit, procedure, PROFESSIONAL, report)
                if "conclusionCode" in report:
                    await _diagnosed(unit, procedure, report)
    elif change.became("status", *_WITHDRAWN) and before.get("status") in SIGNED:
        for procedure in await diagnostic_report.signed_for(unit, report):
            if not await diagnostic_report.is_signed(unit, procedure):
                await making.withdraw(unit, procedure, (PROFESSIONAL,), "the report was withdrawn")


async def _diagnosed(unit: UnitOfWork, procedure: Resource, report: Resource) -> None:
    """The charges that are held for want of a diagnosis get what the report found."""
    for charge in await making.of_procedure(unit, procedure):
        if "no-diagnosis" in review.held_for(charge) and (reasons := await making.diagnoses(unit, procedure, report)):
            await review.look_again(unit, labelled(charge | {"reason": reasons}, report))


async def follow_request(unit: UnitOfWork, change: Change) -> None:
    """A requested procedure that should never have been is not charged; one that was stopped and then cancelled, as it was."""
    request = change.after
    if request is None or not service_request.is_procedure(request) or change.before is None:
        return
    if change.became("status", "revoked", "entered-in-error"):
        stopped = request["status"] == "revoked"
        await making.withdraw(unit, request, (TECHNICAL, PROFESSIONAL), "the order was withdrawn", but_stopped=stopped)


async def follow_coverage(unit: UnitOfWork, change: Change) -> None:
    """The charges that are held for want of a coverage may have one now."""
    coverage = change.after
    if coverage is None or coverage.get("status") != "active":
        return
    patient = str(coverage.get("beneficiary", {}).get("reference", ""))
    for charge in await review.held_of(unit, patient, "no-coverage"):
        await review.look_again(unit, charge)


def register(registry: Registry) -> None:
    registry.reaction("Task", follow_step)
    registry.reaction("ImagingStudy", follow_images)
    registry.reaction("DiagnosticReport", follow_report)
    registry.reaction("ServiceRequest", follow_request)
    registry.reaction("Coverage", follow_coverage)
