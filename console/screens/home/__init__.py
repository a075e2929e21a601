"""Home: what waits for this person now, as counts that lead there, and the most urgent of it."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.screens.home import urgent, waiting
from console.visit import Visit

SCREEN = Screen("home", "/", "h", "")


async def show(visit: Visit) -> Response:
    """The counts of this role, and its list."""
    counts, listed = await visit.desk.together(waiting.counts(visit), urgent.listed(visit))
    return visit.page("home/index.html", counts=counts, listed=listed, me=await _name(visit))


async def _name(visit: Visit) -> dict[str, object] | None:
    """Who it is, for the greeting."""
    if not visit.me.startswith("Practitioner/"):
        return None
    found = await visit.desk.search("Practitioner", _id=visit.me.partition("/")[2], _count="1")
    return next(iter(found), None)


DOORS: list[Door] = [shows("/", show)]
