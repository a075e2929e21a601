"""The board: the scanners, and what is on each at the times of a day or a week."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from typing import Final, TypeVar

from babel import dates

from console.asking import Found
from console.formats import concept, human_name
from console.screens.schedule.asked import ALL, Asked, instant
from console.screens.schedule.grid import Grid, Item, besides, lay
from console.visit import Visit
from fhir_server import clock
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.search.index import RANK
from resources import appointment, device, terms
from resources.scheduling import occupancy, schedules

T = TypeVar("T")

SHOWN: Final = "pending,booked,arrived,checked-in,fulfilled,noshow"
_DAY: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Scanner:
    """A scanner, where it is (id and name of its Location), its Schedules in use, and the resources that say its hours."""

    id: str
    name: str
    modalities: tuple[str, ...]
    place: str
    place_name: str
    schedules: tuple[Resource, ...]
    hours: tuple[Resource, ...]

    @property
    def by_hand(self) -> bool:
        """Whether people make its slots, or nobody does."""
        return not any(schedules.generation(s) for s in self.schedules)


@dataclass(frozen=True, slots=True)
class Booking:
    """An appointment on the board."""

    id: str
    status: str
    patient: str
    what: str
    priority: str
    from_to: str
    overbooked: bool


@dataclass(frozen=True, slots=True)
class Free:
    """A free time: as an address has it, and as people read it."""

    at: str
    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """A scanner on a day, and how many of its slots are free."""

    scanner: Scanner
    day: date
    items: list[Item]
    free: int


@dataclass(frozen=True, slots=True)
class Board:
    """The table: `times` are the texts of its rows."""

    columns: list[Column]
    grid: Grid
    times: dict[int, str]
    now: int | None  # the minute of today that is now, where today is on it


@dataclass(slots=True)
class Times:
    """Times of day in the reader's language, each formatted once."""

    zone: tzinfo
    locale: object
    known: dict[int, str] = field(default_factory=dict)

    def text(self, minute: int) -> str:
        if minute not in self.known:
            at = datetime(2000, 1, 1) + timedelta(minutes=minute)  # noqa: DTZ001 - a time on the wall
            self.known[minute] = dates.format_time(at, "short", locale=self.locale)  # type: ignore[arg-type]
        return self.known[minute]

    def day(self, element: Resource) -> date:
        """The day that it begins on."""
        return datetime.fromisoformat(element["start"]).astimezone(self.zone).date()

    def minutes(self, day: date, start: str, end: str) -> tuple[int, int]:
        """From and to as minutes of this day, on the department's clock."""
        first, last = (datetime.fromisoformat(t).astimezone(self.zone) for t in (start, end))
        begins = 0 if first.date() < day else first.hour * 60 + first.minute
        return begins, _DAY if last.date() > day else last.hour * 60 + last.minute + (last.second > 0)


