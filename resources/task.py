"""Task: the scheduled procedure step (intent `plan`), and a person's work item (intent `order`) such as an interpretation."""

from typing import Any, Final

from fhir_server import clock, foresight
from fhir_server.elements import concept, extension, has_code, identifier_value
from fhir_server.foresight import Asked
from fhir_server.outcome import fail
from fhir_server.references import ref
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import device, numbering, terms, tracking
from resources.announced import Announced
from resources.identifiers import keep, of_system
from resources.lifecycle import check_status, check_unchanged, lifecycle
from resources.security_labels import labelled

_BOOKED = frozenset({"booked", "arrived", "checked-in"})
# Extension on a step: `stopped`, `unprotocolled` or `flagged` (`readiness.py`).
_READINESS = "urn:fhir-ris:readiness"
_showing: Final = Announced()
BEFORE_START = frozenset({"requested", "accepted", "ready", "on-hold"})
OPEN = BEFORE_START | {"in-progress"}


def is_step(task: Resource) -> bool:
    """Whether a Task is a scheduled procedure step."""
    return task.get("intent") == "plan"


def is_reading(task: Resource) -> bool:
    """Whether a Task is the reading of a study."""
    return has_code(task.get("code"), terms.TASK_CODE, terms.INTERPRETATION)


async def _procedure_is_open(unit: UnitOfWork, change: Change) -> None:
    await _check_procedure(unit, change, "draft", "active", "on-hold", "unknown")


async def _procedure_is_active(unit: UnitOfWork, change: Change) -> None:
    await _check_procedure(unit, change, "active", "unknown")


async def _check_procedure(unit: UnitOfWork, change: Change, *statuses: str) -> None:
    step = change.after or {}
    requested = await unit.get(step.get("focus") or next(iter(step.get("basedOn", ())), None))
    if requested is not None and requested["resourceType"] == "ServiceRequest" and requested["status"] not in statuses:
        text = f"its requested procedure is {requested['status']}: no step of it can become {step['status']}"
        raise fail("business-rule", text, "Task.status")


async def _no_booking(unit: UnitOfWork, change: Change) -> None:
    booked = await unit.get(appointment_of(change.after or {}))
    if booked is not None and booked["status"] in _BOOKED:
        text = "its appointment is booked: cancel or move that, and the step follows"
        raise fail("business-rule", text, "Task.status")


async def _no_report(unit: UnitOfWork, change: Change) -> None:
    about = (change.before or {}).get("focus", {}).get("reference", "")
    if not about.startswith("ServiceRequest/") or change.before is None or change.before["status"] not in {"completed", "failed"}:
        return
    if await unit.search("DiagnosticReport", based_on=about, status="final,amended,corrected,appended"):
        raise fail("business-rule", "its examination has a signed report: that is withdrawn first", "Task.status")


