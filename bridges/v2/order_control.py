"""Order control (HL7 table 0119): what a placer asks for, what is done, and the codes that answer it (ris-domain.md 1.4)."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridges.v2.codes import ORDER_STATUS
from bridges.v2.concerned import about
from bridges.v2.mapping import Table
from bridges.v2.message import is_null, readable
from bridges.v2.order_door import judge
from bridges.v2.order_facts_in import Whose, around, facts, insurance
from bridges.v2.order_groups import Order
from bridges.v2.order_map import ORDER, entity, filler_ei, has_placer, parent, placer_number, placer_segment
from bridges.v2.order_numbers import named_by
from bridges.v2.order_provenance import record
from bridges.v2.patient_in import named, patient_identifiers
from bridges.v2.refused import Refused, Shown, missing, no_segment, wrong
from bridges.v2.step_map import planned
from bridges.v2.systems import OWN, entity_identifier
from bridges.v2.visit_in import visit
from fhir_server.references import ref
from fhir_server.registry import Resource
from resources import identifiers, order_changes, order_door, order_numbers, order_plan, order_verdict, service_request


@dataclass(slots=True)
class Batch:
    """What the orders of one message have to do with each other: what an RO replaces, and what the CH are children of."""

    replaced: list[Resource] = field(default_factory=list)
    has_heir: bool = False  # an RO was there: the next RP begins anew
    parent: Resource | None = None
    next_control: str = ""
    whose: Whose | None = None


Act = Callable[[Order, Batch], Awaitable[Resource | None]]


@dataclass(frozen=True, slots=True)
class Control:
    """One code: what it does, the code that says it is done, the one that says it can't be. Without codes nothing is said.

    waits: may wait for an order that isn't here yet (`accept-unknown-order: park`)
    """

    act: Act
    done: str
    refused: str
    waits: bool = False


class UnknownOrder(Refused):
    """No order has this number (yet)."""


# NW, RO, CH: a new order


async def new(order: Order, batch: Batch) -> Resource:
    """The order, its requested procedures and steps, after a look at what is odd about it."""
    for segment, field_ in order.numbers[1:]:
        other = await named_by(order, segment, field_)
        if other is not None and not identifiers.same(order_numbers.placer_number(other) or {}, placer_number(order)):
            raise wrong(segment, field_, _DISAGREE, code=205)
    return await _take(order, batch, {})


async def _take(order: Order, batch: Batch, elements: Resource, without: Sequence[Resource] = ()) -> Resource:
    """Store a new order and plan it. `elements`: what is known of it beside the message, `without`: parents that it hasn't."""
    placer = placer_segment(order)
    request = await ORDER.build(order)
    if "coding" not in request.get("code", {}):
        raise missing(order.obr, 4, "the procedure ordered")
    whose = await _whose(order, batch)
    patient = whose.patient
    request |= {"subject": ref(patient)} | ({"encounter": ref(whose.encounter)} if whose.encounter else {})
    request |= await facts(order, whose)
    others = [r for r in request.pop("basedOn", []) if r not in without]
    if based_on := [*elements.get("basedOn", []), *others]:
        request["basedOn"] = based_on
    request |= {e: v for e, v in elements.items() if e != "basedOn"}
    procedures = await planned(order)
    verdict = await judge(order, request, patient)
    if verdict.held:
        request["status"] = "on-hold"
    try:
        stored = await order.unit.create(request)
    except order_numbers.PlacerNumberTaken as taken:
        refusal = wrong(placer, 2, str(taken), code=205)
        raise Refused(*refusal.errors, mixed_up=None if taken.same_patient else taken.order) from None
    order_door.settled(order.unit, stored["id"])
    await order_plan.plan(order.unit, stored, procedures)
    await order_verdict.show(order.unit, stored, verdict)
    await record(order, stored, "CREATE")
    return stored


async def _whose(order: Order, batch: Batch) -> Whose:
    """The patient and visit of the message: the same for all its orders."""
    if batch.whose is None:
        patient = await named(order.unit, order.message.first("PID"), order.sender)
        encounter = await visit(order.unit, order.message.first("PV1"), patient, order.sender, order.people)
        batch.whose = await around(order, patient, encounter)
    return batch.whose


