"""`Task/[id]/$start-report` and `DiagnosticReport/[id]/$write`: beginning a report from a template, and writing in it.

$start-report  `template` (valueReference to a Questionnaire; without it the one for the procedure) and `block` (valueString, the
               name of a text block, repeats): a DiagnosticReport, registered, with its sections. The reading begins, and is the
               caller's if nobody had it
$write         the parameters of `report_parts.py`, until the report is signed
"""

from collections.abc import Callable
from typing import Final

from fhir_server import audit
from fhir_server.operations import Answer, Call, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target, ref
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, department_operation, terms
from resources.department_operation import reference, seen
from resources.reading import document, report_parts, templates, worklist
from resources.reading.offering import offer
from resources.reading.report_parts import PARTS, Said, said
from resources.security_labels import labelled

_DRAFTS: Final = frozenset({"registered", "partial", "preliminary"})
_RADIOLOGY: Final = {"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology"}


async def start(call: Call) -> Answer:
    """The new report. FhirError 409 where the reading is another's, has ended, or has a report already."""
    arguments.check_body("start-report", call.body, frozenset({"template", "block"}))
    await department_operation.require(call, "start-report", {"Task": "u", "DiagnosticReport": "c", "Observation": "c"})
    template, blocks = reference(call, "template", "Questionnaire"), arguments.given(call, "block")

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        reading = await seen(unit, Target("Task", str(call.id)), "u")
        _check_reading(call, reading)
        procedure = await unit.get(next(iter(reading.get("basedOn", ())), None))
        if procedure is None:
            raise fail("business-rule", "the reading is of no requested procedure", "Task.basedOn")
        with unit.as_department():
            await _check_unreported(unit, procedure)
            chosen = await templates.named(unit, template) if template else await templates.for_procedure(unit, procedure)
            if chosen is None and blocks:
                raise fail("value", "there is no template for this procedure to take a text block from", status=422)
            made = await unit.create(labelled(await _new(unit, call, reading, procedure), reading))
            if chosen is not None:
                made = await report_parts.put(unit, made, Said(templates.sections(chosen, blocks)), "registered")
                made = await unit.update(await document.composed(unit, made))
            if worklist.owner(reading) is None and call.access.user:
                await unit.update(reading | {"owner": {"reference": call.access.user}, "status": "in-progress"})
        return lambda: unit.final(made)

    named = audit.seen([f"Task/{call.id}"])
    return Answer((await call.interactions.transact(call.access, call.act, work, named))(), status=201)


def _check_reading(call: Call, reading: Resource) -> None:
    if not worklist.is_reading(reading):
        raise fail("business-rule", "this Task is not the reading of a study", "Task.code")
    if not worklist.is_open(reading):
        raise fail("conflict", f"the reading is {reading['status']}", "Task.status")
    had = worklist.owner(reading)
    if call.access.person and had not in {None, call.access.user}:
        raise fail("conflict", f"the reading is claimed by {had}", "Task.owner")


async def _check_unreported(unit: UnitOfWork, procedure: Resource) -> None:
    await unit.lock(f"report-of:{procedure['id']}")
    for report in await unit.search("DiagnosticReport", based_on=f"ServiceRequest/{procedure['id']}"):
        if report["status"] not in {"cancelled", "entered-in-error"}:
            name = await unit.named("DiagnosticReport", report["id"])
            raise fail("conflict", f"the procedure has a report: {name}, which is {report['status']}", "DiagnosticReport.basedOn")


async def _new(unit: UnitOfWork, call: Call, reading: Resource, procedure: Resource) -> Resource:
    report: Resource = {
        "resourceType": "DiagnosticReport",
        "status": "registered",
        "category": [{"coding": [_RADIOLOGY]}],
        "code": procedure["code"],
        "subject": procedure["subject"],
        "basedOn": [ref(procedure)],
    }
    study = await unit.get(reading.get("focus"))
    if study is not None and study["resourceType"] == "ImagingStudy":
        report["imagingStudy"] = [ref(study)]
        if "started" in study:
            report["effectiveDateTime"] = study["started"]
    if "encounter" in reading:
        report["encounter"] = reading["encounter"]
    if modality := await activity_definition.modality(unit, procedure):
        report["category"].append({"coding": [{"system": terms.DCM, "code": modality}]})
    if call.access.user:
        report["resultsInterpreter"] = [{"reference": call.access.user}]
    return report


async def write(call: Call) -> Answer:
    """The report as it is now. FhirError 409 once it is signed, and while another writes it."""
    arguments.check_body("write", call.body, PARTS)
    await department_operation.require(call, "write", {"DiagnosticReport": "u", "Observation": "cu"})
    what = said(call)

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        report = await seen(unit, Target("DiagnosticReport", str(call.id)), "u")
        if report["status"] not in _DRAFTS:
            text = f"the report is {report['status']}: $addend adds to it, $correct changes it"
            raise fail("conflict", text, "DiagnosticReport.status")
        await worklist.check_author(unit, report)
        with unit.as_department():
            status = "preliminary" if report["status"] == "preliminary" else "registered"
            changed = await report_parts.put(unit, report, what, status)
            stored = await unit.update(await document.composed(unit, changed))
        return lambda: unit.final(stored)

    named = audit.seen([f"DiagnosticReport/{call.id}"])
    return Answer((await call.interactions.transact(call.access, call.act, work, named))())


def register(registry: Registry) -> None:
    """Offer them."""
    offer(registry, "Task", {"start-report": start})
    offer(registry, "DiagnosticReport", {"write": write})