STEP = lifecycle(
    "Task",
    "scheduled procedure step",
    """
    from                             | to                 | who                 | needs            | then
    new                              | draft requested    | staff; RIS          | the patient of its | gets its id
                                     | on-hold            |                     | procedure; a procedure |
                                     |                    |                     | that is open     |
    new                              | accepted ready     | staff               | an active procedure; | gets its id; on the
                                     |                    |                     | station and time; | worklist
                                     |                    |                     | authorized       |
    draft accepted ready on-hold     | requested          | staff; RIS          | no booking       | off the worklist
    draft requested ready on-hold    | accepted           | staff; RIS          | an active procedure; | SCHEDULED on worklist
                                     |                    |                     | place as booked; |
                                     |                    |                     | authorized       |
    draft requested accepted on-hold | ready              | staff; RIS          | an active procedure; | ARRIVED on worklist;
                                     |                    |                     | place as booked; | so is its appointment
                                     |                    |                     | authorized       |
    requested accepted ready         | on-hold            | staff; RIS          |                  | off the worklist
    requested accepted ready on-hold | in-progress        | examiners; MPPS RIS |                  | appointment checked-in, visit
                                     |                    |                     |                  | in progress
    requested accepted ready         | completed          | examiners; RIS      |                  | as from in-progress
    in-progress                      | completed          | examiners; MPPS RIS |                  | after the last step:
                                     |                    |                     |                  | appointment fulfilled, study
                                     |                    |                     |                  | to be read, technical charge
    in-progress                      | failed             | examiners; MPPS v2  |                  | somebody is asked: repeat it,
                                     |                    |                     |                  | or revoke the order?
    in-progress                      | requested accepted | ; reconcile         |                  | waits as it did before it
                                     | ready on-hold      |                     |                  | began
    draft requested accepted ready   | cancelled          | staff; v2 RIS       |                  | with its last step the
    on-hold                          |                    |                     |                  | appointment is cancelled
    completed failed                 | requested accepted | ; reconcile         |                  | waits as it did before it
                                     | ready on-hold      |                     |                  | began
                                     | in-progress        |                     |                  |
    *                                | entered-in-error   | examiners admin     | no signed report | where nothing else was done:
                                     |                    |                     |                  | no reading, technical charge
                                     |                    |                     |                  | credited
    """,
    of=is_step,
    needs={
        "a procedure that is open": _procedure_is_open,
        "an active procedure": _procedure_is_active,
        "no booking": _no_booking,
        "no signed report": _no_report,
    },
)
READING = lifecycle(
    "Task",
    "reading",
    """
    from                     | to                                 | who                    | needs           | then
    new                      | draft requested received accepted  | radiologist; RIS       |                 | unread: with
                             | ready in-progress on-hold          |                        |                 | target, place and
                             |                                    |                        |                 | subspecialty
    draft                    | requested accepted ready cancelled | radiologist admin      |                 |
    requested                | received accepted ready            | radiologist admin; RIS |                 | accepted: it is
                             | in-progress on-hold rejected       |                        |                 | claimed
                             | cancelled                          |                        |                 |
    received                 | accepted in-progress rejected      | radiologist admin; RIS |                 |
                             | cancelled                          |                        |                 |
    accepted                 | requested ready in-progress        | radiologist admin; RIS |                 |
                             | on-hold cancelled                  |                        |                 |
    ready                    | requested accepted in-progress     | radiologist admin; RIS |                 |
                             | on-hold cancelled                  |                        |                 |
    on-hold                  | requested accepted ready           | radiologist admin; RIS |                 |
                             | in-progress cancelled              |                        |                 |
    in-progress              | requested accepted ready on-hold   | radiologist admin; RIS |                 |
                             | failed cancelled                   |                        |                 |
    draft requested received | completed                          | radiologist admin; RIS | a signed report | its order may end
    accepted ready on-hold   |                                    |                        |                 |
    in-progress              |                                    |                        |                 |
    *                        | entered-in-error                   | radiologist admin      |                 |
    """,
    of=is_reading,
)
WORK_ITEM = lifecycle(
    "Task",
    "work item",
    """
    from        | to                                      | who                        | needs | then
    new         | draft requested received accepted ready | staff; RIS                 |       |
                | in-progress on-hold                     |                            |       |
    draft       | requested accepted ready cancelled      | staff privacy-officer      |       |
    requested   | received accepted ready in-progress     | staff privacy-officer; RIS |       |
                | on-hold cancelled rejected              |                            |       |
    requested   | completed                               | staff privacy-officer interface-admin; RIS | |
    received    | accepted rejected cancelled in-progress | staff privacy-officer; RIS |       |
    accepted    | requested ready in-progress on-hold     | staff privacy-officer; RIS |       |
                | cancelled completed                     |                            |       |
    ready       | requested accepted in-progress on-hold  | staff privacy-officer; RIS |       |
                | cancelled completed                     |                            |       |
    on-hold     | requested accepted ready in-progress    | staff privacy-officer; RIS |       |
                | cancelled                               |                            |       |
    in-progress | completed failed on-hold accepted ready | staff privacy-officer; RIS |       |
                | requested                               |                            |       |
    *           | entered-in-error                        | staff                      |       |
    """,
)


def is_protocol(task: Resource) -> bool:
    """Whether a Task asks for the protocol of a requested procedure, or tells of it."""
    return has_code(task.get("code"), terms.TASK_CODE, terms.PROTOCOL)


