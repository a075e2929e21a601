"""Settling which order an examination belongs to: the performed steps and their study move there together, in one transaction.

Everything that hangs on it follows: the patient, the steps of the order it came from and of the one it goes to, the reading, the
study that was planned, and the work items that asked. Nothing is lost: the history of each resource has what was before, and the
same call with the former order takes it back.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import concept
from fhir_server.outcome import fail
from fhir_server.references import ref, target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import diagnostic_report, imaging_study, procedure, service_request, task, terms, work_items
from resources.identifiers import token
from resources.security_labels import labelled
from resources.settling import settling

# The work items that this answers.
ANSWERED: Final = (
    "unscheduled-procedure-step",
    "study-without-order",
    "patient-mismatch",
    "wrong-worklist-entry",
    "unexpected-procedure-step",
    "unexpected-study",
)
TO_BE_SPLIT: Final = "study-to-be-split"


@dataclass(slots=True)
class Settled:
    """What was put right: references."""

    order: str
    procedures: list[str] = field(default_factory=list)
    study: str | None = None
    steps: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Examination:
    """The performed steps to be moved, and their study; `whole`: all of the study is."""

    performed: list[Resource]
    study: Resource | None
    whole: bool


async def settle(unit: UnitOfWork, what: Resource, request: Resource, step: Resource | None, who: str | None) -> Settled:
    """Let `what` (Procedure or ImagingStudy) belong to an order or requested procedure, and perform `step` of it.

    who: the reference to the person who says so. FhirError `business-rule` or `conflict` when it can't be.
    """
    examination = await _examination(unit, what)
    await unit.lock(*(f"reconcile:{r['resourceType']}/{r['id']}" for r in (*examination.performed, examination.study) if r))
    wanted = await _requested_procedure(unit, request, examination)
    await _check(unit, wanted, examination)
    if step is not None and step.get("focus", {}).get("reference") != f"ServiceRequest/{wanted['id']}":
        raise fail("business-rule", "the step is none of this requested procedure", "Parameters.parameter", status=422)
    settled = Settled(f"ServiceRequest/{wanted['id']}")
    with settling(unit):
        former = await _take_off(unit, examination, wanted)
        chosen = step or await _step(unit, wanted, examination)
        settled.steps.append(ref(chosen)["reference"])
        if examination.study is not None:
            examination.study = await _move_study(unit, examination, wanted)
            settled.study = ref(examination.study)["reference"]
        for performed in examination.performed or await _seen_in_pacs(unit, examination, chosen):
            moved = await unit.update(_moved(performed, wanted, chosen))
            await procedure.move_steps(unit, moved)
            settled.procedures.append(ref(moved)["reference"])
        for one in former:
            await _give_study(unit, one)
        if examination.study is not None and examination.whole:
            await imaging_study.drop_planned(unit, wanted["id"], examination.study)
    settled.closed = await _close(unit, [*settled.procedures, *([settled.study] if settled.study else [])], who)
    return settled


async def detach(unit: UnitOfWork, study: Resource) -> Resource:
    """The study and its performed steps belong to no order any more; the steps that they were performed for wait again."""
    examination = await _examination(unit, study)
    await unit.lock(*(f"reconcile:{r['resourceType']}/{r['id']}" for r in (*examination.performed, study)))
    nobody: Resource = {"id": ""}
    with settling(unit):
        former = await _take_off(unit, examination, nobody)
        bare = await unit.update({k: v for k, v in study.items() if k not in {"basedOn", "encounter"}})
        for performed in examination.performed:
            kept = {k: v for k, v in performed.items() if k not in {"basedOn", "encounter", "extension"}}
            extensions = [e for e in performed.get("extension", ()) if e.get("url") != terms.SCHEDULED_STEP]
            await unit.update(kept | ({"extension": extensions} if extensions else {}))
        for one in former:
            await _give_study(unit, one)
    return bare


# What is to be moved, and where to


async def _examination(unit: UnitOfWork, what: Resource) -> _Examination:
    if what["resourceType"] == "ImagingStudy":
        uid = imaging_study.study_uid(what) or ""
        return _Examination(await performed_into(unit, uid), what, whole=True)
    uid = procedure.study_uid(what)
    study = await imaging_study.by_uid(unit, uid) if uid else None
    others = [p for p in await performed_into(unit, uid) if p["id"] != what["id"]]
    return _Examination([what], study, whole=not any(_same_order(p, what) for p in others))


async def performed_into(unit: UnitOfWork, study_uid: str) -> list[Resource]:
    """The performed steps whose images go to a study."""
    if not study_uid:
        return []
    found = await unit.search("Procedure", identifier=token(terms.STUDY_OF, f"urn:oid:{study_uid}"))
    return [p for p in found if p["status"] != "entered-in-error" and not procedure.is_wrong_entry(p)]


def _same_order(one: Resource, other: Resource) -> bool:
    return bool(one.get("basedOn") == other.get("basedOn"))


async def _requested_procedure(unit: UnitOfWork, request: Resource, examination: _Examination) -> Resource:
    """The requested procedure that is meant: the one given, or the only one of an order that it can be."""
    if service_request.is_procedure(request):
        return request
    if not service_request.is_order(request):
        raise fail("value", "that is no imaging order", "Parameters.parameter", status=422)
    found = [p for p in await service_request.procedures_of(unit, request["id"]) if p["status"] in {"active", "on-hold"}]
    if len(found) > 1:
        done = _modalities(examination)
        fitting = [p for p in found if any(task.modality(s) in done for s in await task.steps_of(unit, p["id"]))]
        found = fitting if len(fitting) == 1 else found
    if len(found) != 1:
        text = "the order has several requested procedures: name one" if found else "the order has no open requested procedure"
        raise fail("business-rule", text, "Parameters.parameter", status=422)
    return found[0]


def _modalities(examination: _Examination) -> set[str | None]:
    return {s["modality"]["code"] for s in (examination.study or {}).get("series", ())}


async def _check(unit: UnitOfWork, wanted: Resource, examination: _Examination) -> None:
    if wanted["status"] not in {"active", "on-hold"}:
        raise fail("conflict", f"the requested procedure is {wanted['status']}", "Parameters.parameter")
    order = await service_request.order_of(unit, wanted)
    if order is not None and order["status"] not in {"active", "on-hold"}:
        raise fail("conflict", f"the order is {order['status']}", "Parameters.parameter")
    patient = await unit.get(wanted["subject"])
    if patient is None or not patient.get("active", True):
        raise fail("conflict", "the record of the order's patient is not active", "Parameters.parameter")
    if any(p["status"] == "entered-in-error" for p in examination.performed):
        raise fail("conflict", "this examination was entered in error", "Procedure.status")
    for former in await _former(unit, examination):
        if former["id"] != wanted["id"] and await diagnostic_report.is_signed(unit, former):
            text = "the report on the order that it is to be taken from is signed: withdraw or correct that first"
            raise fail("conflict", text, "Procedure.basedOn")


async def _former(unit: UnitOfWork, examination: _Examination) -> list[Resource]:
    """The requested procedures that it belongs to so far."""
    found: dict[str, Resource] = {}
    for resource in (*examination.performed, examination.study or {}):
        for reference in resource.get("basedOn", ()):
            request = await unit.get(reference)
            if request is not None and service_request.is_procedure(request):
                found[request["id"]] = request
    return list(found.values())


# Moving


async def _take_off(unit: UnitOfWork, examination: _Examination, wanted: Resource) -> list[Resource]:
    """Take the performed steps off the steps of other orders, which wait again; these orders' requested procedures."""
    former = [p for p in await _former(unit, examination) if p["id"] != wanted["id"]]
    moving = [ref(p) for p in examination.performed]
    for other in former:
        for step in await task.steps_of(unit, other["id"]):
            if not any(r in moving for r in procedure.performances(step)):
                continue
            outputs = [o for o in step.get("output", ()) if o.get("valueReference") not in moving]
            bare = {k: v for k, v in step.items() if k != "output"} | ({"output": outputs} if outputs else {})
            rest = [p for r in procedure.performances(bare) if (p := await unit.get(r)) and not procedure.is_wrong_entry(p)]
            await (unit.update(bare) if rest or step["status"] == "cancelled" else procedure.reopen(unit, bare))
        if examination.study is not None and examination.whole:
            await _end_reading(unit, examination.study, other)
    return former


