"""Home: what waits for this person now, as counts that lead there, and the most urgent of it."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.screens.home import urgent, waiting
from console.visit import Visit
from fhir_server.registry import Resource

SCREEN = Screen("home", "/", "h", "")


async def show(visit: Visit) -> Response:
    """The counts of this role, and its list."""
    counts, listed, me = await visit.desk.together(waiting.counts(visit), urgent.listed(visit), _me(visit))
    return visit.page("home/index.html", counts=counts, listed=listed, me=me, kinds=waiting.kinds(visit))


async def _me(visit: Visit) -> Resource | None:
    """Whose page it is."""
    if not visit.me.startswith("Practitioner/") or not visit.allows("Practitioner", "s"):
        return None
    found = await visit.desk.search("Practitioner", _id=visit.me.partition("/")[2], _count="1")
    return next(iter(found), None)


DOORS: list[Door] = [shows("/", show)]
