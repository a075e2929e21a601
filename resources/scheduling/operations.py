"""The operations of scheduling, and the indexes that they need."""

from typing import Any
from zoneinfo import ZoneInfo

from pymongo.asynchronous.database import AsyncDatabase

from fhir_server.registry import Registry
from resources.scheduling import book_operations, change_operations, find_operation, finding, generate_operation, proposals


def register(registry: Registry, zone: ZoneInfo) -> None:
    """zone: the department's, by whose clock its hours are told"""
    find_operation.register(registry)
    book_operations.register(registry)
    change_operations.register(registry)
    generate_operation.register(registry, zone)


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """After those of the resources (`Store.ensure`), which begin anew with another catalogue version."""
    await finding.ensure_indexes(db)
    await proposals.ensure_indexes(db)
