"""ServiceRequest: the order (intent `order`) and its requested procedures (intent `filler-order`, based on the order)."""

import re
from dataclasses import dataclass

from fhir_server import clock
from fhir_server.elements import concept, has_code, identifier_of_type, identifier_value
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.references import ref
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, imaging_study, task, terms
from resources.identifiers import carriers, escaped, keep, of_system, of_type, same
from resources.lifecycle import check_transition, check_unchanged
from resources.security_labels import labelled, labels, pass_on

# What a requested procedure takes over from its order.
_INHERITED = (
    "priority code subject encounter requester reasonCode reasonReference bodySite orderDetail note occurrenceDateTime"
).split()
# What of it still reaches the requested procedures of an accepted order, and what can't change any more.
_PASSED_ON = tuple(e for e in _INHERITED if e not in {"code", "subject", "bodySite", "orderDetail"})
_SETTLED = ("code", "bodySite", "orderDetail")
_TRANSITIONS = {
    "draft": frozenset({"active", "on-hold", "revoked"}),
    "active": frozenset({"on-hold", "revoked", "completed"}),
    "on-hold": frozenset({"active", "revoked", "completed"}),
    "unknown": frozenset({"draft", "active", "on-hold", "revoked", "completed"}),
}
_OWN = re.compile(r"F[0-9]{9}")


def is_order(request: Resource) -> bool:
    """Whether this is an imaging order."""
    return request.get("intent") == "order" and has_code(request.get("category"), terms.SNOMED, terms.IMAGING)


def is_procedure(request: Resource) -> bool:
    """Whether this is a requested procedure."""
    return request.get("intent") == "filler-order"


class PlacerNumberTaken(FhirError):
    """Another order, `order`, has the placer order number; `name` is what the caller may know it by."""

    def __init__(self, order: Resource, name: str, *, same_patient: bool) -> None:
        whose = "exists already" if same_patient or name.startswith("another") else "exists already, for a different patient"
        text = f"an order with this placer order number {whose}: {name}"
        super().__init__(Issue("duplicate", text, "ServiceRequest.identifier"))
        self.order = order
        self.same_patient = same_patient


def placer_number(order: Resource) -> Resource | None:
    return identifier_of_type(order, terms.V2_0203, "PLAC")


async def by_placer_number(unit: UnitOfWork, placer: Resource) -> Resource | None:
    """The order with this placer order number."""
    for order in await carriers(unit, "ServiceRequest", [placer], intent="order"):
        if order.get("status") != "entered-in-error" and same(placer_number(order) or {}, placer):
            return order
    return None


def accession_number(order: Resource) -> str | None:
    found = identifier_of_type(order, terms.V2_0203, "ACSN")
    return found.get("value") if found else None


async def procedures_of(unit: UnitOfWork, order_id: str) -> list[Resource]:
    """The requested procedures of an order."""
    return await unit.search("ServiceRequest", based_on=f"ServiceRequest/{order_id}", intent="filler-order")


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
    check_transition(change, _TRANSITIONS)
    check_unchanged(change, "intent", "subject")
    if request.get("intent") == "order" and "category" not in request:
        request["category"] = [concept(terms.SNOMED, terms.IMAGING, "Imaging")]
    if not (is_order(request) or is_procedure(request)):
        return
    if request.get("status") == "active" and "code" not in request:
        raise fail("required", "an active imaging order needs the procedure that is ordered", "ServiceRequest.code")
    if not str(request.get("subject", {}).get("reference", "")).startswith("Patient/"):
        raise fail("value", "an imaging order is for a Patient", "ServiceRequest.subject")
    _check_lengths(request)
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


def _check_lengths(request: Resource) -> None:
    for i, identifier in enumerate(request.get("identifier", ())):
        value = str(identifier.get("value", ""))
        if (of_type("PLAC")(identifier) or of_type("FILL")(identifier)) and len(value) > terms.LONG_STRING:
            where = f"ServiceRequest.identifier[{i}].value"
            raise fail("value", "placer and filler order numbers have at most 64 characters", where)
        if (of_type("ACSN")(identifier) or of_system(terms.REQUESTED_PROCEDURE_ID)(identifier)) and (
            len(value) > terms.SHORT_STRING or "\\" in value
        ):
            where = f"ServiceRequest.identifier[{i}].value"
            raise fail("value", "accession numbers and requested procedure ids have at most 16 characters, no backslash", where)


