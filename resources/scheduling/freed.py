"""A time of a scanner that becomes free while others wait for one: a work item, which is over when the time is taken or begins.

Its identifier holds the scanner and when the time begins. It is about the entry of the waiting list that comes first.
"""

from datetime import datetime
from typing import Final

from fhir_server import clock
from fhir_server.references import Target, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.search import dates
from fhir_server.search.index import RANK
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, appointment, device, task, terms, work_items
from resources.scheduling import occupancy

FREED: Final = "freed-time"
_FREE: Final = " has become free"
_MOST: Final = 500  # open questions of all scanners that are looked at, the newest
_LOOKED_AT: Final = 50  # entries of the waiting list, the newest
OPEN: Final = {"code": f"{terms.TASK_CODE}|{FREED}", "status": ",".join(sorted(task.OPEN))}


async def follow(unit: UnitOfWork, change: Change) -> None:
    """A booking that gives up its time, to come, leaves it to those who wait; one that takes a time ends the question."""
    before, after = change.before, change.after
    if before is not None and before.get("status") == "waitlist" and (after is None or after["status"] != "waitlist"):
        await _left(unit, change.id)
    was, now = appointment.place(before), appointment.place(after)
    if was == now:
        return
    if before is not None and was is not None and before["status"] == "booked" and occupancy.interval(before)[0] > unit.now:
        for scanner in _scanners(before):
            await _offer(unit, scanner, before)
    if after is not None and now is not None:
        await _settle(unit, after)


def _scanners(booking: Resource) -> list[str]:
    return [actor for actor in occupancy.takes(booking) if actor.startswith("Device/")]


async def _offer(unit: UnitOfWork, scanner: str, booking: Resource) -> None:
    station = await unit.get(scanner)
    if station is None or await occupancy.holders(unit, scanner, occupancy.interval(booking), booking["id"]):
        return
    if waiting := await _waiting(unit, station, {*appointment.orders(booking)}):
        when = f"{booking['start'][:16].replace('T', ' ')} to {booking['end'][11:16]}"
        start = clock.instant(occupancy.interval(booking)[0])
        text = _text(f"{device.name(station) or scanner}, {when}", len(waiting))
        await work_items.raise_once(unit, FREED, f"{scanner} {start}", text, about=f"Appointment/{waiting[0]['id']}")


def _text(time: str, waiting: int) -> str:
    return f"{time}{_FREE}. On the waiting list are {waiting} that could have this time."


async def _waiting(unit: UnitOfWork, station: Resource, besides: set[str]) -> list[Resource]:
    """The entries of the waiting list that the scanner could do: the urgent before the others, then the oldest."""
    entries = [e for e in await unit.some("Appointment", _LOOKED_AT, status="waitlist") if appointment.orders(e)]
    await unit.load(Target("ServiceRequest", appointment.orders(e)[0]) for e in entries)
    found: list[tuple[int, str, Resource]] = []
    for entry in entries:
        order = await unit.read("ServiceRequest", appointment.orders(entry)[0])
        if order is None or not besides.isdisjoint(appointment.orders(entry)):
            continue
        if device.does(station, await activity_definition.modality(unit, order)):
            found.append((-RANK[order.get("priority", "routine")], str(entry.get("created", "")), entry))
    return [entry for *_, entry in sorted(found, key=lambda row: row[:2])]


async def _left(unit: UnitOfWork, entry_id: str) -> None:
    """Who came first waits no longer: the question is about whoever comes next, if anybody does."""
    for item in await unit.search("Task", focus=f"Appointment/{entry_id}", **OPEN):
        await work_items.complete(unit, item, "Who came first waits no longer")
        scanner, _ = told(item)
        station = await unit.get(scanner)
        if station is not None and (waiting := await _waiting(unit, station, set())):
            text = _text(item["description"].partition(_FREE)[0], len(waiting))
            subject = item["identifier"][0]["value"].removeprefix(f"{FREED} ")
            await work_items.raise_once(unit, FREED, subject, text, about=f"Appointment/{waiting[0]['id']}")


async def _settle(unit: UnitOfWork, booking: Resource) -> None:
    """The times that this booking takes are not free any more."""
    scanners, (start, end) = set(_scanners(booking)), occupancy.interval(booking)
    for item in await unit.some("Task", _MOST, **OPEN) if scanners else ():
        scanner, begins = told(item)
        if scanner in scanners and begins is not None and start <= begins < end:
            await work_items.complete(unit, item, "The time is taken")


def told(item: Resource) -> tuple[str, datetime | None]:
    """The scanner and the beginning of the time that a work item tells of."""
    for identifier in item.get("identifier", ()):
        parts = str(identifier.get("value", "")).split(" ")
        if identifier.get("system") == work_items.SUBJECT and len(parts) == 3 and target(parts[1]):
            return parts[1], dates.moment(parts[2])
    return "", None


def register(registry: Registry) -> None:
    registry.reaction("Appointment", follow)
