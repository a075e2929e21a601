"""What a step, its appointment and its visit were before the step began: for one that was not performed after all."""

from dataclasses import dataclass
from datetime import datetime

from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import task


@dataclass(frozen=True, slots=True)
class Beginning:
    """The last version of a step that had not begun, and when the next one was stored."""

    step: Resource
    at: datetime


async def of_step(unit: UnitOfWork, step: Resource) -> Beginning | None:
    """When a step began; None when the history doesn't have it."""
    later: datetime | None = None
    async for one in unit.versions("Task", step["id"]):
        if one.resource is None:
            return None
        if one.resource["status"] in task.BEFORE_START:
            return Beginning(one.resource, later) if later is not None else None
        later = one.updated
    return None


async def status_before(unit: UnitOfWork, resource: Resource, beginning: Beginning) -> str:
    """The status of a resource before a step began; empty when the history doesn't have it."""
    async for one in unit.versions(resource["resourceType"], resource["id"]):
        if one.updated < beginning.at:
            return str(one.resource["status"]) if one.resource else ""
    return ""
