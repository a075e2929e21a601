"""One exam, everything that happened to it."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("exam", "/exams", "e", "ServiceRequest.r")


async def show(visit: Visit) -> Response:
    """The timeline."""
    return visit.page("exam/index.html")


DOORS: list[Door] = [shows("/exams", show)]
