"""Tracking: where a patient is in an examination, and since when.

A step's Task.businessStatus has the DICOM status that scanners are told (`urn:fhir-ris:sps-status`) and the department's
state (`urn:fhir-ris:tracking`), both searchable. Each state that it has come to is kept in the Task, in order, for figures:
    {"url": "urn:fhir-ris:tracked", "extension": [
        {"url": "state", "valueCode": "in-room"}, {"url": "at", "valueInstant": "2026-09-08T08:05:00.000Z"},
        {"url": "by", "valueReference": {"reference": "Practitioner/1"}}]}      who said so, where a person did
When it was ordered is authoredOn; what was performed, and when, is told by the Procedures.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import codes
from fhir_server.outcome import fail
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms

SYSTEM: Final = "urn:fhir-ris:tracking"
TRACKED: Final = "urn:fhir-ris:tracked"
# Task.status -> the states it may be in, the first unless somebody says another.
STATES: Final = {
    "accepted": ("scheduled",),
    "ready": ("arrived", "prepared", "in-room"),
    "in-progress": ("in-progress",),
    "completed": ("done", "left"),
    "cancelled": ("cancelled",),
    "failed": ("stopped", "left"),
}
# The state to DICOM Scheduled Procedure Step Status (PS3.3 C.4.10; DESIGN.md section 3).
_SPS: Final = {
    "scheduled": "SCHEDULED",
    "arrived": "ARRIVED",
    "prepared": "READY",
    "in-room": "READY",
    "in-progress": "STARTED",
    "done": "COMPLETED",
    "stopped": "DISCONTINUED",
    "cancelled": "CANCELED",
    "left": "DEPARTED",
}
_OF_SPS: Final = {"READY": "prepared", "DEPARTED": "left"}
CLOCKS_DIFFER: Final = timedelta(minutes=5)


def state(step: Resource) -> str:
    """The state of a step; empty as long as it isn't scheduled."""
    possible = STATES.get(step.get("status", ""), ("",))
    said = codes(step.get("businessStatus"), SYSTEM) + [
        _OF_SPS.get(c, "") for c in codes(step.get("businessStatus"), terms.SPS_STATUS)
    ]
    return next((s for s in said if s in possible), possible[0])


def at_state(step: Resource, wanted: str) -> Resource:
    """The step in another state that its status allows."""
    coding = [{"system": terms.SPS_STATUS, "code": _SPS[wanted]}, {"system": SYSTEM, "code": wanted}]
    return step | {"businessStatus": {"coding": coding}}


def tracked(step: Resource) -> list[tuple[str, str]]:
    """The states that a step has been in, with their times, in order: ("arrived", "2026-09-08T08:00:00.000Z")."""
    rows = (_parts(e) for e in step.get("extension", ()) if e.get("url") == TRACKED)
    return [(row["state"], row["at"]) for row in rows]


def entry(name: str, at: datetime, by: str | None) -> Resource:
    """A row of the history."""
    parts: list[Resource] = [{"url": "state", "valueCode": name}, {"url": "at", "valueInstant": clock.instant(at)}]
    if by is not None:
        parts.append({"url": "by", "valueReference": {"reference": by}})
    return {"url": TRACKED, "extension": parts}


def _parts(row: Resource) -> dict[str, Any]:
    return {p["url"]: next((v for k, v in p.items() if k.startswith("value")), None) for p in row.get("extension", ())}


async def note(unit: UnitOfWork, change: Change, step: Resource) -> None:
    """Give a step its businessStatus, and write down the state that it has come to. What was written down stays."""
    now = state(step)
    if now:
        step["businessStatus"] = at_state(step, now)["businessStatus"]
    else:
        step.pop("businessStatus", None)
    before = change.before or {}
    had = [e for e in before.get("extension", ()) if e.get("url") == TRACKED]
    # What a client sends is no history: rows come from `$track`.
    given = [] if unit.is_callers else [e for e in step.get("extension", ()) if e.get("url") == TRACKED][len(had) :]
    others = [e for e in step.get("extension", ()) if e.get("url") != TRACKED]
    new: list[Resource] = []
    if now and now != (state(before) if before else ""):
        own = next((e for e in given if _parts(e).get("state") == now), None)
        new = [_checked(own, unit) if own else entry(now, _time(step, now) or unit.now, await person(unit))]
    step["extension"] = [*others, *had, *new]
    if not step["extension"]:
        del step["extension"]


async def person(unit: UnitOfWork) -> str | None:
    """The reference to the person who asks, if its resource is here; None for machines."""
    user = unit.access.user
    return user if user is not None and await unit.get(user) is not None else None


def _checked(row: Resource, unit: UnitOfWork) -> Resource:
    """A row that comes with its time: that is not to come."""
    at = _moment(_parts(row).get("at"))
    if at is None or at > unit.now + CLOCKS_DIFFER:
        raise fail("business-rule", "what is tracked has happened: its time is not to come", "Task.extension")
    return row


def _time(step: Resource, now: str) -> datetime | None:
    """When it began and ended, as the scanner or a person says."""
    element = {"in-progress": "start", "done": "end", "stopped": "end"}.get(now)
    return _moment(step.get("executionPeriod", {}).get(element)) if element else None


def _moment(given: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(given))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
