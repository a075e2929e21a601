"""Free times for what is asked: read from an index of the slots, some days at a time, until there are enough."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from pymongo import IndexModel
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import clock
from fhir_server.elements import concept
from fhir_server.ids import new_id
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, device
from resources.scheduling import directory, needs, occupancy, proposals
from resources.scheduling.directory import Chosen, Directory
from resources.scheduling.hours import Interval, overlap
from resources.scheduling.needs import Need
from resources.scheduling.placing import FreeTime, Placed, Wanted, visits
from resources.scheduling.question import Question

SLOTS: Final = "slots_by_schedule"
VISIT: Final = "urn:fhir-ris:visit"  # identifier that the Appointments of one visit share
_LONGEST_VISIT: Final = timedelta(hours=12)
_DAYS: Final = (1, 2, 4, 8, 16)  # that are looked at at once: more and more, the less is found
_MOST_EXAMINATIONS: Final = 5


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    keys = [("resource.schedule.reference", 1), ("resource.status", 1), ("search.d.start.s", 1)]
    await db["Slot"].create_indexes([IndexModel(keys, name=SLOTS)])
    await db["Schedule"].create_indexes([IndexModel([("resource.extension.url", 1)], sparse=True)])


@dataclass(frozen=True, slots=True)
class Found:
    """The visits found, each its Appointments, and what nothing suits."""

    visits: list[list[Resource]]
    lacking: list[str]


@dataclass(frozen=True, slots=True)
class FreeSlot:
    """A free slot of an actor."""

    actor: str
    id: str
    when: Interval


async def find(unit: UnitOfWork, question: Question) -> Found:
    """Proposals, kept for `$hold` and `$book`. FhirError for orders of several patients, or that can't be booked."""
    orders = [order for id_ in question.orders if (order := await unit.read("ServiceRequest", id_))]
    whose = {order["subject"]["reference"] for order in orders} | ({question.patient} if question.patient else set())
    if len(whose) > 1:
        raise fail("business-rule", "a visit is of one patient: these orders are not", "Parameters.parameter")
    patient = next(iter(whose), None)
    known = await directory.load(unit)
    chosen = Chosen(question.devices, question.people, question.locations)
    start = max(question.start, unit.now)
    alternatives = await _alternatives(unit, question, orders)
    wanted = [[await _wanted(unit, known, n, chosen, start) for n in together] for together in alternatives]
    calendar = _Calendar(known, {a for ws in wanted for w in ws for o in w.options for a in (*o.stations, *_all(o.groups))})
    busy = await _busy(unit, patient, start, question) if patient else []
    found: list[list[Resource]] = []
    for begin, end in _portions(start, question.end):
        slots = await calendar.free(unit, (begin, end + _LONGEST_VISIT))
        free = FreeTime(_by_actor(slots), busy)
        # In a thread, as it may take seconds where there are many ways: the others are answered meanwhile.
        times = await asyncio.to_thread(_times, free, wanted, (begin, end), question)
        for visit, n in sorted(times, key=lambda t: (t[0][0].start, t[1]))[: question.count - len(found)]:
            found.append(_proposal(visit, alternatives[n], patient, slots, known))
            proposals.keep(unit, found[-1], question)
        if len(found) >= question.count:
            break
    return Found(found, list(dict.fromkeys(known.lacking)))


def _times(free: FreeTime, wanted: list[list[Wanted]], when: Interval, question: Question) -> list[tuple[list[Placed], int]]:
    """The first visits of each alternative, with its number."""
    wait = timedelta(minutes=question.wait)
    return [(visit, n) for n, ws in enumerate(wanted) for visit in islice(visits(free, ws, *when, wait), question.count)]


def _all(groups: Iterable[Sequence[str]]) -> list[str]:
    return [actor for group in groups for actor in group]


async def _alternatives(unit: UnitOfWork, question: Question, orders: list[Resource]) -> list[list[Need]]:
    """What is to be placed: one of these, each some examinations together."""
    length = timedelta(minutes=question.minutes) if question.minutes else None
    if orders:
        moved = await unit.read("Appointment", question.moved) if question.moved else None
        together = await needs.of_orders(unit, orders, moved=moved, length=length)
        if len(together) > _MOST_EXAMINATIONS:
            raise fail("too-costly", f"a visit is of {_MOST_EXAMINATIONS} examinations at most", "Parameters.parameter")
        if question.modalities:
            together = [n for n in together if n.modalities & set(question.modalities)]
        return [together] if together else []
    found: list[list[Need]] = []
    for code in question.codes:
        system, _, value = code.rpartition("|")
        request = {"code": concept(system, value)}
        entry = await activity_definition.catalogue_entry(unit, request)
        if entry is None:
            raise fail("value", f"{code[:80]} is not in the catalogue", "Parameters.parameter")
        modality = await activity_definition.modality(unit, request)
        found.append([needs.of_catalogue(entry, request["code"], frozenset([modality] if modality else ()), length)])
    return found or [[needs.of_catalogue(None, {}, frozenset([m]), length)] for m in question.modalities]


async def _wanted(unit: UnitOfWork, known: Directory, need: Need, chosen: Chosen, start: datetime) -> Wanted:
    return Wanted(need.length, max(start, unit.now + need.notice), await known.options(unit, need, chosen))


