"""Schedule: the board of the scanners, and booking."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("schedule", "/schedule", "s", "$appointment-book")


async def show(visit: Visit) -> Response:
    """The board."""
    return visit.page("schedule/index.html")


DOORS: list[Door] = [shows("/schedule", show)]
