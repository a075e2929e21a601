"""`$screening` of a requested procedure, or of an order that has one (ServiceRequest): what the patient is asked before.

GET ServiceRequest/[id]/$screening answers Parameters with a `questionnaire` for each of `screening.toml` that fits, with parts
    url        valueUri: its canonical; version  valueString
    response   valueReference to the QuestionnaireResponse that was given last, if there is one
    counts     valueBoolean: whether that counts for this examination
    required   valueBoolean: the catalogue asks for screening, so that it has an effect when it isn't answered
"""

from fhir_server import audit
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.references import Target, ref
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation
from resources.department_operation import seen
from resources.protocol_operations import one_requested
from resources.safety import answers, findings, tables


async def screening(call: Call) -> Answer:
    """FhirError 403, 404; 422 for an order with several procedures."""
    arguments.check_body("screening", call.body, frozenset())
    await department_operation.require(call, "screening", {"ServiceRequest": "r", "QuestionnaireResponse": "r"})

    async def work(unit: UnitOfWork) -> list[Resource]:
        requested = await one_requested(unit, await seen(unit, Target("ServiceRequest", str(call.id))))
        what = await findings.examination(unit, requested)
        if what is None:
            return []
        asked = findings.questionnaires(what, unit.now)
        given = await answers.latest(unit, f"Patient/{what.patient['id']}", (q.url for q in asked))
        return [_row(unit, what, one, given.get(one.url)) for one in asked]

    rows = await call.interactions.transact(call.access, call.act, work, audit.seen([f"ServiceRequest/{call.id}"]))
    return Answer({"resourceType": "Parameters", **({"parameter": rows} if rows else {})})


def _row(unit: UnitOfWork, what: findings.Examination, one: tables.Questionnaire, response: Resource | None) -> Resource:
    counts = response is not None and answers.counts_for(response, one, what.requests, unit.now)
    required = one.unanswered in tables.EFFECTS and findings.says(what.entry, findings.SCREENING_REQUIRED)
    parts: list[Resource] = [
        {"name": "url", "valueUri": one.url},
        {"name": "version", "valueString": one.version},
        *([{"name": "response", "valueReference": ref(response)}] if response else []),
        {"name": "counts", "valueBoolean": counts},
        {"name": "required", "valueBoolean": required},
    ]
    return {"name": "questionnaire", "part": parts}


def register(registry: Registry) -> None:
    """Offer it."""
    definition, levels = "urn:fhir-ris:OperationDefinition/screening", frozenset[Level]({"instance"})
    registry.operation(Operation("screening", definition, levels, screening, frozenset({"ServiceRequest"})))
