"""The audit trail, and whether it is whole."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("trail", "/audit", "u", "AuditEvent.s")


async def show(visit: Visit) -> Response:
    """The newest events."""
    return visit.page("trail/index.html")


DOORS: list[Door] = [shows("/audit", show)]
