"""What a person's rights depend on beside the token: whose patients they are, what is labelled, denied or opened in an emergency.

It is looked up when a token is looked up (`Tokens.authenticate`), and so is about a second old at most, like the token itself.
Tokens that no such thing limits (those of backend clients) cost no look.
"""

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
    own = await look.own_patients(person.reference or "") if known and known.own_patients else None
    closed = frozenset(await look.ids("Patient", labels.above(clearance))) if clearance != "V" else frozenset[str]()
    denied: tuple[Denial, ...] = ()
    if (known is None or known.heeds_consent) and (consents := await look.resources("Consent", [DENIES])):
        who = await look.memberships(person.reference) if person.reference and actors(consents) else frozenset[str]()
        denied = denials(consents, who, clock.naive(clock.now()))
    return Circumstances(own, closed, denied, await opened(db, person.user_name, person.session))


class _Looking:
    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._db = db

    async def ids(self, resource_type: str, keys: Iterable[str]) -> list[str]:
        found = self._db[resource_type].find(keyed(list(keys)), {"_id": 1}, limit=MOST + 1)
        return _bounded([d["_id"] async for d in found])

    async def resources(self, resource_type: str, keys: Iterable[str]) -> list[dict[str, Any]]:
        found = self._db[resource_type].find(keyed(list(keys)), {"resource": 1}, limit=MOST + 1)
        return _bounded([fhir_json.from_bson(d["resource"]) async for d in found])

    async def own_patients(self, person: str) -> frozenset[str]:
        """Those for whom an order names the person, or one of its roles, as requester, or whose general practitioner it is."""
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