async def _end_reading(unit: UnitOfWork, study: Resource, former: Resource) -> None:
    """Nobody reads it for the order that it was taken from."""
    for reading in await unit.search("Task", focus=f"ImagingStudy/{study['id']}", code=terms.READING):
        if reading["status"] in task.OPEN and ref(former) in reading.get("basedOn", []):
            await unit.update(reading | {"status": "cancelled", "statusReason": {"text": "the images are of another order"}})


async def _step(unit: UnitOfWork, wanted: Resource, examination: _Examination) -> Resource:
    """The step that was performed: one that waits, of this modality, before one that is done; a new one where there is none."""
    named = [s for p in examination.performed for s in await procedure.performed_steps(unit, p)]
    steps = [s for s in await task.steps_of(unit, wanted["id"]) if s["status"] != "cancelled"]
    own = [s for s in steps if s["id"] in {n["id"] for n in named}]
    done = _modalities(examination)
    if not steps:
        return await unit.create(task.new_step(wanted, next((m for m in done if m), None)))

    def order(step: Resource) -> tuple[bool, bool, str]:
        return step["status"] not in task.OPEN, task.modality(step) not in {None, *done}, step["id"]

    return min(own or steps, key=order)


def _moved(performed: Resource, wanted: Resource, step: Resource) -> Resource:
    dropped = {terms.SCHEDULED_STEP, terms.IDENTITY_IN_DOUBT}
    extensions = [e for e in performed.get("extension", ()) if e.get("url") not in dropped]
    rest = {k: v for k, v in performed.items() if k != "encounter"}
    moved = rest | {
        "subject": wanted["subject"],
        "basedOn": [ref(wanted)],
        "extension": [*extensions, {"url": terms.SCHEDULED_STEP, "valueReference": ref(step)}],
    }
    return labelled(moved | ({"encounter": wanted["encounter"]} if "encounter" in wanted else {}), wanted)


