"""Find: a patient or an order by what is typed."""

from starlette.responses import Response

from console.screen import Door, Screen, does, shows
from console.visit import Visit

SCREEN = Screen("find", "/find", "f", "")


async def show(visit: Visit) -> Response:
    """Nothing yet: the form."""
    return visit.page("find/index.html")


DOORS: list[Door] = [shows("/find", show), does("/find", show)]
