"""What an accepted order becomes: its requested procedures (`filler-order`), each with its study to be and its steps (Task)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fhir_server import clock
from fhir_server.elements import identifier_value
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, imaging_study, numbering, order_panel, task, terms
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

    @property
    def is_numbered(self) -> bool:
        """Whether the placer has given it an id or a study of its own: then it is one procedure, whatever the catalogue says."""
        ids = [identifier_value(self.elements, terms.REQUESTED_PROCEDURE_ID)]
        ids += [identifier_value(step.elements, terms.SCHEDULED_STEP_ID) for step in self.steps]
        return bool(self.study_uid) or len(self.steps) > 1 or any(ids)


async def plan(
    unit: UnitOfWork, order: Resource, procedures: Sequence[PlannedProcedure] = (PlannedProcedure(),), *, added: bool = False
) -> None:
    """Make the requested procedures of an accepted order, with their studies to be and their steps.

    What the placer has not assigned is assigned. Of an order that is on hold all is on hold, until it is released.

    added: to what was planned before, which has the order's digits
    """
    digits = "" if added else await _own_digits(unit, order)
    for planned in await _spread(unit, order, procedures):
        digits = digits or await numbering.order_digits(unit)
        made = await _procedure(unit, order, planned, digits)
        await unit.create(imaging_study.registered(made, planned.study_uid))
        for i, step in enumerate(planned.steps):
            await _step(unit, made, step, digits if i == 0 else "")
        digits = ""


async def _spread(unit: UnitOfWork, order: Resource, procedures: Sequence[PlannedProcedure]) -> list[PlannedProcedure]:
    """A panel, or an order of several catalogue entries, is as many requested procedures."""
    found: list[PlannedProcedure] = []
    for planned in procedures:
        parts = [] if planned.is_numbered else await order_panel.parts(unit, order | planned.elements)
        found += [PlannedProcedure(planned.elements | part) for part in parts] or [planned]
    return found


async def _procedure(unit: UnitOfWork, order: Resource, planned: PlannedProcedure, digits: str) -> Resource:
    procedure = requested(unit, order, planned.elements)
    if identifier_value(procedure, terms.REQUESTED_PROCEDURE_ID) is None:
        own = await numbering.fresh(unit, terms.REQUESTED_PROCEDURE_ID, procedure, digits)
        procedure["identifier"] = [{"system": terms.REQUESTED_PROCEDURE_ID, "value": own}, *procedure.get("identifier", ())]
    return await unit.create(procedure)


def requested(unit: UnitOfWork, order: Resource, elements: Resource) -> Resource:
    """A requested procedure of an order, with what is said of it (None: not even what the order says)."""
    base: Resource = {
        "resourceType": "ServiceRequest",
        "basedOn": [ref(order)],
        "status": order["status"],
        "intent": "filler-order",
        "category": order["category"],
        "authoredOn": clock.instant(unit.now),
    }
    whole = base | {e: order[e] for e in INHERITED if e in order} | elements
    return labelled({element: value for element, value in whole.items() if value is not None}, order)


async def _step(unit: UnitOfWork, procedure: Resource, planned: PlannedStep, digits: str) -> None:
    """`digits`: those that its id gets where the placer has given none, and no NamingSystem says otherwise."""
    said = planned.elements
    modality = task.modality(said) or await activity_definition.modality(unit, procedure)
    step = task.new_step(procedure, modality)
    if more := [i for i in said.get("input", ()) if i != task.detail(said, "modality")]:
        step["input"] = [*step.get("input", ()), *more]
    step |= {element: value for element, value in said.items() if element not in {"resourceType", "input"}}
    if digits and identifier_value(step, terms.SCHEDULED_STEP_ID) is None:
        own = {"system": terms.SCHEDULED_STEP_ID, "value": await numbering.fresh(unit, terms.SCHEDULED_STEP_ID, step, digits)}
        step["identifier"] = [own, *step.get("identifier", ())]
    if procedure["status"] == "on-hold":
        step["status"] = "on-hold"
    await unit.create(step)


async def _own_digits(unit: UnitOfWork, order: Resource) -> str:
    """The digits of the order's own filler number: people then read the same number everywhere. Else new ones."""
    filler = identifier_value(order, terms.FILLER_ORDER_NUMBER) or ""
    return filler.removeprefix("F") if _OWN.fullmatch(filler) else await numbering.order_digits(unit)


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
