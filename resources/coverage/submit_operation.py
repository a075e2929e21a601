"""`CoverageEligibilityRequest/$submit`: a payer is asked what it covers, and what it authorizes.

    POST CoverageEligibilityRequest/$submit        the resource, or Parameters of `resource` (FHIR R4 12.2): it is stored and sent
    POST CoverageEligibilityRequest/[id]/$submit   our own: a stored one is sent, again perhaps
It answers the CoverageEligibilityResponse. Nothing is sent from the call itself (decision 27): the response is stored with
outcome `queued` and a worker sends; the call waits for the answer a few seconds, and else gives the response as it is, to be read
again.

For people in the roles that may (`smart_auth/roles.py`), with scopes to make the request and read the response, and backend
clients with these scopes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from fhir_server import audit, visibility
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation
from resources.coverage import submission

_TYPE: Final = "CoverageEligibilityRequest"
# How long a call waits for the payer's answer, and between two looks at whether it is there, at least and at most: seconds.
LONGEST_WAIT = 15.0
_LOOKS: Final = (0.02, 0.5)


def register(registry: Registry) -> None:
    """Offer it."""
    types = frozenset({_TYPE})
    standard = "http://hl7.org/fhir/OperationDefinition/CoverageEligibilityRequest-submit"
    registry.operation(Operation("submit", standard, frozenset[Level]({"type"}), submit, types, True, {"resource": "Resource"}))
    own = "urn:fhir-ris:OperationDefinition/CoverageEligibilityRequest-submit-stored"
    registry.operation(Operation("submit", own, frozenset[Level]({"instance"}), submit_stored, types, affects_state=True))


async def submit(call: Call) -> Answer:
    """FhirError 400 for what is no such request, 403 for who may not, 422 for what can't be sent."""
    request = _given(call)
    await department_operation.require(call, "submit", {_TYPE: "c", "CoverageEligibilityResponse": "r"})

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        made = await unit.create({k: v for k, v in request.items() if k != "id"})
        return await _asked(unit, made)

    return await _answer(call, work)


async def submit_stored(call: Call) -> Answer:
    """FhirError 403 for who may not, 404 for what isn't there, 422 for what can't be sent."""
    arguments.check_body("submit", call.body, frozenset())
    await department_operation.require(call, "submit", {_TYPE: "u", "CoverageEligibilityResponse": "r"})

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        return await _asked(unit, await department_operation.seen(unit, Target(_TYPE, str(call.id)), "u"))

    return await _answer(call, work)


def _given(call: Call) -> Resource:
    """The request that was posted. FhirError 400."""
    body = call.body
    if body is not None and body.get("resourceType") == "Parameters":
        arguments.check_body("submit", body, frozenset({"resource"}))
        rows = list(arguments.parts(body, "resource"))
        body = rows[0].get("resource") if len(rows) == 1 else None
    if not isinstance(body, dict) or body.get("resourceType") != _TYPE:
        raise fail("structure", f"$submit is sent one {_TYPE}", "Parameters.parameter", status=400)
    return body


async def _asked(unit: UnitOfWork, request: Resource) -> Callable[[], Resource]:
    with unit.as_department():
        waiting = await submission.ask(unit, request)
    return lambda: unit.final(waiting)


async def _answer(call: Call, work: Callable[[UnitOfWork], Awaitable[Callable[[], Resource]]]) -> Answer:
    named = audit.seen([f"{_TYPE}/{call.id}"] if call.id else [])
    final = await call.interactions.transact(call.access, call.act, work, named)
    return Answer(await _when_answered(call, final()))


async def _when_answered(call: Call, response: Resource) -> Resource:
    """The response once it is answered, or as it is after a while."""
    pause, longest = _LOOKS
    until = time.monotonic() + LONGEST_WAIT
    while submission.is_waiting(response) and time.monotonic() < until:
        await asyncio.sleep(pause)
        pause = min(longest, 1.5 * pause)
        found = await visibility.read(call.interactions.store, call.access, "CoverageEligibilityResponse", response["id"])
        if found is None or found.resource is None:
            break
        response = found.resource
    return response
