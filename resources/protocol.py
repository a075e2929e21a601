"""Protocolling: which protocol, contrast agent and preparation a requested procedure gets, and whether it may go on without.

A catalogue entry (ActivityDefinition) says so in an extension `urn:fhir-ris:protocolling` (valueCode):
    before-booking  not scheduled without a protocol
    before-start    scheduled, but not started without one, and not on the scanner's worklist
    optional        asked for; it goes on without
For each requested procedure of such an entry there is a Task of the kind `protocol`, focus the requested procedure, which is done
with the protocol. Orders with priority stat aren't held up. Protocols that the entry proposes are extensions
`urn:fhir-ris:protocol`.

The protocol is kept where others read it: Task.input `protocol` of the steps (Scheduled Protocol Code Sequence), the extensions
`urn:fhir-ris:contrast-agent` (Requested Contrast Agent) and `urn:fhir-ris:pre-medication` (Pre-Medication) of the requested
procedure, and its patientInstruction, which the booking takes over.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import concept, extension, has_code
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, task, terms, work_items
from resources.safety import findings
from resources.security_labels import labelled

PROTOCOLLING: Final = "urn:fhir-ris:protocolling"
PROPOSED: Final = "urn:fhir-ris:protocol"  # extension of a catalogue entry: a protocol (CodeableConcept) to choose
PRE_MEDICATION: Final = "urn:fhir-ris:pre-medication"
_DECIDES: Final = frozenset({findings.CONTRAST_AGENT, findings.DECIDED, PRE_MEDICATION})  # what `$protocol` sets on a procedure
BEFORE_BOOKING: Final = "before-booking"
# The requested procedure's status -> that of the Task that asks for its protocol.
_FOLLOWS: Final = {"on-hold": "on-hold", "active": "requested", "revoked": "cancelled", "entered-in-error": "cancelled"}
_ASKED: Final = frozenset({BEFORE_BOOKING, "before-start", "optional"})


@dataclass(frozen=True, slots=True)
class Protocol:
    """What was decided: CodeableConcepts, and the text of the preparation. No contrast agent means that none is given."""

    protocols: list[Resource]
    contrast: list[Resource] = field(default_factory=list)
    pre_medication: list[Resource] = field(default_factory=list)
    preparation: str | None = None
    note: str | None = None


def asked(entry: Resource | None) -> str:
    """What the catalogue says: before-booking, before-start, optional, or empty."""
    said = str((extension(entry or {}, PROTOCOLLING) or {}).get("valueCode", ""))
    return said if said in _ASKED else ""


def proposed(entry: Resource | None) -> list[Resource]:
    """The protocols that the catalogue proposes."""
    found = (e for e in (entry or {}).get("extension", ()) if e.get("url") == PROPOSED)
    return [e["valueCodeableConcept"] for e in found]


def of_step(step: Resource) -> list[Resource]:
    """The protocols of a step, CodeableConcepts."""
    details = (i for i in step.get("input", ()) if has_code(i.get("type"), terms.TASK_DETAIL, terms.PROTOCOL))
    return [i["valueCodeableConcept"] for i in details if "valueCodeableConcept" in i]


def missing(entry: Resource | None, requested: Resource, steps: list[Resource]) -> str:
    """The catalogue's rule, where a protocol is missing and the examination doesn't go on without; else empty."""
    rule = asked(entry)
    if rule in {"", "optional"} or requested.get("priority") == "stat":
        return ""
    return rule if any(s["status"] in task.BEFORE_START and not of_step(s) for s in steps) else ""


async def items(unit: UnitOfWork, procedure_id: str) -> list[Resource]:
    """The protocol Tasks of a requested procedure that are open."""
    found = await unit.search("Task", focus=f"ServiceRequest/{procedure_id}", code=f"{terms.TASK_CODE}|{terms.PROTOCOL}")
    return [t for t in found if t["status"] in task.OPEN]


async def ask(unit: UnitOfWork, requested: Resource) -> bool:
    """Ask for the protocol of a requested procedure, if the catalogue does; whether that or screening is to be looked after."""
    entry = await activity_definition.catalogue_entry(unit, requested)
    if not asked(entry) and len(only := proposed(entry)) == 1:
        for step in await task.steps_of(unit, requested["id"]):
            if not of_step(step) and step["status"] in task.BEFORE_START:
                await unit.update(step | {"input": [*step.get("input", ()), _detail(terms.PROTOCOL, only[0])]})
    elif asked(entry) and not await items(unit, requested["id"]):
        await unit.create(_item(unit, requested))
    return bool(asked(entry)) or findings.says(entry, findings.SCREENING_REQUIRED)


def _item(unit: UnitOfWork, requested: Resource) -> Resource:
    return labelled(work_items.of_procedure(requested, terms.PROTOCOL, "Protocol", requested, unit.now), requested)


async def apply(unit: UnitOfWork, requested: Resource, decided: Protocol, by: str | None, step: Resource | None) -> Resource:
    """Give a requested procedure, or one of its steps, its protocol; the Task that tells of it. FhirError 409 once begun."""
    steps = await task.steps_of(unit, requested["id"])
    waiting = [s for s in steps if s["status"] in task.BEFORE_START and (step is None or s["id"] == step["id"])]
    if not waiting or requested.get("status") not in {"active", "on-hold"}:
        raise fail("conflict", "no step of the examination waits for a protocol", "Task.status")
    kept = [e for e in requested.get("extension", ()) if e.get("url") not in _DECIDES]
    kept.append({"url": findings.DECIDED, "valueBoolean": True})
    kept += [{"url": findings.CONTRAST_AGENT, "valueCodeableConcept": c} for c in decided.contrast]
    kept += [{"url": PRE_MEDICATION, "valueCodeableConcept": c} for c in decided.pre_medication]
    changed = {k: v for k, v in requested.items() if k != "extension"} | {"extension": kept}
    if decided.preparation is not None:
        changed["patientInstruction"] = decided.preparation
    requested = await unit.update(changed)
    for one in waiting:
        others = [i for i in one.get("input", ()) if not has_code(i.get("type"), terms.TASK_DETAIL, terms.PROTOCOL)]
        updated = await unit.update(one | {"input": [*others, *(_detail(terms.PROTOCOL, c) for c in decided.protocols)]})
        await prepare(unit, requested, updated, replace=decided.preparation is not None)
    goes_on = step is not None and any(
        s["status"] in task.BEFORE_START and not of_step(s) for s in steps if s["id"] != step["id"]
    )
    return await _tell(unit, requested, decided, by, goes_on=goes_on)


def _detail(kind: str, value: Any) -> Resource:
    element = "valueString" if isinstance(value, str) else "valueCodeableConcept"
    return {"type": concept(terms.TASK_DETAIL, kind), element: value}


async def _tell(unit: UnitOfWork, requested: Resource, decided: Protocol, by: str | None, *, goes_on: bool) -> Resource:
    """The Task `protocol`, done: what was decided, by whom, when (executionPeriod). The question goes on for other steps."""
    asked = [] if goes_on else await items(unit, requested["id"])
    item = next(iter(asked), None) or _item(unit, requested)
    outputs = [_detail(terms.PROTOCOL, c) for c in decided.protocols]
    outputs += [_detail("contrast-agent", c) for c in decided.contrast] + [
        _detail("pre-medication", c) for c in decided.pre_medication
    ]
    outputs += [_detail("preparation", decided.preparation)] if decided.preparation else []
    done = item | {"status": "completed", "output": outputs, "executionPeriod": {"end": clock.instant(unit.now)}}
    if by is not None:
        done["owner"] = {"reference": by}
    if decided.note:
        done["note"] = [*done.get("note", ()), {"text": decided.note, "time": clock.instant(unit.now)}]
    return await (unit.update(done) if "id" in item else unit.create(done))


async def prepare(unit: UnitOfWork, requested: Resource, step: Resource, *, replace: bool = False) -> None:
    """The preparation of a requested procedure reaches the booking of its step, which the patient is told of."""
    text = requested.get("patientInstruction")
    booked = await unit.get(task.appointment_of(step)) if text else None
    if booked is not None and booked.get("patientInstruction") != text and (replace or "patientInstruction" not in booked):
        await unit.update(booked | {"patientInstruction": text})


# Rules: who decides

_DECIDE: Final = frozenset({"radiologist", "technologist"})


def _refuse_person(unit: UnitOfWork, what: str, where: str) -> None:
    """FhirError `forbidden` when a person asks who doesn't decide about protocols."""
    if unit.is_callers and unit.access.person and unit.access.role not in _DECIDE:
        raise fail("forbidden", f"{what} is decided by radiologist or technologist ($protocol)", where)


