"""Home: what waits for this person now."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("home", "/", "h", "")


async def show(visit: Visit) -> Response:
    """The counts of this role, which are links."""
    return visit.page("home/index.html")


DOORS: list[Door] = [shows("/", show)]
