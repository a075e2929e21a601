"""Numbers: the department's figures."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("numbers", "/numbers", "n", "$figures")


async def show(visit: Visit) -> Response:
    """The figures."""
    return visit.page("numbers/index.html")


DOORS: list[Door] = [shows("/numbers", show)]
