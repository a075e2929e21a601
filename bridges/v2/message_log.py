"""Every message received, as it came, with its outcome. The unique key makes receiving idempotent.

A document of `messages`:
    {_id, sender: "HIS|HOSP", control_id, digest, type: "ADT^A04", raw: bytes, peer, partner: "Endpoint/his" or empty, received,
     outcome: CA | AA | AE | AR, final: bool, ack: bytes, errors: [text], warnings: [text], about: ["Patient/1", ...],
     patient: "Patient/1", the first of these, unmapped: ["PV2-3", "ZXY", ...], states: [{state, at}], state: text}
`final` is false for what failed through no fault of the message; the same message again is then processed afresh. `CA` is one
that was accepted (enhanced mode) and is yet to be processed. `unmapped` are the fields and whole segments that nothing has read.
`owner`: the process that accepted it (`accepted.py`). `state`, where there is one, says more than the outcome: `held` of one of
which nothing is done until a person has looked; `parked`, and then `played`, `refused-later` or `given-up`.
`_id` follows from sender, control id and content.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bson import Binary, ObjectId
from pymongo import IndexModel, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from bridges.v2.message import Message, readable
from fhir_server import clock
from fhir_server.registry import Resource
from fhir_server.together import Together
from fhir_server.unit_of_work import UnitOfWork

COLLECTION = "messages"
ACCEPTED = "CA"
HELD = "held"
Document = dict[str, Any]
_MOST_UNMAPPED: Final = 50
# Segments whose first field counts them: it says nothing that a mapping could lose.
_COUNTED: Final = frozenset("PID NK1 PV1 OBR OBX NTE DG1 AL1 IN1 IN2 GT1 FT1 PR1 IPC SPM TQ1 RGS AIS AIG AIL AIP".split())


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
        return cls(readable(f"{message.msh.field(3)}|{message.msh.field(4)}", 1000), message.control_id, digest)

    @property
    def id(self) -> ObjectId:
        """The id of its document, the same in every process."""
        text = f"{self.sender}\n{self.control_id}\n{self.digest}"
        return ObjectId(hashlib.sha256(text.encode()).digest()[:12])

    def filter(self) -> Document:
        return {"sender": self.sender, "control_id": self.control_id, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message: MSA-1, whether that is the last word, the answer, and what it was about."""

    code: str
    ack: bytes
    final: bool = True
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    unmapped: tuple[str, ...] = ()
    state: str = ""
    owner: str = ""


async def ensure_indexes(db: AsyncDatabase[Document]) -> None:
    await db[COLLECTION].create_indexes(
        [
            IndexModel([("sender", 1), ("control_id", 1), ("digest", 1)], unique=True),
            IndexModel([("about", 1), ("received", -1)]),
            IndexModel([("patient", 1), ("received", -1)]),
            IndexModel([("control_id", 1)]),
            IndexModel([("partner", 1), ("received", -1)]),
            IndexModel([("type", 1), ("received", -1)]),
            IndexModel([("received", -1)]),
            IndexModel([("outcome", 1), ("received", -1)]),
            IndexModel([("state", 1), ("received", -1)], partialFilterExpression={"state": {"$exists": True}}),
        ]
    )


@dataclass(slots=True)
class _Look:
    key: Key
    ack: bytes | None = None


class Answers:
    """The answers that messages got before. Those who ask at the same time share the round trip."""

    def __init__(self, db: AsyncDatabase[Document]) -> None:
        self._messages = db[COLLECTION]
        self._together = Together[_Look](self._look, lambda _: (), largest=50, in_flight=1)

    async def of(self, key: Key) -> bytes | None:
        """The answer that this very message got, if it was processed."""
        look = _Look(key)
        await self._together.do(look)
        return look.ack

    async def _look(self, looks: list[_Look]) -> None:
        where: Document = {"$or": [k.filter() for k in {look.key for look in looks}], "final": True}
        found = {
            Key(d["sender"], d["control_id"], d["digest"]): bytes(d["ack"])
            async for d in self._messages.find(where, {"sender": 1, "control_id": 1, "digest": 1, "ack": 1})
        }
        for look in looks:
            look.ack = found.get(look.key)


async def taken(db: AsyncDatabase[Document], key: Key) -> bool:
    """Whether this very message has come from somebody that we know: processed, accepted, or to be sent again."""
    known = [{"final": True}, {"outcome": ACCEPTED}, {"partner": {"$ne": ""}}]
    return await db[COLLECTION].find_one(key.filter() | {"$or": known}, {"_id": 1}) is not None


async def keep(
    db: AsyncDatabase[Document],
    unit: UnitOfWork | None,
    key: Key,
    raw: bytes,
    *,
    kind: str,
    peer: str,
    partner: str,
    received: datetime,
    outcome: Outcome,
) -> None:
    """Store a message with its outcome, in the transaction of what it did, if there is one.

    DuplicateKeyError, at the end of the transaction, when it was processed already.
    """
    document = {
        "type": kind,
        "raw": Binary(raw),
        "peer": peer,
        "partner": partner,
        "received": clock.naive(received),
        "outcome": outcome.code,
        "final": outcome.final,
        "ack": Binary(outcome.ack),
        "errors": list(outcome.errors),
        "warnings": list(outcome.warnings),
        "about": list(outcome.about),
        "patient": next((r for r in outcome.about if r.startswith("Patient/")), ""),
        "unmapped": list(outcome.unmapped),
    } | {name: value for name, value in (("state", outcome.state), ("owner", outcome.owner)) if value}
    state = {"state": outcome.state or outcome.code, "at": clock.naive(clock.now())}
    change = {"$set": document, "$setOnInsert": {"_id": key.id}, "$push": {"states": {"$each": [state], "$slice": -100}}}
    if not outcome.state:
        change["$unset"] = {"state": ""}  # of an earlier time
    if unit is None:
        await db[COLLECTION].update_one(key.filter() | {"final": False}, change, upsert=True)
    else:
        unit.keep(COLLECTION, UpdateOne(key.filter() | {"final": False}, change, upsert=True))


def unmapped(message: Message) -> tuple[str, ...]:
    """The fields that hold something and that nobody has read, and the segments of which nothing was: `PV2-3`, `ZXY`."""
    found: dict[str, None] = {}
    for segment in message.segments:
        if len(found) >= _MOST_UNMAPPED:
            break
        if segment.name == "MSH":
            continue
        if not segment.was_read:
            found[segment.name] = None
            continue
        found |= {f"{segment.name}-{n}": None for n in segment.unread() if n != 1 or segment.name not in _COUNTED}
    return tuple(found)[:_MOST_UNMAPPED]


async def mark(db: AsyncDatabase[Document], session: Any, key: Document, state: str, order: Resource | None = None) -> None:
    """Say what became of a message that was kept waiting, and which order it was about."""
    change: Document = {"$set": {"state": state}, "$push": {"states": {"state": state, "at": clock.naive(clock.now())}}}
    if order is not None:
        patient = str(order["subject"].get("reference", ""))
        change["$set"] |= {"patient": patient}
        change["$addToSet"] = {"about": {"$each": [r for r in (f"ServiceRequest/{order['id']}", patient) if r]}}
    await db[COLLECTION].update_one(key, change, session=session)
