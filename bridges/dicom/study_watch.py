"""Which studies are looked up in the PACS, and when: a row for each, written in the transaction that makes it worth a look.

    study_watch  {_id: Study Instance UID, due, until, tries, instances: as last seen, seen: since when so many, reason}

A step's end (`ended`) is one: have its images arrived? The beginning of a booked examination (`booked`) another, where the
scanner's images end it (`scanner_preferences`, examination-end `study-stable`). Rows go when the study is settled, or at `until`.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from pymongo import IndexModel, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import clock
from fhir_server.references import target
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import imaging_study, procedure, scanner_preferences, task

COLLECTION: Final = "study_watch"
_FOR: Final = timedelta(days=2)


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    gone = IndexModel([("until", 1)], expireAfterSeconds=0)
    await db[COLLECTION].create_indexes([IndexModel([("due", 1)]), gone])


async def project(unit: UnitOfWork, changes: list[Change]) -> None:
    """Write the rows of the steps that have ended, or are booked on a scanner whose images end the examination."""
    rows: list[UpdateOne] = []
    for change in changes:
        step = change.after
        if change.type != "Task" or step is None or not task.is_step(step):
            continue
        if change.became("status", "completed", "failed"):
            rows += await _rows(unit, step, unit.now, "ended")
        elif step["status"] in {"accepted", "ready"} and _place(change.before) != _place(step):
            station = await unit.get(step.get("owner"))
            begins = _moment(step)
            if begins is not None and scanner_preferences.of(station).examination_end == "study-stable":
                rows += await _rows(unit, step, max(begins, unit.now), "booked")
    for change in changes:
        performed = change.after
        if change.type == "Procedure" and performed is not None and "basedOn" not in performed and _has_ended(change):
            uid = procedure.study_uid(performed)
            rows += [_row(uid, unit.now, "ended")] if uid else []
    if rows:
        await unit.db[COLLECTION].bulk_write(rows, ordered=False, session=unit.session)


def _has_ended(change: Change) -> bool:
    return change.became("status", "completed", "stopped")


async def _rows(unit: UnitOfWork, step: Resource, due: datetime, reason: str) -> list[UpdateOne]:
    to = target(step.get("focus"))
    studies = await imaging_study.of_procedure(unit, to.id) if to else []
    waiting = [s for s in studies if s["status"] == "registered"]
    return [_row(uid, due, reason) for s in waiting if (uid := imaging_study.study_uid(s))]


def _row(uid: str, due: datetime, reason: str) -> UpdateOne:
    row = {"due": clock.naive(due), "until": clock.naive(due + _FOR), "tries": 0, "reason": reason}
    return UpdateOne({"_id": uid}, {"$set": row}, upsert=True)


def _place(step: Resource | None) -> Any:
    """Station and time, of a step that is scheduled."""
    if step is None or step.get("status") not in {"accepted", "ready"}:
        return None
    return step.get("owner", {}).get("reference"), step.get("restriction")


def _moment(step: Resource) -> datetime | None:
    try:
        return datetime.fromisoformat(step.get("restriction", {}).get("period", {}).get("start", ""))
    except ValueError:
        return None
