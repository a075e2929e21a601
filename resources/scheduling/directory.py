"""Who and what can be booked: the scanners, people and equipment with a Schedule in use, and which of them suit a need."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product

from fhir_server.elements import has_code
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import device
from resources.identifiers import token
from resources.scheduling import schedules
from resources.scheduling.needs import Code, Need
from resources.scheduling.placing import Option

_MOST_SCHEDULES = 2_000
_MOST_OPTIONS = 200
_DEEPEST = 10  # locations within locations


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the caller has chosen among (references); nothing: all."""

    devices: Sequence[str] = ()
    people: Sequence[str] = ()
    locations: Sequence[str] = ()


@dataclass(slots=True)
class Directory:
    """The Devices that can be booked, the Schedules of each actor, and where each Device is."""

    schedules_of: dict[str, list[str]] = field(default_factory=dict)
    devices: dict[str, Resource] = field(default_factory=dict)
    places: dict[str, frozenset[str]] = field(default_factory=dict)  # of each Device: its Location, and what that is part of
    lacking: list[str] = field(default_factory=list)  # what nobody could be found for

    def stations(self, need: Need, chosen: Chosen) -> list[tuple[str, ...]]:
        """The scanners that suit, the preferred first: one that does all modalities, else several that do together."""
        wanted = [ref for ref in chosen.devices or self.devices if ref in self.devices]
        fit = [ref for ref in wanted if device.modalities(self.devices[ref]) and self._is_there(ref, need, chosen)]
        if len(need.modalities) <= 1 or any(need.modalities <= set(device.modalities(self.devices[ref])) for ref in fit):
            return [(ref,) for ref in fit if need.modalities <= set(device.modalities(self.devices[ref]))]
        each = [[r for r in fit if m in device.modalities(self.devices[r])] for m in sorted(need.modalities)]
        return list(islice((tuple(dict.fromkeys(one)) for one in product(*each)), _MOST_OPTIONS))

    def _is_there(self, ref: str, need: Need, chosen: Chosen) -> bool:
        places = self.places[ref]
        return (need.location is None or need.location in places) and (
            not chosen.locations or not places.isdisjoint(chosen.locations)
        )

    def equipment(self, role: Code) -> tuple[str, ...]:
        return tuple(ref for ref, found in self.devices.items() if has_code(found.get("type"), *role))

    async def options(self, unit: UnitOfWork, need: Need, chosen: Chosen) -> list[Option]:
        """The ways to do an examination."""
        groups = [(f"somebody who is {role[1]}", await self._people(unit, role)) for role in need.people]
        groups += [(f"equipment {role[1]}", self.equipment(role)) for role in need.equipment]
        if chosen.people:
            groups.append(("the people asked for", tuple(p for p in chosen.people if p in self.schedules_of)))
        stations = self.stations(need, chosen)
        named = "/".join(sorted(need.modalities)) or "any modality"
        self.lacking += [what for what, group in [*groups, (f"a scanner for {named}", stations)] if not group]
        return [Option(one, tuple(group for _, group in groups)) for one in stations if all(group for _, group in groups)]

    async def _people(self, unit: UnitOfWork, role: Code) -> tuple[str, ...]:
        found = await unit.search("PractitionerRole", role=token(*role))
        people = [str(p) for r in found if r.get("active", True) and (p := target(r.get("practitioner")))]
        return tuple(p for p in dict.fromkeys(people) if p in self.schedules_of)


async def load(unit: UnitOfWork) -> Directory:
    """All that can be booked now."""
    directory = Directory()
    known = await unit.some("Schedule", _MOST_SCHEDULES, active="true")
    await unit.load(to for s in known for actor in s.get("actor", ()) if (to := target(actor)) is not None)
    for schedule in known:
        for actor in await schedules.whose(unit, schedule):
            directory.schedules_of.setdefault(actor, []).append(schedule["id"])
    parts: dict[str, str | None] = {}
    for actor in sorted(directory.schedules_of):
        found = await unit.get(actor) if actor.startswith("Device/") else None
        if found and found.get("status", "active") == "active":
            directory.devices[actor] = found
            directory.places[actor] = frozenset([p async for p in _within(unit, found.get("location"), parts)])
    return directory


async def _within(unit: UnitOfWork, location: object, parts: dict[str, str | None]) -> AsyncIterator[str]:
    """A Location, and those that it is part of. `parts` remembers what has been read."""
    to = target(location)
    place = str(to) if to else None
    for _ in range(_DEEPEST):
        if place is None:
            return
        yield place
        if place not in parts:
            above = target(((await unit.get(place)) or {}).get("partOf"))
            parts[place] = str(above) if above else None
        place = parts[place]
