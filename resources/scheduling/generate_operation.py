"""`Schedule/[id]/$generate-slots` (own): bring the slots of a Schedule to where its hours say they are, at once."""

from zoneinfo import ZoneInfo

from fhir_server import clock
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation
from resources.scheduling import generation, schedules


def register(registry: Registry, zone: ZoneInfo) -> None:
    """Offer it, by the department's clock."""

    async def generate(call: Call) -> Answer:
        """Parameters: `changed`, how many slots were made, opened or closed. FhirError 422 for one that is kept by hand."""
        arguments.check_body("generate-slots", call.body, frozenset())
        await department_operation.require(call, "generate-slots", {"Schedule": "u", "Slot": "cu"})

        async def work(unit: UnitOfWork) -> Resource:
            return await department_operation.seen(unit, Target("Schedule", str(call.id)), "u")

        schedule = await call.interactions.transact(call.access, call.act, work)
        if schedules.generation(schedule) is None:
            text = f"its slots are kept by hand: it has no {schedules.GENERATION}, or isn't active"
            raise fail("business-rule", text, "Schedule.extension")
        changed = await generation.keep(call.interactions, str(call.id), zone, clock.now())
        return Answer({"resourceType": "Parameters", "parameter": [{"name": "changed", "valueInteger": changed}]})

    definition, level = "urn:fhir-ris:OperationDefinition/Schedule-generate-slots", frozenset[Level]({"instance"})
    registry.operation(Operation("generate-slots", definition, level, generate, frozenset({"Schedule"}), affects_state=True))
