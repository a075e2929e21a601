"""Interfaces: partners and scanners, their messages and queues."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("interfaces", "/interfaces", "i", "Endpoint.u")


async def show(visit: Visit) -> Response:
    """Who is up, and who is not."""
    return visit.page("interfaces/index.html")


DOORS: list[Door] = [shows("/interfaces", show)]
