"""MedicationAdministration: a contrast agent that is given in an examination.

It hangs on the examination: partOf the Procedure, supportingInformation the scheduled step (Task), whose output `contrast-given`
names it. What speaks against giving it (`safety/facts.toml`: allergy, eGFR, pregnancy), by the agent that is really given and as
the chart stands now, refuses it unless a radiologist has cleared it, or whoever gives it says why all the same (extension
`urn:fhir-ris:override-reason`): then a radiologist is told.
"""

from typing import Final

from fhir_server.elements import concept, extension, has_code
from fhir_server.outcome import fail
from fhir_server.references import ref, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import procedure, task, terms
from resources.safety import findings, issues, tables
from resources.security_labels import labelled

OVERRIDE: Final = "urn:fhir-ris:override-reason"
GIVEN: Final = "contrast-given"  # Task.output: the MedicationAdministration
DESPITE: Final = "contrast-despite-stop"  # work item: it was given although something speaks against it
_GIVES: Final = ("in-progress", "completed")


def override(given: Resource) -> str:
    """Why it is given all the same."""
    return str((extension(given, OVERRIDE) or {}).get("valueString", "")).strip()


async def step_of(unit: UnitOfWork, given: Resource) -> Resource | None:
    """The scheduled step that it is given in; of one that names a Procedure only, the first that this performs."""
    for reference in given.get("supportingInformation", ()):
        if (to := target(reference)) and to.type == "Task" and (step := await unit.get(reference)) and task.is_step(step):
            return step
    for reference in given.get("partOf", ()):
        if (to := target(reference)) and to.type == "Procedure" and (performed := await unit.get(reference)):
            return next(iter(await procedure.performed_steps(unit, performed)), None)
    return None


async def against(unit: UnitOfWork, given: Resource, step: Resource) -> list[findings.Finding]:
    """What speaks against giving this agent in this examination, and is not cleared."""
    requested = await unit.get(step.get("focus"))
    what = await findings.examination(unit, requested) if requested else None
    if requested is None or what is None:
        return []
    found = await findings.find(unit, what.with_contrast(given.get("medicationCodeableConcept", {})))
    stops = [f for f in found if f.effect in tables.STOPS and f.about_contrast]
    cleared = {issues.key_of(i) for i in await issues.of_procedure(unit, requested["id"]) if not issues.is_open(i)}
    return [f for f in stops if (f.rule, f.evidence) not in cleared]


async def give(unit: UnitOfWork, step: Resource, given: Resource) -> Resource:
    """Record it, linked to its step and what is being performed."""
    if step["status"] not in {"ready", "in-progress", "completed", "failed"}:
        raise fail("conflict", f"the step is {step['status']}: contrast is given to a patient who is there", "Task.status")
    made = given | {"resourceType": "MedicationAdministration", "subject": step["for"], "supportingInformation": [ref(step)]}
    if performed := procedure.performances(step):
        made["partOf"] = performed
    if "encounter" in step:
        made["context"] = step["encounter"]
    return await unit.create(labelled(made, step))


# Rule and reactions


async def check(unit: UnitOfWork, change: Change) -> None:
    """A contrast agent isn't given against what the chart says without a radiologist's clearance, or a reason."""
    given = change.after
    if given is None or not change.became("status", *_GIVES) or (change.before or {}).get("status") in _GIVES:
        return
    if not tables.facts().is_contrast(given.get("medicationCodeableConcept")) or override(given):
        return
    step = await step_of(unit, given)
    if step is not None and (found := await against(unit, given, step)):
        why = "; ".join(f.en for f in found)
        text = f"against this contrast agent speaks: {why}. A radiologist clears it, or say why it is given all the same"
        raise fail("business-rule", text, "MedicationAdministration.medicationCodeableConcept")


async def follow(unit: UnitOfWork, change: Change) -> None:
    """Its step names it; a radiologist is told of what was overridden."""
    given = change.after
    if given is None or not change.became("status", *_GIVES) or (change.before or {}).get("status") in _GIVES:
        return
    step = await step_of(unit, given)
    if step is None or not tables.facts().is_contrast(given.get("medicationCodeableConcept")):
        return
    output = {"type": concept(terms.TASK_DETAIL, GIVEN), "valueReference": ref(given)}
    if output not in step.get("output", ()):
        await unit.update(step | {"output": [*step.get("output", ()), output]})
    if override(given) and (found := await against(unit, given, step)):
        text = f"Contrast was given although: {'; '.join(f.en for f in found)}. The reason: {override(given)}"
        about, patient = f"MedicationAdministration/{given['id']}", given["subject"].get("reference")
        await task.open_work_item(unit, DESPITE, text, about, patient)


async def follow_step(unit: UnitOfWork, change: Change) -> None:
    """What was given before the scanner told of its beginning is part of that, too."""
    step = change.after
    performed = procedure.performances(step) if step and task.is_step(step) else []
    if step is None or not performed or performed == procedure.performances(change.before or {}):
        return
    for output in step.get("output", ()):
        if has_code(output.get("type"), terms.TASK_DETAIL, GIVEN):
            given = await unit.get(output.get("valueReference"))
            if given is not None and given.get("partOf") != performed:
                await unit.update(given | {"partOf": performed})


def register(registry: Registry) -> None:
    registry.rule("MedicationAdministration", check)
    registry.reaction("MedicationAdministration", follow)
    registry.reaction("Task", follow_step)