async def scanners(visit: Visit) -> list[Scanner]:
    """All scanners in use, by modality and name."""
    devices, known = await visit.desk.together(
        visit.desk.search("Device", status="active", type=f"{terms.DCM}|", _include="Device:location"),
        visit.desk.search("Schedule", active="true", _include="Schedule:actor"),
    )
    found = [_scanner(one, devices, known) for one in devices]
    return sorted(found, key=lambda s: (s.modalities, [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", s.name)]))


def _scanner(one: Resource, devices: Found, known: Found) -> Scanner:
    own = [s for s in known if f"Device/{one['id']}" in schedules.actors(s, "Device")]
    hours = {ref: h for s in own for ref in schedules.actors(s, *schedules.HOURS) if (h := known.of(ref))}
    place = target(one.get("location"))
    named = (devices.of(one.get("location")) or {}).get("name", "")
    name = device.name(one) or one["id"]
    return Scanner(
        one["id"], name, tuple(device.modalities(one)), place.id if place else "", named, tuple(own), tuple(hours.values())
    )


def chosen(asked: Asked, known: Sequence[Scanner], wanted: Iterable[str]) -> list[Scanner]:
    """Those on the board. `wanted`: the modalities of what is picked, which count unless somebody has chosen another."""
    if asked.week:
        return [s for s in known if s.id == asked.scanner] or [s for s in known if _suits(asked, s, wanted)][:1]
    return [s for s in known if _suits(asked, s, wanted)]


def _suits(asked: Asked, one: Scanner, wanted: Iterable[str]) -> bool:
    modalities = {asked.modality} - {"", ALL} or (set() if asked.modality == ALL else set(wanted))
    return (not modalities or not modalities.isdisjoint(one.modalities)) and asked.location in ("", one.place)


async def board(visit: Visit, asked: Asked, shown: Sequence[Scanner]) -> Board:
    """What is on these scanners."""
    bookings, slots = await visit.desk.together(_bookings(visit, asked, shown), _slots(visit, asked, shown))
    times = Times(visit.zone, visit.t.locale)
    rows = [(one, times.day(one), _booked(one, bookings, times)) for one in bookings]
    booked = _by_place((f"{to}/{day}", row) for one, day, row in rows for to in occupancy.takes(one))
    made = _by_place((f"{slot['schedule']['reference']}/{times.day(slot)}", slot) for slot in slots)
    columns = []
    for one in shown:
        for day in asked.days:
            own = [slot for s in one.schedules for slot in made.get(f"Schedule/{s['id']}/{day}", ())]
            columns.append(_column(visit, one, day, booked.get(f"Device/{one.id}/{day}", []), own, times))
    now = visit.now.astimezone(visit.zone)
    today = now.hour * 60 + now.minute
    grid = lay([c.items for c in columns], [today if c.day == visit.today else _DAY * (c.day < visit.today) for c in columns])
    minute = today if visit.today in asked.days else None
    return Board(columns, grid, {row.minute: times.text(row.minute) for row in grid.rows}, minute)


def _period(visit: Visit, asked: Asked) -> tuple[str, str]:
    days = asked.days
    midnights = [datetime.combine(day, datetime.min.time(), visit.zone) for day in (days[0], days[-1] + timedelta(days=1))]
    return f"ge{clock.instant(midnights[0])}", f"lt{clock.instant(midnights[1])}"


async def _bookings(visit: Visit, asked: Asked, shown: Sequence[Scanner]) -> Found:
    actors = ",".join(f"Device/{s.id}" for s in shown)
    if not actors:
        return Found([])
    since, until = _period(visit, asked)
    found: Found = await visit.desk.search(
        "Appointment",
        actor=actors,
        status=SHOWN,
        date=[since, until],
        _sort="date",
        _include=["Appointment:patient", "Appointment:based-on"],
    )
    return found


async def _slots(visit: Visit, asked: Asked, shown: Sequence[Scanner]) -> list[Resource]:
    of = ",".join(f"Schedule/{s['id']}" for one in shown for s in one.schedules)
    if not of:
        return []
    since, until = _period(visit, asked)
    return (await visit.desk.search("Slot", schedule=of, start=[since, until])).matches


def _by_place(found: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """What there is, by scanner (or Schedule) and day."""
    there: dict[str, list[T]] = {}
    for place, one in found:
        there.setdefault(place, []).append(one)
    return there


def _column(visit: Visit, one: Scanner, day: date, items: list[Item], there: Sequence[Resource], times: Times) -> Column:
    """What is on a scanner on a day: its bookings, and the slots that none of them has."""
    held = [(i.start, i.end) for i in items if i.what.status != "noshow"]
    rest: list[Item] = []
    closed: list[tuple[int, int]] = []
    for slot in (s for s in there if s["status"] == "busy-unavailable" and not occupancy.is_generated(s)):
        closed.append(times.minutes(day, slot["start"], slot["end"]))
        rest += [Item("blocked", *part, (slot["id"], slot.get("comment", ""))) for part in besides(closed[-1], held)]
    held += closed
    for slot in there:
        when = times.minutes(day, slot["start"], slot["end"])
        left = list(besides(when, held))
        if left != [when]:
            continue  # what has a part of it is shown
        if slot["status"] in ("busy", "busy-tentative"):
            rest.append(Item("taken", *when))
        elif slot["status"] == "free":
            at = datetime.fromisoformat(slot["start"])
            rest.append(Item("free" if at > visit.now else "past", *when, Free(instant(at), times.text(when[0]))))
    return Column(one, day, [*items, *rest], sum(i.kind == "free" for i in rest))


def _booked(one: Resource, bookings: Found, times: Times) -> Item:
    begin, end = times.minutes(times.day(one), one["start"], one["end"])
    orders = [o for r in one.get("basedOn", ()) if (o := bookings.of(r))]
    patient = next((bookings.of(p) for p in appointment.participants(one, "Patient")), None)
    row = Booking(
        one["id"],
        one["status"],
        human_name(patient or {}),
        what(one, orders),
        max((o.get("priority", "routine") for o in orders), key=lambda p: RANK.get(p, 0), default="routine"),
        f"{times.text(begin)}–{times.text(end % _DAY)}",
        occupancy.OVERBOOKED in {e.get("url") for e in one.get("extension", ())},
    )
    return Item("booking", begin, end, row)


async def slot(visit: Visit, asked: Asked) -> Resource | None:
    """The closed time that is picked; None for one that isn't there or is open."""
    found = await visit.desk.search("Slot", _id=asked.slot, status="busy-unavailable")
    return next(iter(found), None)


def what(one: Resource, orders: Iterable[Resource]) -> str:
    """What an appointment is for, in words."""
    told = [concept(t) for t in one.get("serviceType", ())] or [concept(o.get("code")) for o in orders]
    return ", ".join(dict.fromkeys(told)) or one.get("description", "") or concept(None)
