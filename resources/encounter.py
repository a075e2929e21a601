"""Encounter: an outpatient's visit follows the examinations in it. Of inpatients and emergencies the hospital system tells."""

from fhir_server.elements import identifier_of_type
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import beginnings, task, terms

_OUTPATIENT = "AMB"
_BEFORE = frozenset({"planned", "arrived", "triaged"})


async def begin(unit: UnitOfWork, step: Resource) -> None:
    """The patient is being examined: the visit is in progress."""
    visit = await unit.get(step.get("encounter"))
    if visit is not None and _is_outpatient(visit) and visit["status"] in _BEFORE:
        await unit.update(visit | {"status": "in-progress"})


async def end(unit: UnitOfWork, step: Resource) -> None:
    """With its last examination done a visit is finished, unless the hospital system numbers it: then that says so."""
    visit = await unit.get(step.get("encounter"))
    if visit is None or not _is_outpatient(visit) or visit["status"] != "in-progress":
        return
    if identifier_of_type(visit, terms.V2_0203, "VN") is not None:
        return
    steps = [t for t in await unit.search("Task", encounter=f"Encounter/{visit['id']}", intent="plan") if task.is_step(t)]
    if not any(t["status"] in task.OPEN for t in steps):
        await unit.update(visit | {"status": "finished"})


async def reopen(unit: UnitOfWork, step: Resource, beginning: beginnings.Beginning) -> None:
    """The step was not performed after all: the visit is as it was before, unless another of its steps has begun."""
    visit = await unit.get(step.get("encounter"))
    if visit is None or not _is_outpatient(visit) or visit["status"] not in {"in-progress", "finished"}:
        return
    if visit["status"] == "finished" and identifier_of_type(visit, terms.V2_0203, "VN") is not None:
        return
    steps = [t for t in await unit.search("Task", encounter=f"Encounter/{visit['id']}", intent="plan") if task.is_step(t)]
    begun = any(t["id"] != step["id"] and t["status"] in {"in-progress", "completed", "failed"} for t in steps)
    status = "in-progress" if begun else await beginnings.status_before(unit, visit, beginning)
    if status in _BEFORE | {"in-progress"}:
        await unit.update(visit | {"status": status})


def _is_outpatient(visit: Resource) -> bool:
    return bool(visit.get("class", {}).get("code") == _OUTPATIENT)
