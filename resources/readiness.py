"""Whether a scheduled step may be booked and may start: what safety and protocol ask for, and what of it is missing.

Rules of safety (`safety/`) and of the catalogue (`protocol.py`) are looked at when a step is scheduled, when it starts, and
whenever a fact changes: an answer, an allergy, a condition, an eGFR, a Flag, the protocol. What stands in the way is kept as
DetectedIssues, told on the step (extension `urn:fhir-ris:readiness`: stopped, unprotocolled, flagged), and keeps the step off the
scanner's worklist. A person can't book or start it then. What a scanner says it has begun, has begun: that is recorded, and
people are told at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fhir_server.elements import codes, has_code
from fhir_server.outcome import fail
from fhir_server.references import ref, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import procedure, protocol, service_request, settling, task, terms, work_items
from resources.safety import answers, findings, issues, tables

CLEARANCE: Final = "safety-clearance"  # work item: a radiologist decides whether a stopped examination takes place
DESPITE: Final = "started-despite-stop"  # work item: a scanner has begun what was stopped
_NO_PROTOCOL: Final = "the examination has no protocol yet"
_SCHEDULED: Final = frozenset({"accepted", "ready"})


@dataclass(frozen=True, slots=True)
class Readiness:
    """What stands in the way of a requested procedure."""

    issues: list[Resource]
    unprotocolled: str  # the catalogue's rule where a protocol is missing, else empty

    @property
    def word(self) -> str:
        if issues.stops(self.issues):
            return "stopped"
        return "unprotocolled" if self.unprotocolled else "flagged" if self.issues else ""

    def obstacles(self, *, booking: bool = False) -> list[str]:
        """In words, why it can't be booked, or else started."""
        stops = issues.stops(self.issues, booking=booking)
        found = [issues.told(stops)] if stops else []
        if self.unprotocolled == protocol.BEFORE_BOOKING or (self.unprotocolled and not booking):
            found.append(_NO_PROTOCOL)
        return found


async def settle(unit: UnitOfWork, requested: Resource) -> Readiness:
    """Look at a requested procedure again: its issues, what its steps show, and who is asked to clear it."""
    what = await findings.examination(unit, requested)
    if what is None or not any(s["status"] in task.OPEN for s in what.steps):
        return Readiness([], "")
    found = Readiness(
        await issues.keep(unit, what, await findings.find(unit, what)), protocol.missing(what.entry, requested, what.steps)
    )
    was_stopped = any(task.readiness(s) == "stopped" for s in what.steps)
    for step in what.steps:
        if step["status"] in task.BEFORE_START:
            await task.show_readiness(unit, step, found.word)
    await _ask_radiologist(unit, requested, what.steps, found, was_stopped=was_stopped)
    return found


async def _nothing_to_clear(unit: UnitOfWork, procedure_id: str) -> None:
    """None of its steps waits any more: nobody is asked whether the examination takes place."""
    if not any(s["status"] in task.BEFORE_START for s in await task.steps_of(unit, procedure_id)):
        await work_items.close(unit, CLEARANCE, procedure_id, "cleared, or over")


async def check_clearance(unit: UnitOfWork, change: Change) -> None:
    """FhirError `business-rule` when a person closes the question for a clearance, or makes another of it."""
    before, after = change.before, change.after
    if before is None or not has_code(before.get("code"), terms.TASK_CODE, CLEARANCE) or not unit.is_callers:
        return
    if (
        after is None
        or after.get("code") != before["code"]
        or (before["status"] in task.OPEN and after["status"] not in task.OPEN)
    ):
        text = "it is closed by $clear-safety, or with what it is about"
        raise fail("business-rule", text, "Task.status")


async def _ask_radiologist(
    unit: UnitOfWork, requested: Resource, steps: list[Resource], found: Readiness, *, was_stopped: bool
) -> None:
    waiting = any(s["status"] in task.BEFORE_START for s in steps)
    about = ref(requested)["reference"]
    if waiting and (stops := issues.stops(found.issues)):
        text = f"Is the examination to take place? Against it speaks: {issues.told(stops)}"
        patient = requested["subject"].get("reference")
        await work_items.raise_once(unit, CLEARANCE, requested["id"], text, about=about, patient=patient)
    elif was_stopped:
        await work_items.close(unit, CLEARANCE, requested["id"], "cleared, or over")


async def require(unit: UnitOfWork, step: Resource) -> None:
    """FhirError `business-rule` when a step may not start yet."""
    requested = await unit.get(step.get("focus"))
    if requested is not None and requested["resourceType"] == "ServiceRequest":
        refuse((await settle(unit, requested)).obstacles(), "start")


def refuse(obstacles: list[str], what: str) -> None:
    """FhirError `business-rule` when there are any."""
    if obstacles:
        raise fail("business-rule", f"the examination can't {what}: {'; '.join(obstacles)}", "Task.status")


# Reactions


