"""What a receiver's answer tells beyond its acknowledgement: the placer number of an order born here (IHE RAD-3: SN, then NA)."""

import structlog

from bridges.v2.ack import Ack
from bridges.v2.systems import entity_identifier
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import order_changes, order_numbers, service_request, work_items

log = structlog.get_logger()


async def learn_from_reply(unit: UnitOfWork, about: list[str], ack: Ack) -> None:
    """The placer number of an ORR (ORC-1 NA or OK with ORC-2) becomes that of the order which the message was about.

    about: of the outbox message. One that can't be taken, as another order has it, becomes a work item.
    """
    number = next((n for n in ack.numbers if n.placer.id.strip()), None) if ack.positive else None
    order = await _order(unit, about) if number else None
    if number is None or order is None or order_numbers.placer_number(order) is not None:
        return
    learned = entity_identifier(number.placer, "PLAC", ack.sender)
    try:
        await order_changes.number_by_placer(unit, order, learned)
    except FhirError as refused:
        log.warning("a placer number was not taken", order=order["id"], reason=refused.issues[0].code)
        text = f"The placer number that was assigned to this order can't be taken: {refused.issues[0].diagnostics}"
        await work_items.open_work_item(
            unit, "placer-number-refused", text, f"ServiceRequest/{order['id']}", order["subject"].get("reference")
        )


async def _order(unit: UnitOfWork, about: list[str]) -> Resource | None:
    for reference in about:
        found = await unit.get(reference)
        if found is not None and service_request.is_order(found):
            return found
    return None
