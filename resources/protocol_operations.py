"""`$protocol` and `$clear-safety` on a requested procedure, or on an order that has one (ServiceRequest).

POST ServiceRequest/[id]/$protocol with Parameters:
    protocol        CodeableConcept, any number: the protocols; without one, the one that the catalogue proposes
    contrast        CodeableConcept, any number: the contrast agents that are to be given; none means none
    pre-medication  CodeableConcept, any number
    preparation     text for the patient (patientInstruction)
    step            valueReference to a Task, where it is about one step only
    note            text for the department
It answers with `task`, the Task that tells of it, and `issue`, what speaks against the examination now (DetectedIssue).

POST ServiceRequest/[id]/$clear-safety with Parameters:
    reason  why the examination takes place all the same
    issue   valueReference to a DetectedIssue, any number; without one, all that stop it
It answers with `issue`, what was cleared.
"""

from fhir_server import audit
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target, ref
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, department_operation, parameters, protocol, readiness, service_request, task, tracking
from resources.department_operation import answer, reference, seen
from resources.safety import issues

_TAKES = frozenset({"protocol", "contrast", "pre-medication", "preparation", "step", "note"})


async def decide(call: Call) -> Answer:
    """FhirError 403, 404; 409 once it has begun; 422 for an order with several procedures, and without a protocol."""
    arguments.check_body("protocol", call.body, _TAKES)
    await department_operation.require(call, "protocol", {"ServiceRequest": "u", "Task": "u"})
    chosen, wanted_step = parameters.concepts(call, "protocol"), reference(call, "step", "Task")
    contrast, medication = parameters.concepts(call, "contrast"), parameters.concepts(call, "pre-medication")
    preparation, note = arguments.one(call, "preparation"), arguments.one(call, "note")

    async def work(unit: UnitOfWork) -> list[tuple[str, str]]:
        requested = await one_requested(unit, await seen(unit, Target("ServiceRequest", str(call.id)), "u"))
        step = await seen(unit, wanted_step) if wanted_step else None
        if step is not None and (not task.is_step(step) or step.get("focus") != ref(requested)):
            raise fail("business-rule", "that is no step of this requested procedure", "Parameters.parameter")
        with unit.as_department():
            protocols = chosen or await _proposed(unit, requested)
            decided = protocol.Protocol(protocols, contrast, medication, preparation, note)
            told = await protocol.apply(unit, requested, decided, await tracking.person(unit), step)
            found = await readiness.settle(unit, await unit.read("ServiceRequest", requested["id"]) or requested)
        return [("task", str(ref(told)["reference"])), *(("issue", f"DetectedIssue/{i['id']}") for i in found.issues)]

    return Answer(
        answer(await call.interactions.transact(call.access, call.act, work, audit.seen([f"ServiceRequest/{call.id}"])))
    )


async def one_requested(unit: UnitOfWork, request: Resource) -> Resource:
    """The requested procedure, or the only open one of an order. FhirError 422 where there are several, or none."""
    if service_request.is_procedure(request):
        return request
    found = [p for p in await service_request.procedures_of(unit, request["id"]) if p["status"] in {"active", "on-hold"}]
    if len(found) != 1:
        text = f"the order has {len(found) or 'no'} requested procedures: say which of them is meant"
        raise fail("business-rule", text, "ServiceRequest.basedOn")
    return found[0]


async def _proposed(unit: UnitOfWork, requested: Resource) -> list[Resource]:
    found = protocol.proposed(await activity_definition.catalogue_entry(unit, requested))
    if len(found) != 1:
        raise fail(
            "required", f"which protocol? The catalogue proposes {len(found) or 'none'}", "Parameters.parameter", status=422
        )
    return found


async def clear(call: Call) -> Answer:
    """FhirError 403, 404; 422 where nothing stops the examination."""
    arguments.check_body("clear-safety", call.body, frozenset({"issue", "reason"}))
    await department_operation.require(call, "clear-safety", {"ServiceRequest": "r", "DetectedIssue": "u"}, person=True)
    reason = parameters.required(arguments.one(call, "reason"), "reason", "says why the examination takes place all the same")
    named = {str(to) for to in parameters.references(call, "issue", "DetectedIssue")}

    async def work(unit: UnitOfWork) -> list[tuple[str, str]]:
        requested = await one_requested(unit, await seen(unit, Target("ServiceRequest", str(call.id))))
        with unit.as_department():
            await readiness.settle(unit, requested)
            stops = issues.stops(await issues.of_procedure(unit, requested["id"]))
            due = [i for i in stops if not named or f"DetectedIssue/{i['id']}" in named]
            if not due or len(due) < len(named):
                raise fail("business-rule", "nothing of that stops this examination", "Parameters.parameter")
            by = await tracking.person(unit)
            return [("issue", str(ref(await unit.update(issues.cleared(unit, i, reason, by)))["reference"])) for i in due]

    return Answer(
        answer(await call.interactions.transact(call.access, call.act, work, audit.seen([f"ServiceRequest/{call.id}"])))
    )


def register(registry: Registry) -> None:
    """Offer them."""
    levels, of = frozenset[Level]({"instance"}), frozenset({"ServiceRequest"})
    for name, run in (("protocol", decide), ("clear-safety", clear)):
        registry.operation(Operation(name, f"urn:fhir-ris:OperationDefinition/{name}", levels, run, of, affects_state=True))
