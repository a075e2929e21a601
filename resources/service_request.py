"""ServiceRequest: the order (intent `order`) and its requested procedures (intent `filler-order`, based on the order)."""

from fhir_server import foresight
from fhir_server.elements import concept, has_code, identifier_value
from fhir_server.foresight import Asked
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import numbering, order_door, order_groups, order_numbers, order_plan, task, terms
from resources.identifiers import keep, of_system
from resources.lifecycle import check_status, check_unchanged, lifecycle
from resources.requested_procedure import end_study, nothing_open, order_goes_on, reported
from resources.security_labels import labels, pass_on

# What of an accepted order still reaches its requested procedures, and what can't change any more.
_PASSED_ON = tuple(e for e in order_plan.INHERITED if e not in {"code", "subject", "bodySite", "orderDetail"})
_SETTLED = ("code", "bodySite", "orderDetail")


def is_order(request: Resource) -> bool:
    """Whether this is an imaging order."""
    return request.get("intent") == "order" and has_code(request.get("category"), terms.SNOMED, terms.IMAGING)


def is_procedure(request: Resource) -> bool:
    """Whether this is a requested procedure."""
    return request.get("intent") == "filler-order"


ORDER = lifecycle(
    "ServiceRequest",
    "order",
    """
    from                   | to               | who                    | needs         | then
    new                    | draft            | staff referrer; v2     |               | is judged, and waits in the inbox
    new                    | active           | staff referrer; v2     | its procedure | is judged, and may be held; gets numbers;
                           |                  |                        |               | requested procedures, studies to be and
                           |                  |                        |               | steps are made; what it replaces ends
    new                    | on-hold          | staff referrer; v2     |               | gets its numbers
    draft unknown          | active           | staff referrer; v2     | its procedure | as a new one
    on-hold                | active           | staff referrer; v2     | its procedure; | procedures go on; steps wait, or are
                           |                  |                        | released      | scheduled as their booking stands
    draft active unknown   | on-hold          | staff referrer; v2     | a step that   | procedures and waiting steps on hold, off
                           |                  |                        | has not begun | the worklist
    draft unknown          | revoked          | staff referrer; v2     |               |
    active on-hold         | revoked          | staff referrer; v2     | nothing begun | procedures revoked; steps, appointments,
                           |                  |                        |               | studies to be cancelled
    active on-hold unknown | completed        | radiologist admin; RIS | all its procedures over, |
                           |                  |                        | one completed |
    unknown                | draft            | staff                  |               |
    *                      | entered-in-error | staff referrer         | nothing begun | as revoked
    """,
    of=is_order,
    needs={"released": order_door.check_release, "all its procedures over, one completed": reported},
)
PROCEDURE = lifecycle(
    "ServiceRequest",
    "requested procedure",
    """
    from                   | to               | who                    | needs          | then
    new                    | draft            | staff; RIS             | the patient of |
                           | on-hold          |                        | its order      |
    new                    | active           | staff; RIS             | the patient of | gets its id, a study to be and a step
                           |                  |                        | its order      |
    draft on-hold unknown  | active           | staff; RIS             | its order goes on | its steps go on; of a draft, as a new
                           |                  |                        |                | one
    draft active unknown   | on-hold          | staff; RIS             |                | its steps on hold, off the worklist
    draft active on-hold   | revoked          | staff; RIS             | nothing under way | its steps, study to be and reading
    unknown                |                  |                        |                | cancelled; what was charged is
                           |                  |                        |                | credited
    active on-hold unknown | completed        | radiologist admin; RIS | nothing open; a signed |
                           |                  |                        | report         |
    unknown                | draft            | staff                  |                |
    *                      | entered-in-error | staff                  | nothing under way | as revoked
    """,
    of=is_procedure,
    needs={"its order goes on": order_goes_on, "nothing open": nothing_open, "a signed report": reported},
)
OTHER = lifecycle(
    "ServiceRequest",
    "other request: a parent of orders, a proposal",
    """
    from    | to                                     | who                | needs | then
    new     | draft active on-hold                   | staff referrer; v2 |       |
    draft   | active on-hold revoked                 | staff referrer; v2 |       |
    active  | on-hold revoked completed              | staff referrer; v2 |       |
    on-hold | active revoked completed               | staff referrer; v2 |       |
    unknown | draft active on-hold revoked completed | staff              |       |
    *       | entered-in-error                       | staff referrer     |       |
    """,
)


