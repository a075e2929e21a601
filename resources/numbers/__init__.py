"""Numbers for managers: what the department does in how much time, from rows that follow the resources."""

from zoneinfo import ZoneInfo

from fhir_server.registry import Registry
from resources.numbers import bookings, exam_projection, exam_rows, interfaces, scanners
from resources.numbers.operations import FigureOperations
from resources.numbers.question import Db


def register(registry: Registry, zone: ZoneInfo) -> None:
    """The projections that keep the rows, and the operations that show the figures. `zone` is the department's."""
    registry.core(["Measure", "Schedule", "Slot"])
    registry.projection(exam_projection.project)
    registry.projection(bookings.project)
    FigureOperations(zone).register(registry)


async def ensure_indexes(db: Db) -> None:
    """After those of the resources, whose collections some are on."""
    for part in (bookings, exam_rows, interfaces, scanners):
        await part.ensure_indexes(db)