async def _busy(unit: UnitOfWork, patient: str, start: datetime, question: Question) -> list[Interval]:
    """When the patient is expected already."""
    parameters = [("patient", patient), ("status", ",".join(sorted(occupancy.HOLDS_TIME)))]
    parameters += [("date", f"ge{clock.instant(start - occupancy.LONGEST)}"), ("date", f"lt{clock.instant(question.end)}")]
    found = await unit.search_all("Appointment", parameters)
    return [occupancy.interval(a) for a in found if a["id"] != question.moved]


def _portions(start: datetime, end: datetime) -> Iterator[Interval]:
    n = 0
    while start < end:
        until = min(end, start + timedelta(days=_DAYS[min(n, len(_DAYS) - 1)]))
        yield start, until
        start, n = until, n + 1


class _Calendar:
    """The free slots of some actors."""

    def __init__(self, known: Directory, actors: Iterable[str]) -> None:
        self._actors: dict[str, list[str]] = {}
        for actor in sorted(actors):
            for schedule in known.schedules_of.get(actor, ()):
                self._actors.setdefault(f"Schedule/{schedule}", []).append(actor)

    async def free(self, unit: UnitOfWork, when: Interval) -> list[FreeSlot]:
        """Those that begin in this time, and that nobody has closed.

        Straight from the index, as a search would take their resources apart.
        """
        if not self._actors:
            return []
        closed: dict[str, list[Interval]] = {}
        earlier = when[0] - occupancy.LONGEST, when[1]
        by_hand = slots_in(self._actors, earlier, "busy-unavailable") | {"resource.meta.tag": {"$ne": occupancy.GENERATED}}
        for row in await self._rows(unit, by_hand):
            for actor in self._actors[row["schedule"]["reference"]]:
                closed.setdefault(actor, []).append(occupancy.interval(row))
        return [
            FreeSlot(actor, row["id"], span)
            for row in await self._rows(unit, slots_in(self._actors, when))
            for span in [occupancy.interval(row)]
            for actor in self._actors[row["schedule"]["reference"]]
            if not any(overlap(span, other) for other in closed.get(actor, ()))
        ]

    async def _rows(self, unit: UnitOfWork, where: dict[str, Any]) -> list[Resource]:
        shown = {f"resource.{element}": 1 for element in ("schedule.reference", "start", "end")}
        found = unit.db["Slot"].find(where, shown, hint=SLOTS, session=unit.session)
        return [row["resource"] | {"id": row["_id"]} for row in await found.to_list()]


def slots_in(schedules: Iterable[str], when: Interval, status: str = "free") -> dict[str, Any]:
    """The condition on stored slots that begin in this time."""
    return {
        "resource.schedule.reference": {"$in": list(schedules)},
        "resource.status": status,
        "search.d.start.s": {"$gte": clock.naive(when[0]), "$lt": clock.naive(when[1])},
    }


def _by_actor(slots: Iterable[FreeSlot]) -> dict[str, list[Interval]]:
    found: dict[str, list[Interval]] = {}
    for slot in slots:
        found.setdefault(slot.actor, []).append(slot.when)
    return found


# The Appointments of a visit


def _proposal(
    visit: Sequence[Placed], together: Sequence[Need], patient: str | None, slots: Sequence[FreeSlot], known: Directory
) -> list[Resource]:
    shared = {"identifier": [{"system": VISIT, "value": new_id()}]} if len(visit) > 1 else {}
    return [_appointment(placed, together[placed.number], patient, slots, known) | shared for placed in visit]


def _appointment(placed: Placed, need: Need, patient: str | None, slots: Sequence[FreeSlot], known: Directory) -> Resource:
    taken = {*placed.stations, *placed.chosen}
    when = placed.start, placed.end
    appointment: Resource = {
        "resourceType": "Appointment",
        "id": new_id(),
        "status": "proposed",
        "start": clock.instant(placed.start),
        "end": clock.instant(placed.end),
        "minutesDuration": int(need.length.total_seconds() // 60),
        "slot": [{"reference": f"Slot/{s.id}"} for s in slots if s.actor in taken and overlap(s.when, when)],
        "participant": _participants(placed, patient, known),
    }
    if need.order:
        appointment["basedOn"] = [{"reference": f"ServiceRequest/{need.order}"}]
    if need.code:
        appointment["serviceType"] = [need.code]
    return appointment


def _participants(placed: Placed, patient: str | None, known: Directory) -> list[Resource]:
    found: list[Resource] = [{"actor": {"reference": patient}, "status": "tentative"}] if patient else []
    for station in placed.stations:
        named = device.name(known.devices[station])
        found.append({"actor": {"reference": station} | ({"display": named} if named else {}), "status": "tentative"})
    rooms = [known.devices[station].get("location", {}).get("reference") for station in placed.stations]
    found += [{"actor": {"reference": room}, "status": "tentative"} for room in dict.fromkeys(rooms) if room]
    for actor in placed.chosen:
        beside = [concept(occupancy.PARTICIPANT, occupancy.EQUIPMENT)] if actor.startswith("Device/") else None
        found.append({"actor": {"reference": actor}, "status": "tentative"} | ({"type": beside} if beside else {}))
    return found
