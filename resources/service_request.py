"""ServiceRequest: the order (intent `order`) and its requested procedures (intent `filler-order`, based on the order)."""

from dataclasses import dataclass

from fhir_server import clock
from fhir_server.elements import concept, has_code, identifier_of_type
from fhir_server.outcome import fail
from fhir_server.references import ref
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, imaging_study, task, terms
from resources.lifecycle import check_transition, check_unchanged

# What a requested procedure takes over from its order.
_INHERITED = (
    "priority code subject encounter requester reasonCode reasonReference bodySite orderDetail note occurrenceDateTime"
).split()
_TRANSITIONS = {
    "draft": frozenset({"active", "on-hold", "revoked"}),
    "active": frozenset({"on-hold", "revoked", "completed"}),
    "on-hold": frozenset({"active", "revoked"}),
    "unknown": frozenset({"draft", "active", "on-hold", "revoked", "completed"}),
}


def is_order(request: Resource) -> bool:
    """Whether this is an imaging order."""
    return request.get("intent") == "order" and has_code(request.get("category"), terms.SNOMED, terms.IMAGING)


def is_procedure(request: Resource) -> bool:
    """Whether this is a requested procedure."""
    return request.get("intent") == "filler-order"


def placer_number(order: Resource) -> dict[str, object] | None:
    return identifier_of_type(order, terms.V2_0203, "PLAC")


def accession_number(order: Resource) -> str | None:
    found = identifier_of_type(order, terms.V2_0203, "ACSN")
    return found.get("value") if found else None


async def procedures_of(unit: UnitOfWork, order_id: str) -> list[Resource]:
    """The requested procedures of an order."""
    return [r for r in await unit.search("ServiceRequest", based_on=f"ServiceRequest/{order_id}") if is_procedure(r)]


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
    """What an order and a requested procedure must be; an accepted order gets its filler order and accession numbers."""
    request = change.after
    if request is None:
        return
    check_transition(change, _TRANSITIONS)
    check_unchanged(change, "intent", "subject")
    if request.get("intent") == "order" and "category" not in request:
        request["category"] = [concept(terms.SNOMED, terms.IMAGING, "Imaging")]
    if not (is_order(request) or is_procedure(request)):
        return
    _check_ids(request)
    if request.get("status") == "active" and "code" not in request:
        raise fail("required", "an active imaging order needs the procedure that is ordered", "ServiceRequest.code")
    if not str(request.get("subject", {}).get("reference", "")).startswith("Patient/"):
        raise fail("value", "an imaging order is for a Patient", "ServiceRequest.subject")
    if is_order(request):
        await _check_placer_number(unit, change, request)
        if request.get("status") == "active":
            await _number(unit, request)


def _check_ids(request: Resource) -> None:
    for i, identifier in enumerate(request.get("identifier", ())):
        short = identifier.get("system") == terms.REQUESTED_PROCEDURE_ID or has_code(
            identifier.get("type"), terms.V2_0203, "ACSN"
        )
        value = str(identifier.get("value", ""))
        if short and (len(value) > terms.SHORT_STRING or "\\" in value):
            where = f"ServiceRequest.identifier[{i}].value"
            raise fail("value", "accession numbers and requested procedure ids have at most 16 characters, no backslash", where)


async def _check_placer_number(unit: UnitOfWork, change: Change, order: Resource) -> None:
    """One placer order number, one order: a second order under it is refused, whoever sends it."""
    placer = placer_number(order)
    if placer is None or (change.before and placer_number(change.before) == placer):
        return
    if change.before and placer_number(change.before):
        raise fail("business-rule", "the placer order number can't be changed", "ServiceRequest.identifier")
    key = f"{placer.get('system', '')}|{placer.get('value', '')}"
    await unit.lock(f"placer:{key}")
    for other in await unit.search("ServiceRequest", identifier=_escape(key), intent="order"):
        if other["id"] != change.id and other.get("status") != "entered-in-error":
            same = other.get("subject", {}).get("reference") == order["subject"]["reference"]
            who = "exists already" if same else "exists already, for a different patient"
            raise fail(
                "duplicate",
                f"an order with this placer order number {who}: ServiceRequest/{other['id']}",
                "ServiceRequest.identifier",
            )


async def _number(unit: UnitOfWork, order: Resource) -> None:
    identifiers = order.setdefault("identifier", [])
    missing = [c for c in ("FILL", "ACSN") if identifier_of_type(order, terms.V2_0203, c) is None]
    if not missing:
        return
    number = await unit.next_number("order")
    for code in missing:
        system = terms.FILLER_ORDER_NUMBER if code == "FILL" else terms.ACCESSION_NUMBER
        identifiers.append({"type": concept(terms.V2_0203, code), "system": system, "value": f"{code[0]}{number:09d}"})


def _escape(token: str) -> str:
    return token.replace("\\", "\\\\").replace(",", "\\,").replace("$", "\\$")


# Reactions


