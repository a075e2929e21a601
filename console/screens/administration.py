"""Administration: people, apps, and the department's own resources."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("administration", "/administration", "a", "Practitioner.u")


async def show(visit: Visit) -> Response:
    """What can be looked after."""
    return visit.page("administration/index.html")


DOORS: list[Door] = [shows("/administration", show)]
