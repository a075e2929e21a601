"""ORM^O01, OMG^O19, OMI^O23: orders (IHE RAD-2). What each asks for is `order_control.py`; what it becomes, `order_map.py`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from bridges.v2 import order_parked, parked_messages
from bridges.v2.ack import AckError
from bridges.v2.message import Message, readable
from bridges.v2.order_control import Batch, Control, UnknownOrder, check_alone, control_of, unknown_order
from bridges.v2.order_groups import Order, OrderGroup, order_groups
from bridges.v2.order_map import has_placer
from bridges.v2.order_reply import Answer, answer, reply
from bridges.v2.people_in import People
from bridges.v2.reception import Reception, Reply, Sender
from bridges.v2.refused import Refused, check_one_patient, from_fhir
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import work_items

_TRY_AGAIN = frozenset({"transient", "lock-error", "timeout"})


async def receive_order(reception: Reception) -> Reply | None:
    """Do what each order group asks, one after the other. All of the message or nothing."""
    check_one_patient(reception.message)
    groups = order_groups(reception.message)
    people = People(reception.unit, reception.sender)
    batch = Batch()
    answers: list[Answer] = []
    parked = 0
    for i, group in enumerate(groups):
        order = Order(reception.unit, reception.sender, reception.message, people, group)
        batch.next_control = groups[i + 1].orc.field(1).strip().upper() if i + 1 < len(groups) else ""
        try:
            control = control_of(order)
            if (stored := await _act(order, control, batch)) is _PARKED:
                parked += 1
                continue
            if stored is not None and control.done in _COMES:
                numbers = parked_messages.numbers_of(reception.unit.final(stored))
                if await order_parked.play(reception.unit, stored, numbers, perform):
                    reception.afterwards.append(partial(parked_messages.play, order_id=stored["id"], numbers=numbers))
            if control.done and (_wants_order_response(reception) or control.done == "SR"):
                answers.append(await answer(reception.unit, reception.message, control.done, group, stored))
        except FhirError as error:
            raise _refused(error, order, groups) from None
    text = f"kept until the order arrives: {parked} of {len(groups)}" if parked else ""
    return reply(reception.message, answers, text, "parked" if parked else "", typed=_wants_order_response(reception))


_PARKED: Resource = {}
_COMES = frozenset({"OK", "RO", "CH"})  # a new order is here


async def _act(order: Order, control: Control, batch: Batch) -> Resource | None:
    """Do it, with all that follows; where it has to wait for its order, keep it."""
    try:
        if control.waits and has_placer(order):
            await order_parked.catch_up(order, perform)
        stored = await control.act(order, batch)
    except UnknownOrder as failure:
        if control.waits and order.sender.partner.unknown_order == "park" and has_placer(order):
            await check_alone(order)
            await order_parked.park(order)
            return _PARKED
        failure.shown.append(unknown_order(order))
        raise
    if control.done not in {"RQ", "RO"}:
        batch.replaced.clear()
    if control.done not in {"PA", "CH"}:
        batch.parent = None
    await order.unit.react()
    return stored


async def perform(order: Order) -> None:
    """What was parked, once its order is here. Refused as if it came now."""
    try:
        await control_of(order).act(order, Batch())
        await order.unit.react()
    except FhirError as error:
        if error.code in _TRY_AGAIN:
            raise
        raise from_fhir(error) from None


def _wants_order_response(reception: Reception) -> bool:
    return reception.sender.partner.response == "order"


def _refused(error: FhirError, order: Order, groups: Sequence[OrderGroup]) -> Exception:
    """The refusal, with its place in the group concerned, and with the negative answer to every order of the message."""
    if error.code in _TRY_AGAIN:
        return error
    failure = from_fhir(error)
    if failure is not error:
        failure.errors = tuple(_placed(e, order) for e in failure.errors)
    if order.sender.partner.response == "order":
        negative = [Answer(code, group) for group in groups if (code := _negative(order, group))]
        failure.reply = reply(order.message, negative)
    return failure


def _placed(error: AckError, order: Order) -> AckError:
    """A rule knows elements; which of several ORC or OBR it is, we know."""
    if error.segment == "ZDS" and (ipc := next((s for s in order.steps if s.field(3).strip()), None)):
        return replace(error, segment="IPC", sequence=ipc.number, field=3)
    if error.segment == "ORC":
        return replace(error, sequence=order.orc.number)
    if error.segment == "OBR" and order.obrs:
        return replace(error, sequence=order.obr.number)
    return error


def _negative(order: Order, group: OrderGroup) -> str:
    try:
        return control_of(replace(order, group=group)).refused
    except Refused:
        return "UA"


async def show_mix_up(unit: UnitOfWork, message: Message, sender: Sender, order: Resource) -> None:
    """A work item for a message that was refused because its placer order number is that of another patient's order."""
    message_ = f"{readable(message.control_id, 50)} of {sender.application}"
    text = f"Refused: message {message_} uses a number of this order for a different patient"
    about = f"ServiceRequest/{order['id']}"
    await work_items.open_work_item(unit, "patient-mismatch", text, about=about, patient=order["subject"].get("reference"))