async def follow(unit: UnitOfWork, change: Change) -> None:
    """An accepted order is planned; hold, release and revocation reach everything that hangs on the order."""
    request = change.after
    if request is None:
        return
    if is_procedure(request):
        if change.before is None and request.get("status") == "active":
            await _plan_procedure(unit, request)
        return
    if not is_order(request):
        return
    if change.became("status", "active"):
        if not await procedures_of(unit, request["id"]):
            await plan(unit, request)
        if change.before and change.before.get("status") == "on-hold":
            await _release(unit, request)
    elif change.became("status", "on-hold"):
        await _hold(unit, request)
    elif change.became("status", "revoked", "entered-in-error"):
        await _revoke(unit, request)


@dataclass(frozen=True, slots=True)
class Assigned:
    """What the placer has assigned already. Empty: ours to assign."""

    procedure_id: str = ""
    study_uid: str = ""
    step_id: str = ""


async def plan(unit: UnitOfWork, order: Resource, assigned: Assigned | None = None) -> Resource:
    """Make the requested procedure of an accepted order, with its study to be and its step."""
    given = assigned or Assigned()
    procedure_id = given.procedure_id or f"R{await unit.next_number('procedure'):09d}"
    procedure: Resource = {
        "resourceType": "ServiceRequest",
        "identifier": [{"system": terms.REQUESTED_PROCEDURE_ID, "value": procedure_id}],
        "basedOn": [ref(order)],
        "status": "active",
        "intent": "filler-order",
        "category": order["category"],
        "authoredOn": clock.instant(unit.now),
    }
    procedure = await unit.create(procedure | {e: order[e] for e in _INHERITED if e in order})
    await unit.create(imaging_study.registered(procedure, given.study_uid or imaging_study.new_uid()))
    await _add_step(unit, procedure, given.step_id)
    return procedure


async def _plan_procedure(unit: UnitOfWork, procedure: Resource) -> None:
    """A requested procedure, whoever made it, has its study to be and at least one step."""
    if not await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}"):
        await unit.create(imaging_study.registered(procedure, imaging_study.new_uid()))
    if not await task.steps_of(unit, procedure["id"]):
        await _add_step(unit, procedure)


async def _add_step(unit: UnitOfWork, procedure: Resource, step_id: str = "") -> None:
    step_id = step_id or f"S{await unit.next_number('step'):09d}"
    await unit.create(task.new_step(procedure, step_id, await activity_definition.modality(unit, procedure)))


async def _hold(unit: UnitOfWork, order: Resource) -> None:
    for procedure in await procedures_of(unit, order["id"]):
        for step in await task.steps_of(unit, procedure["id"]):
            if step["status"] in {"requested", "accepted", "ready"}:
                await unit.update(step | {"status": "on-hold"})
        if procedure["status"] == "active":
            await unit.update(procedure | {"status": "on-hold"})


async def _release(unit: UnitOfWork, order: Resource) -> None:
    for procedure in await procedures_of(unit, order["id"]):
        if procedure["status"] == "on-hold":
            await unit.update(procedure | {"status": "active"})
        for step in await task.steps_of(unit, procedure["id"]):
            if step["status"] == "on-hold":
                await unit.update(step | {"status": "accepted" if "owner" in step and "restriction" in step else "requested"})


async def _revoke(unit: UnitOfWork, order: Resource) -> None:
    for procedure in await procedures_of(unit, order["id"]):
        for step in await task.steps_of(unit, procedure["id"]):
            if step["status"] in {"in-progress", "completed"}:
                state = "has been started" if step["status"] == "in-progress" else "is done"
                raise fail("conflict", f"the examination {state}: the order can't be revoked any more", "ServiceRequest.status")
            if step["status"] not in {"cancelled", "failed", "entered-in-error"}:
                await unit.update(step | {"status": "cancelled"})
        if procedure["status"] in {"active", "on-hold", "draft"}:
            await unit.update(procedure | {"status": "revoked"})
        for study in await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}"):
            if study["status"] == "registered":
                await unit.update(study | {"status": "cancelled"})
    for appointment in await unit.search("Appointment", based_on=f"ServiceRequest/{order['id']}"):
        if appointment["status"] in {"proposed", "pending", "booked", "arrived", "checked-in", "waitlist"}:
            await unit.update(appointment | {"status": "cancelled"})


async def complete_if_reported(unit: UnitOfWork, procedure: Resource) -> None:
    """The requested procedure has its final report; with the last one the order is completed."""
    if procedure["status"] in {"active", "on-hold"}:
        await unit.update(procedure | {"status": "completed"})
    order = await order_of(unit, procedure)
    if order is None or order["status"] != "active":
        return
    others = [p for p in await procedures_of(unit, order["id"]) if p["id"] != procedure["id"]]
    if all(p["status"] in {"completed", "revoked", "entered-in-error"} for p in others):
        await unit.update(order | {"status": "completed"})


def register(registry: Registry) -> None:
    registry.rule("ServiceRequest", check)
    registry.reaction("ServiceRequest", follow)
