"""Encounter: an outpatient's visit follows the examinations in it. Of inpatients and emergencies the hospital system tells."""

from fhir_server.elements import identifier_of_type
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import task, terms

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


def _is_outpatient(visit: Resource) -> bool:
    return bool(visit.get("class", {}).get("code") == _OUTPATIENT)
