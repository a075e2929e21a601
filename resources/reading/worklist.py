"""The reading worklist: interpretation Tasks, and what each says beside its study so that one index serves every list of them.

businessStatus         urn:fhir-ris:reading-status: unread, claimed or preliminary while it is open, overdue beside it
owner                  who has claimed it
restriction.period.end until when it should be reported (`time_limits.py`)
performerType          the subspecialty, of the catalogue entry's extension urn:fhir-ris:reading-subspecialty
location               where the patient was examined
"""

from datetime import datetime
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import codes, extension, same
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, diagnostic_report, service_request, task, terms
from resources.announced import Announced
from resources.reading import time_limits

SUBSPECIALTY: Final = "urn:fhir-ris:reading-subspecialty"
UNREAD, CLAIMED, PRELIMINARY, OVERDUE = "unread", "claimed", "preliminary", "overdue"
_STATES: Final = (UNREAD, CLAIMED, PRELIMINARY)
OPEN: Final = ",".join(f"{terms.READING_STATUS}|{state}" for state in _STATES)
_ENDED: Final = frozenset({"completed", "cancelled", "rejected", "failed", "entered-in-error"})
_DRAFT: Final = frozenset({"registered", "partial"})
_ARRANGED: Final = ("owner", "priority", "restriction", "performerType", "location")
_ARRANGERS: Final = frozenset({"radiologist", "admin"})
moving: Final = Announced()  # what is written in here may take a reading from its owner


def is_reading(item: Resource) -> bool:
    """Whether a Task is the reading of a study."""
    return not task.is_step(item) and task.is_reading(item)


def is_open(reading: Resource) -> bool:
    return reading["status"] not in _ENDED


def owner(reading: Resource | None) -> str | None:
    """Who has claimed it, as a reference."""
    named: Resource = (reading or {}).get("owner", {})
    return named.get("reference")


async def check(unit: UnitOfWork, change: Change) -> None:
    """Nobody takes a claimed reading from its owner in passing; status, target and place are filled in."""
    reading, before = change.after, change.before
    if reading is None or not is_reading(reading):
        return
    _check_owner(unit, change, reading)
    await _check_reader(unit, change, reading)
    if before is None:
        await _describe(unit, reading)
    elif before.get("priority") != reading.get("priority") and before.get("restriction") == reading.get("restriction"):
        await _set_due(unit, reading, await unit.get(_procedure(reading)))
    _set_state(unit.now, reading)


def _check_owner(unit: UnitOfWork, change: Change, reading: Resource) -> None:
    had, has = owner(change.before), owner(reading)
    if had is None or had == has or not is_open(reading) or unit in moving or unit.access.internal or unit.access.user == had:
        return
    if has is None and not unit.access.person:
        return
    raise fail("conflict", f"the reading is claimed by {had}, who releases it; $reassign gives it to another", "Task.owner")


async def _check_reader(unit: UnitOfWork, change: Change, reading: Resource) -> None:
    """Who reads what, when, is for readers to say; what was read has a report."""
    if not unit.is_callers or change.before is None:
        return
    moved = [e for e in _ARRANGED if not same(change.before.get(e), reading.get(e))]
    if moved and unit.access.person and unit.access.role not in _ARRANGERS:
        raise fail("forbidden", f"this is for {' or '.join(sorted(_ARRANGERS))} to change", f"Task.{moved[0]}")
    procedure = await unit.get(_procedure(reading)) if change.became("status", "completed") else None
    if procedure is not None and not await diagnostic_report.is_signed(unit, procedure):
        raise fail("business-rule", "a reading is completed by its signed report, and there is none", "Task.status")


def _procedure(reading: Resource) -> Any:
    return next(iter(reading.get("basedOn", ())), None)


async def _describe(unit: UnitOfWork, reading: Resource) -> None:
    procedure = await unit.get(_procedure(reading))
    if procedure is not None and procedure["resourceType"] == "ServiceRequest":
        entry = await activity_definition.catalogue_entry(unit, procedure)
        if wanted := extension(entry or {}, SUBSPECIALTY):
            reading.setdefault("performerType", [wanted["valueCodeableConcept"]])
        if place := await _place(unit, procedure):
            reading.setdefault("location", place)
    if "restriction" not in reading:
        await _set_due(unit, reading, procedure)


