"""Receiving: a frame comes in, one transaction does what it says, and the acknowledgement goes out after the commit."""

import re
import traceback
import uuid
from dataclasses import dataclass
from datetime import datetime, tzinfo

import structlog
from pymongo.errors import DuplicateKeyError, PyMongoError

from bridges.v2 import message_log, refused
from bridges.v2.ack import AckError, acknowledge
from bridges.v2.message import Message, MessageError, parse
from bridges.v2.message_log import Key
from bridges.v2.mllp import Peer
from bridges.v2.order_in import show_mix_up
from bridges.v2.receivers import receiver
from bridges.v2.reception import Reception, Reply, Sender
from bridges.v2.refused import Refused
from fhir_server import clock, metrics
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

log = structlog.get_logger()

# A message is kept whole in one MongoDB document, which has at most 16 MiB.
MAX_SIZE = 15 * 1024 * 1024
MAX_REPETITIONS = 200
_TRY_AGAIN = AckError(code=207, text="not available now, send again")


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came in."""

    frame: bytes
    message: Message | None
    peer: Peer
    when: datetime
    key: Key

    @property
    def kind(self) -> str:
        """Such as `ADT^A04`."""
        return "^".join(self.message.type[:2]) if self.message else ""

    @property
    def label(self) -> str:
        """The kind, as far as it is one: for metrics and the audit, where a sender's arbitrary text has no place."""
        return self.kind if re.fullmatch(r"[A-Z]{3}\^[A-Z]\d\d", self.kind) else "other" if self.message else "unreadable"

    @property
    def access(self) -> Access:
        return Access.system(f"v2:{self.key.sender or 'unknown'}")

    def act(self, code: str) -> Act:
        control_id = self.message.control_id[:200] if self.message else ""
        return Act(self.label, source="v2", detail=f"{code} {control_id}".strip(), peer=self.peer.host)


class Inbound:
    """The handler of the MLLP listener."""

    def __init__(self, interactions: Interactions, zone: tzinfo) -> None:
        self._interactions = interactions
        self._db = interactions.store.db
        self._zone = zone

    async def handle(self, frame: bytes, peer: Peer) -> bytes:
        """The acknowledgement of a frame. Whatever the frame holds, there is one."""
        message, failure = _read(frame)
        received = Received(frame, message, peer, clock.now(), Key.of(frame, message))
        try:
            if len(frame) > MAX_SIZE:
                return self._ack(message, "AR", AckError(code=207, text=f"a message has at most {MAX_SIZE} bytes"))
            if answer := await message_log.answered(self._db, received.key):
                log.info("a message came again and got its first answer", type=received.label)
                return answer
            return await self._process(received) if failure is None else await self._refuse(received, failure)
        except DuplicateKeyError:  # the same message was processed meanwhile on another connection
            return await self._answered_elsewhere(received)
        except (FhirError, PyMongoError) as error:
            log.warning("a message could not be processed now", type=received.label, reason=type(error).__name__)
        except Exception as error:  # noqa: BLE001 - a sender always gets an answer; the error's text may name a patient
            _log_error(received, error)
        return self._ack(message, "AR", _TRY_AGAIN)

    async def _process(self, received: Received) -> bytes:
        message = received.message
        assert message is not None
        sender = Sender.of(message, self._zone)
        ack = b""

        async def work(unit: UnitOfWork) -> None:
            nonlocal ack
            unit.origin = sender.partner.reference or f"v2:{received.key.sender}"
            ack = self._ack(message, "AA", reply=await receiver(message)(Reception(unit, message, sender)))
            await self._keep(unit, received, "AA", ack)

        try:
            await self._interactions.transact(received.access, received.act("AA"), work)
        except Refused as failure:
            return await self._refuse(received, failure)
        except FhirError as error:
            if error.code in {"transient", "lock-error", "timeout"}:
                raise
            return await self._refuse(received, refused.from_fhir(error))
        except PyMongoError:
            raise
        except Exception as error:  # noqa: BLE001 - as in `handle`
            _log_error(received, error)
            text = "an internal error; it is in the receiver's log"
            return await self._refuse(received, Refused(AckError(code=207, text=text), code="AR"), final=False)
        metrics.MESSAGES_IN.labels(received.label, "AA").inc()
        return ack

    async def _refuse(self, received: Received, failure: Refused, *, final: bool = True) -> bytes:
        """Keep a refused message and say why. What isn't final may come again and is then processed afresh."""
        message = received.message
        ack = self._ack(message, failure.code, *failure.errors)

        async def work(unit: UnitOfWork) -> None:
            if message is not None and failure.mixed_up is not None:
                await show_mix_up(unit, message, Sender.of(message, self._zone), failure.mixed_up)
            errors = tuple(e.text for e in failure.errors)
            await self._keep(unit, received, failure.code, ack, final=final, errors=errors)

        await self._interactions.transact(received.access, received.act(failure.code), work)
        metrics.MESSAGES_IN.labels(received.label, failure.code).inc()
        return ack

    async def _keep(
        self, unit: UnitOfWork, received: Received, outcome: str, ack: bytes, *, final: bool = True, errors: tuple[str, ...] = ()
    ) -> None:
        about = tuple(f"{c.type}/{c.id}" for c in unit.changes())
        await message_log.keep(
            self._db, unit.session, received.key, received.frame, kind=received.kind, peer=received.peer.host,
            received=received.when, outcome=outcome, ack=ack, final=final, errors=errors, about=about,
        )  # fmt: skip

    async def _answered_elsewhere(self, received: Received) -> bytes:
        try:
            answer = await message_log.answered(self._db, received.key)
        except PyMongoError:
            answer = None
        return answer or self._ack(received.message, "AR", _TRY_AGAIN)

    def _ack(self, message: Message | None, code: str, *errors: AckError, reply: Reply | None = None) -> bytes:
        text = "; ".join(e.text for e in errors)[:80]
        return acknowledge(
            message, code, errors=errors, text=text, control_id=uuid.uuid4().hex[:20], when=datetime.now(self._zone),
            extra_segments=reply.segments if reply else (), response=reply.message_type if reply else None,
        )  # fmt: skip


def _read(frame: bytes) -> tuple[Message | None, Refused | None]:
    """The message of a frame, or why there is none."""
    try:
        message = parse(frame)
    except MessageError as error:
        return None, Refused(AckError(code=100, text=str(error)), code="AR")
    return message, _too_much(message)


def _too_much(message: Message) -> Refused | None:
    """A field that repeats without end would keep everybody else waiting. Text (OBX, NTE) may have many lines."""
    for segment in message.segments:
        field, count = segment.most_repeated() if segment.name not in {"OBX", "NTE"} else (0, 0)
        if count > MAX_REPETITIONS:
            text = f"a field repeats at most {MAX_REPETITIONS} times"
            return Refused(AckError(segment.name, segment.number, field, code=102, text=text))
    return None


def _log_error(received: Received, error: Exception) -> None:
    """Where it happened, without the error's text: that may name a patient."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    log.error(
        "a message could not be processed", type=received.label, error=type(error).__name__,
        where=f"{where.name}:{where.lineno}",
    )  # fmt: skip
