"""What a placer may ask of an order that is there: cancel, discontinue, hold, release, change, replace (HL7 v2 table 0119).

Each does nothing where it is done already, so that a request that is repeated harms nobody, and is refused with a FhirError
where the order, or its examination, has come too far.
"""

from typing import Final, Literal

from fhir_server.outcome import FhirError, fail
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import order_door, order_numbers, service_request, task, terms, work_items
from resources.identifiers import same

Progress = Literal[
    "draft", "accepted", "scheduled", "started", "examined", "completed", "on-hold", "cancelled", "stopped", "replaced",
    "entered-in-error",
]  # fmt: skip
_OPEN: Final = ("draft", "active", "on-hold")
# What a placer may change of an order that is open. What is examined, and of whom, isn't among it.
CHANGEABLE: Final = (
    "priority", "occurrenceDateTime", "occurrencePeriod", "occurrenceTiming", "reasonCode", "note", "requester", "extension",
    "locationCode", "reasonReference", "supportingInfo", "insurance", "requisition",
)  # fmt: skip
# Of these, what is said is added: a placer that repeats half of them must not take the other half away.
_ADDED: Final = frozenset({"note", "supportingInfo", "insurance"})
_TIMES: Final = frozenset({"occurrenceDateTime", "occurrencePeriod", "occurrenceTiming"})


async def members(unit: UnitOfWork, order: Resource) -> list[Resource]:
    """The order itself, or the orders of a parent (intent `original-order`), which is only what holds them together."""
    if order.get("intent") != "original-order":
        return [order]
    return await unit.search("ServiceRequest", based_on=f"ServiceRequest/{order['id']}", intent="order")


async def cancel(unit: UnitOfWork, order: Resource) -> None:
    """Nothing has begun: the order is revoked, and all that hangs on it. Refused once something has."""
    for member in await members(unit, order):
        await _become(unit, member, "revoked", _OPEN)
    if order.get("intent") == "original-order":
        await _become(unit, order, "revoked", _OPEN)


async def hold(unit: UnitOfWork, order: Resource) -> None:
    """Off the worklist until it is released."""
    for member in await members(unit, order):
        await _become(unit, member, "on-hold", ("draft", "active"))


async def release(unit: UnitOfWork, order: Resource) -> None:
    """A held order goes on. Refused for what the department itself holds, until a person there has looked at it."""
    for member in await members(unit, order):
        if member["status"] == "on-hold" and await order_door.held_for(unit, member):
            text = "the order is held until a person of the department has looked at it"
            raise fail("business-rule", text, "ServiceRequest.status")
        await _become(unit, member, "active", ("on-hold",))


async def _become(unit: UnitOfWork, order: Resource, status: str, only_from: tuple[str, ...]) -> None:
    if order["status"] == status:
        return
    if order["status"] not in only_from:
        raise _impossible(order, status)
    await unit.update(order | {"status": status})


def _impossible(order: Resource, status: str) -> FhirError:
    after = service_request.ORDER.after(order["status"])
    return fail("business-rule", f"the order is {order['status']} and can't become {status} ({after})", "ServiceRequest.status")


async def discontinue(unit: UnitOfWork, order: Resource, reason: str) -> None:
    """Started or not, it ends: what has not begun is cancelled, what is under way is stopped, and the order revoked.

    Of an order that is done in part, the rest is ended; what is done is still to be reported, so the order stays active. Refused
    for what is done already.
    """
    ended = True
    for member in await members(unit, order):
        if member["status"] != "revoked":
            ended &= await _discontinue(unit, member, reason)
    if ended and order.get("intent") == "original-order":
        await _become(unit, order, "revoked", _OPEN)


async def _discontinue(unit: UnitOfWork, order: Resource, reason: str) -> bool:
    """Whether all of it has ended."""
    if order["status"] not in _OPEN:
        raise _impossible(order, "revoked")
    steps = await service_request.steps_of(unit, order["id"])
    done = any(s["status"] == "completed" for s in steps)
    if done and not any(s["status"] in task.OPEN for s in steps):
        text = "the examination is done: the order can't be discontinued any more"
        raise fail("conflict", text, "ServiceRequest.status")
    if done:
        await _end_rest(unit, order, steps)
    else:
        await unit.update(order | {"status": "revoked"})
    for step in steps:
        if step["status"] == "in-progress":
            await _stop(unit, step, reason)
    return not done


async def _end_rest(unit: UnitOfWork, order: Resource, steps: list[Resource]) -> None:
    """What has not begun is cancelled; procedures of which nothing is done are revoked, so the last report ends the order."""
    for step in steps:
        if step["status"] in task.BEFORE_START:
            await unit.update(step | {"status": "cancelled"})
    for procedure in await service_request.procedures_of(unit, order["id"]):
        mine = [s for s in steps if s.get("focus", {}).get("reference") == f"ServiceRequest/{procedure['id']}"]
        if not any(s["status"] == "completed" for s in mine):
            await service_request.revoke_procedure(unit, procedure)


