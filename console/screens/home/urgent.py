"""The most urgent of what waits for each role, as a short list; of technologists, the rooms of today."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from console.asking import Found
from console.formats import concept
from console.screens.home import interfaces
from console.screens.home.waiting import OPEN_ITEMS, days
from console.visit import Visit
from fhir_server.elements import codes
from fhir_server.registry import Resource
from resources import terms
from resources.device import name as device_name
from resources.reading.critical_request import CRITICAL
from resources.reading.worklist import CLAIMED, OVERDUE, UNREAD
from smart_auth.roles import REVIEW

_MOST: Final = "8"
_TRACKING: Final = "urn:fhir-ris:tracking"
_ABSENT: Final = ("cancelled", "failed", "entered-in-error", "rejected")


@dataclass(frozen=True, slots=True)
class Row:
    """A line: whom and what it is about, since or until when, and where it leads ("" nowhere). `state` is a text's name,
    `home.is.<state>`, shown as a chip of this `kind`."""

    to: str
    text: str
    patient: Resource | None = None
    priority: str = ""
    at: str | None = None
    state: str = ""
    kind: str = "quiet"


@dataclass(frozen=True, slots=True)
class Room:
    """A scanner today: how many are expected, wait, are in the room, and are done."""

    id: str
    name: str
    numbers: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Listed:
    """A list with the name of its title (`home.list.<name>`), by `id` for links on the page."""

    name: str
    rows: list[Row]
    rooms: tuple[Room, ...] = ()
    id: str = "urgent"


async def listed(visit: Visit) -> list[Listed]:
    """The lists of the person's role."""
    own = _LISTS.get(visit.role, ())
    found = await visit.desk.together(*(ask(visit) for _, _, ask in own))
    made = zip(own, (f if isinstance(f, tuple) else (f, ()) for f in found), strict=True)
    return [Listed(name, rows, rooms, id_) for (name, id_, _), (rows, rooms) in made]


async def _unscheduled(visit: Visit) -> list[Row]:
    """Steps without a time, with the order of each."""
    found = await visit.desk.search(
        "Task", ("_include:iterate", "ServiceRequest:based-on"), intent="plan", status="requested",
        _sort="-priority,_lastUpdated", _count=_MOST, _include=("Task:patient", "Task:based-on"),
    )  # fmt: skip
    rows = []
    for step in found:
        procedure = _first(found, step.get("basedOn"))
        order = _first(found, (procedure or {}).get("basedOn"))
        about = order or procedure or step
        day = visit.today.isoformat()
        rows.append(
            Row(
                f"/schedule?day={day}&order={about['id']}" if visit.can("$appointment-book") else f"/orders/{about['id']}",
                concept((procedure or {}).get("code")),
                found.of(step.get("for")),
                step.get("priority", ""),
                about.get("authoredOn") or step.get("authoredOn"),
            )
        )
    return rows


async def _readings(visit: Visit) -> list[Row]:
    """What is to be read by anybody, or is being read by me."""
    open_, mine = await visit.desk.together(
        _tasks(visit, business_status=f"{terms.READING_STATUS}|{UNREAD}", _sort="-priority,due"),
        _tasks(visit, business_status=f"{terms.READING_STATUS}|{CLAIMED}", owner=visit.me or None, _sort="-priority,due")
        if visit.me
        else _nothing(),
    )
    rows = []
    for found in (mine, open_):
        for reading in found:
            states = codes(reading.get("businessStatus"), terms.READING_STATUS)
            state, kind = ("overdue", "bad") if OVERDUE in states else ("mine", "busy") if CLAIMED in states else ("", "")
            until = reading.get("restriction", {}).get("period", {}).get("end")
            text = reading.get("description") or concept((_first(found, reading.get("basedOn")) or {}).get("code"))
            priority = reading.get("priority", "")
            rows.append(Row(f"/reading/{reading['id']}", text, found.of(reading.get("for")), priority, until, state, kind))
    return rows[: int(_MOST)]


async def _critical(visit: Visit) -> list[Row]:
    """Critical results that nobody has acknowledged yet; of a referrer, those that it is to be told."""
    whom = visit.me if visit.role == "referrer" else None
    found = await visit.desk.search(
        "CommunicationRequest", category=f"urn:fhir-ris:communication|{CRITICAL}", status="active", recipient=whom,
        _sort="occurrence", _count=_MOST, _include="CommunicationRequest:patient",
    )  # fmt: skip
    about = {r["id"]: _report_of(r) for r in found}
    reports = await visit.desk.search("DiagnosticReport", _id=",".join(filter(None, about.values())) or "-", _elements="code")
    rows = []
    for request in found:
        late = "overdue" in codes(request.get("category"), "urn:fhir-ris:communication")
        text = concept((reports.of(f"DiagnosticReport/{about[request['id']]}") or {}).get("code"))
        due = request.get("occurrenceDateTime")
        state, kind = ("late", "bad") if late else ("to-acknowledge", "warn")
        to = f"/reading/critical/{request['id']}"
        rows.append(Row(to, text, found.of(request.get("subject")), request.get("priority", ""), due, state, kind))
    return rows