async def _replacement(order: Order, batch: Batch) -> Resource:
    """RO: takes the place of the orders of the RP before it."""
    if not batch.replaced:
        raise wrong(order.orc, 1, "a replacement order (RO) follows the order that it replaces (RP)", code=103)
    batch.has_heir = True
    return await _take(order, batch, {"replaces": [ref(old) for old in batch.replaced]})


async def _replace(order: Order, batch: Batch) -> Resource:
    """RP: the order ends. Without an RO behind it, the RP itself says what is ordered in its place, under the same number."""
    found = await existing(order)
    replaced = await order_changes.replace(order.unit, found)
    if batch.has_heir:
        batch.replaced.clear()
        batch.has_heir = False
    if batch.next_control in {"RO", "RP"}:
        batch.replaced.append(found)
        return found
    if not order.group.procedures:
        raise no_segment("OBR", "what is ordered in its place (RO, or OBR)", order.orc.number)
    await order.unit.react()  # the number is free once the old order is done with
    return await _take(order, batch, replaced)


async def _parent(order: Order, batch: Batch) -> Resource:
    """PA: an order that is here, else one that only holds its children together (intent `original-order`)."""
    batch.parent = await _find(order)
    if batch.parent is None:
        request = await ORDER.build(order)
        if "coding" not in request.get("code", {}):
            raise missing(order.obr, 4, "what the parent order is")
        whose = await _whose(order, batch)
        batch.parent = await order.unit.create(request | {"intent": "original-order", "subject": ref(whose.patient)})
    else:
        await _check_patient(order, batch.parent)
    return batch.parent


async def _child(order: Order, batch: Batch) -> Resource:
    """CH: an order of its own, based on the parent that ORC-8 names, else of the PA before it."""
    if batch.parent is None:
        return await _take(order, batch, {})
    group = order_numbers.placer_number(batch.parent)
    elements: Resource = {"basedOn": [ref(batch.parent)]}
    if group is not None and not order.orc.field(4).strip():
        elements["requisition"] = {k: v for k, v in group.items() if k != "type"}
    named_parent = await parent(order)
    if any("reference" in r for r in named_parent):
        elements.pop("basedOn")
    # A number that isn't known is another spelling of the one of the PA.
    return await _take(order, batch, elements, without=named_parent if "basedOn" in elements else [])


# The order exists


async def _find(order: Order) -> Resource | None:
    """By the placer's number, else, where the placer gives none, by ours. Refused (205) where numbers mean different orders.

    One that we don't know contradicts nothing.
    """
    if not has_placer(order) and filler_ei(order) is None:
        raise missing(order.orc, 2, "the placer order number")
    found: Resource | None = None
    for segment, field_ in order.numbers:
        meant = await named_by(order, segment, field_)
        if field_ == 3 and found is None and has_placer(order):
            return None
        if found is not None and meant is not None and meant["id"] != found["id"]:
            raise wrong(segment, field_, _DISAGREE, code=205)
        found = found or meant
    return found


_DISAGREE: Final = "this number and another one of the message mean different orders"


async def existing(order: Order) -> Resource:
    """The order that a message is about, which must be the patient's of PID."""
    found = await _find(order)
    if found is None:
        segment, field_, whose = order.orc, 3, "filler"
        if has_placer(order):
            segment, field_, whose = placer_segment(order), 2, "placer"
        failure = wrong(segment, field_, f"no order has this {whose} order number", code=204)
        raise UnknownOrder(*failure.errors)
    await _check_patient(order, found)
    return found


async def _check_patient(order: Order, found: Resource) -> None:
    pid = order.message.first("PID")
    if pid is None:
        raise no_segment("PID", "the patient (PID)")
    patient = await order.unit.get(found["subject"])
    if patient is None or not identifiers.carries(patient, patient_identifiers(pid, order.sender)):
        refusal = wrong(pid, 3, "the order with this placer order number is for a different patient", code=205)
        raise Refused(*refusal.errors, mixed_up=found)
    about(order.unit, patient, found)


