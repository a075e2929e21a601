"""An order that comes in by FHIR: judged like one that comes by HL7 v2 (`order_verdict.py`), then refused, held or taken.

It is judged when it comes, whether as a draft or accepted; as long as it is a draft whenever it changes; and when it is a draft
no more. A draft waits in the inbox with what was found; one that is to be held and comes as active becomes on-hold.

For a record that isn't active nothing is ordered, by HL7 v2 neither (`bridges/v2/patient_in.py`).

What another door has judged by its own agreements (`settled`), or a person by `$accept`, is not judged again.
"""

from typing import Final
from weakref import WeakKeyDictionary

from fhir_server.elements import has_code
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.references import Target
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import order_verdict, task, terms
from resources.order_verdict import Verdict
from smart_auth.roles import role

# What of a draft is judged again when it changes.
_JUDGED: Final = (
    "code", "instantiatesCanonical", "reasonCode", "reasonReference", "occurrenceDateTime", "occurrencePeriod",
    "occurrenceTiming", "authoredOn", "replaces",
)  # fmt: skip
_ISSUES: Final = {
    "unknown-procedure": "code-invalid",
    "missing-reason": "required",
    "duplicate-order": "duplicate",
    "implausible-date": "value",
}
_settled: "WeakKeyDictionary[UnitOfWork, set[str]]" = WeakKeyDictionary()


def settled(unit: UnitOfWork, order_id: str) -> None:
    """This transaction has judged the order already: by another door's agreements, or as a person's decision."""
    _settled.setdefault(unit, set()).add(order_id)


def _is_settled(unit: UnitOfWork, order_id: str) -> bool:
    return order_id in _settled.get(unit, ())


async def receive(unit: UnitOfWork, change: Change, order: Resource) -> bool:
    """Judge an order that comes in. False when it is held instead of being accepted. FhirError for one that is refused."""
    if not _comes(change, order) or _is_settled(unit, change.id):
        return True
    patient = await unit.get(order["subject"])
    if patient is None:
        return True  # there is no such patient: the reference is refused, or nobody minds it
    if not patient.get("active", True):
        place = unit.places.get(Target("ServiceRequest", change.id), "ServiceRequest")
        raise fail("business-rule", "the record of this patient is not active", f"{place}.subject")
    verdict = await order_verdict.judge(unit, order, patient)
    if verdict.refused:
        raise _refusal(unit, change.id, verdict)
    items = [] if change.before is None else await unit.search("Task", focus=f"ServiceRequest/{change.id}", intent="order")
    held = order["status"] == "active" and not order_verdict.settled_holds(verdict, items)
    if held:
        await unit.update(order | {"status": "on-hold"})
    await order_verdict.show(unit, order, verdict)
    return not held


def _comes(change: Change, order: Resource) -> bool:
    before = change.before
    if before is None:
        return order["status"] in {"draft", "active", "on-hold"}
    if before.get("status") != "draft":
        return False
    return order["status"] in {"active", "on-hold"} or (
        order["status"] == "draft" and any(before.get(e) != order.get(e) for e in _JUDGED)
    )  # fmt: skip


def _refusal(unit: UnitOfWork, order_id: str, verdict: Verdict) -> FhirError:
    """All that the order is refused for. 409 for a duplicate, 422 for the rest."""
    place = unit.places.get(Target("ServiceRequest", order_id), "ServiceRequest")
    issues = [Issue(_ISSUES[f.kind], f.text, f.element.replace("ServiceRequest", place, 1)) for f in verdict.refused]
    return FhirError(*issues, status=409 if all(i.code == "duplicate" for i in issues) else 422)


async def check_release(unit: UnitOfWork, change: Change) -> None:
    """What the department holds goes on when the department says so, not when its placer does. FhirError `business-rule`."""
    before, order = change.before, change.after
    if before is None or order is None or (before["status"], order["status"]) != ("on-hold", "active"):
        return
    known = role(unit.access.role)
    if unit.access.internal or _is_settled(unit, change.id) or (known is not None and known.calls("order-accept")):
        return
    if await held_for(unit, order):
        text = "the order is held until a person of the department has looked at it"
        raise fail("business-rule", text, "ServiceRequest.status")


async def check_item(unit: UnitOfWork, change: Change) -> None:
    """The work item that holds an order is settled, or made another, by who may accept the order. FhirError `forbidden`."""
    before, after = change.before, change.after or {}
    if before is None or not _holds(before) or not unit.is_callers or unit.access.internal:
        return
    known = role(unit.access.role)
    still = _holds(after) and after.get("focus") == before.get("focus")
    if not still and not (known is not None and known.calls("order-accept")):
        text = "an order that the department holds is released, and its work item settled, by who may accept orders"
        raise fail("forbidden", text, "Task.status")


def _holds(item: Resource) -> bool:
    return item.get("status") in task.OPEN and has_code(item.get("code"), terms.TASK_CODE, terms.ORDER_HOLD)


async def held_for(unit: UnitOfWork, order: Resource) -> list[Resource]:
    """The open work items that hold an order until a person of the department has looked at it."""
    hold = f"{terms.TASK_CODE}|{terms.ORDER_HOLD}"
    found = await unit.search("Task", focus=f"ServiceRequest/{order['id']}", code=hold)
    return [item for item in found if item["status"] in task.OPEN]


async def leave(unit: UnitOfWork, order: Resource) -> None:
    """The order waits no more: nobody need look at it before it goes on, nor, if it has ended, at what was found."""
    ended = order["status"] != "active"
    for item in await unit.search("Task", focus=f"ServiceRequest/{order['id']}", intent="order"):
        holds = has_code(item.get("code"), terms.TASK_CODE, terms.ORDER_HOLD)
        if item["status"] in task.OPEN and (holds or (ended and order_verdict.kinds_of(item))):
            await unit.update(item | {"status": "completed"})
    if ended:
        await order_verdict.no_longer_double(unit, order)
