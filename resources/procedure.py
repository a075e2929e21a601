"""Procedure: the performed procedure step. Its status moves the scheduled steps that it performs."""

from typing import Any

from fhir_server.elements import codings, concept, extension, has_code, identifier_value
from fhir_server.outcome import fail
from fhir_server.references import ref, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, beginnings, encounter, settling, task, terms
from resources.lifecycle import check_status, check_unchanged, lifecycle

PERFORMED = lifecycle(
    "Procedure",
    "performed procedure step",
    """
    from            | to                         | who                | needs | then
    new             | preparation                | examiners          |       |
    new             | in-progress                | examiners; MPPS    |       | its steps are in progress
    new             | completed stopped not-done | examiners; RIS     |       | its steps have begun and ended
    preparation     | in-progress                | examiners          |       | its steps are in progress
    on-hold unknown |                            |                    |       |
    preparation     | on-hold not-done           | examiners          |       |
    in-progress     |                            |                    |       |
    in-progress     | completed                  | examiners; MPPS    |       | with the last performed, its steps are completed
    in-progress     | stopped                    | examiners; MPPS v2 |       | its steps have failed, or wait again if the wrong
                    |                            |                    |       | worklist entry was selected
    preparation     | stopped                    | examiners          |       |
    on-hold unknown | completed stopped not-done | examiners; v2      |       | as from in-progress
    *               | entered-in-error           | examiners          |       |
    """,
)
ENDED = frozenset({"completed", "stopped", "not-done", "entered-in-error"})
_PERFORMED_STEP = "performed-procedure-step"
_PERFORMED_PROTOCOL = "performed-protocol"


async def check(unit: UnitOfWork, change: Change) -> None:
    if change.after is not None:
        await check_status(unit, change, PERFORMED)
        await _check_mistake(unit, change)
        if not settling.under_way(unit):
            check_unchanged(change, "subject")


async def _check_mistake(unit: UnitOfWork, change: Change) -> None:
    """What a step says was performed isn't a mistake as long as the step isn't one."""
    if not unit.is_callers or change.before is None or change.after is None or not change.became("status", "entered-in-error"):
        return
    for step in await performed_steps(unit, change.before):
        mine = ref(change.after) in performances(step) and step["status"] in {"in-progress", "completed", "failed"}
        others = [p for r in performances(step) if r != ref(change.after) and (p := await unit.get(r))] if mine else []
        if mine and not any(p["status"] != "entered-in-error" and not is_wrong_entry(p) for p in others):
            text = f"its step is {step['status']}: enter that in error first, or stop it (DCM 110514: the wrong worklist entry)"
            raise fail("business-rule", text, "Procedure.status")


async def follow(unit: UnitOfWork, change: Change) -> None:
    """The scheduled steps follow what was performed."""
    performed = change.after
    if performed is not None and performed.get("status") != (change.before or {}).get("status"):
        await move_steps(unit, performed)


async def move_steps(unit: UnitOfWork, performed: Resource) -> None:
    """Bring the steps that a Procedure performs to where it is. While it is in doubt whose it is, they stay where they are."""
    if is_in_doubt(performed):
        return
    for step in await performed_steps(unit, performed):
        if performed["status"] == "in-progress":
            await _start(unit, step, performed)
        elif performed["status"] in {"completed", "stopped", "not-done"}:
            await _finish(unit, step, performed)


def is_in_doubt(performed: Resource) -> bool:
    """Whether somebody has to look first whose examination this is."""
    return (extension(performed, terms.IDENTITY_IN_DOUBT) or {}).get("valueBoolean") is True


def is_wrong_entry(performed: Resource) -> bool:
    """Whether the scanner stopped it because the wrong entry of the worklist was selected (DCM 110514)."""
    reasons = codings(performed.get("statusReason"))
    return performed["status"] == "stopped" and any(c.get("code") == terms.WRONG_ENTRY for c in reasons)


async def performed_steps(unit: UnitOfWork, performed: Resource) -> list[Resource]:
    """The steps that a Procedure performs: those it names, else those of its requested procedures that are open."""
    named = [e.get("valueReference") for e in performed.get("extension", ()) if e.get("url") == terms.SCHEDULED_STEP]
    if named:
        return [step for reference in named if (step := await unit.get(reference))]
    procedures = [to.id for r in performed.get("basedOn", ()) if (to := target(r)) and to.type == "ServiceRequest"]
    return [s for s in await task.steps_of(unit, *procedures) if s["status"] in task.OPEN]


