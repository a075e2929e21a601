"""Reading studies: the worklist, reports with their templates, signatures and documents, and critical results."""

from fhir_server.registry import Registry
from resources.reading import (
    claims,
    critical_operations,
    critical_request,
    document,
    priors,
    readers,
    rereading,
    templates,
    time_limits,
    watch,
    worklist,
    writing,
)


def register(registry: Registry) -> None:
    """Put rules, reactions and operations into the registry; signing is registered with its key (`signing.ReportSigning`)."""
    claims.register(registry)
    critical_operations.register(registry)
    critical_request.register(registry)
    document.register(registry)
    priors.register(registry)
    readers.register(registry)
    rereading.register(registry)
    templates.register(registry)
    time_limits.register(registry)
    watch.register(registry)
    worklist.register(registry)
    writing.register(registry)