async def procedures_of(unit: UnitOfWork, order_id: str) -> list[Resource]:
    """The requested procedures of an order."""
    return await unit.ask(asked_procedures(order_id))


def asked_procedures(order_id: str) -> Asked:
    """What `procedures_of` will ask for, for `View.foresee`."""
    return foresight.asked("ServiceRequest", {"based-on": f"ServiceRequest/{order_id}", "intent": "filler-order"})


async def steps_of(unit: UnitOfWork, request_id: str) -> list[Resource]:
    """The scheduled steps of an order's requested procedures, or of one requested procedure."""
    return await task.steps_of(unit, request_id, *(p["id"] for p in await procedures_of(unit, request_id)))


async def order_of(unit: UnitOfWork, request: Resource | None) -> Resource | None:
    """The order of a requested procedure; an order is its own."""
    if request is None or is_order(request):
        return request
    for reference in request.get("basedOn", ()):
        found = await unit.get(reference)
        if found and found["resourceType"] == "ServiceRequest" and is_order(found):
            return found
    return None


# Rules


async def check(unit: UnitOfWork, change: Change) -> None:
    """What an order and a requested procedure must be, and the numbers that an accepted one gets."""
    request = change.after
    if request is None:
        return
    await check_status(unit, change, ORDER, PROCEDURE, OTHER)
    check_unchanged(change, "intent", "subject")
    if request.get("intent") == "order" and "category" not in request:
        request["category"] = [concept(terms.SNOMED, terms.IMAGING, "Imaging")]
    if not (is_order(request) or is_procedure(request)):
        return
    if request.get("status") == "active" and "code" not in request:
        raise fail("required", "an active imaging order needs the procedure that is ordered", "ServiceRequest.code")
    if not str(request.get("subject", {}).get("reference", "")).startswith("Patient/"):
        raise fail("value", "an imaging order is for a Patient", "ServiceRequest.subject")
    order_numbers.check_lengths(request)
    _check_settled(change, request)
    if is_order(request):
        await _check_order(unit, change, request)
    else:
        await _check_procedure(unit, change, request)


def _check_settled(change: Change, request: Resource) -> None:
    """What is examined doesn't change under a scanner's eyes."""
    if change.before is None or change.before.get("status") not in {"active", "on-hold", "completed"}:
        return
    for element in _SETTLED:
        if change.before.get(element) != request.get(element):
            text = f"the {element} of an accepted order can't be changed; revoke it and order anew"
            raise fail("business-rule", text, f"ServiceRequest.{element}")


async def _check_order(unit: UnitOfWork, change: Change, order: Resource) -> None:
    await order_numbers.check_order(unit, change, order)
    await order_groups.check_requisition(unit, change, order)
    if order.get("status") in {"active", "on-hold"}:
        await order_numbers.assign(unit, order)


async def _check_procedure(unit: UnitOfWork, change: Change, procedure: Resource) -> None:
    keep(change, of_system(terms.REQUESTED_PROCEDURE_ID), "requested procedure id")
    await order_numbers.check_accession_number(unit, change, procedure)
    if change.before is None:
        order = await order_of(unit, procedure)
        if order is not None and order["subject"].get("reference") != procedure["subject"]["reference"]:
            raise fail("business-rule", "the requested procedure is for another patient than its order", "ServiceRequest.subject")
    if procedure.get("status") == "active" and identifier_value(procedure, terms.REQUESTED_PROCEDURE_ID) is None:
        own = await numbering.fresh(unit, terms.REQUESTED_PROCEDURE_ID, procedure)
        procedure["identifier"] = [{"system": terms.REQUESTED_PROCEDURE_ID, "value": own}, *procedure.get("identifier", ())]