async def _stop(unit: UnitOfWork, step: Resource, reason: str) -> None:
    """The step has failed. A performed step that a scanner reports (MPPS) is the scanner's to end; others end here."""
    await unit.update(step | {"status": "failed", "statusReason": {"text": reason}})
    for output in step.get("output", ()):
        performed = await unit.get(output.get("valueReference"))
        if performed is None or performed["resourceType"] != "Procedure" or performed["status"] not in {"in-progress", "on-hold"}:
            continue
        if not any(i.get("system") == terms.DICOM_UID for i in performed.get("identifier", ())):
            await unit.update(performed | {"status": "stopped", "statusReason": {"text": reason}})


async def change(unit: UnitOfWork, order: Resource, said: Resource, deleted: frozenset[str] = frozenset()) -> Resource:
    """The order with what the placer says of it now; `deleted` are the elements that it takes away.

    What is examined may differ only while the order is a draft. A booked order that is wanted at another time stays booked, and
    becomes a work item: moving a patient takes a person.
    """
    check_open(order)
    _check_same(order, said)
    changed = {e: v for e, v in order.items() if e not in deleted}
    if _TIMES & said.keys():
        changed = {e: v for e, v in changed.items() if e not in _TIMES}
    changeable = (*CHANGEABLE, "code", "orderDetail") if order["status"] == "draft" else CHANGEABLE
    for element in changeable:
        if element not in said:
            continue
        known = changed.get(element, [])
        if element in _ADDED:
            changed[element] = [*known, *(v for v in said[element] if v not in known)]
        elif element == "extension":
            urls = {e["url"] for e in said[element]}
            changed[element] = [*(e for e in known if e["url"] not in urls), *said[element]]
        else:
            changed[element] = said[element]
    stored = await unit.update(_labelled(changed, said))
    if any(order.get(e) != stored.get(e) for e in _TIMES):
        await _show_moved_wish(unit, stored)
    return stored


def check_open(order: Resource) -> None:
    """FhirError for an order that is over."""
    if order["status"] not in _OPEN:
        raise fail("business-rule", f"the order is {order['status']} and can't be changed any more", "ServiceRequest.status")


def _check_same(order: Resource, said: Resource) -> None:
    """FhirError for another procedure or another modality than an accepted order has."""
    if order["status"] == "draft":
        return
    for element, what in (("code", "procedure"), ("orderDetail", "modality")):
        named, known = _codes(said.get(element)), _codes(order.get(element))
        if element == "orderDetail":
            named, known = ({c for c in codes if c[0] == terms.DCM} for codes in (named, known))
        if named and known and not named & known:
            text = f"the {what} of an accepted order can't be changed: replace the order (RP), or cancel it and order anew"
            raise fail("business-rule", text, f"ServiceRequest.{element}")


def _codes(element: object) -> set[tuple[str, str]]:
    concepts = element if isinstance(element, list) else [element]
    codings = [c for one in concepts if isinstance(one, dict) for c in one.get("coding", ())]
    return {(c.get("system", ""), c["code"]) for c in codings if "code" in c}


def _labelled(order: Resource, said: Resource) -> Resource:
    """Confidentiality is only added here; taking it off is a person's decision."""
    labels = order.get("meta", {}).get("security", [])
    more = [label for label in said.get("meta", {}).get("security", ()) if label not in labels]
    return order | {"meta": {**order.get("meta", {}), "security": [*labels, *more]}} if more else order


async def _show_moved_wish(unit: UnitOfWork, order: Resource) -> None:
    steps = await service_request.steps_of(unit, order["id"])
    if any(s["status"] in {"accepted", "ready"} for s in steps):
        text = "The placer wants this order, which is scheduled, at another time"
        await work_items.open_work_item(
            unit, "order-changed", text, f"ServiceRequest/{order['id']}", order["subject"].get("reference")
        )  # fmt: skip


async def replace(unit: UnitOfWork, old: Resource) -> Resource:
    """End an order that another one takes the place of; what that one says of it (`replaces`).

    Refused once it has begun, and where another order has taken its place already.
    """
    if await unit.search("ServiceRequest", replaces=f"ServiceRequest/{old['id']}"):
        raise fail("business-rule", "the order has been replaced already", "ServiceRequest.status")
    if old["status"] == "completed":
        raise fail("business-rule", "the order is completed and can't be replaced any more", "ServiceRequest.status")
    await cancel(unit, old)
    return {"replaces": [ref(old)]}


async def progress(unit: UnitOfWork, order: Resource) -> Progress:
    """How far an order has come, by its status and its steps (DESIGN.md section 3)."""
    status = order["status"]
    ends: dict[str, Progress] = {
        "draft": "draft", "on-hold": "on-hold", "completed": "completed", "entered-in-error": "entered-in-error",
    }  # fmt: skip
    if status in ends:
        return ends[status]
    steps = {s["status"] for s in await service_request.steps_of(unit, order["id"])}
    if status == "revoked":
        return "stopped" if "failed" in steps else "cancelled"
    if "in-progress" in steps:
        return "started"
    if steps & {"accepted", "ready"}:
        return "scheduled"
    return "examined" if "completed" in steps else "accepted"


async def number_by_placer(unit: UnitOfWork, order: Resource, placer: Resource) -> None:
    """Give an order that was born here the number that the placer has for it. FhirError when it has another one."""
    known = order_numbers.placer_number(order)
    if known is None:
        await unit.update(order | {"identifier": [*order.get("identifier", ()), placer]})
    elif not same(known, placer):
        raise fail("duplicate", "the order has another placer order number already", "ServiceRequest.identifier")
