"""Offering the operations on one resource that change something."""

from collections.abc import Awaitable, Callable, Mapping

from fhir_server.operations import Answer, Call, Level, Operation
from fhir_server.registry import Registry


def offer(registry: Registry, resource_type: str, runs: Mapping[str, Callable[[Call], Awaitable[Answer]]]) -> None:
    """Register these by name for resources of this type; they are called by POST."""
    for name, run in runs.items():
        definition = f"urn:fhir-ris:OperationDefinition/{resource_type}-{name}"
        levels, types = frozenset[Level]({"instance"}), frozenset({resource_type})
        registry.operation(Operation(name, definition, levels, run, types, affects_state=True))
