"""Records opened in an emergency: MongoDB collection `oauth_break_glass`.

A document: `_id`, `user_name`, `session` (of the tokens that it is good for: their grant, else the token), `patient` (logical
id), `since`, `until`, `event` (id of the AuditEvent of the beginning), `ended` (set once its end is on record).
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReadPreference, ReturnDocument, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

BREAK_GLASS = "oauth_break_glass"
_KEPT = timedelta(days=1)


def look(name: str, now: datetime) -> dict[str, Any]:
    """The stage that puts what is open now (documents with `patient`) beside a document's `user_name` and `session`."""
    same = {"$eq": ["$user_name", "$$user_name"]}
    live = [{"$match": {"until": {"$gt": now}, "ended": None, "$expr": same}}, {"$project": {"patient": 1}}]
    let = {"user_name": {"$ifNull": ["$user_name", ""]}}
    by = {"localField": "session", "foreignField": "session"}
    return {"$lookup": {"from": BREAK_GLASS, **by, "let": let, "pipeline": live, "as": name}}


async def begin(
    db: AsyncDatabase[dict[str, Any]], user_name: str, session: str, patient: str, span: timedelta, event: str
) -> datetime:
    """Open a record; until when."""
    now = datetime.now(UTC)
    until = now + span
    where = {"_id": uuid.uuid4().hex, "user_name": user_name, "session": session, "patient": patient}
    await _log(db).insert_one(where | {"since": now, "until": until, "event": event, "ended": None, "forget": until + _KEPT})
    return until


async def end(db: AsyncDatabase[dict[str, Any]], where: dict[str, Any]) -> dict[str, Any] | None:
    """Close one open record that matches; None when there is none. Of several who try, one is told."""
    ending = {"$set": {"ended": datetime.now(UTC)}}
    return await _log(db).find_one_and_update({**where, "ended": None}, ending, return_document=ReturnDocument.AFTER)


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """By session, and to forget what is long over."""
    await db[BREAK_GLASS].create_index([("session", 1), ("user_name", 1)])
    await db[BREAK_GLASS].create_index("forget", expireAfterSeconds=0)


def _log(db: AsyncDatabase[dict[str, Any]]) -> AsyncCollection[dict[str, Any]]:
    return db.get_collection(BREAK_GLASS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority"))
