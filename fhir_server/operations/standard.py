"""HL7's own operations that this server has: `$everything`, `$meta`, `$meta-add`, `$meta-delete`, `$validate`."""

from fhir_server.operations import everything, meta, validate
from fhir_server.registry import Registry


def register(registry: Registry) -> None:
    """Offer them."""
    for operation in (*everything.OPERATIONS, *meta.OPERATIONS, *validate.OPERATIONS):
        registry.operation(operation)
