"""`ServiceRequest/[id]/$override-authorization`: somebody who may says that an order is booked without the payer's authorization.

POST with Parameters:
    reason   string, 10 to 500 characters: why
It answers Parameters: `order`, `provenance` and `closed` (work items), each a valueReference. The order (or the one requested
procedure that was named) is marked with reason, person and time (`marks.py`), for whoever books or bills it to see.

For people in the roles that may (`smart_auth/roles.py`) with a scope to update ServiceRequest, and backend clients with it.
"""

from typing import Final

from fhir_server import audit, clock
from fhir_server.elements import concept
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target, ref
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation, service_request, work_items
from resources.coverage import authorized, booking, marks
from resources.security_labels import labelled

NAME: Final = "override-authorization"
ACTIVITY: Final = "urn:fhir-ris:activity"  # system of Provenance.activity
_SHORTEST: Final = 10
_LONGEST: Final = 500
_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_OPEN: Final = frozenset({"draft", "active", "on-hold"})


def register(registry: Registry) -> None:
    """Offer it."""
    levels = frozenset[Level]({"instance"})
    types = frozenset({"ServiceRequest"})
    definition = "urn:fhir-ris:OperationDefinition/override-authorization"
    registry.operation(Operation(NAME, definition, levels, override, types, affects_state=True, parameters={"reason": "string"}))


async def override(call: Call) -> Answer:
    """FhirError 400 without a reason, 403 for who may not, 404 for what isn't there, 422 where none is needed (any more)."""
    arguments.check_body(NAME, call.body, frozenset({"reason"}))
    await department_operation.require(call, NAME, {"ServiceRequest": "u"})
    reason = (arguments.one(call, "reason") or "").strip()
    if not _SHORTEST <= len(reason) <= _LONGEST:
        text = f"reason says why it is booked without an authorization, in {_SHORTEST} to {_LONGEST} characters"
        raise fail("required" if not reason else "value", text, "Parameters.parameter", status=400)
    to = Target("ServiceRequest", str(call.id))

    async def work(unit: UnitOfWork) -> list[tuple[str, str]]:
        request = await department_operation.seen(unit, to, "u")
        with unit.as_department():
            return await _override(unit, request, reason, department_operation.who(call))

    return Answer(
        department_operation.answer(await call.interactions.transact(call.access, call.act, work, audit.seen([str(to)])))
    )


async def _override(unit: UnitOfWork, request: Resource, reason: str, who: Resource) -> list[tuple[str, str]]:
    if request["status"] not in _OPEN or not (service_request.is_order(request) or service_request.is_procedure(request)):
        raise fail(
            "business-rule", f"the order is {request['status']}: nothing is booked for it any more", "ServiceRequest.status"
        )
    procedures = await service_request.procedures_of(unit, request["id"]) or [request]
    if not [p for p in procedures if await authorized.wanted(unit, p)]:
        raise fail("business-rule", "by the catalogue, nothing of this order needs an authorization", "ServiceRequest.code")
    said = [
        {"url": "reason", "valueString": reason},
        {"url": "by", "valueReference": who},
        {"url": "at", "valueInstant": clock.instant(unit.now)},
    ]
    marked = await marks.mark(unit, request, marks.OVERRIDE, {"extension": said})
    made = await unit.create(labelled(_provenance(unit, marked, reason, who), marked))
    rows = [("order", ref(marked)["reference"]), ("provenance", ref(made)["reference"])]
    for about in (marked, *procedures):
        for item in await work_items.open_items(unit, ref(about)["reference"], booking.MISSING):
            await unit.update(item | {"status": "completed", "statusReason": {"text": f"settled by ${NAME}"}})
            rows.append(("closed", ref(item)["reference"]))
    return rows


def _provenance(unit: UnitOfWork, request: Resource, reason: str, who: Resource) -> Resource:
    patient = request["subject"]
    return {
        "resourceType": "Provenance",
        "target": [ref(request), *([patient] if "reference" in patient else [])],
        "recorded": clock.instant(unit.now),
        "activity": concept(ACTIVITY, NAME, "Booked without the payer's authorization"),
        "reason": [{"text": reason}],
        "agent": [{"type": concept(_AGENT, "author"), "who": who}],
    }
