"""Every message received, as it came, with its outcome. The unique key makes receiving idempotent.

A document of `messages`:
    {_id, sender: "HIS|HOSP", control_id, digest, type: "ADT^A04", raw: bytes, peer, received, outcome: AA | AE | AR,
     final: bool, ack: bytes, errors: [text], about: ["Patient/1", ...], state: text}
`final` is false for what failed through no fault of the message; the same message again is then processed afresh.
`state`, where there is one, says more than the outcome: `parked`, and then `played`, `refused-later` or `given-up`.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import Binary
from pymongo import IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

from bridges.v2.message import Message
from fhir_server import clock

COLLECTION = "messages"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """What makes a message the same message: its sender (MSH-3, MSH-4), control id (MSH-10) and content."""

    sender: str
    control_id: str
    digest: str

    @classmethod
    def of(cls, raw: bytes, message: Message | None) -> "Key":
        digest = hashlib.sha256(raw).hexdigest()
        if message is None:
            return cls("", "", digest)
        return cls(f"{message.msh.field(3)}|{message.msh.field(4)}", message.control_id, digest)

    def filter(self) -> Document:
        return {"sender": self.sender, "control_id": self.control_id, "digest": self.digest}


async def ensure_indexes(db: AsyncDatabase[Document]) -> None:
    await db[COLLECTION].create_indexes(
        [
            IndexModel([("sender", 1), ("control_id", 1), ("digest", 1)], unique=True),
            IndexModel([("about", 1)]),
            IndexModel([("received", -1)]),
            IndexModel([("outcome", 1), ("received", -1)]),
        ]
    )


async def answered(db: AsyncDatabase[Document], key: Key) -> bytes | None:
    """The answer that this very message got before, if it was processed."""
    found = await db[COLLECTION].find_one(key.filter() | {"final": True}, {"ack": 1})
    return bytes(found["ack"]) if found else None


async def keep(
    db: AsyncDatabase[Document],
    session: AsyncClientSession,
    key: Key,
    raw: bytes,
    *,
    kind: str,
    peer: str,
    received: datetime,
    outcome: str,
    ack: bytes,
    final: bool = True,
    errors: tuple[str, ...] = (),
    about: tuple[str, ...] = (),
    state: str = "",
) -> None:
    """Store a message with its outcome, in the transaction of what it did. DuplicateKeyError when it was processed already."""
    document = (
        key.filter()
        | {
            "type": kind,
            "raw": Binary(raw),
            "peer": peer,
            "received": clock.naive(received),
            "outcome": outcome,
            "final": final,
            "ack": Binary(ack),
            "errors": list(errors),
            "about": list(about),
        }
        | ({"state": state} if state else {})
    )
    await db[COLLECTION].replace_one(key.filter() | {"final": False}, document, upsert=True, session=session)


async def mark(db: AsyncDatabase[Document], session: AsyncClientSession, key: Document, state: str, about: str = "") -> None:
    """Say what became of a message that was kept waiting; `about` is what it then changed."""
    change: Document = {"$set": {"state": state}} | ({"$addToSet": {"about": about}} if about else {})
    await db[COLLECTION].update_one(key, change, session=session)