async def check_step(unit: UnitOfWork, change: Change) -> None:
    """The protocol of a step is given by those who may; a question for one stays one."""
    before, after = change.before or {}, change.after
    if after is None:
        return
    if task.is_protocol(before) and not task.is_protocol(after):
        raise fail("business-rule", "a question for a protocol stays one", "Task.code")
    if task.is_step(after) and of_step(before) != of_step(after):
        _refuse_person(unit, "the protocol", "Task.input")


async def check_request(unit: UnitOfWork, change: Change) -> None:
    """What is given to the patient of a planned examination is said by those who may."""
    before, after = change.before, change.after
    if before is not None and after is not None and before.get("intent") == "filler-order" and _given(before) != _given(after):
        _refuse_person(unit, "which contrast and pre-medication are given", "ServiceRequest.extension")


def _given(requested: Resource) -> list[Resource]:
    return [e for e in requested.get("extension", ()) if e.get("url") in _DECIDES]


# Reactions: what becomes of the question


async def follow_request(unit: UnitOfWork, change: Change) -> None:
    """On hold with its procedure, as urgent as that, and over with it."""
    requested = change.after
    if requested is None or change.before is None or requested.get("intent") != "filler-order":
        return
    becomes = next((status for status in _FOLLOWS if change.became("status", status)), None)
    priority = requested.get("priority", "routine")
    hurries = priority != change.before.get("priority", "routine")
    for item in await items(unit, requested["id"]) if becomes or hurries else ():
        if item.get("priority", "routine") != priority:
            item = await unit.update(item | {"priority": priority})
        if becomes and (becomes != "active" or item["status"] == "on-hold"):
            await unit.update(item | {"status": _FOLLOWS[str(becomes)]})


async def follow_step(unit: UnitOfWork, change: Change) -> None:
    """What has been done without a protocol needs none any more."""
    step = change.after
    if step is None or not task.is_step(step) or not change.became("status", "completed", "failed", "cancelled"):
        return
    if of_step(step) or (procedure_id := str(step.get("focus", {}).get("reference", "")).removeprefix("ServiceRequest/")) == "":
        return
    if not any(s["status"] in task.OPEN for s in await task.steps_of(unit, procedure_id)):
        for item in await items(unit, procedure_id):
            await unit.update(item | {"status": "cancelled", "statusReason": {"text": "performed without a protocol"}})


def register(registry: Registry) -> None:
    registry.rule("Task", check_step)
    registry.rule("ServiceRequest", check_request)
    registry.reaction("ServiceRequest", follow_request)
    registry.reaction("Task", follow_step)