# Reactions


async def check_encounter(unit: UnitOfWork, change: Change) -> None:
    """The visit is the patient's. Looked at when all of a transaction is written, the visit too. FhirError `business-rule`."""
    request = change.after
    if request is None or change.redirected or not (is_order(request) or is_procedure(request)):
        return
    if request.get("encounter") in (None, (change.before or {}).get("encounter")):
        return
    visit = await unit.get(request["encounter"])
    if visit is not None and visit.get("subject", {}).get("reference") not in (None, request["subject"].get("reference")):
        raise fail("business-rule", "the encounter is another patient's", "ServiceRequest.encounter")


async def follow(unit: UnitOfWork, change: Change) -> None:
    """An accepted order is planned; hold, release and revocation reach everything that hangs on the order."""
    request = change.after
    if request is None:
        return
    if is_order(request) and order_groups.takes_place(change, request):
        await order_groups.replace(unit, request)
    if is_order(request) and not await order_door.receive(unit, change, request):
        return
    if is_procedure(request) and change.became("status", "active") and (change.before or {}).get("status") in {None, "draft"}:
        await order_plan.plan_procedure(unit, request)
    elif is_order(request) and change.became("status", "active"):
        if change.before and change.before.get("status") == "on-hold":
            await _release(unit, request)
        if not await order_plan.exists(unit, "ServiceRequest", request, intent="filler-order"):
            await order_plan.plan(unit, request)
        elif change.before is not None:
            await _accept_drafts(unit, request)
    elif is_order(request) and change.became("status", "on-hold"):
        await _hold(unit, request)
    elif is_order(request) and change.became("status", "revoked", "entered-in-error"):
        await _revoke(unit, request)
    if is_order(request) and _leaves(change):
        await order_door.leave(unit, request)
    if is_order(request) and change.before and any(change.before.get(e) != request.get(e) for e in _PASSED_ON):
        await _pass_on(unit, change.before, request)
    if is_order(request) and change.before and labels(change.before) != labels(request):
        procedures = await procedures_of(unit, request["id"])
        studies = [s for p in procedures for s in await unit.search("ImagingStudy", basedon=f"ServiceRequest/{p['id']}")]
        await pass_on(unit, request, [*procedures, *studies, *await steps_of(unit, request["id"])])


def _leaves(change: Change) -> bool:
    """Whether an order waits no more, or has ended."""
    before, after = (change.before or {}).get("status"), (change.after or {}).get("status")
    return before not in {None, after} and after in {"active", "revoked", "completed", "entered-in-error"}


async def _pass_on(unit: UnitOfWork, before: Resource, order: Resource) -> None:
    """The order's urgency, reason, people and notes reach its procedures, and the urgency what has not begun.

    Where a procedure says something else than its order did (why it was added), that is its own.
    """
    changed = [e for e in _PASSED_ON if before.get(e) != order.get(e)]
    for procedure in await procedures_of(unit, order["id"]):
        if procedure["status"] in {"active", "on-hold"}:
            shared = [e for e in changed if procedure.get(e) in (None, before.get(e))]
            kept = {e: v for e, v in procedure.items() if e not in shared}
            await unit.update(kept | {e: order[e] for e in shared if e in order})
    for step in await steps_of(unit, order["id"]):
        if step["status"] in task.BEFORE_START and step.get("priority") != order.get("priority", "routine"):
            await unit.update(step | {"priority": order.get("priority", "routine")})


async def _accept_drafts(unit: UnitOfWork, order: Resource) -> None:
    """The requested procedures that a draft came with are accepted with it."""
    for procedure in await procedures_of(unit, order["id"]):
        if procedure["status"] == "draft":
            await unit.update(procedure | {"status": "active"})


