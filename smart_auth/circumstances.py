"""What a person's rights depend on beside the token: whose patients they are, what is labelled, denied or opened in an emergency.

It is looked up when a token is looked up (`Tokens.authenticate`), and so is about a second old at most, like the token itself.
Tokens that no such thing limits (those of backend clients) cost no look.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from fhir_server import clock, fhir_json
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.search.conditions import keyed
from fhir_server.search.index import DENIES
from smart_auth import labels
from smart_auth.break_glass_log import opened
from smart_auth.denials import Denial, actors, denials
from smart_auth.roles import Confidentiality, role

MOST = 10_000
"""Patients that one list of a filter can name. Where there are more, nothing is shown rather than too much."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """`own`: the patients that the person is limited to (None: to none in particular); `closed`: those whose record is labelled
    beyond its clearance; `denials`: what patients have denied it; `opened`: those whose record it has opened in an emergency.
    Patients by logical id."""

    own: frozenset[str] | None = None
    closed: frozenset[str] = frozenset()
    denials: tuple[Denial, ...] = field(default=())
    opened: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Person:
    """Of whom it is asked: the reference to its resource, its role, and what break-glass goes by."""

    reference: str | None
    role: str | None
    user_name: str | None
    session: str


async def circumstances(db: AsyncDatabase[dict[str, Any]], person: Person) -> Circumstances:
    """What is so at this moment."""
    look = _Looking(db.with_options(read_concern=ReadConcern("local")))
    known = role(person.role)
    clearance: Confidentiality = known.clearance if known else "N"
    own, closed, denied, open_ = await asyncio.gather(
        look.own_patients(person.reference or "" if known and known.own_patients else None),
        look.closed(clearance),
        look.denials(person.reference) if known is None or known.heeds_consent else _nothing(),
        opened(db, person.user_name, person.session),
    )
    return Circumstances(own, closed, denied, open_)


async def _nothing() -> tuple[Denial, ...]:
    return ()


class _Looking:
    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._db = db

    async def ids(self, resource_type: str, keys: Iterable[str]) -> list[str]:
        found = self._db[resource_type].find(keyed(list(keys)), {"_id": 1}, limit=MOST + 1)
        return _bounded([d["_id"] async for d in found])

    async def resources(self, resource_type: str, keys: Iterable[str]) -> list[dict[str, Any]]:
        found = self._db[resource_type].find(keyed(list(keys)), {"resource": 1}, limit=MOST + 1)
        return _bounded([fhir_json.from_bson(d["resource"]) async for d in found])

    async def closed(self, clearance: Confidentiality) -> frozenset[str]:
        """The patients who are labelled beyond this."""
        higher = labels.above(clearance)
        return frozenset(await self.ids("Patient", higher)) if higher else frozenset()

    async def denials(self, person: str | None) -> tuple[Denial, ...]:
        """What patients have denied this person, or everybody."""
        consents = await self.resources("Consent", [DENIES])
        if not consents:
            return ()
        who = await self.memberships(person) if person and actors(consents) else frozenset[str]()
        return denials(consents, who, clock.naive(clock.now()))

    async def own_patients(self, person: str | None) -> frozenset[str] | None:
        """Those for whom an order names the person, or one of its roles, as requester, or whose general practitioner it is.

        None for a person that isn't limited to them.
        """
        if person is None:
            return None
        names = [person, *(f"PractitionerRole/{i}" for i in await self.ids("PractitionerRole", [f"practitioner>{person}"]))]
        patients = await self.ids("Patient", [f"general-practitioner>{name}" for name in names])
        ordered: list[dict[str, Any]] = [
            {"$match": keyed([f"requester>{name}" for name in names])},
            {"$group": {"_id": "$resource.subject.reference"}},
            {"$limit": MOST + 1},
        ]
        rows = [row["_id"] async for row in await self._db["ServiceRequest"].aggregate(ordered)]
        subjects = [to.id for to in map(target, rows) if to is not None and to.type == "Patient"]
        return frozenset(_bounded([*patients, *subjects]))

    async def memberships(self, person: str) -> frozenset[str]:
        """The person, its PractitionerRoles and their Organizations, and the Groups and CareTeams that it is in."""
        roles = await self.resources("PractitionerRole", [f"practitioner>{person}"])
        names = [person, *(f"PractitionerRole/{r['id']}" for r in roles)]
        organizations = [str(to) for r in roles if (to := target(r.get("organization"))) is not None]
        groups = [f"Group/{i}" for i in await self.ids("Group", [f"member>{name}" for name in names])]
        teams = [f"CareTeam/{i}" for i in await self.ids("CareTeam", [f"participant>{n}" for n in (*names, *organizations)])]
        return frozenset([*names, *organizations, *groups, *teams])


def _bounded(found: list[Any]) -> list[Any]:
    if len(found) > MOST:
        raise fail("too-costly", "more patients are concerned by restrictions than can be told apart", status=403)
    return found
