"""What a person of the department decides about an order: `$accept`, `$reject`, `$hold`, `$cancel` on a ServiceRequest.

POST ServiceRequest/[id]/$accept, and so on, with Parameters:
    reason       why: valueCodeableConcept, valueCoding or valueString; needed, but for an order that nothing was found about
    group        valueBoolean: all orders of its requisition
    replacement  ($cancel) what takes its place: a ServiceRequest in `resource`, or valueReference to one that is a draft
It answers Parameters: `order` (valueReference), each order that was changed, and `replacement`.

The reason stays on the order (request-statusReason) as long as it is in the status, and goes to the placer with it (ORC-16). Who
decided, and when, is noted beside it (`coverage/marks.py`).
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from fhir_server import audit, clock
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target, ref
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import (
    department_operation,
    order_door,
    order_groups,
    order_verdict,
    service_request,
    status_reason,
    task,
    terms,
    work_items,
)
from resources.coverage import marks
from resources.department_operation import seen

Reason = Resource | None
_DEFINITION: Final = "urn:fhir-ris:OperationDefinition/ServiceRequest-"
INSTANCE: Final = frozenset[Level]({"instance"})
TYPES: Final = frozenset({"ServiceRequest"})
_NEEDS: Final = {"ServiceRequest": "u"}
_ENDED: Final = frozenset({"revoked", "completed", "entered-in-error"})
_WHERE: Final = "ServiceRequest.status"


async def accept(unit: UnitOfWork, order: Resource, reason: Reason, by: Resource) -> None:
    """A draft, or an order that is held, goes on. What was found about it is settled with that: it needs a reason.

    Of an order that went on with findings, these are settled, and the order says by whom; without a reason nothing is changed.
    """
    if order["status"] not in {"draft", "on-hold", "active"}:
        raise fail("business-rule", f"the order is {order['status']} and can't be accepted any more", _WHERE)
    items = await unit.search("Task", focus=f"ServiceRequest/{order['id']}", intent="order")
    found = [i for i in items if i["status"] in task.OPEN and order_verdict.kinds_of(i)]
    if order["status"] != "active":
        if reason is None and (found or await _is_odd(unit, order)):
            text = "something was found about this order: to accept it all the same needs a reason"
            raise fail("business-rule", text, "Parameters.parameter")
        order_door.settled(unit, order["id"])
        await _put(unit, order, "active", reason, by)
        await unit.react()
    elif found and reason:
        await _note(unit, order, by)
    for item in found if reason else ():
        now = await unit.read("Task", item["id"]) or item
        await unit.update(now | {"status": "completed", "statusReason": reason})


async def _is_odd(unit: UnitOfWork, order: Resource) -> bool:
    """Whether a draft, judged now, would not just be taken: time goes by, and the catalogue changes."""
    patient = await unit.get(order["subject"])
    if order["status"] != "draft" or patient is None:
        return False
    verdict = await order_verdict.judge(unit, order, patient)
    return bool(verdict.refused or verdict.held)


async def reject(unit: UnitOfWork, order: Resource, reason: Reason, by: Resource) -> None:
    """An order that was not accepted ends. One that was is cancelled."""
    if order["status"] not in {"draft", "on-hold", "revoked"}:
        raise fail("business-rule", f"the order is {order['status']}: what was accepted can be cancelled, not rejected", _WHERE)
    if order["status"] == "on-hold" and await _was_accepted(unit, order):
        raise fail("business-rule", "the order was accepted before it was held: it can be cancelled, not rejected", _WHERE)
    await _end(unit, order, reason, by)


async def _was_accepted(unit: UnitOfWork, held: Resource) -> bool:
    """Whether an order that is on hold was planned before, and isn't held for what was found when it came."""
    if any(order_verdict.kinds_of(item) for item in await order_door.held_for(unit, held)):
        return False
    return any(p["status"] != "draft" for p in await service_request.procedures_of(unit, held["id"]))


async def hold(unit: UnitOfWork, order: Resource, reason: Reason, by: Resource) -> None:
    """Off the worklist until the department accepts it; a work item tells why."""
    if order["status"] not in {"draft", "active", "on-hold"}:
        raise fail("business-rule", f"the order is {order['status']} and can't be held", _WHERE)
    order_door.settled(unit, order["id"])  # what was found about a draft stands, and is looked at when it is accepted
    held = await _put(unit, order, "on-hold", reason, by)
    await unit.react()
    if not await order_door.held_for(unit, held):
        about, patient = f"ServiceRequest/{order['id']}", order["subject"].get("reference")
        item = await work_items.open_work_item(unit, terms.ORDER_HOLD, "The department holds this order", about, patient)
        await unit.update(item | {"reasonCode": reason})


async def cancel(unit: UnitOfWork, order: Resource, reason: Reason, by: Resource) -> None:
    """Nothing has begun: the order ends, and all that hangs on it. Refused once something has."""
    await _end(unit, order, reason, by)


async def _end(unit: UnitOfWork, order: Resource, reason: Reason, by: Resource) -> None:
    if order["status"] == "revoked":
        return
    if order["status"] not in {"draft", "active", "on-hold"}:
        raise fail("business-rule", f"the order is {order['status']} and can't become revoked", _WHERE)
    await _put(unit, order, "revoked", reason, by)
    await unit.react()


