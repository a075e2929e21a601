"""MedicationAdministration: a contrast agent that is given in an examination.

It hangs on the examination: partOf the Procedure, supportingInformation the scheduled step (Task), whose output `contrast-given`
names it. What speaks against giving it (`safety/facts.toml`: allergy, eGFR, pregnancy), by the agent that is really given and as
the chart stands now, refuses it unless a radiologist has cleared it, or whoever gives it says why all the same (extension
`urn:fhir-ris:override-reason`): then a radiologist is told. How much was given is a volume or a mass that can be given at once.
"""

from decimal import Decimal
from typing import Final

from fhir_server.elements import concept, extension, has_code
from fhir_server.outcome import fail
from fhir_server.references import ref, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.ucum import converter
from fhir_server.unit_of_work import UnitOfWork
from resources import procedure, settling, task, terms, work_items
from resources.safety import findings, issues, tables
from resources.security_labels import labelled

OVERRIDE: Final = "urn:fhir-ris:override-reason"
GIVEN: Final = "contrast-given"  # Task.output: the MedicationAdministration
DESPITE: Final = "contrast-despite-stop"  # work item: it was given although something speaks against it
_GIVES: Final = ("in-progress", "completed")
# By base unit of UCUM the most that a dose can be, and how that is said: what is drunk before a CT or MR of the bowel, or fills
# it, comes to two litres; beyond that a decimal point or a unit is wrong.
_MOST: Final = {"m3": (Decimal("0.003"), "3 L"), "g": (Decimal(1000), "1 kg")}
_AGENT: Final = concept(terms.TASK_DETAIL, "contrast-agent")  # MedicationAdministration.category of what `$give-contrast` records
# What says to whom what is given, and in which step; its Procedure is added later.
_TELLS: Final = ("category", "medicationCodeableConcept", "medicationReference", "subject", "supportingInformation")


def override(given: Resource) -> str:
    """Why it is given all the same."""
    return str((extension(given, OVERRIDE) or {}).get("valueString", "")).strip()


async def agent_of(unit: UnitOfWork, given: Resource) -> Resource:
    """What is given, as a CodeableConcept, also where a Medication tells it; empty where that isn't known."""
    if "medicationReference" not in given:
        return dict(given.get("medicationCodeableConcept", {}))
    name = str(given["medicationReference"].get("reference", ""))
    inside = (c for c in given.get("contained", ()) if name == f"#{c.get('id')}")
    medication = next(inside, None) or await unit.get(given["medicationReference"]) or {}
    parts = [medication.get("code", {}), *(i.get("itemCodeableConcept", {}) for i in medication.get("ingredient", ()))]
    text = " ".join(p["text"] for p in parts if "text" in p)
    return {"coding": [c for p in parts for c in p.get("coding", ())]} | ({"text": text} if text else {})


def _is_told(given: Resource, agent: Resource) -> bool:
    """Whether it is told as a contrast agent."""
    return tables.facts().is_contrast(agent) or has_code(given.get("category"), terms.TASK_DETAIL, "contrast-agent")


def _is_contrast(given: Resource, agent: Resource) -> bool:
    """Whether it is a contrast agent, or may be one: told as one, or by codes that the tables can't tell from one."""
    if _is_told(given, agent):
        return True
    found = agent.get("coding", ())
    return not agent or (bool(found) and all(c.get("system") not in {tables.ATC, terms.SNOMED} for c in found))


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
    """What speaks against giving this agent in this examination, and is not cleared for agents of its kind."""
    requested = await unit.get(step.get("focus"))
    what = await findings.examination(unit, requested) if requested else None
    if requested is None or what is None:
        return []
    found = await findings.find(unit, what.with_contrast(await agent_of(unit, given)))
    stops = [f for f in found if f.effect in tables.STOPS and f.contrast]
    cleared = [i for i in await issues.of_procedure(unit, requested["id"]) if not issues.is_open(i)]
    return [f for f in stops if not any(issues.clears(i, f) for i in cleared)]


async def give(unit: UnitOfWork, step: Resource, given: Resource) -> Resource:
    """Record it, linked to its step and what is being performed."""
    if step["status"] not in {"ready", "in-progress", "completed", "failed"}:
        raise fail("conflict", f"the step is {step['status']}: contrast is given to a patient who is there", "Task.status")
    made = given | {"resourceType": "MedicationAdministration", "category": _AGENT, "subject": step["for"]}
    made["supportingInformation"] = [ref(step)]
    if performed := procedure.performances(step):
        made["partOf"] = performed
    if "encounter" in step:
        made["context"] = step["encounter"]
    return await unit.create(labelled(made, step))