PROTOCOL = lifecycle(
    "Task",
    "protocol",
    """
    from                           | to                   | who             | needs                 | then
    new                            | requested on-hold    | ; RIS           | the catalogue asks    |
    new                            | completed            | ; RIS           | a protocol: $protocol | as below
    requested accepted in-progress | requested accepted   | examiners; RIS  |                       |
                                   | in-progress          |                 |                       |
    requested accepted in-progress | on-hold              | ; RIS           |                       |
    on-hold                        | requested            | ; RIS           |                       |
    requested accepted in-progress | completed            | ; RIS           | a protocol: $protocol | steps, worklist and booking
    on-hold                        |                      |                 |                       | have it
    requested accepted in-progress | cancelled            | ; RIS           |                       |
    on-hold                        |                      |                 |                       |
    *                              | entered-in-error     | examiners admin |                       |
    """,
    of=is_protocol,
)


def detail(task: Resource, code: str, where: str = "input") -> dict[str, Any] | None:
    """The Task.input (or output) of this kind: `modality`, `appointment`, `performed-procedure-step`."""
    return next((i for i in task.get(where, ()) if has_code(i.get("type"), terms.TASK_DETAIL, code)), None)


def modality(task: Resource) -> str | None:
    """The DICOM modality of a step, such as `CT`."""
    found = detail(task, "modality")
    return next((c["code"] for c in (found or {}).get("valueCodeableConcept", {}).get("coding", ()) if "code" in c), None)


def appointment_of(step: Resource) -> str | None:
    """The reference to the Appointment that scheduled the step."""
    found = detail(step, "appointment")
    return found["valueReference"]["reference"] if found else None


def new_step(procedure: Resource, modality_code: str | None) -> Resource:
    """The unscheduled step of a requested procedure; it gets its id when it is stored."""
    step: Resource = {
        "resourceType": "Task",
        "basedOn": [ref(procedure)],
        "status": "requested",
        "intent": "plan",
        "priority": procedure.get("priority", "routine"),
        "code": procedure["code"],
        "focus": ref(procedure),
        "for": procedure["subject"],
        "authoredOn": clock.instant(clock.now()),
    }
    if "encounter" in procedure:
        step["encounter"] = procedure["encounter"]
    if modality_code:
        kind = concept(terms.TASK_DETAIL, "modality")
        step["input"] = [{"type": kind, "valueCodeableConcept": concept(terms.DCM, modality_code)}]
    return labelled(step, procedure)


def schedule(step: Resource, station: str, appointment: Resource) -> Resource:
    """The step at this station (`Device/ct1`) and at the appointment's time. One on hold stays so."""
    link = {"type": concept(terms.TASK_DETAIL, "appointment"), "valueReference": ref(appointment)}
    arrived = appointment.get("status") in {"arrived", "checked-in"}
    return step | {
        "status": "on-hold" if step["status"] == "on-hold" else "ready" if arrived else "accepted",
        "owner": {"reference": station},
        "restriction": {"period": {"start": appointment["start"], "end": appointment["end"]}},
        "input": [*_without_appointment(step), link],
    }


def unschedule(step: Resource) -> Resource:
    """The step without station and time: `requested` again, or still on hold."""
    kept = {k: v for k, v in step.items() if k not in {"owner", "restriction", "input"}}
    details = _without_appointment(step)
    kept["status"] = "on-hold" if step["status"] == "on-hold" else "requested"
    return kept | ({"input": details} if details else {})


def _without_appointment(step: Resource) -> list[dict[str, Any]]:
    return [i for i in step.get("input", ()) if not has_code(i.get("type"), terms.TASK_DETAIL, "appointment")]


async def released(unit: UnitOfWork, step: Resource) -> Resource:
    """A step that was on hold, as its booking stands now."""
    booked = await unit.get(appointment_of(step))
    arrived = booked is not None and booked["status"] in {"arrived", "checked-in"}
    scheduled = "owner" in step and "restriction" in step
    return step | {"status": "ready" if arrived else "accepted" if scheduled else "requested"}


def readiness(step: Resource) -> str:
    """What stands in the way of a step: stopped, unprotocolled, flagged (shown only), or empty."""
    return str((extension(step, _READINESS) or {}).get("valueCode", ""))


def may_start(step: Resource) -> bool:
    """Whether nothing keeps a step from being started."""
    return readiness(step) not in {"stopped", "unprotocolled"}


