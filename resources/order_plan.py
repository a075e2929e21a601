"""What an accepted order becomes: its requested procedures (`filler-order`), each with its study to be and its steps (Task)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fhir_server import clock
from fhir_server.elements import identifier_value
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, imaging_study, task, terms
from resources.security_labels import labelled

# What a requested procedure takes over from its order.
INHERITED = (
    "priority code subject encounter requester reasonCode reasonReference bodySite orderDetail note occurrenceDateTime "
    "occurrencePeriod occurrenceTiming supportingInfo"
).split()
_OWN = re.compile(r"F[0-9]{9}")


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What the placer has said of one scheduled step: elements of its Task (identifier, code, input, location)."""

    elements: Resource = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlannedProcedure:
    """What the placer has said of one requested procedure: elements of its own, its Study Instance UID, and its steps."""

    elements: Resource = field(default_factory=dict)
    study_uid: str = ""
    steps: Sequence[PlannedStep] = (PlannedStep(),)


async def plan(unit: UnitOfWork, order: Resource, procedures: Sequence[PlannedProcedure] = (PlannedProcedure(),)) -> None:
    """Make the requested procedures of an accepted order, with their studies to be and their steps.

    What the placer has not assigned is assigned. Of an order that is on hold all is on hold, until it is released.
    """
    number = await _own_number(unit, order)
    for planned in procedures:
        number = number or f"{await unit.next_number('order'):09d}"
        made = await _procedure(unit, order, planned, number)
        await unit.create(imaging_study.registered(made, planned.study_uid))
        for i, step in enumerate(planned.steps):
            await _step(unit, made, step, f"S{number}" if i == 0 else "")
        number = ""


async def _procedure(unit: UnitOfWork, order: Resource, planned: PlannedProcedure, number: str) -> Resource:
    base: Resource = {
        "resourceType": "ServiceRequest",
        "basedOn": [ref(order)],
        "status": order["status"],
        "intent": "filler-order",
        "category": order["category"],
        "authoredOn": clock.instant(unit.now),
    }
    procedure = base | {e: order[e] for e in INHERITED if e in order} | planned.elements
    if identifier_value(procedure, terms.REQUESTED_PROCEDURE_ID) is None:
        own = {"system": terms.REQUESTED_PROCEDURE_ID, "value": f"R{number}"}
        procedure["identifier"] = [own, *procedure.get("identifier", ())]
    return await unit.create(labelled(procedure, order))


async def _step(unit: UnitOfWork, procedure: Resource, planned: PlannedStep, step_id: str) -> None:
    said = planned.elements
    modality = task.modality(said) or await activity_definition.modality(unit, procedure)
    step = task.new_step(procedure, modality, step_id if identifier_value(said, terms.SCHEDULED_STEP_ID) is None else "")
    if more := [i for i in said.get("input", ()) if i != task.detail(said, "modality")]:
        step["input"] = [*step.get("input", ()), *more]
    step |= {element: value for element, value in said.items() if element not in {"resourceType", "input"}}
    if procedure["status"] == "on-hold":
        step["status"] = "on-hold"
    await unit.create(step)


async def _own_number(unit: UnitOfWork, order: Resource) -> str:
    """The digits of the order's own filler number: people then read the same number everywhere. Else new ones."""
    filler = identifier_value(order, terms.FILLER_ORDER_NUMBER) or ""
    return filler.removeprefix("F") if _OWN.fullmatch(filler) else f"{await unit.next_number('order'):09d}"


async def plan_procedure(unit: UnitOfWork, procedure: Resource) -> None:
    """A requested procedure, whoever made it, has its study to be and at least one step."""
    if not await exists(unit, "ImagingStudy", procedure):
        await unit.create(imaging_study.registered(procedure))
    if not await exists(unit, "Task", procedure):
        await unit.create(task.new_step(procedure, await activity_definition.modality(unit, procedure)))


async def exists(unit: UnitOfWork, resource_type: str, request: Resource, **also: str) -> bool:
    """Whether something of this type is based on the request. What this transaction makes is seen without a search."""
    made = (c.after for c in unit.changes() if c.type == resource_type and c.after)
    of_kind = (r for r in made if all(r.get(element) == value for element, value in also.items()))
    if any(to.get("reference") == f"ServiceRequest/{request['id']}" for r in of_kind for to in r.get("basedOn", ())):
        return True
    parameter = "basedon" if resource_type == "ImagingStudy" else "based-on"
    return bool(await unit.search_all(resource_type, [(parameter, f"ServiceRequest/{request['id']}"), *also.items()]))
