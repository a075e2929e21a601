"""An examination that people tell of, as of a scanner without MPPS: begun, done, stopped; images rejected; repeated.

All of it ends in a Procedure, as with MPPS, so that everything follows that follows then: step, appointment, visit, study,
reading worklist, charges. A step that is to be repeated stays as it ended; another step is made for its requested procedure,
which names it (Task.input `repeat-of`, `repeat-reason`). Rejected images are kept on the step, for the reject analysis:
    {"url": "urn:fhir-ris:rejected", "extension": [
        {"url": "reason", "valueCodeableConcept": DICOM CID 7011}, {"url": "images", "valuePositiveInt": 2},
        {"url": "at", "valueInstant": ...}, {"url": "by", "valueReference": ...}]}
"""

from dataclasses import dataclass, field
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import codes, concept, has_code
from fhir_server.outcome import fail
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import imaging_study, procedure, protocol, readiness, task, terms, tracking, work_items
from resources.safety.answers import moment
from resources.security_labels import labelled

REJECTED: Final = "urn:fhir-ris:rejected"
REPEAT_OF: Final = "repeat-of"
# DICOM CID 7011, Rejected for Quality Reasons (DCM).
REJECT_REASONS: Final = frozenset(
    "111207 111208 111209 111210 111211 111212 111213 111214 111215 111216 111217 111218 111219 111220 111221 113026".split()
)
# DICOM CID 9301, Modality PPS Discontinuation Reasons (DCM).
STOP_REASONS: Final = frozenset(f"{code}" for code in range(110500, 110517))
_CAN_BEGIN: Final = frozenset({"requested", "accepted", "ready"})


@dataclass(frozen=True, slots=True)
class Done:
    """What was done. Times are dateTimes; `performers` references; `protocols` CodeableConcepts; counts of series and images."""

    start: str | None = None
    end: str | None = None
    performers: list[str] = field(default_factory=list)
    protocols: list[Resource] = field(default_factory=list)
    series: int | None = None
    images: int | None = None
    note: str | None = None


async def start(unit: UnitOfWork, step: Resource, at: str | None) -> Resource:
    """The examination begins; the Procedure. FhirError 422 when something stands in its way, 409 when it has begun."""
    if step["status"] not in _CAN_BEGIN:
        raise fail("conflict", f"the step is {step['status']}: only one that waits can be started", "Task.status")
    await readiness.require(unit, step)
    began = at or clock.instant(unit.now)
    _check_times(unit, began, None)
    there = [(name, at) for name, at in tracking.tracked(step) if name in tracking.STATES["ready"]]
    if there and moment(began) + tracking.CLOCKS_DIFFER < moment(there[-1][1]):
        text = f"the patient was {there[-1][0]} at {there[-1][1]}: the examination hasn't begun before"
        raise fail("business-rule", text, "Procedure.performedPeriod.start")
    return await unit.create(await _performed(unit, step, "in-progress", {"start": began}, Done()))


async def complete(unit: UnitOfWork, step: Resource, done: Done) -> list[Resource]:
    """The examination is done; its Procedures. One that nobody has told the beginning of is told of as a whole."""
    if step["status"] not in {*_CAN_BEGIN, "in-progress"}:
        raise fail("conflict", f"the step is {step['status']}: it can't be completed", "Task.status")
    if step["status"] != "in-progress":
        await start(unit, step, done.start or done.end)
        await unit.react()  # what follows from its beginning comes before what follows from its end
        step = await unit.read("Task", step["id"]) or step
    return await _end(unit, step, "completed", done, None)


async def stop(unit: UnitOfWork, step: Resource, reason: Resource, done: Done) -> list[Resource]:
    """The examination was begun and is not done. The reason is of DICOM CID 9301."""
    if step["status"] != "in-progress":
        raise fail("conflict", f"the step is {step['status']}: only one that has begun can be stopped", "Task.status")
    if not STOP_REASONS.intersection(codes(reason, terms.DCM)):
        raise fail("code-invalid", "why it was stopped is told by a code of DICOM CID 9301", "Parameters.parameter", status=422)
    return await _end(unit, step, "stopped", done, reason)


async def _end(unit: UnitOfWork, step: Resource, status: str, done: Done, reason: Resource | None) -> list[Resource]:
    ended = done.end or clock.instant(unit.now)
    running = [p for r in procedure.performances(step) if (p := await unit.get(r)) and p["status"] not in procedure.ENDED]
    began = done.start or next((s for p in running if (s := p.get("performedPeriod", {}).get("start"))), None)
    period = ({"start": began} if began else {}) | {"end": ended}
    _check_times(unit, began, ended)
    why = {"statusReason": reason} if reason else {}
    if not running:
        told = [await unit.create(await _performed(unit, step, status, period, done) | why)]
    else:
        told = []
        for one in running:
            added = await _performed(unit, step, status, period, done)
            elements = ("performer", "extension", "note")
            merged = {e: [*one.get(e, ()), *(x for x in added.get(e, ()) if x not in one.get(e, ()))] for e in elements}
            told.append(
                await unit.update(
                    one | {e: v for e, v in merged.items() if v} | {"status": status, "performedPeriod": period} | why
                )
            )
    await _announce(unit, step, told, done, began or ended)
    return told