def _on_existing(change: Callable[[Order, Resource], Awaitable[None]]) -> Act:
    async def act(order: Order, _batch: Batch) -> Resource:
        found = await existing(order)
        await change(order, found)
        await record(order, found, "UPDATE")
        return found

    return act


async def _cancel(order: Order, found: Resource) -> None:
    await order_changes.cancel(order.unit, found)


async def _discontinue(order: Order, found: Resource) -> None:
    reason = next((f.get(2) or f.get(1) for f in order.orc.repetitions(16)), "")
    await order_changes.discontinue(order.unit, found, reason or "discontinued by the placer")


async def _hold(order: Order, found: Resource) -> None:
    await order_changes.hold(order.unit, found)


async def _release(order: Order, found: Resource) -> None:
    await order_changes.release(order.unit, found)


async def _nothing(_order: Order, _found: Resource) -> None:
    """SS and RE ask for no change."""


async def _change(order: Order, found: Resource) -> None:
    """XO: what may change, changes (resources/order_changes.py). An ORC-5 that ends or holds the order is read as with SC."""
    code = order.orc.field(5).strip().upper()
    if code in {"CA", "DC", "HD", "ER"}:
        await _status(order, found)
        return
    order_changes.check_open(found)
    await _check_procedures(order, found)
    said = await ORDER_CHANGES.build(order)
    patient = await order.unit.get(found["subject"]) or {}
    encounter = await order.unit.get(found.get("encounter"))
    said |= await facts(order, Whose(patient, encounter, await insurance(order, patient)))
    await order_changes.change(order.unit, found, said, _deleted(order))


async def _check_procedures(order: Order, found: Resource) -> None:
    """A procedure that the order hasn't is ordered by an order of its own, or by RP."""
    had = await service_request.procedures_of(order.unit, found["id"])
    if found["status"] != "draft" and len(order.obrs) > max(1, len(had)):
        raise wrong(order.obrs[-1], 4, "the order has no such procedure: order it anew, or replace the order (RP)", code=207)


# What an order that is there can be told anew: ORDER without the numbers, the status and the parent, which stay.
_SETTLED = {"identifier", "status", "basedOn", "authoredOn"}
ORDER_CHANGES = Table(ORDER.title, ORDER.resource, [row for row in ORDER.rows if row.element not in _SETTLED])


def _deleted(order: Order) -> frozenset[str]:
    """Elements whose fields say `""` (HL7 v2.5.1 2.5.3)."""
    places = {
        "reasonCode": [(obr, 31) for obr in order.obrs],
        "note": [(obr, 13) for obr in order.obrs],
        "requester": [(order.orc, 12)],
        "requisition": [(order.orc, 4)],
        **dict.fromkeys(_TIMES, [(t, 7) for t in order.timings] + [(obr, f) for obr in order.obrs for f in (36, 6)]),
    }
    gone = {element for element, fields in places.items() if any(is_null(s, f) for s, f in fields)}
    quantities = [(order.orc, 7), *((obr, 27) for obr in order.obrs)]
    for component, elements in ((4, _TIMES), (6, ("priority",))):
        if any(is_null(s, f) or r.component(component).is_null for s, f in quantities for r in s.repetitions(f)):
            gone.update(elements)
    return frozenset(gone)


_TIMES: Final = ("occurrenceDateTime", "occurrencePeriod", "occurrenceTiming")


async def _status(order: Order, found: Resource) -> None:
    """SC: ORC-5 decides. How far the examination is, we say: an IP or CM that contradicts what is so here is refused."""
    code = order.orc.field(5).strip().upper()
    if not code:
        raise missing(order.orc, 5, "the order status")
    wanted = ORDER_STATUS.fhir(code)
    if wanted is None:
        raise wrong(order.orc, 5, "the order status is none of table 0038", code=103)
    if code == "DC":
        await _discontinue(order, found)
    elif wanted == "revoked":
        await _cancel(order, found)
    elif wanted == "on-hold":
        await _hold(order, found)
    elif wanted == "entered-in-error":
        await order.unit.update(found | {"status": wanted})
    elif wanted != found["status"]:
        text = f"the order is {found['status']}: how far an examination is, its filler tells ({code[:5]})"
        raise wrong(order.orc, 5, text, code=207)


