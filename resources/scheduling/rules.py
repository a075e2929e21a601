"""The rules and reactions of scheduling, put into the registry."""

from fhir_server.registry import Registry
from resources.scheduling import freed, schedules, waiting


def register(registry: Registry) -> None:
    registry.rule("Schedule", schedules.check)
    waiting.register(registry)
    freed.register(registry)
