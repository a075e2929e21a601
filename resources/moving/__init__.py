"""Moving an order, or a study, that was made on the wrong patient to the right one."""

from fhir_server.registry import Registry
from resources.moving import belongings, operation


def register(registry: Registry) -> None:
    """Offer `$move`."""
    belongings.register(registry)
    operation.register(registry)
