"""Free times for what is picked: the first ones, and the one that somebody has chosen on the board (`$find`)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from typing import Final

from console.asking import reference
from console.formats import concept
from console.screens.schedule.asked import Asked, instant
from console.visit import Visit
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from resources import appointment
from resources.scheduling.finding import VISIT

_FIRST: Final = 5
_OTHERWISE: Final = 30  # minutes, where the catalogue doesn't say how long it takes: shown, and to be corrected


@dataclass(frozen=True, slots=True)
class Leg:
    """One examination of a proposed visit: its scanners by name, the first by its id (`on`)."""

    at: datetime
    day: date
    start: str
    end: str
    on: str
    stations: str
    what: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed visit: the Appointment that it is held or booked by."""

    id: str
    legs: list[Leg]


@dataclass(slots=True)
class Times:
    """The first free times; `chosen` is the proposal at the time that is picked, if that is free as the calendar has it.

    minutes: how long it is taken to be, where the catalogue doesn't say; refused: why nothing can be found
    """

    first: list[Proposal] = field(default_factory=list)
    chosen: Proposal | None = None
    minutes: int | None = None
    refused: str = ""
    lacking: list[str] = field(default_factory=list)


async def times(visit: Visit, asked: Asked) -> Times:
    """Free times from the day of the board on. What can't be found is told, not raised: the page is about it."""
    if not (asked.orders or (asked.booking and asked.moving)):
        return Times()
    try:
        return await _times(visit, asked, asked.minutes)
    except FhirError as error:
        if error.status != 422 or asked.minutes:
            return Times(refused=str(error))
    try:
        return await _times(visit, asked, _OTHERWISE)
    except FhirError as error:
        return Times(refused=str(error))


async def _times(visit: Visit, asked: Asked, minutes: int | None) -> Times:
    midnight = visit.moment(f"{asked.day.isoformat()}T00:00")
    first = await _find(visit, asked, minutes, max(midnight, visit.now), None, _FIRST)
    found = Times(_grouped(_all(first, "Appointment"), visit.zone), minutes=minutes)
    found.lacking = [i["diagnostics"] for r in _all(first, "OperationOutcome") for i in r["issue"] if "diagnostics" in i]
    if asked.at and asked.on:
        end = asked.at + timedelta(minutes=1)
        there = _all(await _find(visit, asked, minutes, asked.at, end, 20), "Appointment")
        whole = {_visit(a) for a in there if f"Device/{asked.on}" in appointment.stations(a)}
        found.chosen = next(iter(_grouped((a for a in there if _visit(a) in whole), visit.zone)), None)
    return found


async def _find(visit: Visit, asked: Asked, minutes: int | None, start: datetime, end: datetime | None, count: int) -> Resource:
    return await visit.desk.operation(  # type: ignore[no-any-return] # a searchset
        "Appointment/$find",
        order=[reference(f"ServiceRequest/{id_}") for id_ in asked.orders] if not asked.moving else None,
        appointment=reference(f"Appointment/{asked.booking}") if asked.moving else None,
        start={"valueDateTime": instant(start)},
        end={"valueDateTime": instant(end)} if end else None,
        minutes=minutes,
        location_reference=reference(f"Location/{asked.location}") if asked.location else None,
        _count=count,
    )


def _all(bundle: Resource, resource_type: str) -> list[Resource]:
    return [r for e in bundle.get("entry", ()) if (r := e["resource"])["resourceType"] == resource_type]


def _grouped(found: Iterable[Resource], zone: tzinfo) -> list[Proposal]:
    """The legs of each visit together, by the order that they came in."""
    visits: dict[str, list[Resource]] = {}
    for one in found:
        visits.setdefault(_visit(one), []).append(one)
    return [Proposal(legs[0]["id"], [_leg(one, zone) for one in legs]) for legs in visits.values()]


def _visit(one: Resource) -> str:
    return next((i["value"] for i in one.get("identifier", ()) if i.get("system") == VISIT), str(one["id"]))


def _leg(one: Resource, zone: tzinfo) -> Leg:
    placed, at = appointment.stations(one), datetime.fromisoformat(one["start"])
    named = [p["actor"].get("display", "") for p in one["participant"] if p["actor"].get("reference") in placed]
    told = ", ".join(concept(t) for t in one.get("serviceType", ()))
    on = placed[0].removeprefix("Device/")
    return Leg(at, at.astimezone(zone).date(), one["start"], one["end"], on, " + ".join(n for n in named if n), told)
