"""What leaves by HL7 v2 when resources change: a projection that writes messages into the outbox of the same transaction."""

from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Final

import structlog

from bridges.v2 import transliteration, version_structure
from bridges.v2.adt_out import of_patients
from bridges.v2.destination import Destination
from bridges.v2.destinations import Destinations
from bridges.v2.due import Context, Due, Messages
from bridges.v2.due_moves import of_moves
from bridges.v2.due_orders import of_order, of_step, of_steps_for_images
from bridges.v2.due_reports import of_appointment, of_charges, of_report, of_results
from bridges.v2.endpoint_check import check_alone, check_concept_map, check_endpoint
from bridges.v2.message import parse
from bridges.v2.segments_out import new_control_id
from fhir_server import metrics, outbox
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import work_items
from resources.letters import Written

log = structlog.get_logger()

# The order in which one transaction tells: identity, schedule, status, result, the end of the order, charges.
_MESSAGES: Final[tuple[tuple[str, Messages], ...]] = (
    ("Appointment", of_appointment),
    ("Task", of_step),
    ("DiagnosticReport", of_report),
    ("ServiceRequest", of_order),
)
_TYPES: Final = frozenset({"Endpoint", "ConceptMap", "ChargeItem", "Observation", "Patient", *(t for t, _ in _MESSAGES)})


@dataclass(frozen=True, slots=True)
class Outbound:
    """The projection. `zone` is the department's, for destinations that don't name theirs."""

    zone: tzinfo
    destinations: Destinations = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "destinations", Destinations(self.zone))

    async def project(self, unit: UnitOfWork, changes: list[Change]) -> None:
        """Messages for the net changes of a transaction. Nothing is read, let alone written, for nobody."""
        relevant = [c for c in changes if c.type in _TYPES]
        for change in relevant:
            if change.type == "Endpoint" and change.after is not None:
                await _check(unit, change.after)
        if not relevant:
            return
        destinations = await self.destinations.active(unit, relevant)
        if destinations:
            context = Context(unit, [c for c in changes if not c.redirected], destinations)
            for due in [*await of_moves(Context(unit, changes, destinations)), *await _due(context)]:
                for to in destinations:
                    if due.is_for(to):
                        await _send(unit, due, to)


async def _due(context: Context) -> list[Due]:
    due = await of_patients(context)
    for resource_type, messages in _MESSAGES:
        for change in context.changes:
            if change.type == resource_type:
                due += await messages(context, change)
        if resource_type == "Task":
            due += await of_steps_for_images(context)
        if resource_type == "DiagnosticReport":
            due += await of_results(context)
    return [*due, *await of_charges(context)]


async def _check(unit: UnitOfWork, endpoint: Resource) -> None:
    """An Endpoint that no message could be written for, or whose sender can't be told, is refused."""
    check_endpoint(endpoint)
    await check_concept_map(unit, endpoint)
    await check_alone(unit, endpoint)


async def _send(unit: UnitOfWork, due: Due, to: Destination) -> None:
    control_id = new_control_id()
    written = transliteration.write(due.render(to, control_id), to.charset)
    _count(written, to)
    invalid = None
    if to.says("check-structure") == "yes" and (
        found := version_structure.problems(parse(written.data, default_charset=to.charset))
    ):
        invalid = "; ".join(found)
        metrics.INVALID.labels(to.reference).inc()
        text = f"{due.kind} for {to.reference} breaks HL7's definitions and is not sent: {invalid[:500]}"
        subject = f"{to.reference} {due.about[0] if due.about else control_id}"
        await work_items.raise_once(unit, "invalid-message", subject, text, about=to.reference, patient=due.patient or None)
    unit.send(
        outbox.Outbound(
            destination=to.reference,
            type=due.kind,
            control_id=control_id,
            message=written.data,
            about=due.about,
            patient=due.patient or None,
            invalid=invalid,
        )
    )


def _count(written: Written, to: Destination) -> None:
    """Characters that the receiver's set lacks."""
    for by, number in (("near", written.near), ("question-mark", written.lost)):
        if number:
            metrics.CHARACTERS.labels(to.reference, by).inc(number)
    if written.lost:
        log.warning("characters were sent as question marks", destination=to.reference, number=written.lost)