async def follow_step(unit: UnitOfWork, change: Change) -> None:
    """Looked at when a step is scheduled, and when it starts.

    What another system hands over scheduled already is taken: it waits off the worklist. An order is not lost for that. So is
    what comes back to its time when a hold ends.
    """
    step = change.after
    if step is None or not task.is_step(step) or settling.under_way(unit):
        return
    was = (change.before or {}).get("status")
    begins = change.became("status", "in-progress")
    booked = step["status"] in _SCHEDULED and was not in {*_SCHEDULED, "in-progress", "completed", "failed"}
    if change.became("status", "completed") and was in task.BEFORE_START and not procedure.performances(step):
        _refuse_skipped(change)
    if was in task.BEFORE_START and step["status"] not in task.BEFORE_START and task.readiness(change.before or {}) == "stopped":
        await _nothing_to_clear(unit, str(step.get("focus", {}).get("reference", "")).removeprefix("ServiceRequest/"))
    requested = await unit.get(step.get("focus")) if begins or booked else None
    if requested is None or requested["resourceType"] != "ServiceRequest":
        return
    obstacles = (await settle(unit, requested)).obstacles(booking=booked)
    if begins and task.readiness(change.before or {}) == "unprotocolled" and not protocol.of_step(step):
        obstacles.append(_NO_PROTOCOL)
    if booked:
        if was != "on-hold" and (change.before is not None or not unit.access.internal):
            refuse(obstacles, "be scheduled")
        await protocol.prepare(unit, requested, step)
    elif unit.access.person or not procedure.performances(step):
        refuse(obstacles, "start")
    elif obstacles:
        text = f"An examination has begun although it was stopped: {'; '.join(obstacles)}"
        patient = requested["subject"].get("reference")
        await work_items.open_work_item(unit, DESPITE, text, f"Task/{step['id']}", patient)


def _refuse_skipped(change: Change) -> None:
    """What may not start isn't done either, by a hand that skips the start."""
    if change.before is not None and not task.may_start(change.before):
        refuse([f"it is {task.readiness(change.before)}"], "be done")


async def follow_request(unit: UnitOfWork, change: Change) -> None:
    """Looked at when a requested procedure is planned that needs it, when it becomes another patient's or gets another priority,
    and when another contrast agent is to be given, by it or by its order."""
    before, requested = change.before, change.after
    if requested is None or requested.get("status") != "active":
        return
    is_procedure = requested.get("intent") == "filler-order"
    if before is None or change.became("status", "active"):
        if is_procedure and await protocol.ask(unit, requested):
            await settle(unit, requested)
        return
    others = findings.contrast_agents(before) != findings.contrast_agents(requested)
    if is_procedure:
        if others or any(before.get(e) != requested.get(e) for e in ("subject", "priority")):
            await settle(unit, requested)
    elif others:
        for one in await service_request.procedures_of(unit, requested["id"]):
            await settle(unit, one)


async def follow_issue(unit: UnitOfWork, change: Change) -> None:
    """Cleared or taken back: the steps show it."""
    before, issue = change.before, change.after
    if issue is None or before is None or not issues.is_ours(issue) or issues.is_open(before) == issues.is_open(issue):
        return
    for reference in issue.get("implicated", ()):
        if str(reference.get("reference")).startswith("ServiceRequest/") and (requested := await unit.get(reference)):
            await settle(unit, requested)


async def follow_fact(unit: UnitOfWork, change: Change) -> None:
    """What the chart says has changed, or whose it is: each examination that the patient waits for is looked at again."""
    states = [r for r in (change.before, change.after) if r is not None]
    if any(_matters(r) for r in states):
        await _look_again(unit, *((r.get("patient") or r.get("subject") or {}).get("reference", "") for r in states))


async def follow_patient(unit: UnitOfWork, change: Change) -> None:
    """Sex and age say who is asked for what; what was taken over or given back with a record, speaks for another patient."""
    before, after = change.before, change.after
    if before is not None and after is not None and any(before.get(e) != after.get(e) for e in ("gender", "birthDate", "link")):
        await _look_again(unit, f"Patient/{change.id}")


async def _look_again(unit: UnitOfWork, *patients: str) -> None:
    for patient in sorted({p for p in patients if p.startswith("Patient/")}):
        waiting = await unit.search("Task", patient=patient, intent="plan", status=",".join(sorted(task.BEFORE_START)))
        for to in sorted({t for s in waiting if (t := target(s.get("focus")))}):
            if to.type == "ServiceRequest" and (requested := await unit.get(str(to))):
                await settle(unit, requested)


def _matters(fact: Resource) -> bool:
    """Whether a rule of the tables looks at it: most of what a chart says has nothing to do with safety."""
    known, code = tables.facts(), fact.get("code")
    match fact["resourceType"]:
        case "Observation":
            return not (known.egfr_codes | {answers.PREGNANCY}).isdisjoint(codes(code, terms.LOINC))
        case "QuestionnaireResponse":
            return answers.questionnaire_of(fact) is not None
        case "AllergyIntolerance":
            return known.is_contrast(code)
        case _:
            return any(group.has(code) for group in known.conditions.values())


def register(registry: Registry) -> None:
    answers.register(registry)
    registry.rule("DetectedIssue", issues.check)
    registry.rule("Task", check_clearance)
    registry.reaction("Task", follow_step)
    registry.reaction("ServiceRequest", follow_request)
    registry.reaction("DetectedIssue", follow_issue)
    registry.reaction("Patient", follow_patient)
    for kind in _facts():
        registry.reaction(kind, follow_fact)


def _facts() -> Iterable[str]:
    return ("AllergyIntolerance", "Condition", "Flag", "Observation", "QuestionnaireResponse")