async def check_alone(order: Order) -> None:
    """Refuse at once what is wrong whatever its order is, so that only what may yet be right is kept waiting."""
    placer_number(order)
    code = order.orc.field(1).strip().upper()
    if code == "XO":
        await ORDER_CHANGES.build(order)
    if code == "SC" and ORDER_STATUS.fhir(order.orc.field(5)) is None:
        raise wrong(order.orc, 5, "the order status is none of table 0038", code=103)


async def _number_assigned(order: Order, _batch: Batch) -> Resource:
    """NA: the placer's number for an order that was born here, which our number names."""
    given = filler_ei(order)
    if given is None:
        raise missing(order.orc, 3, "the filler order number")
    segment, ei = given
    number = entity_identifier(ei, "FILL", order.sender.authority)
    found = await order_numbers.by_filler_number(order.unit, number, own=ei.namespace in {"", OWN})
    if found is None:
        raise UnknownOrder(*wrong(segment, 3, "no order has this filler order number", code=204).errors)
    if order.message.first("PID") is not None:
        await _check_patient(order, found)
    await order_changes.number_by_placer(order.unit, found, placer_number(order))
    return found


async def _results_follow(_order: Order, _batch: Batch) -> None:
    """RE: a hint that results follow. They come as ORU."""


CONTROLS: Final[dict[str, Control]] = {
    "NW": Control(new, "OK", "UA"),
    "CA": Control(_on_existing(_cancel), "CR", "UC", waits=True),
    "DC": Control(_on_existing(_discontinue), "DR", "UD", waits=True),
    "HD": Control(_on_existing(_hold), "HR", "UH", waits=True),
    "RL": Control(_on_existing(_release), "OR", "UR", waits=True),
    "XO": Control(_on_existing(_change), "XR", "UX", waits=True),
    "RP": Control(_replace, "RQ", "UM"),
    "RO": Control(_replacement, "RO", "UM"),
    "SC": Control(_on_existing(_status), "", "UX", waits=True),
    "SS": Control(_on_existing(_nothing), "SR", "UX"),
    "NA": Control(_number_assigned, "", ""),
    "PA": Control(_parent, "PA", "UA"),
    "CH": Control(_child, "CH", "UA"),
    "RE": Control(_results_follow, "", ""),
}
_FILLERS = frozenset("OK UA CR UC OC DR UD OD HR UH OH OR UR OE RQ UM RU XR UX XX SR SN AF DE DF FU PR PY RR UF UN CN".split())


def control_of(order: Order) -> Control:
    """What ORC-1 asks for. Refused, with a text that says why, for what is no order control, or is a filler's to say."""
    code = order.orc.field(1).strip().upper()
    if not code:
        raise missing(order.orc, 1, "the order control code")
    if found := CONTROLS.get(code):
        return found
    text = f"order control {code[:10]} is not supported"
    if ORDER_STATUS.fhir(code):
        text = f"{code} is an order status (ORC-5, table 0038), not an order control; send SC in ORC-1 and {code} in ORC-5"
    elif code in _FILLERS:
        text = f"order control {code} is what a filler tells a placer, and this system is the filler"
    raise wrong(order.orc, 1, text, code=103)


def unknown_order(order: Order) -> Shown:
    """What people are shown of a message about an order that isn't here."""
    number = entity(placer_segment(order), 2, "PLAC", order.sender) if has_placer(order) else None
    named_ = (number or {}).get("value", "an order that it doesn't name")
    code = order.orc.field(1).strip().upper()[:10]
    message = f"Message {order.message.control_id[:50]} of {order.sender.application} ({code})"
    return Shown("unknown-order", readable(f"{message} is about {named_}, which isn't here", 1000))