async def _put(unit: UnitOfWork, order: Resource, status: str, reason: Reason, by: Resource) -> Resource:
    return await _note(unit, status_reason.put(order, reason) | {"status": status}, by)


async def _note(unit: UnitOfWork, order: Resource, by: Resource) -> Resource:
    """Write the order, and who decided on it now."""
    said = [{"url": "by", "valueReference": by}, {"url": "at", "valueInstant": clock.instant(unit.now)}]
    return await marks.mark(unit, order, marks.DECISION, {"extension": said})


Decide = Callable[[UnitOfWork, Resource, Reason, Resource], Awaitable[None]]


async def _run(name: str, decide: Decide, call: Call) -> Answer:
    """FhirError 403 for who may not, 404 for what isn't there, 412 for another version, 422 and 409 for what can't be."""
    takes = {"reason", "group"} | ({"replacement"} if name == "cancel" else set())
    arguments.check_body(name, call.body, frozenset(takes))
    await department_operation.require(call, f"order-{name}", _NEEDS)
    if name == "accept" and not (call.access.person or call.access.internal):
        raise fail("forbidden", "an order is accepted by a person of the department: what was found about it is theirs to judge")
    reason, whole = reason_of(call), _whole(call)
    if reason is None and name != "accept":
        raise fail("required", f"${name} needs a reason", "Parameters.parameter", status=400)

    async def work(unit: UnitOfWork) -> Resource:
        order = await the_order(unit, call)
        by = await decider(unit, call)
        with unit.as_department():
            group = await order_groups.group(unit, order) if whole else [order]
            # Of a group those that have ended stay as they are; the one that is named is decided on, or refused.
            orders = [one for one in group if one["id"] == order["id"] or one["status"] not in _ENDED]
            for one in orders:
                await decide(unit, await unit.read("ServiceRequest", one["id"]) or one, reason, by)
        heir = await _replacement(unit, call, order) if name == "cancel" else []
        rows = [*(("order", f"ServiceRequest/{one['id']}") for one in orders), *(("replacement", h) for h in heir)]
        return department_operation.answer(rows)

    named = audit.seen([f"ServiceRequest/{call.id}"])
    return Answer(await call.interactions.transact(call.access, call.act, work, named))


async def the_order(unit: UnitOfWork, call: Call) -> Resource:
    """The imaging order that the operation is called on, as the caller sees it; of a requested procedure there is none."""
    order = await seen(unit, Target("ServiceRequest", str(call.id)), "u")
    if not service_request.is_order(order):
        raise fail("business-rule", "this is for imaging orders (ServiceRequest of intent order)", "ServiceRequest.intent")
    return order


async def decider(unit: UnitOfWork, call: Call) -> Resource:
    """Who decides: a Reference, to nothing but a login where there is no more of a person."""
    by = department_operation.who(call)
    if "reference" not in by or await unit.get(by):
        return by
    return {"display": call.access.user_name or call.access.client_id}


async def _replacement(unit: UnitOfWork, call: Call, order: Resource) -> list[str]:
    """Have the replacement, if there is one, take the order's place; its reference. It is the caller's to write."""
    given = list(arguments.parts(call.body, "replacement"))
    if not given:
        return []
    if isinstance(given[0].get("resource"), dict):
        new = given[0]["resource"]
        if new.get("resourceType") != "ServiceRequest":
            raise fail("value", "the replacement is a ServiceRequest", "Parameters.parameter", status=400)
        call.access.require("ServiceRequest", "c")
        stored = await unit.create(new | {"replaces": [ref(order)]})
    else:
        to = department_operation.reference(call, "replacement", "ServiceRequest")
        draft = await seen(unit, to) if to else {}
        if draft.get("status") != "draft":
            raise fail("business-rule", "an order that takes the place of another is a draft, or new", "ServiceRequest.status")
        stored = await unit.update(draft | {"status": "active", "replaces": [*draft.get("replaces", ()), ref(order)]})
    await unit.react()
    return [f"ServiceRequest/{stored['id']}"]


def _whole(call: Call) -> bool:
    """The parameter `group`."""
    given = [part.get("valueBoolean") for part in arguments.parts(call.body, "group")]
    if len(given) > 1 or not all(isinstance(value, bool) for value in given):
        raise fail("value", "group is one valueBoolean", "Parameters.parameter", status=400)
    return any(given)


def reason_of(call: Call) -> Reason:
    """The parameter `reason` as a CodeableConcept. FhirError 400 for anything else."""
    given: list[dict[str, Any]] = list(arguments.parts(call.body, "reason"))
    if not given:
        return None
    one = given[0]
    found: Any = one.get("valueCodeableConcept")
    if "valueCoding" in one:
        found = {"coding": [one["valueCoding"]]}
    elif "valueString" in one:
        found = {"text": one["valueString"]}
    if len(given) > 1 or not isinstance(found, dict) or not (found.get("coding") or found.get("text")):
        text = "reason is one valueCodeableConcept, valueCoding or valueString"
        raise fail("value", text, "Parameters.parameter", status=400)
    return found


def register(registry: Registry) -> None:
    """Offer them."""
    for name, decide in {"accept": accept, "reject": reject, "hold": hold, "cancel": cancel}.items():
        run = partial(_run, name, decide)
        registry.operation(Operation(name, _DEFINITION + name, INSTANCE, run, TYPES, affects_state=True))