async def _place(unit: UnitOfWork, procedure: Resource) -> Resource | None:
    """Where the scanner is that has done it."""
    for step in await task.steps_of(unit, procedure["id"]):
        station = await unit.get(step.get("owner")) if step["status"] == "completed" else None
        if station is not None and "location" in station:
            place: Resource = station["location"]
            return place
    return None


async def _set_due(unit: UnitOfWork, reading: Resource, procedure: Resource | None) -> None:
    is_request = procedure is not None and procedure["resourceType"] == "ServiceRequest"
    modality = await activity_definition.modality(unit, procedure) if procedure is not None and is_request else None
    allowed = await time_limits.reading_target(unit, reading.get("priority", "routine"), modality)
    if allowed is None:
        reading.pop("restriction", None)
        return
    since = datetime.fromisoformat(reading["authoredOn"]) if "T" in reading.get("authoredOn", "") else unit.now
    reading["restriction"] = {"period": {"end": clock.instant(since + allowed)}}


def due(reading: Resource) -> datetime | None:
    """Until when it should be reported."""
    end = reading.get("restriction", {}).get("period", {}).get("end", "")
    return datetime.fromisoformat(end) if "T" in end else None


def _set_state(now: datetime, reading: Resource) -> None:
    if not is_open(reading):
        reading.pop("businessStatus", None)
        return
    said = codes(reading.get("businessStatus"), terms.READING_STATUS)
    begun = PRELIMINARY in said and reading["status"] == "in-progress"
    states = [PRELIMINARY if begun else CLAIMED if owner(reading) else UNREAD]
    until = due(reading)
    if OVERDUE in said and until is not None and until <= now:
        states.append(OVERDUE)
    reading["businessStatus"] = {"coding": [{"system": terms.READING_STATUS, "code": state} for state in states]}


def marked(reading: Resource, state: str) -> Resource:
    """The reading with a further state: preliminary, overdue."""
    known = reading.get("businessStatus", {}).get("coding", [])
    return reading | {"businessStatus": {"coding": [*known, {"system": terms.READING_STATUS, "code": state}]}}


async def of_procedure(unit: UnitOfWork, procedure_id: str) -> list[Resource]:
    """The readings of a requested procedure that are open."""
    found = await unit.search("Task", based_on=f"ServiceRequest/{procedure_id}", code=terms.READING)
    return [r for r in found if is_open(r)]


async def check_author(unit: UnitOfWork, report: Resource) -> None:
    """FhirError 409 where a person would write in a draft whose reading is another's; a preliminary report is open to all."""
    if not unit.access.person or report["status"] not in _DRAFT:
        return
    for procedure in await diagnostic_report.signed_for(unit, report):
        for reading in await of_procedure(unit, procedure["id"]):
            if (had := owner(reading)) not in {None, unit.access.user}:
                raise fail("conflict", f"the reading is claimed by {had}, who writes its report", "DiagnosticReport.status")


async def check_report(unit: UnitOfWork, change: Change) -> None:
    """A draft is written by whoever has claimed its reading, also without `$write`."""
    before, report = change.before, change.after
    if not unit.is_callers or before is None or report is None:
        return
    if any(not same(before.get(e), report.get(e)) for e in diagnostic_report.SIGNED_FOR):
        await check_author(unit, before)


async def follow_report(unit: UnitOfWork, change: Change) -> None:
    """A preliminary report shows on the worklist: its reading waits for an attending."""
    if change.after is None or not change.became("status", "preliminary"):
        return
    for procedure in await diagnostic_report.signed_for(unit, change.after):
        for reading in await of_procedure(unit, procedure["id"]):
            if reading["status"] == "in-progress":
                await unit.update(marked(reading, PRELIMINARY))


async def follow_request(unit: UnitOfWork, change: Change) -> None:
    """What becomes more urgent after the examination is read sooner."""
    before, request = change.before, change.after
    if before is None or request is None or before.get("priority") == request.get("priority"):
        return
    if service_request.is_procedure(request):
        for reading in await of_procedure(unit, request["id"]):
            await unit.update(reading | {"priority": request.get("priority", "routine")})


def register(registry: Registry) -> None:
    registry.rule("Task", check)
    registry.rule("DiagnosticReport", check_report)
    registry.reaction("DiagnosticReport", follow_report)
    registry.reaction("ServiceRequest", follow_request)