async def _check_order(unit: UnitOfWork, change: Change, order: Resource) -> None:
    for code, name in (("PLAC", "placer order number"), ("FILL", "filler order number"), ("ACSN", "accession number")):
        keep(change, of_type(code), name)
    placer = placer_number(order)
    if placer is not None and not (change.before and placer_number(change.before)):
        await _check_placer_number(unit, change.id, order, placer)
    accession = accession_number(order)
    if accession is not None and not (change.before and accession_number(change.before)):
        await _check_accession_number(unit, order, accession)
    if order.get("status") == "active":
        await _number(unit, order)


async def _check_placer_number(unit: UnitOfWork, own_id: str, order: Resource, placer: Resource) -> None:
    """One placer order number, one order: a second order under it is refused, whoever sends it."""
    await unit.lock(f"placer:{placer.get('value')}")
    other = await by_placer_number(unit, placer)
    if other is not None and other["id"] != own_id:
        same_patient = other["subject"].get("reference") == order["subject"]["reference"]
        raise PlacerNumberTaken(other, await unit.named("ServiceRequest", other["id"]), same_patient=same_patient)


async def _check_accession_number(unit: UnitOfWork, order: Resource, accession: str) -> None:
    """Orders of one patient may share an accession number; with another patient's it would mix up their images."""
    await unit.lock(f"accession:{accession}")
    for other in await unit.search("ServiceRequest", identifier=escaped(accession), intent="order"):
        if accession_number(other) == accession and other["subject"].get("reference") != order["subject"]["reference"]:
            raise fail("duplicate", "the accession number belongs to another patient's order", "ServiceRequest.identifier")


async def _check_procedure(unit: UnitOfWork, change: Change, procedure: Resource) -> None:
    keep(change, of_system(terms.REQUESTED_PROCEDURE_ID), "requested procedure id")
    if change.before is None:
        order = await order_of(unit, procedure)
        if order is not None and order["subject"].get("reference") != procedure["subject"]["reference"]:
            raise fail("business-rule", "the requested procedure is for another patient than its order", "ServiceRequest.subject")
    if procedure.get("status") == "active" and identifier_value(procedure, terms.REQUESTED_PROCEDURE_ID) is None:
        own = {"system": terms.REQUESTED_PROCEDURE_ID, "value": f"R{await unit.next_number('order'):09d}"}
        procedure["identifier"] = [own, *procedure.get("identifier", ())]


async def _number(unit: UnitOfWork, order: Resource) -> None:
    identifiers = order.setdefault("identifier", [])
    missing = [c for c in ("FILL", "ACSN") if identifier_of_type(order, terms.V2_0203, c) is None]
    if not missing:
        return
    number = await unit.next_number("order")
    for code in missing:
        system = terms.FILLER_ORDER_NUMBER if code == "FILL" else terms.ACCESSION_NUMBER
        identifiers.append({"type": concept(terms.V2_0203, code), "system": system, "value": f"{code[0]}{number:09d}"})


# Reactions


async def follow(unit: UnitOfWork, change: Change) -> None:
    """An accepted order is planned; hold, release and revocation reach everything that hangs on the order."""
    request = change.after
    if request is None:
        return
    if is_procedure(request) and change.became("status", "active") and change.before is None:
        await _plan_procedure(unit, request)
    elif is_order(request) and change.became("status", "active"):
        if change.before and change.before.get("status") == "on-hold":
            await _release(unit, request)
        if not await _exists(unit, "ServiceRequest", request):
            await plan(unit, request)
    elif is_order(request) and change.became("status", "on-hold"):
        await _hold(unit, request)
    elif is_order(request) and change.became("status", "revoked", "entered-in-error"):
        await _revoke(unit, request)
    if is_order(request) and change.before and any(change.before.get(e) != request.get(e) for e in _PASSED_ON):
        await _pass_on(unit, request)
    if is_order(request) and change.before and labels(change.before) != labels(request):
        procedures = await procedures_of(unit, request["id"])
        studies = [s for p in procedures for s in await unit.search("ImagingStudy", basedon=f"ServiceRequest/{p['id']}")]
        await pass_on(unit, request, [*procedures, *studies, *await steps_of(unit, request["id"])])


@dataclass(frozen=True, slots=True)
class Assigned:
    """What the placer has assigned already. Empty: ours to assign."""

    procedure_id: str = ""
    study_uid: str = ""
    step_id: str = ""


