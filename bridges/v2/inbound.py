"""Receiving: a frame comes in, one transaction does what it says, and the acknowledgement goes out after the commit."""

import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, tzinfo

import structlog
from pymongo.errors import DuplicateKeyError, PyMongoError

from bridges.v2 import message_log, refused
from bridges.v2.ack import AckError, acknowledge
from bridges.v2.message import Message, MessageError, parse
from bridges.v2.message_log import Key
from bridges.v2.mllp import Peer
from bridges.v2.order_in import receive_order, show_mismatch
from bridges.v2.patient_in import Sender, master, visit
from bridges.v2.refused import Refused, missing
from fhir_server import clock, metrics
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

log = structlog.get_logger()

Receive = Callable[[UnitOfWork, Message, Sender], Awaitable[None]]


async def receive_adt(unit: UnitOfWork, message: Message, sender: Sender) -> None:
    """A registration or update by the master of patient identity (IHE RAD-1, RAD-12)."""
    pid = message.first("PID")
    if pid is None:
        raise missing("PID", None, "the patient (PID)")
    patient = await master(unit, pid, sender)
    await visit(unit, message.first("PV1"), patient, sender)


# MSH-9.1 and 9.2 -> what the message does. What isn't here is answered AR.
MESSAGES: dict[tuple[str, str], Receive] = {
    **{("ADT", event): receive_adt for event in ("A01", "A04", "A05", "A08", "A28", "A31")},
    ("ORM", "O01"): receive_order,
}


class Inbound:
    """The handler of the MLLP listener."""

    def __init__(self, interactions: Interactions, zone: tzinfo) -> None:
        self._interactions = interactions
        self._db = interactions.store.db
        self._zone = zone

    async def handle(self, frame: bytes, peer: Peer) -> bytes:
        """The acknowledgement of a frame. Whatever the frame holds, there is one."""
        received = clock.now()
        try:
            message = parse(frame)
        except MessageError as error:
            return await self._unreadable(frame, peer, received, str(error))
        key = Key.of(frame, message)
        kind = "^".join(message.type[:2])
        try:
            answer = await message_log.answered(self._db, key)
            if answer is not None:
                log.info("a message came again and got its first answer", type=kind, control_id=message.control_id)
                return answer
            return await self._process(frame, message, key, kind, peer, received)
        except DuplicateKeyError:  # the same message is being processed on another connection
            return await message_log.answered(self._db, key) or self._ack(message, "AR", AckError(code=206, text="try again"))
        except (FhirError, PyMongoError) as error:
            log.warning(
                "a message could not be processed now", type=kind, control_id=message.control_id, reason=type(error).__name__
            )
            return self._ack(message, "AR", AckError(code=207, text="not available now, send again"))

    async def _process(self, frame: bytes, message: Message, key: Key, kind: str, peer: Peer, received: datetime) -> bytes:
        sender = Sender.of(message, self._zone)
        access = Access.system(f"v2:{key.sender}")
        failure: Refused
        try:
            receive = MESSAGES.get(message.type[:2])
            if receive is None:
                raise _unknown_type(message)
            ack = self._ack(message, "AA")

            async def work(unit: UnitOfWork) -> None:
                await receive(unit, message, sender)
                about = tuple(f"{c.type}/{c.id}" for c in unit.changes())
                await message_log.keep(
                    self._db,
                    unit.session,
                    key,
                    frame,
                    kind=kind,
                    peer=peer.host,
                    received=received,
                    outcome="AA",
                    ack=ack,
                    about=about,
                )

            await self._interactions.transact(access, Act(kind, source="v2", detail=message.control_id, peer=peer.host), work)
            metrics.MESSAGES_IN.labels(_label(kind), "AA").inc()
            return ack
        except Refused as error:
            failure = error
        except FhirError as error:
            if error.code in {"transient", "lock-error", "timeout"}:
                raise
            failure = refused.from_fhir(error, *_place(error))
        except (DuplicateKeyError, PyMongoError):
            raise
        except Exception:
            log.exception("a message could not be processed", type=kind, control_id=message.control_id)
            failure = Refused(AckError(code=207, text="an internal error; it is in the receiver's log"), code="AR")
        return await self._refuse(frame, message, key, kind, peer, received, failure)

    async def _refuse(
        self, frame: bytes, message: Message, key: Key, kind: str, peer: Peer, received: datetime, failure: Refused
    ) -> bytes:
        """Keep a refused message and say why. An internal error (AR 207) isn't final: the message may come again."""
        ack = self._ack(message, failure.code, *failure.errors)
        internal = failure.code == "AR" and any(e.code == 207 for e in failure.errors)

        async def work(unit: UnitOfWork) -> None:
            if any("different patient" in e.text for e in failure.errors):
                await show_mismatch(unit, message, Sender.of(message, self._zone))
            about = tuple(f"{c.type}/{c.id}" for c in unit.changes())
            await message_log.keep(
                self._db, unit.session, key, frame, kind=kind, peer=peer.host, received=received, outcome=failure.code,
                ack=ack, final=not internal, errors=tuple(e.text for e in failure.errors), about=about,
            )  # fmt: skip

        act = Act(kind, source="v2", detail=f"{failure.code} {message.control_id}", peer=peer.host)
        await self._interactions.transact(Access.system(f"v2:{message.msh.field(3)}|{message.msh.field(4)}"), act, work)
        metrics.MESSAGES_IN.labels(_label(kind), failure.code).inc()
        return ack

    async def _unreadable(self, frame: bytes, peer: Peer, received: datetime, reason: str) -> bytes:
        """A frame that is no message: answered AR, and kept."""
        ack = self._ack(None, "AR", AckError(code=100, text=reason))

        async def work(unit: UnitOfWork) -> None:
            await message_log.keep(
                self._db, unit.session, Key.of(frame, None), frame, kind="", peer=peer.host, received=received,
                outcome="AR", ack=ack, errors=(reason,),
            )  # fmt: skip

        try:
            await self._interactions.transact(Access.system("v2:unknown"), Act("unreadable", source="v2", peer=peer.host), work)
        except DuplicateKeyError:
            log.info("an unreadable frame came again")
        except (FhirError, PyMongoError):
            log.warning("an unreadable frame could not be kept")
        metrics.MESSAGES_IN.labels("unreadable", "AR").inc()
        return ack

    def _ack(self, message: Message | None, code: str, *errors: AckError) -> bytes:
        text = "; ".join(e.text for e in errors)[:80]
        return acknowledge(
            message, code, errors=errors, text=text, control_id=uuid.uuid4().hex[:20], when=datetime.now(self._zone)
        )


def _unknown_type(message: Message) -> Refused:
    kind, event, _ = message.type
    known_kind = any(k == kind for k, _ in MESSAGES)
    text = f"{kind}^{event} is not a message that this system takes"
    error = AckError("MSH", 1, 9, 2 if known_kind else 1, code=201 if known_kind else 200, text=text)
    return Refused(error, code="AR")


def _place(error: FhirError) -> tuple[str, int | None]:
    """Where in the message a rule's refusal belongs."""
    if error.code == "duplicate" and "placer order number" in str(error):
        return "ORC", 2
    if error.code == "multiple-matches":
        return "PID", 3
    return "", None


def _label(kind: str) -> str:
    return kind if re.fullmatch(r"[A-Z]{3}\^[A-Z]\d\d", kind) else "other"