async def _results(visit: Visit) -> list[Row]:
    """Reports that were signed in the last days."""
    found = await visit.desk.search(
        "DiagnosticReport", ("issued", f"ge{days(visit)['week']}"), status="final,amended,corrected,appended", _sort="-issued",
        _count=_MOST, _include="DiagnosticReport:patient", _elements="code,subject,issued,status",
    )  # fmt: skip
    return [
        Row(f"/reading/reports/{r['id']}", concept(r.get("code")), found.of(r.get("subject")), "", r.get("issued")) for r in found
    ]


async def _rooms(visit: Visit) -> tuple[list[Row], tuple[Room, ...]]:
    """Who waits now, and the numbers of each scanner of today."""
    moments = days(visit)
    waiting, steps = await visit.desk.together(
        _tasks(visit, business_status=f"{_TRACKING}|arrived,{_TRACKING}|prepared", _sort="-priority,due"),
        visit.desk.search(
            "Task", ("due", f"ge{moments['today']}"), ("due", f"lt{moments['tomorrow']}"), intent="plan",
            _elements="owner,status", _include="Task:owner",
        ),
    )  # fmt: skip
    by_room: dict[str, Counter[str]] = {}
    for step in steps:
        if step["status"] not in _ABSENT and (owner := step.get("owner", {}).get("reference")):
            by_room.setdefault(owner, Counter())[step["status"]] += 1
    rooms = [
        Room(owner.partition("/")[2], device_name(steps.of(owner)), _numbers(n))
        for owner, n in by_room.items()
        if owner.startswith("Device/")
    ]
    rows = []
    for step in waiting:
        text = step.get("description") or concept((_first(waiting, step.get("basedOn")) or {}).get("code"))
        begin = step.get("restriction", {}).get("period", {}).get("start")
        prepared = "prepared" in codes(step.get("businessStatus"), _TRACKING)
        state = "prepared" if prepared else "arrived"
        rows.append(
            Row(f"/rooms/steps/{step['id']}", text, waiting.of(step.get("for")), step.get("priority", ""), begin, state, "busy")
        )
    return rows, tuple(sorted(rooms, key=lambda room: room.name))


async def _alerts(visit: Visit) -> list[Row]:
    return [
        Row("/interfaces", a.get("description", ""), None, "", a.get("authoredOn"), interfaces.kind(a), "bad")
        for a in (await interfaces.alerts(visit))[: int(_MOST)]
    ]


async def _work(visit: Visit) -> list[Row]:
    """The most urgent work items about orders, coverage and identities."""
    found = await _tasks(visit, code=OPEN_ITEMS, status="requested", _sort="-priority,authored-on")
    return [
        Row(
            f"/orders/items/{t['id']}",
            t.get("description", ""),
            found.of(t.get("for")),
            t.get("priority", ""),
            t.get("authoredOn"),
        )
        for t in found
    ]


async def _reviews(visit: Visit) -> list[Row]:
    found = await visit.desk.search(
        "Task", code=REVIEW, status="requested", _sort="authored-on", _count=_MOST, _include="Task:focus"
    )
    return [Row("/audit/reviews", t.get("description", ""), found.of(t.get("focus")), "", t.get("authoredOn")) for t in found]


async def _tasks(visit: Visit, **parameters: Any) -> Found:
    found: Found = await visit.desk.search("Task", **parameters, _count=_MOST, _include=("Task:patient", "Task:based-on"))
    return found


async def _nothing() -> Found:
    return Found([])


def _first(found: Found, references: Any) -> Resource | None:
    return next((r for each in references or () if (r := found.of(each)) is not None), None)


def _report_of(request: Resource) -> str:
    """The id of the report that a critical result is in."""
    told = (str(r.get("reference", "")) for r in request.get("about", ()))
    return next((r.removeprefix("DiagnosticReport/") for r in told if r.startswith("DiagnosticReport/")), "")


def _numbers(n: Counter[str]) -> tuple[int, int, int, int]:
    return n["accepted"] + n["requested"], n["ready"], n["in-progress"], n["completed"]


_Ask = Callable[[Visit], Awaitable[Any]]
# For each role, its lists: the name of the title, the id on the page, and who asks for it.
_LISTS: Final[dict[str, tuple[tuple[str, str, _Ask], ...]]] = {
    "scheduler": (("unscheduled", "urgent", _unscheduled),),
    "technologist": (("waiting", "urgent", _rooms),),
    "radiologist": (("critical", "urgent", _critical), ("readings", "readings", _readings)),
    "referrer": (("critical", "urgent", _critical), ("results", "results", _results)),
    "interface-admin": (("alerts", "urgent", _alerts),),
    "admin": (("work", "urgent", _work),),
    "privacy-officer": (("reviews", "urgent", _reviews),),
}
