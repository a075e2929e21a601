"""Stations, places and people of an outside scheduler's appointment (AIG, AIL, AIP) -> Device, Location, Practitioner."""

from collections.abc import Iterable
from typing import Any

from bridges.v2.datatypes import CWE, XCN
from bridges.v2.message import Field, Segment
from bridges.v2.people_in import People
from fhir_server.elements import identifier_value
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import device, terms
from resources.identifiers import escaped

_REMOVED = "D"  # table 0206, the segment's action code


def in_force(segments: Iterable[Segment]) -> list[Segment]:
    """The resource segments that the appointment keeps: those that are not deleted by their action code (field 2)."""
    return [s for s in segments if s.field(2).strip().upper() != _REMOVED]


async def station(unit: UnitOfWork, aig: Segment) -> Resource | None:
    """The station of AIG-3: by AE title, another identifier, its name, or our id. None when it is none of ours."""
    said = CWE.from_field(aig.repetitions(3)[0]) if aig.raw(3) else CWE()
    for name in (n.strip() for n in (said.code, said.text, said.alternate_code) if n.strip()):
        by_title = await device.by_ae_title(unit, name)
        if by_title is not None:
            return by_title
        found = await unit.search("Device", identifier=escaped(name))
        found = found or [d for d in await unit.search("Device", device_name=escaped(name)) if _named(d, name)]
        active = [d for d in found if d.get("status", "active") == "active"]
        if len(active) == 1:
            return active[0]
    return None


def _named(station: Resource, name: str) -> bool:
    return any(n.get("name", "").casefold() == name.casefold() for n in station.get("deviceName", ()))


async def place(unit: UnitOfWork, ail: Segment) -> Resource | None:
    """The Location of AIL-3 (PL): by identifier or name, of the whole, its room, or its point of care."""
    said = ail.repetitions(3)[0] if ail.raw(3) else None
    if said is None:
        return None
    point, room, bed = (said.get(n).strip() for n in (1, 2, 3))
    for name in dict.fromkeys((" ".join(x for x in (point, room, bed) if x), room, point)):
        if not name:
            continue
        found = await unit.search("Location", identifier=escaped(name))
        found = found or [p for p in await unit.search("Location", name=escaped(name)) if _called(p, name)]
        if len(found) == 1:
            return found[0]
    return None


def _called(location: Resource, name: str) -> bool:
    return name.casefold() in {str(n).casefold() for n in (location.get("name"), *location.get("alias", ())) if n}


async def station_in(unit: UnitOfWork, location: Resource) -> Resource | None:
    """The only station in a room, for schedulers that book rooms."""
    found = await unit.search("Device", location=f"Location/{location['id']}")
    stations = [d for d in found if d.get("status", "active") == "active" and identifier_value(d, terms.AE_TITLE)]
    return stations[0] if len(stations) == 1 else None


def shown(field: Field | None) -> str:
    """How a resource that we don't have is called in the message."""
    parts = [c.strip() for c in field.components() if c.strip()] if field else []
    return " ".join(dict.fromkeys(parts[:3]))


def participant(actor: Resource | str) -> dict[str, Any]:
    """Who or what takes part: one of ours, or what we only have the name of."""
    return {"actor": ref(actor) if isinstance(actor, dict) else {"display": actor}, "status": "accepted"}


async def person(people: People, aip: Segment) -> dict[str, Any] | None:
    """The participant of AIP-3, found or made by id and authority."""
    for field in aip.repetitions(3):
        if who := await people.reference(XCN.from_field(field)):
            return {"actor": who, "status": "accepted"}
    return None
