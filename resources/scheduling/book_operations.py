"""`Appointment/$hold` (IHE ITI-116) and `Appointment/$book` (ITI-117), on what `$find` has proposed or at a chosen time."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import FhirError, Issue, fail, operation_outcome
from fhir_server.references import Target, target
from fhir_server.registry import Registry, Resource
from fhir_server.staging import refuse_invalid
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, department_operation
from resources.scheduling import bookings, finding, proposals
from resources.scheduling.find_operation import next_free
from resources.scheduling.question import Question

_NEEDS: Final = {"Appointment": "cu"}
_IHE: Final = "https://profiles.ihe.net/ITI/Scheduling/OperationDefinition/appointment-"
PROPOSAL: Final = "urn:fhir-ris:proposal"  # extension on OperationOutcome.issue: an Appointment that can be booked instead
_OFFERED: Final = 5

Stored = Callable[[], list[Resource]]
Run = Callable[[UnitOfWork, Sequence[Resource]], Awaitable[list[Resource]]]


def register(registry: Registry) -> None:
    of, level = frozenset({"Appointment"}), frozenset[Level]({"type"})
    registry.operation(Operation("hold", f"{_IHE}hold", level, hold, of, affects_state=True))
    registry.operation(Operation("book", f"{_IHE}book", level, book, of, affects_state=True))


async def hold(call: Call) -> Answer:
    """The Appointments of the visit, `pending`. FhirError 404; an OperationOutcome with 409 when its time is gone."""
    arguments.check_body("hold", call.body, frozenset({"appointment-reference"}))
    await department_operation.require(call, "appointment-hold", _NEEDS)
    return await _on_proposal(call, bookings.hold)


async def book(call: Call) -> Answer:
    """The Appointments of the visit, `booked`. With `appointment-resource`: that one booked, moved or cancelled (IHE)."""
    names = frozenset({"appointment-reference", "appointment-resource", "comment", "overbook", "displace"})
    arguments.check_body("book", call.body, names)
    await department_operation.require(call, "appointment-book", _NEEDS)
    comment, overbook, displace = (arguments.one(call, name) for name in ("comment", "overbook", "displace"))
    if (overbook or displace) and call.access.restricted and not call.access.person:
        raise fail("forbidden", "overbooking and displacing are for the department's people and systems")

    async def run(unit: UnitOfWork, visit: Sequence[Resource]) -> list[Resource]:
        return await bookings.book(unit, visit, comment=comment, overbook=overbook, displace=displace)

    given = [p.get("resource") for p in arguments.parts(call.body, "appointment-resource")]
    if not given:
        return await _on_proposal(call, run)
    if len(given) > 1 or not isinstance(given[0], dict) or given[0].get("resourceType") != "Appointment":
        raise fail("structure", "appointment-resource is one Appointment", "Parameters.parameter", status=400)
    return await _on_resource(call, given[0], run, comment)


async def _on_proposal(call: Call, run: Run) -> Answer:
    named = department_operation.reference(call, "appointment-reference", "Appointment")
    if named is None:
        raise fail("required", "appointment-reference says which of the proposed ones", "Parameters.parameter", status=400)
    kept = await proposals.of(call.interactions.store.db, named.id)

    async def work(unit: UnitOfWork) -> Stored:
        visit = kept[0] if kept else await _stored_visit(unit, named)
        await _require_seen(unit, visit)
        with unit.as_department():
            done = await run(unit, visit)
        return lambda: [unit.final(one) for one in done]

    try:
        stored = await call.interactions.transact(call.access, call.act, work)
    except FhirError as refusal:
        if refusal.status != 409:
            raise
        return await _too_late(call, refusal, kept[1] if kept else None)
    return Answer(_searchset(call, stored()))


async def _stored_visit(unit: UnitOfWork, named: Target) -> list[Resource]:
    """A held or proposed Appointment, with the others of its visit. FhirError 404."""
    one = await unit.seen("Appointment", named.id, "u")
    if one is None:
        raise fail("not-found", f"there is no {named}: it was never proposed, or too long ago")
    visit = next((i["value"] for i in one.get("identifier", ()) if i.get("system") == finding.VISIT), None)
    if visit is None:
        return [one]
    return await unit.search("Appointment", identifier=f"{finding.VISIT}|{visit}", status=one["status"])


async def _require_seen(unit: UnitOfWork, visit: Sequence[Resource]) -> None:
    """The caller sees the orders and the patients that these are for. FhirError 404."""
    for one in visit:
        whom = [Target("ServiceRequest", id_) for id_ in appointment.orders(one)]
        whom += [to for p in one.get("participant", ()) if (to := target(p.get("actor"))) and to.type == "Patient"]
        for to in whom:
            await department_operation.seen(unit, to)


async def _on_resource(call: Call, given: Resource, run: Run, comment: str | None) -> Answer:
    """IHE ITI-117: `pending` without an id is booked, `booked` with an id is changed, `cancelled` with an id is cancelled."""
    refuse_invalid(given | ({"end": given["start"]} if "start" in given and "end" not in given else {}))
    status, id_ = given.get("status"), given.get("id")

    async def work(unit: UnitOfWork) -> Stored:
        await _require_seen(unit, [given])
        if id_ is not None and await unit.seen("Appointment", str(id_), "u") is None:
            raise fail("not-found", f"there is no Appointment/{str(id_)[:64]}")
        stored = await unit.read("Appointment", str(id_)) if id_ is not None else None
        if status == "booked" and stored is not None:
            done = [await unit.update(given | ({"comment": comment} if comment else {}))]
        elif status == "pending" and stored is None:
            with unit.as_department():
                done = await run(unit, [given])
        elif status == "cancelled" and stored is not None:
            with unit.as_department():
                done = await bookings.cancel(unit, stored, "other", comment or "Cancelled by the booking system", again=False)
        else:
            text = "an appointment-resource is pending (a new one), or booked or cancelled (with its id)"
            raise fail("value", text, "Appointment.status", status=400)
        return lambda: [unit.final(one) for one in done]

    return Answer(_searchset(call, (await call.interactions.transact(call.access, call.act, work))()))


def _searchset(call: Call, shown: Sequence[Resource]) -> Resource:
    entries = [{"fullUrl": f"{call.base_url}/Appointment/{a['id']}", "resource": a, "search": {"mode": "match"}} for a in shown]
    return {"resourceType": "Bundle", "type": "searchset", "total": len(shown), "entry": entries}


async def _too_late(call: Call, refusal: FhirError, question: Question | None) -> Answer:
    """409 with what is free now: each an issue that says it in words and refers to the proposal.

    IHE ITI-116 asks for a fatal issue `not-found` when what was proposed can't be had any more.
    """
    outcome = operation_outcome(*refusal.issues, Issue("not-found", "what was proposed can't be had any more", severity="fatal"))
    if question is not None:
        found = await next_free(call, replace(question, count=_OFFERED))
        for visit in found.visits:
            told = "; ".join(f"{a['start']} to {a['end']}, {', '.join(_stations(a))}" for a in visit)
            issue = Issue("informational", f"free: {told}", severity="information").as_fhir()
            issue["extension"] = [{"url": PROPOSAL, "valueReference": {"reference": f"Appointment/{visit[0]['id']}"}}]
            outcome["issue"].append(issue)
    return Answer(outcome, refusal.status)


def _stations(one: Resource) -> list[str]:
    actors = [p["actor"] for p in one["participant"] if str(p["actor"].get("reference", "")).startswith("Device/")]
    return [actor.get("display") or actor["reference"] for actor in actors]