async def _start(unit: UnitOfWork, step: Resource, performed: Resource) -> Resource:
    """A step that the scanner has begun is in progress, whatever was planned (also when it was on hold)."""
    if step["status"] in task.BEFORE_START:
        step["status"] = "in-progress"
        if start := performed.get("performedPeriod", {}).get("start"):
            step["executionPeriod"] = {"start": start}
    if step["status"] not in {"in-progress", "completed"} or ref(performed) in performances(step):
        return step
    made = {"type": concept(terms.TASK_DETAIL, _PERFORMED_STEP), "valueReference": ref(performed)}
    step["output"] = [*step.get("output", ()), made]
    return await unit.update(step)


def performances(step: Resource) -> list[Resource]:
    """The references to the Procedures that have performed a step, or do."""
    outputs = (o for o in step.get("output", ()) if has_code(o.get("type"), terms.TASK_DETAIL, _PERFORMED_STEP))
    return [o["valueReference"] for o in outputs if "valueReference" in o]


async def _finish(unit: UnitOfWork, step: Resource, performed: Resource) -> None:
    """With the last of its performed steps ended a step is done, has failed, or waits again if it was selected by mistake."""
    step = await _start(unit, step, performed)
    step = await _note_protocols(unit, step, performed)
    if step["status"] != "in-progress":
        return
    others = [p for r in performances(step) if r != ref(performed) and (p := await unit.get(r))]
    if any(p["status"] not in ENDED for p in others):
        return
    if is_wrong_entry(performed) and not any(p["status"] == "completed" for p in others):
        await reopen(unit, step)
        return
    done = performed["status"] == "completed" or any(p["status"] == "completed" for p in others)
    step["status"] = "completed" if done else "failed"
    if period := performed.get("performedPeriod"):
        begun = step.get("executionPeriod", {}).get("start")
        step["executionPeriod"] = period | ({"start": begun} if begun else {})
    if not done and "statusReason" in performed:
        step["statusReason"] = performed["statusReason"]
    await unit.update(step)


async def _note_protocols(unit: UnitOfWork, step: Resource, performed: Resource) -> Resource:
    """Task.output: the protocols that were performed."""
    outputs = list(step.get("output", ()))
    for one in performed.get("extension", ()):
        if one.get("url") != terms.PERFORMED_PROTOCOL:
            continue
        made = {"type": concept(terms.TASK_DETAIL, _PERFORMED_PROTOCOL), "valueCodeableConcept": one["valueCodeableConcept"]}
        if made not in outputs:
            outputs.append(made)
    return step if outputs == step.get("output", []) else await unit.update(step | {"output": outputs})


async def reopen(unit: UnitOfWork, step: Resource) -> Resource:
    """A step that was not performed after all waits again, with its appointment and visit as they were before it began.

    It is to be booked anew where its appointment can't be had any more.
    """
    beginning = await beginnings.of_step(unit, step)
    with settling.settling(unit):
        if beginning is not None:
            await appointment.reopen(unit, step, beginning)
            await encounter.reopen(unit, step, beginning)
        return await _waiting(unit, step, beginning.step["status"] if beginning else "")


async def _waiting(unit: UnitOfWork, step: Resource, was: str) -> Resource:
    """The step as it waits: in the state that its booking has, or where that says nothing, in which it was."""
    kept: dict[str, Any] = {k: v for k, v in step.items() if k not in {"executionPeriod", "statusReason", "output"}}
    if outputs := [o for o in step.get("output", ()) if not has_code(o.get("type"), terms.TASK_DETAIL, _PERFORMED_PROTOCOL)]:
        kept["output"] = outputs
    booked = await unit.get(task.appointment_of(step))
    place = "owner" in step and "start" in step.get("restriction", {}).get("period", {})
    if was == "on-hold":
        kept["status"] = was
    if not place or (booked is not None and not appointment.is_booked(booked)):
        return await unit.update(task.unschedule(kept))
    if was != "on-hold":
        by_itself = was if was in {"accepted", "ready"} else "accepted"
        kept["status"] = by_itself if booked is None else "accepted" if booked["status"] == "booked" else "ready"
    return await unit.update(kept)


def study_uid(performed: Resource) -> str:
    """The Study Instance UID of the study that its images go to; empty where none is known."""
    return (identifier_value(performed, terms.STUDY_OF) or "").removeprefix("urn:oid:")


def register(registry: Registry) -> None:
    registry.rule("Procedure", check)
    registry.reaction("Procedure", follow)
