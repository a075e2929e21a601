"""Schedule: whose time it is, how its slots are made, and how far it may be overbooked.

Schedule.actor       the Device or Practitioner whose time it is; HealthcareServices and PractitionerRoles give the hours
Schedule.extension   `urn:fhir-ris:slot-generation`: `minutes` (of a slot) and `days` (ahead, 60 unless said), positiveInt.
                     Without it, slots are kept by hand.
                     `urn:fhir-ris:overbooking`: `count` (positiveInt), how many more than one at a time, and `role` (code,
                     repeated), who may: a role of `smart_auth/roles.py`, or `system` for backend clients and interfaces.
"""

from dataclasses import dataclass
from typing import Any, Final

from fhir_server.elements import extension
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.roles import ROLES

GENERATION: Final = "urn:fhir-ris:slot-generation"
OVERBOOKING: Final = "urn:fhir-ris:overbooking"
SYSTEM: Final = "system"
# Whose time a booking takes, so that nobody else has it.
BOOKABLE: Final = frozenset({"Device", "Practitioner"})
HOURS: Final = frozenset({"HealthcareService", "PractitionerRole"})  # actors that say when it is open, and when not
_DAYS_AHEAD: Final = 60
_MINUTES: Final = range(5, 8 * 60 + 1)
_DAYS: Final = range(1, 367)
_COUNT: Final = range(1, 11)


@dataclass(frozen=True, slots=True)
class Generation:
    """How slots are made: of so many minutes, so many days ahead."""

    minutes: int
    days: int


@dataclass(frozen=True, slots=True)
class Overbooking:
    """How many more than one at a time, and by whom."""

    count: int
    roles: frozenset[str]


def generation(schedule: Resource) -> Generation | None:
    """None where slots are kept by hand, or the Schedule isn't in use."""
    found = extension(schedule, GENERATION)
    if found is None or not schedule.get("active", True):
        return None
    return Generation(_values(found, "minutes")[0], next(iter(_values(found, "days")), _DAYS_AHEAD))


def overbooking(schedule: Resource) -> Overbooking | None:
    found = extension(schedule, OVERBOOKING)
    return Overbooking(_values(found, "count")[0], frozenset(_values(found, "role"))) if found else None


def actors(schedule: Resource, *types: str) -> list[str]:
    """The references to its actors of these types."""
    found = (target(actor) for actor in schedule.get("actor", ()))
    return [str(to) for to in found if to and to.type in types]


async def whose(unit: UnitOfWork, schedule: Resource) -> list[str]:
    """The Devices and Practitioners whose time it is; a PractitionerRole stands for its person."""
    found = actors(schedule, *BOOKABLE)
    for role in actors(schedule, "PractitionerRole"):
        person = target(((await unit.get(role)) or {}).get("practitioner"))
        if person and str(person) not in found:
            found.append(str(person))
    return found


async def of_actor(unit: UnitOfWork, actor: str) -> list[Resource]:
    """The Schedules in use of a Device or Practitioner."""
    found = await unit.search("Schedule", actor=",".join(await names_of(unit, actor)))
    return [s for s in found if s.get("active", True)]


async def names_of(unit: UnitOfWork, actor: str) -> list[str]:
    """The references by which a Device or Practitioner is named: a person's PractitionerRoles too."""
    if not actor.startswith("Practitioner/"):
        return [actor]
    return [actor, *(f"PractitionerRole/{r['id']}" for r in await unit.search("PractitionerRole", practitioner=actor))]


def _values(element: Resource, url: str) -> list[Any]:
    return [v for e in element.get("extension", ()) if e.get("url") == url for k, v in e.items() if k.startswith("value")]


# The rule


async def check(_unit: UnitOfWork, change: Change) -> None:
    """A Schedule is in use unless it says otherwise; what it says of slots and overbooking can be followed."""
    schedule = change.after
    if schedule is None:
        return
    schedule.setdefault("active", True)
    if (said := extension(schedule, GENERATION)) is not None:
        _number(said, "minutes", _MINUTES, needed=True)
        _number(said, "days", _DAYS, needed=False)
    if (said := extension(schedule, OVERBOOKING)) is not None:
        _number(said, "count", _COUNT, needed=True)
        known = {*ROLES, SYSTEM}
        if not (roles := _values(said, "role")) or not known.issuperset(map(str, roles)):
            raise fail("value", f"overbooking names the roles that may: {', '.join(sorted(known))}", "Schedule.extension")


def _number(element: Resource, name: str, allowed: range, *, needed: bool) -> None:
    said = _values(element, name)
    if not said and not needed:
        return
    if len(said) != 1 or not isinstance(said[0], int) or said[0] not in allowed:
        text = f"{name} is one number from {allowed[0]} to {allowed[-1]}"
        raise fail("value", text, "Schedule.extension")
