"""ORR^O02, ORG^O20, ORI^O24 as messages of their own: what a placer answers to an order that was born here (IHE RAD-3)."""

from typing import Final

from bridges.v2.message import Segment
from bridges.v2.order_control import CONTROLS, Batch, UnknownOrder
from bridges.v2.order_groups import Order, order_groups
from bridges.v2.order_map import filler_ei, has_placer
from bridges.v2.people_in import People
from bridges.v2.reception import Reception, Reply
from bridges.v2.refused import from_fhir, missing
from bridges.v2.systems import OWN, entity_identifier
from fhir_server.outcome import FhirError
from resources import order_numbers, work_items

# The placer takes the order: NA answers SN, OK answers NW.
_TAKEN: Final = frozenset({"NA", "OK"})
# It doesn't: a person must know.
_NOT_TAKEN: Final = frozenset({"UA", "UX", "UC", "UD", "UH", "UR", "UM", "UN"})


async def receive_order_reply(reception: Reception) -> Reply | None:
    """The placer's number for an order of ours; a work item where the placer doesn't take it. Other codes change nothing."""
    people = People(reception.unit, reception.sender)
    for group in order_groups(reception.message):
        order = Order(reception.unit, reception.sender, reception.message, people, group)
        code = order.orc.field(1).strip().upper()
        if not code:
            raise missing(order.orc, 1, "the order control code")
        if code in _TAKEN and has_placer(order):
            try:
                await CONTROLS["NA"].act(order, Batch())
            except FhirError as error:
                raise from_fhir(error) from None
        elif code in _NOT_TAKEN:
            await _show(order, code, reception.message.first("MSA"))
    return None


async def _show(order: Order, code: str, msa: Segment | None) -> None:
    given = filler_ei(order)
    if given is None:
        raise missing(order.orc, 3, "the filler order number")
    number = entity_identifier(given[1], "FILL", order.sender.authority)
    found = await order_numbers.by_filler_number(order.unit, number, own=given[1].namespace in {"", OWN})
    if found is None:
        raise UnknownOrder(*missing(given[0], 3, "an order with this filler order number").errors)
    why = msa.text(3)[:200] if msa else ""
    text = f"{order.sender.application} doesn't take this order ({code}){': ' + why if why else ''}"
    await work_items.open_work_item(
        order.unit, "order-not-taken", text, f"ServiceRequest/{found['id']}", found["subject"].get("reference")
    )  # fmt: skip