# Rule and reactions


def _is_news(change: Change) -> bool:
    """Whether something is given that wasn't before: begun, or another agent, another patient, another step."""
    before, given = change.before, change.after
    if given is None or given.get("status") not in _GIVES or change.redirected:
        return False
    if before is None or before.get("status") not in _GIVES:
        return True
    return any(before.get(e) != given.get(e) for e in _TELLS)


async def check(unit: UnitOfWork, change: Change) -> None:
    """A contrast agent isn't given against what the chart says without a radiologist's clearance, or a reason."""
    given = change.after
    if given is None or not _is_news(change) or settling.under_way(unit):
        return
    if not _is_contrast(given, await agent_of(unit, given)):
        return
    step = await step_of(unit, given)
    if step is None:
        return
    if step["for"].get("reference") != given["subject"].get("reference"):
        raise fail("business-rule", "the step is another patient's", "MedicationAdministration.subject")
    if not override(given) and (found := await against(unit, given, step)):
        why = "; ".join(f.en for f in found)
        text = f"against this contrast agent speaks: {why}. A radiologist clears it, or say why it is given all the same"
        element = "medicationReference" if "medicationReference" in given else "medicationCodeableConcept"
        raise fail("business-rule", text, f"MedicationAdministration.{element}")


async def check_dose(unit: UnitOfWork, change: Change) -> None:
    """How much of a contrast agent is given, where that is said, is a volume or a mass, and one that can be."""
    given = change.after
    if given is None or change.redirected or given.get("dosage") == (change.before or {}).get("dosage"):
        return
    dose = given.get("dosage", {}).get("dose")
    if dose is not None and _is_told(given, await agent_of(unit, given)) and (why := _implausible(dose)):
        raise fail("business-rule", why, "MedicationAdministration.dosage.dose")


def _implausible(dose: Resource) -> str:
    """What is wrong with a dose; "" when nothing is."""
    code = dose.get("code") if "code" in dose or "system" in dose else dose.get("unit")
    unit = converter(str(code or "")) if dose.get("system", terms.UCUM) == terms.UCUM else None
    if unit is None or unit.unit not in _MOST:
        return "the dose of a contrast agent has a unit of UCUM that is a volume or a mass, such as mL or mg"
    amount = unit(Decimal(str(dose.get("value", 0))))
    most, said = _MOST[unit.unit]
    if amount <= 0:
        return "the dose of a contrast agent is more than nothing"
    return f"the dose of a contrast agent is at most {said}" if amount > most else ""


async def follow(unit: UnitOfWork, change: Change) -> None:
    """Its step names it, as long as it was given; a radiologist is told of what was overridden."""
    given = change.after
    if given is not None and change.became("status", "entered-in-error", "not-done"):
        await _forget(unit, given)
    if given is None or not _is_news(change) or settling.under_way(unit):
        return
    step = await step_of(unit, given)
    if step is None or not _is_contrast(given, await agent_of(unit, given)):
        return
    output = {"type": concept(terms.TASK_DETAIL, GIVEN), "valueReference": ref(given)}
    if output not in step.get("output", ()):
        await unit.update(step | {"output": [*step.get("output", ()), output]})
    if override(given) and (found := await against(unit, given, step)):
        text = f"Contrast was given although: {'; '.join(f.en for f in found)}. The reason: {override(given)}"
        about, patient = f"MedicationAdministration/{given['id']}", given["subject"].get("reference")
        await work_items.open_work_item(unit, DESPITE, text, about, patient)


async def _forget(unit: UnitOfWork, given: Resource) -> None:
    step = await step_of(unit, given)
    kept = [o for o in (step or {}).get("output", ()) if o.get("valueReference") != ref(given)]
    if step is not None and len(kept) < len(step.get("output", ())):
        await unit.update({k: v for k, v in step.items() if k != "output"} | ({"output": kept} if kept else {}))


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
    registry.rule("MedicationAdministration", check_dose)
    registry.rule("MedicationAdministration", check)
    registry.reaction("MedicationAdministration", follow)
    registry.reaction("Task", follow_step)