async def _move_study(unit: UnitOfWork, examination: _Examination, wanted: Resource) -> Resource:
    """The study under the order; where it holds images of others too, it stays, and somebody is asked to split it."""
    study = examination.study or {}
    if not examination.whole:
        if study["subject"] != wanted["subject"]:
            text = "This study holds images of two orders: it is to be split in the PACS."
            about, whose = f"ImagingStudy/{study['id']}", study["subject"].get("reference")
            if not await work_items.open_items(unit, about, TO_BE_SPLIT):
                await work_items.open_work_item(unit, TO_BE_SPLIT, text, about, whose)
        return study
    if "series" in study:
        study = await imaging_study.reopened(unit, study)
    rest = {k: v for k, v in study.items() if k != "encounter"}
    moved = rest | {"subject": wanted["subject"], "basedOn": [ref(wanted)]}
    if "encounter" in wanted:
        moved["encounter"] = wanted["encounter"]
    return await unit.update(labelled(moved, wanted))


async def _seen_in_pacs(unit: UnitOfWork, examination: _Examination, step: Resource) -> list[Resource]:
    """The examination of a study that no scanner has told of: where its images are, it is done."""
    study = examination.study
    if study is None or study["status"] != "available" or step["status"] not in task.OPEN:
        return []
    return [await unit.create(from_images(study, step, clock.instant(unit.now)))]


def from_images(study: Resource, step: Resource, now: str) -> Resource:
    """The Procedure of an examination that is known by its images only."""
    performed: dict[str, Any] = {
        "resourceType": "Procedure",
        "identifier": [{"system": terms.STUDY_OF, "value": f"urn:oid:{imaging_study.study_uid(study)}"}],
        "extension": [{"url": terms.SCHEDULED_STEP, "valueReference": ref(step)}],
        "status": "completed",
        "category": concept(terms.SNOMED, terms.IMAGING, "Imaging"),
        "subject": study["subject"],
        "basedOn": [step["focus"]],
        "performedPeriod": {"start": study["started"]} if "started" in study else {"end": now},
        "note": [{"text": "The scanner told nothing; the images in the PACS ended this examination."}],
    }
    if "owner" in step:
        performed["performer"] = [{"actor": {"reference": step["owner"]["reference"]}}]
    return performed | {e: step[e] for e in ("code", "encounter") if e in step}


async def _give_study(unit: UnitOfWork, former: Resource) -> None:
    """A requested procedure whose study was another's after all gets a new one, if it is still to be performed."""
    if former["status"] not in {"active", "on-hold"} or await imaging_study.of_procedure(unit, former["id"]):
        return
    if any(s["status"] in task.BEFORE_START for s in await task.steps_of(unit, former["id"])):
        await unit.create(imaging_study.registered(former))


async def _close(unit: UnitOfWork, about: list[str], who: str | None) -> list[str]:
    """The work items that asked are answered."""
    closed = []
    for reference in about:
        for item in await work_items.open_items(unit, reference, *ANSWERED):
            done: dict[str, Any] = {"status": "completed", "statusReason": {"text": "settled by $reconcile"}}
            to = target(who)
            if to is not None and to.type in {"Practitioner", "PractitionerRole"}:
                done["owner"] = {"reference": str(to)}
            await unit.update(item | done)
            closed.append(ref(item)["reference"])
    return closed
