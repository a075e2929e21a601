"""Reading: the worklist of the radiologists, and the report."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("reading", "/reading", "r", "$claim")


async def show(visit: Visit) -> Response:
    """The worklist."""
    return visit.page("reading/index.html")


DOORS: list[Door] = [shows("/reading", show)]
