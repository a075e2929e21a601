"""Orders: the inbox, and what is done with an order."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.visit import Visit

SCREEN = Screen("orders", "/orders", "o", "$order-accept")


async def show(visit: Visit) -> Response:
    """The inbox."""
    return visit.page("orders/index.html")


DOORS: list[Door] = [shows("/orders", show)]
