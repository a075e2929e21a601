"""An order, or a study without one, goes from the wrong patient to the right one: all that hangs on it, in one transaction.

The order keeps its numbers, steps, booking, study, report and charges. The visit, the insurance and the findings of the former
patient stay behind. Who was told of it is told again (`bridges/v2/due_moves.py`), a Provenance says who did it and why, and a
work item asks a person to see that placer and PACS have followed.

A study that was made under an order of the wrong patient leaves that order, whose steps wait again; it then is a study without
order, to be given one (`$reconcile`).
"""

from typing import Final

from fhir_server import clock, integrity, redirection
from fhir_server.outcome import fail
from fhir_server.references import Target, ref, target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import diagnostic_report, imaging_study, reconciliation, service_request, work_items
from resources.moving import belongings
from resources.moving.belongings import Moved
from resources.patient import merged_into
from resources.reading import document
from resources.report_section import is_generated

MOVED: Final = "order-moved"  # the work item
WITHOUT_ORDER: Final = "study-without-order"
_SIGNED: Final = frozenset({"final", "amended", "corrected", "appended"})


async def move(unit: UnitOfWork, what: Resource, patient: Resource, reason: str, *, correct_reports: bool) -> list[Target]:
    """Move an order (ServiceRequest) or study (ImagingStudy) to a patient; what was moved.

    FhirError `conflict` or `business-rule` where the outcome would contradict itself.
    """
    if what["resourceType"] == "ServiceRequest":
        what = await service_request.order_of(unit, what) or what
        if not service_request.is_order(what):
            raise fail("value", "that is no imaging order", "ServiceRequest.intent", status=422)
    old, new = _patients(what, patient)
    if what["status"] == "entered-in-error":
        raise fail("conflict", "it was entered in error", f"{what['resourceType']}.status")
    await integrity.hold(unit, belongings.own(what), old, new)  # nobody writes for it meanwhile, so that all of it goes
    left: list[Target] = []
    if what["resourceType"] == "ImagingStudy":
        what, left = await _without_order(unit, what, old)
    roots = [what]
    if what["resourceType"] == "ImagingStudy":
        roots += await reconciliation.performed_into(unit, imaging_study.study_uid(what) or "")
    moved = await belongings.of(unit, roots, old, left)
    await belongings.refuse_shared(unit, moved, old)
    await _refuse_signed(unit, moved, correct_reports=correct_reports)
    bare = [await belongings.bare(unit, _corrected(unit, r), moved, old) for r in moved.values()]
    made = await _composed(unit, redirection.move(unit, bare, old, new))
    await _record(unit, made, old, reason)
    await _ask(unit, what, moved, old, new)
    return list(moved)


def _patients(what: Resource, patient: Resource) -> tuple[Target, Target]:
    old, new = target(what.get("subject")), belongings.own(patient)
    if old is None or old.type != "Patient":
        raise fail("business-rule", "it is of no Patient", f"{what['resourceType']}.subject")
    if old == new:
        raise fail("business-rule", "it is this patient's already", "Parameters.parameter", status=422)
    if merged_into(patient) or not patient.get("active", True):
        raise fail("business-rule", "the record of that patient is not active, or was merged", "Parameters.parameter", status=422)
    return old, new


async def _refuse_signed(unit: UnitOfWork, moved: Moved, *, correct_reports: bool) -> None:
    """A signed report that goes to another patient is corrected, and both must hear of it: a radiologist is to say so."""
    signed = [to for to, r in moved.items() if to.type == "DiagnosticReport" and r["status"] in _SIGNED]
    if signed and not correct_reports:
        name = await unit.named(*signed[0])
        text = f"{name} is signed: say correctReports, so that it is withdrawn from one patient and corrected for the other"
        raise fail("conflict", text, "DiagnosticReport.status")
    if signed and not unit.access.internal and unit.access.role != "radiologist":
        raise fail("forbidden", "a signed report is corrected by a radiologist, or withdrawn before", "DiagnosticReport.status")


async def _composed(unit: UnitOfWork, made: list[Resource]) -> list[Resource]:
    """These with the forms of reports that were made of their words made anew: they name the patient."""
    reports = [r for r in made if r["resourceType"] == "DiagnosticReport" and any(map(is_generated, r.get("presentedForm", ())))]
    for report in reports:
        unit.redirect(await document.formed(unit, report))
    return made


def _corrected(unit: UnitOfWork, resource: Resource) -> Resource:
    if resource["resourceType"] != "DiagnosticReport" or resource["status"] not in _SIGNED:
        return resource
    return resource | {"status": "corrected", "issued": clock.instant(unit.now)}


async def _without_order(unit: UnitOfWork, study: Resource, old: Target) -> tuple[Resource, list[Target]]:
    """The study on its own, and the requested procedures that it leaves: what was performed for them waits again.

    FhirError `conflict` when it is reported there.
    """
    former = [r for b in study.get("basedOn", ()) if (r := await unit.get(b)) and service_request.is_procedure(r)]
    if not former:
        return study, []
    if "series" not in study and study["status"] != "available":
        raise fail("conflict", "nothing was performed: its order is to be moved", "ImagingStudy.basedOn")
    for procedure in former:
        for report in await _reports(unit, procedure, study):
            if report["status"] not in {"cancelled", "entered-in-error"}:
                text = f"DiagnosticReport/{report['id']} reports it for {old}: withdraw that first"
                raise fail("conflict", text, "ImagingStudy.basedOn")
    return await reconciliation.detach(unit, study), [belongings.own(p) for p in former]


async def _reports(unit: UnitOfWork, procedure: Resource, study: Resource) -> list[Resource]:
    found = await unit.search("DiagnosticReport", subject=study["subject"]["reference"])
    of = [r for r in found if ref(study)["reference"] in {x.get("reference") for x in r.get("imagingStudy", ())}]
    return of + [r for r in found if procedure["id"] in {p["id"] for p in await diagnostic_report.procedures(unit, r)}]


async def _record(unit: UnitOfWork, made: list[Resource], old: Target, reason: str) -> None:
    """Provenance: who moved what, from whom, and why."""
    who = target(unit.access.user)
    agent = {"who": {"reference": str(who)} if who else {"display": unit.access.client_id or "fhir-ris"}}
    await unit.create(
        {
            "resourceType": "Provenance",
            "target": [ref(r) for r in made],
            "recorded": clock.instant(unit.now),
            "activity": {"text": "moved to the right patient"},
            "reason": [{"text": reason}],
            "agent": [agent],
            "entity": [{"role": "source", "what": {"reference": str(old)}}],
        }
    )


async def _ask(unit: UnitOfWork, what: Resource, moved: Moved, old: Target, new: Target) -> None:
    """People see that the systems around have followed: images in the PACS, the order at its placer."""
    images = any(to.type == "ImagingStudy" and "series" in r for to, r in moved.items())
    about = str(belongings.own(what))
    if what["resourceType"] == "ImagingStudy":
        text = "A study was moved from another patient and has no order. Its images are to be moved in the PACS."
        await work_items.open_work_item(unit, WITHOUT_ORDER, text, about, str(new))
        return
    text = f"The order was made on {old} and has been moved: its placer is to know, and to order anew if need be."
    text += " Its images are to be moved in the PACS." if images else ""
    await work_items.open_work_item(unit, MOVED, text, about, str(new))