def lock_of(order_id: str) -> str:
    """The name of the lock that makes who books an order and who ends or holds it meet."""
    return f"order:{order_id}"


async def _hold(unit: UnitOfWork, order: Resource) -> None:
    """Take what has not begun from the worklist. FhirError `conflict` when all has begun."""
    await unit.lock(lock_of(order["id"]))
    steps = await steps_of(unit, order["id"])
    waiting = [s for s in steps if s["status"] in task.BEFORE_START]
    _refuse_if_begun(steps, "held", unless=bool(waiting))
    for step in waiting:
        await unit.update(step | {"status": "on-hold"})
    for procedure in await procedures_of(unit, order["id"]):
        if procedure["status"] == "active":
            await unit.update(procedure | {"status": "on-hold"})


async def _release(unit: UnitOfWork, order: Resource) -> None:
    """What was on hold goes on as its appointment stands now."""
    for procedure in await procedures_of(unit, order["id"]):
        if procedure["status"] == "on-hold":
            await unit.update(procedure | {"status": "active"})
    for step in await steps_of(unit, order["id"]):
        if step["status"] == "on-hold":
            await unit.update(await task.released(unit, step))


async def _revoke(unit: UnitOfWork, order: Resource) -> None:
    """Cancel all that has not begun. FhirError `conflict` when something has: it can only be stopped at the scanner."""
    await unit.lock(lock_of(order["id"]))
    steps = await steps_of(unit, order["id"])
    _refuse_if_begun(steps, "revoked")
    for step in steps:
        if step["status"] in task.BEFORE_START:
            await unit.update(step | {"status": "cancelled"})
    for procedure in await procedures_of(unit, order["id"]):
        await revoke_procedure(unit, procedure)
    stopped = {task.appointment_of(s) for s in steps if s["status"] == "failed"}  # these are fulfilled
    for appointment in await unit.search("Appointment", based_on=f"ServiceRequest/{order['id']}"):
        if f"Appointment/{appointment['id']}" in stopped:
            continue
        if appointment["status"] in {"proposed", "pending", "booked", "arrived", "checked-in", "waitlist"}:
            await unit.update(appointment | {"status": "cancelled"})


async def revoke_procedure(unit: UnitOfWork, procedure: Resource) -> None:
    """A requested procedure that isn't done any more, with its study to be."""
    if procedure["status"] in {"active", "on-hold", "draft"}:
        await unit.update(procedure | {"status": "revoked"})
    await end_study(unit, procedure)


def _refuse_if_begun(steps: list[Resource], what: str, *, unless: bool = False) -> None:
    for step in steps:
        if step["status"] in {"in-progress", "completed"} and not unless:
            state = "has been started" if step["status"] == "in-progress" else "is done"
            raise fail("conflict", f"the examination {state}: the order can't be {what} any more", "ServiceRequest.status")


async def complete_if_reported(unit: UnitOfWork, procedure: Resource) -> None:
    """The requested procedure has its final report; with the last one the order is completed."""
    if procedure["status"] in {"revoked", "entered-in-error"}:
        return
    if procedure["status"] in {"active", "on-hold"}:
        await unit.update(procedure | {"status": "completed"})
    order = await order_of(unit, procedure)
    if order is None or order["status"] not in {"active", "on-hold"}:
        return
    others = [p for p in await procedures_of(unit, order["id"]) if p["id"] != procedure["id"]]
    if all(p["status"] in {"completed", "revoked", "entered-in-error"} for p in others):
        await unit.update(order | {"status": "completed"})


def register(registry: Registry) -> None:
    registry.rule("ServiceRequest", check)
    registry.reaction("ServiceRequest", check_encounter)
    registry.reaction("ServiceRequest", follow)
    registry.rule("Task", order_door.check_item)