async def show_readiness(unit: UnitOfWork, step: Resource, word: str) -> None:
    """Tell on a step what stands in its way. Only this changes it, whatever a client sends back."""
    if readiness(step) == word:
        return
    _set_readiness(step, word)
    with _showing(unit):
        await unit.update(step)


def _set_readiness(step: Resource, word: str) -> None:
    kept = [e for e in step.get("extension", ()) if e.get("url") != _READINESS]
    kept += [{"url": _READINESS, "valueCode": word}] if word else []
    step.pop("extension", None)
    if kept:
        step["extension"] = kept


async def steps_of(unit: UnitOfWork, *procedure_ids: str) -> list[Resource]:
    """The steps of these requested procedures."""
    return await unit.ask(asked(*procedure_ids)) if procedure_ids else []


def asked(*procedure_ids: str) -> Asked:
    """What `steps_of` will ask for, for `View.foresee`."""
    based_on = ",".join(f"ServiceRequest/{p}" for p in procedure_ids)
    return foresight.asked("Task", {"based-on": based_on, "intent": "plan"})


# Rules


async def check(unit: UnitOfWork, change: Change) -> None:
    """What a Task must be; a step is of its requested procedure's patient, and gets its id and its DICOM status."""
    task = change.after
    if task is None:
        return
    await check_status(unit, change, STEP, PROTOCOL, READING, WORK_ITEM)
    check_unchanged(change, "intent", "for", "focus")
    if not is_step(task):
        check_unchanged(change, "code")
        return
    if change.before is None:
        await _check_patient(unit, task)
    await _check_id(unit, change, task)
    await _check_schedule(unit, change, task)
    if unit not in _showing:
        _set_readiness(task, readiness(change.before or {}))
    await tracking.note(unit, change, task)


async def _check_patient(unit: UnitOfWork, step: Resource) -> None:
    procedures = [r for r in step.get("basedOn", ()) if str(r.get("reference", "")).startswith("ServiceRequest/")]
    if "focus" not in step and procedures:
        step["focus"] = procedures[0]
    procedure = await unit.get(step.get("focus"))
    subject = (procedure or {}).get("subject")
    if subject is None:
        return
    if "for" not in step:
        step["for"] = subject
    elif step["for"].get("reference") != subject.get("reference"):
        raise fail("business-rule", "the step is for another patient than its requested procedure", "Task.for")


async def _check_id(unit: UnitOfWork, change: Change, step: Resource) -> None:
    keep(change, of_system(terms.SCHEDULED_STEP_ID), "scheduled procedure step id")
    step_id = identifier_value(step, terms.SCHEDULED_STEP_ID)
    if step_id is None:
        number = await numbering.fresh(unit, terms.SCHEDULED_STEP_ID, step)
        step["identifier"] = [{"system": terms.SCHEDULED_STEP_ID, "value": number}, *step.get("identifier", ())]
    elif len(step_id) > terms.SHORT_STRING or "\\" in step_id:
        raise fail("value", "a scheduled procedure step id has at most 16 characters, no backslash", "Task.identifier.value")


async def _check_schedule(unit: UnitOfWork, change: Change, step: Resource) -> None:
    """A scheduled step has a time, and a station in use that does its modality."""
    if step.get("status") not in {"accepted", "ready"}:
        return
    station = str(step.get("owner", {}).get("reference", ""))
    if not station.startswith("Device/"):
        raise fail("business-rule", "a scheduled step needs its station: a Device as owner", "Task.owner")
    if "start" not in step.get("restriction", {}).get("period", {}):
        raise fail("business-rule", "a scheduled step needs its time", "Task.restriction.period.start")
    booked = await unit.get(appointment_of(step)) if unit.is_callers else None  # the RIS itself brings the one after the other
    if booked is not None and (booked["status"] not in _BOOKED or booked["start"] != step["restriction"]["period"]["start"]):
        text = "a booked step is where and when its appointment is: move that, and the step follows"
        raise fail("business-rule", text, "Task.restriction.period")
    if (change.before or {}).get("owner", {}).get("reference") == station:
        return
    if not device.does(await device.in_use(unit, station), modality(step)):
        raise fail("business-rule", f"the step needs {modality(step)}, which {station} doesn't do", "Task.owner")


def register(registry: Registry) -> None:
    registry.rule("Task", check)
