"""The board: a day by room. Who is expected, there, prepared, examined, done; what is late; which scanner is not as usual."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from starlette.responses import Response

from bridges.dicom import habits
from console.asking import Found
from console.formats import moment
from console.screens.rooms import said, settling
from console.visit import Visit
from fhir_server import clock
from fhir_server.registry import Resource
from resources import device, task, terms, tracking, work_items
from resources.alerts import ALERT
from resources.device import name as device_name

_OVER_MIDNIGHT: Final = timedelta(hours=4)  # an examination of this day may end so long after it
_MOST: Final = "1000"
# The groups of a room's list, in their order, by state.
_GROUPS: Final = {
    "now": ("in-progress", "in-room"),
    "waiting": ("prepared", "arrived"),
    "expected": ("scheduled", ""),
    "done": ("done", "stopped", "left"),
}
_GROUP_OF: Final = {state: group for group, states in _GROUPS.items() for state in states}
# What is usually said of a patient next, from the board.
_NEXT: Final = {"scheduled": "arrived", "arrived": "prepared", "prepared": "in-room"}
_NOT_SHOWN: Final = frozenset({"draft", "requested", "received", "rejected", "cancelled", "entered-in-error"})


@dataclass(frozen=True, slots=True)
class Row:
    """An examination on the board. `late`: how long its time has passed without what should have happened by then."""

    step: Resource
    patient: Resource | None
    state: str
    start: datetime | None
    since: datetime | None
    late: timedelta | None

    @property
    def exam(self) -> str:
        return said.exam(self.step)

    @property
    def readiness(self) -> str:
        """What stands in its way, as long as it waits."""
        return task.readiness(self.step) if self.step["status"] in task.BEFORE_START else ""

    @property
    def next(self) -> str:
        """What is usually said of the patient next."""
        return _NEXT.get(self.state, "") if self.step["status"] != "on-hold" else ""


@dataclass(slots=True)
class Room:
    """A scanner with its rows by group; `alerts`: (kind, text) of what is not as usual; `asked`: when it last asked."""

    id: str
    name: str
    where: str = ""
    kinds: str = ""
    alerts: list[tuple[str, str]] = field(default_factory=list)
    asked: datetime | None = None
    rows: list[Row] = field(default_factory=list)

    def group(self, name: str) -> list[Row]:
        """Its rows of a group, in the order in which they matter."""
        rows = [r for r in self.rows if _GROUP_OF.get(r.state) == name]
        return rows[::-1] if name == "done" else rows


async def show(visit: Visit) -> Response:
    """The rooms of a day."""
    day = _day(visit)
    start, end = _moment(visit, day), _moment(visit, day + timedelta(days=1))
    scanners, steps, alerts, open_items = await visit.desk.together(
        visit.desk.search("Device", identifier=f"{terms.AE_TITLE}|", status="active", _include="Device:location"),
        _steps(visit, start, end, now=day == visit.today),
        visit.desk.search("Task", code=f"{terms.TASK_CODE}|{ALERT}", status="requested", _count="100"),
        settling.count(visit),
    )
    found, patients = steps
    rooms = {f"Device/{d['id']}": _room(d, scanners) for d in scanners if visit.asked("scanner") in {"", d["id"]}}
    await _tell_of_scanners(visit, rooms, scanners, alerts)
    for row in sorted((_row(visit, s, patients) for s in found), key=lambda r: (r.start or clock.now(), r.step["id"])):
        owner = row.step.get("owner", {}).get("reference", "")
        if owner not in rooms and not visit.asked("scanner"):
            rooms[owner] = Room(owner.rpartition("/")[2], owner or visit.t("rooms.no-room"))
        if owner in rooms:
            rooms[owner].rows.append(row)
    listed = sorted(rooms.values(), key=lambda r: r.name)
    rows = [r for room in listed for r in room.rows]
    return visit.page(
        "rooms/index.html",
        day=day,
        before=day - timedelta(days=1),
        after=day + timedelta(days=1),
        rooms=listed,
        scanners=[(d["id"], device_name(d)) for d in sorted(scanners, key=device_name)],
        groups=tuple(_GROUPS),
        totals=Counter(_GROUP_OF.get(r.state, "") for r in rows),
        late=sum(r.late is not None for r in rows),
        to_settle=open_items,
    )


def _day(visit: Visit) -> date:
    given = visit.asked("day")
    if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
        return visit.today
    try:
        return min(max(date.fromisoformat(given), date(1900, 1, 2)), date(2999, 12, 30))
    except ValueError:
        return visit.today


def _moment(visit: Visit, day: date) -> datetime:
    return datetime.combine(day, time.min, visit.zone).astimezone(UTC)


async def _steps(visit: Visit, start: datetime, end: datetime, *, now: bool) -> tuple[list[Resource], Found]:
    """The steps of the day: booked for it or performed on it, and on the present day whoever is there; with their patients."""
    search, common = visit.desk.search, {"intent": "plan", "_include": "Task:patient", "_count": _MOST}
    if one := visit.asked("scanner"):
        common["owner"] = f"Device/{one}"
    till = (end + _OVER_MIDNIGHT).isoformat()
    asked = [
        search("Task", ("due", f"gt{start.isoformat()}"), ("due", f"lt{till}"), **common),
        search("Task", ("period", f"ge{start.isoformat()}"), ("period", f"lt{end.isoformat()}"), **common),
    ]
    if now:
        asked.append(search("Task", status="ready,in-progress", **common))
    booked, performed, *there = await visit.desk.together(*asked)
    of_the_day = [s for s in booked if start <= (said.begin(s) or start) < end or _ends_on(s, start, end)]
    together = Found([])
    for one in (booked, performed, *there):
        together.by_reference.update(one.by_reference)
    steps = {s["id"]: s for s in (*of_the_day, *performed, *(s for one in there for s in one))}
    return [s for s in steps.values() if s["status"] not in _NOT_SHOWN], together


def _ends_on(step: Resource, start: datetime, end: datetime) -> bool:
    at = said.end(step)
    return at is not None and start < at <= end


def _row(visit: Visit, step: Resource, patients: Found) -> Row:
    state = tracking.state(step)
    tracked = tracking.tracked(step)
    since = moment(tracked[-1][1]) if tracked else None
    return Row(step, patients.of(step.get("for")), state, said.begin(step), since, said.late(step, state, visit.now))


def _room(one: Resource, found: Found) -> Room:
    place = found.of(one.get("location")) or {}
    where = str(place.get("name") or one.get("location", {}).get("display", ""))
    return Room(one["id"], device_name(one), where, ", ".join(device.modalities(one)))


async def _tell_of_scanners(visit: Visit, rooms: dict[str, Room], scanners: Found, alerts: Iterable[Resource]) -> None:
    """What is not as usual about a scanner, and when it last asked for its worklist."""
    titles = {title: f"Device/{d['id']}" for d in scanners if (title := device.ae_title(d))}
    for alert in alerts:
        subject = next((i["value"] for i in alert.get("identifier", ()) if i.get("system") == work_items.SUBJECT), "")
        kind, _, title = subject.removeprefix(f"{ALERT} ").partition(" ")
        room = rooms.get(titles.get(title, ""))
        if room is not None:
            room.alerts.append((kind, alert.get("description", "")))
    asked = await habits.last_asked(visit.console.interactions.store.db, titles)
    for title, at in asked.items():
        if (room := rooms.get(titles[title])) is not None:
            room.asked = at
