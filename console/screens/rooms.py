"""Technologist: today by room."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("rooms", "/rooms", "t", "$start")


async def show(visit: Visit) -> Response:
    """The rooms of today."""
    return visit.page("rooms/index.html")


DOORS: list[Door] = [shows("/rooms", show)]
