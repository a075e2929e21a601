"""Modality Worklist C-FIND (PS3.4 Annex K): answers from the rows that `worklist_rows` keeps.

A scanner sees what its view allows (`worklist_preferences`). A query for a list that names no date is for the days around today;
one for a certain patient or order is for any day. Lists are cut at the scanner's limit, the earliest first.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
import structlog
from bson import ObjectId
from pymongo.asynchronous.database import AsyncDatabase

from bridges.dicom import dimse, time_keys
from bridges.dicom.callers import Caller
from bridges.dicom.dicom_json import Attributes
from bridges.dicom.matching import WorklistQuery
from bridges.dicom.worklist_answers import Answers, Kind
from bridges.dicom.worklist_rows import COLLECTION
from fhir_server import audit, clock
from fhir_server.audit import Act

log = structlog.get_logger()

_SORT: Final = [("start", 1), ("_id", 1)]
_BATCH = 200
_BURST = 20  # rows that are looked at before others get their turn, and the time limit a chance


@dataclass(slots=True)
class Worklist:
    """The answers to a query, encoded, by start. `event` is the AuditEvent of its being shown.

    unsupported: whether keys were ignored (status FF01)
    """

    answers: list[bytes] = field(default_factory=list)
    patients: dict[str, None] = field(default_factory=dict)
    unsupported: bool = False
    cut: bool = False

    def event(self, identifier: Attributes, caller: Caller, how: str = "") -> dict[str, Any]:
        """What was asked and shown, for the audit trail."""
        detail = f"{len(self.answers)} answers{how}"
        act = Act("worklist", "dicom", detail, query=orjson.dumps(identifier).decode(), peer=caller.address)
        return audit.audit_event(act, caller.access, audit.seen(self.patients))


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    version: ObjectId | None
    patient: str
    attributes: Attributes | None


async def find(
    db: AsyncDatabase[dict[str, Any]], answers: Answers, query: WorklistQuery, caller: Caller, zone: ZoneInfo, *, explicit: bool
) -> Worklist:
    """The worklist of a query. Refused (A700) when it is longer than the scanner wants lists to be."""
    preferences = caller.station.preferences
    kind = answers.kind(query.shape(), preferences, explicit=explicit)
    found, rows = Worklist(unsupported=query.unsupported), list[_Row]()
    async for row in _rows(db, query, selection(query, caller, zone)):
        if len(rows) == preferences.limit:
            if preferences.refuse_over_limit:
                raise dimse.Refused(dimse.OUT_OF_RESOURCES, f"more than {preferences.limit} entries match; narrow the query")
            log.warning("worklist.cut", ae_title=caller.ae_title, limit=preferences.limit)
            found.cut = True
            break
        rows.append(row)
    await _encode(db, kind, query, rows, found)
    return found


def selection(query: WorklistQuery, caller: Caller, zone: ZoneInfo) -> dict[str, Any]:
    """The MongoDB filter of a query: its keys, the scanner's view, and the days around today where it is to be so."""
    where = query.prefilter()
    preferences = caller.station.preferences
    if not query.names_a_date and not query.is_for_somebody:
        today = clock.now().astimezone(zone).date()
        first, last = today - timedelta(days=preferences.days_back), today + timedelta(days=preferences.days_ahead)
        where["start"] = {
            "$gte": f"{first:%Y%m%d}{time_keys.FIRST_TIME}",
            "$lte": f"{last:%Y%m%d}{time_keys.LAST_TIME}",
        }
    view = _view(caller)
    return {"$and": [view, where]} if view and where else view or where


def _view(caller: Caller) -> dict[str, Any]:
    """What a scanner may see. Where its Device doesn't say what its view is about, its own steps."""
    station = caller.station
    view = station.preferences.view
    if view == "everything":
        return {}
    if view == "modality" and station.modalities:
        return {"modality": {"$in": list(station.modalities)}}
    if view == "location" and station.location:
        return {"location": station.location}
    return {"stations": caller.ae_title}


async def _rows(db: AsyncDatabase[dict[str, Any]], query: WorklistQuery, where: dict[str, Any]) -> AsyncIterator[_Row]:
    """The rows that match. Their attributes are fetched only where they must be looked at."""
    fields = {"version": 1, "patient": 1}
    decided = query.is_decided_by_prefilter
    if not decided:
        fields["attributes"] = 1
    looked_at = 0
    async with db[COLLECTION].find(where, fields, sort=_SORT, batch_size=_BATCH) as cursor:
        async for row in cursor:
            looked_at += 1
            if not decided and looked_at % _BURST == 0:
                await asyncio.sleep(0)
            if decided or query.matches(row["attributes"]):
                yield _Row(row["_id"], row.get("version"), row.get("patient", ""), row.get("attributes"))


async def _encode(db: AsyncDatabase[dict[str, Any]], kind: Kind, query: WorklistQuery, rows: list[_Row], found: Worklist) -> None:
    """Fill in the answers: those that are kept, and new ones of what has changed since."""
    kept = {row.id: data for row in rows if (data := kind.get(row.id, row.version)) is not None}
    missing = [row.id for row in rows if row.id not in kept and row.attributes is None]
    fetched: dict[str, dict[str, Any]] = {}
    if missing:
        wanted = db[COLLECTION].find({"_id": {"$in": missing}}, {"version": 1, "attributes": 1, "patient": 1})
        fetched = {row["_id"]: row async for row in wanted}
    made = 0
    for row in rows:
        data, patient = kept.get(row.id), row.patient
        if data is None:
            now = fetched.get(row.id)
            attributes = row.attributes or (now or {}).get("attributes")
            if attributes is None:  # it has left the list meanwhile
                continue
            # What is fetched may be newer than what was selected: it must still match.
            if now is not None and not query.matches(attributes):
                continue
            version = now.get("version") if now else row.version
            patient = (now or {}).get("patient", patient)
            data = kind.put(row.id, version, query.answer(attributes))
            made += 1
            if made % _BURST == 0:
                await asyncio.sleep(0)
        found.answers.append(data)
        if patient:
            found.patients[patient] = None