def _check_times(unit: UnitOfWork, began: str | None, ended: str | None) -> None:
    given = [moment(t) for t in (began, ended) if t]
    if any(t > unit.now + tracking.CLOCKS_DIFFER for t in given):
        raise fail(
            "business-rule", "an examination is told of when it has begun: this time is to come", "Procedure.performedPeriod"
        )
    if given != sorted(given):
        raise fail("business-rule", "an examination ends after it begins", "Procedure.performedPeriod.end")


async def _performed(unit: UnitOfWork, step: Resource, status: str, period: Resource, done: Done) -> Resource:
    person = await tracking.person(unit)
    actors = [
        *([step["owner"]] if "owner" in step else []),
        *({"reference": p} for p in done.performers or ([person] if person else [])),
    ]
    made: dict[str, Any] = {
        "resourceType": "Procedure",
        "extension": [
            {"url": terms.SCHEDULED_STEP, "valueReference": ref(step)},
            *({"url": terms.PERFORMED_PROTOCOL, "valueCodeableConcept": c} for c in done.protocols),
        ],
        "basedOn": [step["focus"]],
        "status": status,
        "category": concept(terms.SNOMED, terms.IMAGING, "Imaging"),
        "subject": step["for"],
        "performedPeriod": period,
    }
    if actors:
        made["performer"] = [{"actor": a} for a in actors]
    made |= {element: step[element] for element in ("code", "encounter", "location") if element in step}
    if done.note:
        made["note"] = [{"text": done.note, "time": clock.instant(unit.now)}]
    return labelled(made, step)


async def _announce(unit: UnitOfWork, step: Resource, told: list[Resource], done: Done, began: str) -> None:
    """The study is begun, and has what was told of it. Its series come with the images."""
    procedure_id = str(step["focus"]["reference"]).removeprefix("ServiceRequest/")
    for study in (await imaging_study.of_procedure(unit, procedure_id))[:1]:
        said: Resource = {"procedureReference": ref(told[0])}
        if procedure.is_wrong_entry(told[0]):
            return
        if "started" not in study:
            said["started"] = began
        if "series" not in study:
            said |= {"numberOfSeries": done.series} if done.series is not None else {}
            said |= {"numberOfInstances": done.images} if done.images is not None else {}
        await unit.update(study | said)


# Rejects and repeats


async def reject(unit: UnitOfWork, step: Resource, reason: Resource, images: int) -> Resource:
    """Images were rejected and taken anew: kept on the step, whose examination goes on."""
    if step["status"] not in {"in-progress", "completed", "failed"}:
        raise fail("conflict", f"the step is {step['status']}: there are no images to reject", "Task.status")
    parts: list[Resource] = [
        {"url": "reason", "valueCodeableConcept": reason},
        {"url": "images", "valuePositiveInt": images},
        {"url": "at", "valueInstant": clock.instant(unit.now)},
    ]
    if person := await tracking.person(unit):
        parts.append({"url": "by", "valueReference": {"reference": person}})
    return await unit.update(step | {"extension": [*step.get("extension", ()), {"url": REJECTED, "extension": parts}]})


async def again(unit: UnitOfWork, step: Resource, reason: Resource) -> Resource:
    """Another step for what was stopped, or is to be done anew, to be scheduled like any other. FhirError 409 where it can't."""
    requested = await unit.get(step["focus"])
    if requested is None or requested["status"] != "active":
        text = (
            f"the requested procedure is {(requested or {}).get('status', 'not there')}: what is to be done anew is ordered anew"
        )
        raise fail("conflict", text, "Task.focus")
    if await repeats_of(unit, step):
        raise fail("conflict", "the step is repeated already", "Task.status")
    new = task.new_step(requested, task.modality(step))
    new["input"] = [
        *new.get("input", ()),
        *({"type": concept(terms.TASK_DETAIL, terms.PROTOCOL), "valueCodeableConcept": c} for c in protocol.of_step(step)),
        {"type": concept(terms.TASK_DETAIL, REPEAT_OF), "valueReference": ref(step)},
        {"type": concept(terms.TASK_DETAIL, "repeat-reason"), "valueCodeableConcept": reason},
    ]
    for item in await work_items.open_items(unit, f"Task/{step['id']}", "examination-stopped"):
        await unit.update(item | {"status": "completed", "statusReason": {"text": "it is repeated"}})
    return await unit.create(new)


async def repeats_of(unit: UnitOfWork, step: Resource) -> list[Resource]:
    """The steps that repeat a step, or are to."""
    procedure_id = str(step.get("focus", {}).get("reference", "")).removeprefix("ServiceRequest/")
    found = (s for s in await task.steps_of(unit, procedure_id) if _repeats(s, step))
    return [s for s in found if s["status"] not in {"cancelled", "entered-in-error"}]


def _repeats(step: Resource, other: Resource) -> bool:
    details = (i for i in step.get("input", ()) if has_code(i.get("type"), terms.TASK_DETAIL, REPEAT_OF))
    return any(i.get("valueReference") == ref(other) for i in details)
