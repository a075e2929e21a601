"""AuditEvent: what was recorded stays as it is."""

from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry
from fhir_server.unit_of_work import UnitOfWork


async def check(_unit: UnitOfWork, change: Change) -> None:
    if change.before is not None:
        raise fail("business-rule", "an AuditEvent can be neither changed nor deleted", "AuditEvent")


def register(registry: Registry) -> None:
    registry.rule("AuditEvent", check)
