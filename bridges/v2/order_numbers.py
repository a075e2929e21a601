"""Which order of ours one number of an order message means (ORC-2, ORC-3, OBR-2, OBR-3)."""

from bridges.v2.datatypes import EI
from bridges.v2.message import Segment
from bridges.v2.order_groups import Order
from bridges.v2.patient_in import patient_identifiers
from bridges.v2.systems import OWN, entity_identifier
from fhir_server.registry import Resource
from resources import identifiers, order_numbers


def is_bare(ei: EI) -> bool:
    """Whether a number doesn't say whose it is."""
    return not (ei.namespace or ei.universal_id)


async def named_by(order: Order, segment: Segment, field: int) -> Resource | None:
    """The order that a placer (field 2) or filler number (3) means."""
    ei = EI.from_field(segment.repetitions(field)[0])
    if field == 2:
        number = entity_identifier(ei, "PLAC", order.sender.authority)
        found = await order_numbers.by_placer_number(order.unit, number)
        return await _of_the_patient(order, number) if found is None and is_bare(ei) else found
    number = entity_identifier(ei, "FILL", order.sender.authority)
    return await order_numbers.by_filler_number(order.unit, number, own=ei.namespace in {"", OWN})


async def _of_the_patient(order: Order, number: Resource) -> Resource | None:
    """A number without namespace counts, as in results, where it is that of an order of the patient in PID: of one only."""
    pid = order.message.first("PID")
    if pid is None:
        return None
    whose = patient_identifiers(pid, order.sender)
    found = []
    for known in await order_numbers.with_placer_value(order.unit, number["value"]):
        patient = await order.unit.get(known["subject"])
        if patient is not None and identifiers.carries(patient, whose):
            found.append(known)
    return found[0] if len(found) == 1 else None
