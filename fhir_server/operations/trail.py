"""What operations leave in the audit trail: what they showed, and whom they refused."""

from collections.abc import Iterable

from fhir_server import audit
from fhir_server.operations import Call, Resource
from fhir_server.outcome import FhirError
from fhir_server.store import Document
from smart_auth.scopes import Action


async def shown(call: Call, resources: Iterable[Resource] = (), beside: Iterable[Document] = ()) -> None:
    """Record that these were shown, before they are. `beside`: further entities."""
    await _write(call, [*audit.shown_resources(resources), *beside], None)


async def require(call: Call, resource_type: str, action: Action) -> None:
    """Refuse (403, and on record) what the caller may not do."""
    try:
        call.access.require(resource_type, action)
    except FhirError as error:
        await _write(call, [], str(error))
        raise


async def _write(call: Call, entities: list[Document], failed: str | None) -> None:
    interactions = call.interactions
    await interactions.store.ensure("AuditEvent")
    await interactions.reads.write(audit.audit_event(call.act, call.access, entities, failed=failed))
