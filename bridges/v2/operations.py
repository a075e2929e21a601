"""What an interface operator does with messages: list, show, replay."""

from typing import Any

from bson import ObjectId
from bson.errors import InvalidId
from pymongo.asynchronous.database import AsyncDatabase

from bridges.v2 import message_log
from bridges.v2.message import MessageError, parse
from fhir_server import clock, outbox

Document = dict[str, Any]


async def list_messages(db: AsyncDatabase[Document], *, outbound: bool, state: str, limit: int) -> list[list[str]]:
    """Rows of the newest messages: id, when, type, control id, partner, state, attempts or resources, error."""
    if outbound:
        where = {"state": state} if state else {}
        cursor = db[outbox.COLLECTION].find(where, {"message": 0}, sort=[("key", -1)], limit=limit)
        return [
            _row(d, d["created"], d["destination"], d["state"], str(d["attempts"]), d.get("error") or "") async for d in cursor
        ]
    where = {"outcome": state} if state else {}
    cursor = db[message_log.COLLECTION].find(where, {"raw": 0, "ack": 0}, sort=[("received", -1)], limit=limit)
    return [
        _row(d, d["received"], d["sender"], d["outcome"], ", ".join(d["about"][:3]), "; ".join(d["errors"])) async for d in cursor
    ]


def _row(document: Document, when: Any, partner: str, state: str, more: str, error: str) -> list[str]:
    return [
        str(document["_id"]),
        f"{when:%Y-%m-%d %H:%M:%S}",
        document.get("type", ""),
        document.get("control_id", ""),
        partner,
        state,
        more,
        error,
    ]


async def show_message(db: AsyncDatabase[Document], message_id: str) -> str | None:
    """A message, a segment a line, with its outcome; None if there is none."""
    id_ = _id(message_id)
    if id_ is None:
        return None
    found = await db[message_log.COLLECTION].find_one({"_id": id_})
    if found:
        return "\n".join(
            [_readable(found["raw"]), "", "answered:", _readable(found["ack"]), "refers to: " + ", ".join(found["about"])]
        )
    found = await db[outbox.COLLECTION].find_one({"_id": id_})
    if found is None:
        return None
    outcome = f"{found['state']}, {found['attempts']} attempts, {found.get('answer') or found.get('error') or 'no answer yet'}"
    return "\n".join([_readable(found["message"]), "", outcome, "refers to: " + ", ".join(found["about"])])


async def replay(db: AsyncDatabase[Document], message_id: str) -> bool:
    """Make a refused outbound message pending again."""
    id_ = _id(message_id)
    changed = await db[outbox.COLLECTION].update_one(
        {"_id": id_, "state": "refused"}, {"$set": {"state": "pending", "refusals": 0, "replayed": clock.naive(clock.now())}}
    )
    return changed.modified_count == 1


def _id(text: str) -> ObjectId | None:
    try:
        return ObjectId(text)
    except InvalidId:
        return None


def _readable(raw: bytes) -> str:
    try:
        message = parse(bytes(raw))
    except MessageError:
        return repr(bytes(raw))
    return bytes(raw).decode(message.codec, "replace").replace("\r", "\n").strip()