async def plan(unit: UnitOfWork, order: Resource, assigned: Assigned | None = None) -> Resource:
    """Make the requested procedure of an accepted order, with its study to be and its step."""
    given = assigned or Assigned()
    modality = await activity_definition.modality(unit, order)
    number = await _own_number(unit, order)
    procedure: Resource = {
        "resourceType": "ServiceRequest",
        "identifier": [{"system": terms.REQUESTED_PROCEDURE_ID, "value": given.procedure_id or f"R{number}"}],
        "basedOn": [ref(order)],
        "status": "active",
        "intent": "filler-order",
        "category": order["category"],
        "authoredOn": clock.instant(unit.now),
    }
    procedure = await unit.create(labelled(procedure | {e: order[e] for e in _INHERITED if e in order}, order))
    await unit.create(imaging_study.registered(procedure, given.study_uid))
    await unit.create(task.new_step(procedure, modality, given.step_id or f"S{number}"))
    return procedure


async def _own_number(unit: UnitOfWork, order: Resource) -> str:
    """The digits of the order's own filler number: people then read the same number everywhere. Else new ones."""
    filler = identifier_value(order, terms.FILLER_ORDER_NUMBER) or ""
    return filler.removeprefix("F") if _OWN.fullmatch(filler) else f"{await unit.next_number('order'):09d}"


async def _plan_procedure(unit: UnitOfWork, procedure: Resource) -> None:
    """A requested procedure, whoever made it, has its study to be and at least one step."""
    if not await _exists(unit, "ImagingStudy", procedure):
        await unit.create(imaging_study.registered(procedure))
    if not await _exists(unit, "Task", procedure):
        await unit.create(task.new_step(procedure, await activity_definition.modality(unit, procedure)))


async def _exists(unit: UnitOfWork, resource_type: str, request: Resource) -> bool:
    """Whether something of this type is based on the request. What this transaction makes is seen without a search."""
    made = (c.after for c in unit.changes() if c.type == resource_type and c.after)
    if any(to.get("reference") == f"ServiceRequest/{request['id']}" for r in made for to in r.get("basedOn", ())):
        return True
    parameter = "basedon" if resource_type == "ImagingStudy" else "based-on"
    return bool(await unit.search_all(resource_type, [(parameter, f"ServiceRequest/{request['id']}")]))


async def _pass_on(unit: UnitOfWork, order: Resource) -> None:
    """The order's urgency, reason, people and notes reach its procedures, and the urgency what has not begun."""
    for procedure in await procedures_of(unit, order["id"]):
        if procedure["status"] in {"active", "on-hold"}:
            kept = {e: v for e, v in procedure.items() if e not in _PASSED_ON}
            await unit.update(kept | {e: order[e] for e in _PASSED_ON if e in order})
    for step in await steps_of(unit, order["id"]):
        if step["status"] in task.BEFORE_START and step.get("priority") != order.get("priority", "routine"):
            await unit.update(step | {"priority": order.get("priority", "routine")})


async def _hold(unit: UnitOfWork, order: Resource) -> None:
    """Take what has not begun from the worklist. FhirError `conflict` when all has begun."""
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
            booked = await unit.get(task.appointment_of(step))
            arrived = booked is not None and booked["status"] in {"arrived", "checked-in"}
            scheduled = "owner" in step and "restriction" in step
            await unit.update(step | {"status": "ready" if arrived else "accepted" if scheduled else "requested"})


async def _revoke(unit: UnitOfWork, order: Resource) -> None:
    """Cancel all that has not begun. FhirError `conflict` when something has: it can only be stopped at the scanner."""
    steps = await steps_of(unit, order["id"])
    _refuse_if_begun(steps, "revoked")
    for step in steps:
        if step["status"] in task.BEFORE_START:
            await unit.update(step | {"status": "cancelled"})
    for procedure in await procedures_of(unit, order["id"]):
        if procedure["status"] in {"active", "on-hold", "draft"}:
            await unit.update(procedure | {"status": "revoked"})
        for study in await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}"):
            if study["status"] == "registered" and "series" not in study:
                await unit.update(study | {"status": "cancelled"})
    for appointment in await unit.search("Appointment", based_on=f"ServiceRequest/{order['id']}"):
        if appointment["status"] in {"proposed", "pending", "booked", "arrived", "checked-in", "waitlist"}:
            await unit.update(appointment | {"status": "cancelled"})


def _refuse_if_begun(steps: list[Resource], what: str, *, unless: bool = False) -> None:
    for step in steps:
        if step["status"] in {"in-progress", "completed"} and not unless:
            state = "has been started" if step["status"] == "in-progress" else "is done"
            raise fail("conflict", f"the examination {state}: the order can't be {what} any more", "ServiceRequest.status")


async def complete_if_reported(unit: UnitOfWork, procedure: Resource) -> None:
    """The requested procedure has its final report; with the last one the order is completed."""
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
    registry.reaction("ServiceRequest", follow)
