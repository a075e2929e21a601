"""Administration: people, apps, the department's own resources, and charges that somebody is to look at."""

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.screens.administration import apps, charges, people
from console.screens.administration.kinds import KINDS
from console.screens.administration.things import Things
from console.visit import Visit
from resources.charging import catalogue, review
from smart_auth.clients import Clients

SCREEN = Screen("administration", "/administration", "a", "Practitioner.u")


async def show(visit: Visit) -> Response:
    """What can be looked after, and how much of each there is."""
    desk, kinds = visit.desk, list(KINDS.values())
    held = desk.search("ChargeItem", _tag=f"{catalogue.REVIEW}|{review.HELD}", _summary="count")
    counted = (desk.search(kind.type, _summary="count") for kind in kinds)
    users, clients = visit.console.people.users.list(), Clients(visit.console.interactions.store.db).list()
    people_, apps_, held_, *found = await desk.together(users, clients, held, *counted)
    counts = {"users": len(people_), "apps": len(apps_), "charges": held_.total}
    counts |= {kind.name: some.total for kind, some in zip(kinds, found, strict=True)}
    return visit.page("administration/index.html", counts=counts)


DOORS: list[Door] = [
    shows("/administration", show),
    *people.DOORS,
    *apps.DOORS,
    *charges.DOORS,
    *(door for kind in KINDS.values() for door in Things(kind).doors()),
]
