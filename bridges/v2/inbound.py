"""Receiving: a frame comes in, one transaction does what it says, and the acknowledgement goes out after the commit.

In enhanced mode (MSH-15, MSH-16) there are two answers: one when the message is safely stored, one when it is processed.
"""

import asyncio
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

import structlog
from pymongo.errors import DuplicateKeyError, PyMongoError

from bridges.v2 import message_log, refusals_shown, refused
from bridges.v2.accepted import Accepted
from bridges.v2.ack import AckError, acknowledge, read_ack
from bridges.v2.ack_modes import AckMode
from bridges.v2.admission import admit
from bridges.v2.concerned import concerned, named_in, touched
from bridges.v2.foresight import foreseen
from bridges.v2.message import Message
from bridges.v2.message_log import ACCEPTED, Outcome
from bridges.v2.mllp import Peer
from bridges.v2.order_in import show_mix_up
from bridges.v2.partners import Partners
from bridges.v2.provenance_in import provenance
from bridges.v2.rates import Allowance, Rates
from bridges.v2.received import MAX_SIZE, MAX_UNREADABLE, Received, receive
from bridges.v2.receivers import receiver
from bridges.v2.reception import Reception, Reply, Sender
from bridges.v2.refused import Refused
from fhir_server import clock, metrics
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.unit_of_work import UnitOfWork
from resources import work_items
from resources.work_items import raise_once

log = structlog.get_logger()

_TRY_AGAIN = AckError(code=207, text="not available now, send again")
_STRANGER_RATE: Final = 1.0  # messages a second of an address, of senders that we don't know, and that can't be read
_UNREADABLE_AN_HOUR: Final = 100  # of an address, that are kept
_SOON: Final = 5.0  # seconds in which a message is done mostly
_TRIES: Final = 5  # to process what was accepted, before it is left to whoever looks for what is left
_PASSING: Final = frozenset({"transient", "lock-error", "timeout"})
_INTERNAL: Final = AckError(code=207, text="an internal error; it is in the receiver's log")

Told = Callable[[str], bool]  # whether the sender is told this code (MSA-1)


def _always(_code: str) -> bool:
    return True


def _never(_code: str) -> bool:
    return False


class Inbound:
    """The handler of the MLLP listener."""

    def __init__(self, interactions: Interactions, zone: tzinfo, partners: Partners | None = None) -> None:
        self.partners = partners or Partners(interactions.store)
        self._interactions = interactions
        self._db = interactions.store.db
        self._zone = zone
        self.stranger_rate = _STRANGER_RATE
        self._rates = Rates()
        self._unreadable = Allowance(_UNREADABLE_AN_HOUR, 3600)
        self._answers = message_log.Answers(self._db)
        self.accepted = Accepted(self._db, self._take_over)

    async def admits(self, host: str) -> bool:
        """Whether a connection from this address is taken."""
        return (await self.partners.directory()).admits(host)

    async def converse(self, frame: bytes, peer: Peer) -> bytes | AsyncIterator[bytes]:
        """The answer to a frame, or the answers. Whatever the frame holds, there is one, unless the message wants none."""
        received = await self._receive(frame, peer)
        mode = AckMode.of(received.message) if received.message else AckMode()
        return self._in_two_steps(received, mode) if mode.is_enhanced else await self._answer(received)

    async def handle(self, frame: bytes, peer: Peer) -> bytes:
        """The application's answer to a frame, whatever the message asks for."""
        return await self._answer(await self._receive(frame, peer))

    async def process_again(self, document: dict[str, Any]) -> str:
        """Process a message of the store that was refused, held, or not processed yet; the new outcome.

        Raises FhirError or PyMongoError when it can't be done now.
        """
        received = await self._stored(document)
        await self._db[message_log.COLLECTION].update_one(
            {"_id": document["_id"], "$or": [{"outcome": {"$ne": "AA"}}, {"state": message_log.HELD}]}, {"$set": {"final": False}}
        )
        try:
            return (await self._outcome(received))[0]
        except DuplicateKeyError:
            found = await self._db[message_log.COLLECTION].find_one({"_id": document["_id"]}, {"outcome": 1})
            return str(found["outcome"]) if found else ""

    async def take_up(self, older_than: timedelta) -> int:
        """Process what was accepted (CA) so long ago and never processed: its process has died. How many were."""
        where = {"outcome": ACCEPTED, "received": {"$lt": clock.naive(clock.now() - older_than)}}
        done = 0
        async for document in self._db[message_log.COLLECTION].find(where, sort=[("received", 1)]):
            try:
                await self._take_over(document)
                done += 1
            except FhirError as error:  # the others need not wait for it
                log.warning("an accepted message could not be processed now", reason=type(error).__name__)
        return done

    async def _take_over(self, document: dict[str, Any]) -> None:
        """Process what was accepted and left; its sender isn't told any more. FhirError or PyMongoError: it can't be done now."""
        received = await self._stored(document)
        try:
            await self._outcome(received, _never)
        except DuplicateKeyError:
            log.info("an accepted message was processed elsewhere", type=received.label)
        except (FhirError, PyMongoError):
            raise
        except Exception as error:  # noqa: BLE001 - what can't be processed must not keep back all that comes after it
            _log_error(received, error)
            await self._refuse(received, Refused(_INTERNAL, code="AR"), _never, final=False)

    async def _receive(self, frame: bytes, peer: Peer) -> Received:
        """Who sent it, after the wait that is due to who sends too fast."""
        received = receive(frame, peer, await self.partners.directory())
        if received.is_strange:
            await self._rates.take(f"stranger {peer.host}", self.stranger_rate)
        elif received.message is None:
            await self._rates.take(f"unreadable {peer.host}", self.stranger_rate)
            self._unreadable.take(peer.host)
        elif received.partner.rate is not None:
            await self._rates.take(received.partner.reference, received.partner.rate)
        return received

    async def _stored(self, document: dict[str, Any]) -> Received:
        """A message of the store, as it was received, from who is its partner now."""
        directory = await self.partners.directory()
        known = next((p for p in directory.partners if p.reference == document.get("partner")), None)
        received = receive(bytes(document["raw"]), Peer(document["peer"], 0), directory, known)
        return replace(received, when=document["received"].replace(tzinfo=UTC))

    async def _answer(self, received: Received) -> bytes:
        """Original mode: one answer, the application's."""
        message = received.message
        try:
            if len(received.frame) > MAX_SIZE:
                return self._ack(message, "AR", AckError(code=207, text=f"a message has at most {MAX_SIZE} bytes"))
            await self._earlier_first(received)
            if not received.is_strange and (answer := await self._answers.of(received.key)):
                log.info("a message came again and got its first answer", type=received.label)
                return answer
            return (await self._outcome(received))[1]
        except DuplicateKeyError:  # the same message was processed meanwhile on another connection
            return await self._answered_elsewhere(received)
        except (FhirError, PyMongoError) as error:
            log.warning("a message could not be processed now", type=received.label, reason=type(error).__name__)
        except Exception as error:  # noqa: BLE001 - a sender always gets an answer; the error's text may name a patient
            _log_error(received, error)
        return self._ack(message, "AR", _TRY_AGAIN)

    # Enhanced mode

    async def _in_two_steps(self, received: Received, mode: AckMode) -> AsyncIterator[bytes]:
        code, ack = await self._accept(received)
        if code != ACCEPTED:
            if mode.wants_accept(code):
                yield ack
            return
        done = None
        processing = asyncio.create_task(self._processed(received, mode.wants_application))
        try:
            # Who is told that it is kept mostly looks for what it does: it is done by then, unless that takes long.
            await asyncio.wait({processing}, timeout=_SOON)
            if mode.wants_accept(code):
                yield ack
            done = await processing
        finally:  # also where the sender is gone before it could be told
            if processing.done() and not processing.cancelled() and processing.exception() is None:
                done = processing.result()
            else:
                processing.cancel()
            if done is None:
                self.accepted.leave(received)
        if done is not None and mode.wants_application(done[0]):
            yield done[1]

    async def _accept(self, received: Received) -> tuple[str, bytes]:
        """CA when the message is safely stored; CR for what isn't for us, CE when it can't be stored now."""
        message = received.message
        assert message is not None
        accepted = self._ack(message, ACCEPTED)
        try:
            if len(received.frame) > MAX_SIZE:
                return "CR", self._ack(message, "CR", AckError(code=207, text=f"a message has at most {MAX_SIZE} bytes"))
            await self._earlier_first(received)
            if not received.is_strange and await self._answers.of(received.key):
                return ACCEPTED, accepted
            if (failure := _not_for_us(received)) is not None:
                return await self._refuse(received, failure, accept_level=True)
            await self._store(None, received, Outcome(ACCEPTED, b"", final=False, owner=self.accepted.owner))
        except DuplicateKeyError:
            return (ACCEPTED, accepted) if not received.is_strange else ("CE", self._ack(message, "CE", _TRY_AGAIN))
        except (FhirError, PyMongoError) as error:
            log.warning("a message could not be stored now", type=received.label, reason=type(error).__name__)
            return "CE", self._ack(message, "CE", _TRY_AGAIN)
        return ACCEPTED, accepted

    async def _processed(self, received: Received, told: Told) -> tuple[str, bytes] | None:
        """The application's answer to what was accepted; None when it must be processed later."""
        for attempt in range(_TRIES):
            try:
                await self._earlier_first(received)
                if answer := await self._answers.of(received.key):
                    return read_ack(answer).code, answer
                return await self._outcome(received, told)
            except DuplicateKeyError:
                continue
            except (FhirError, PyMongoError) as error:
                log.warning("an accepted message could not be processed now", type=received.label, reason=type(error).__name__)
                await asyncio.sleep(0.2 * 2**attempt)
            except Exception as error:  # noqa: BLE001 - the listener goes on; the error's text may name a patient
                _log_error(received, error)
                return None
        return None

    async def _earlier_first(self, received: Received) -> None:
        """What the same sender was told `CA` for before, is processed before."""
        if received.failure is None:
            await self.accepted.before(received)

    # What a message does

    async def _outcome(self, received: Received, told: Told = _always) -> tuple[str, bytes]:
        """What became of a message, stored with it: MSA-1, and the answer. FhirError and PyMongoError: nothing, now."""
        began = time.perf_counter()
        try:
            if received.failure is not None:
                raise received.failure
            assert received.message is not None
            warnings = admit(received.message, received.partner)
            return await self._process(received, tuple(warnings), told)
        except Refused as failure:
            return await self._refuse(received, failure, told)
        finally:
            metrics.MESSAGE_SECONDS.labels(received.label).observe(time.perf_counter() - began)

    async def _process(self, received: Received, warnings: tuple[str, ...], told: Told) -> tuple[str, bytes]:
        message = received.message
        assert message is not None
        sender = Sender.of(message, self._zone, received.partner)
        ack = b""
        afterwards: list[Callable[[Interactions], Awaitable[None]]] = []

        async def work(unit: UnitOfWork) -> None:
            nonlocal ack
            afterwards.clear()
            unit.origin = sender.partner.reference or None
            reply = await receiver(message)(Reception(unit, message, sender, afterwards))
            ack = self._ack(message, "AA", reply=reply)
            await unit.react()  # what follows from the message is its doing too
            changes = unit.changes(unit.part)
            made = provenance(changes, received.key.id, received.key.sender, received.kind, unit.now)
            if made is not None:
                await unit.create(made, copy=False)
            outcome = Outcome(
                "AA", ack, warnings=warnings, about=tuple(await concerned(unit, changes, message, sender)),
                unmapped=message_log.unmapped(message), state=reply.state if reply else "",
            )  # fmt: skip
            await self._store(unit, received, outcome)

        try:
            await self._interactions.transact(
                received.access, received.act("AA"), work, small=(), turns=touched(message), foreseen=foreseen(message, sender)
            )
        except (Refused, PyMongoError):
            raise
        except FhirError as error:
            if error.code in _PASSING:
                raise
            raise refused.from_fhir(error) from None
        except Exception as error:  # noqa: BLE001 - as in `_answer`
            _log_error(received, error)
            return await self._refuse(received, Refused(_INTERNAL, code="AR"), told, final=False)
        await self._afterwards(received, afterwards)
        metrics.MESSAGES_IN.labels(received.label, "AA", received.partner.reference).inc()
        return "AA", ack

    async def _afterwards(self, received: Received, what: list[Callable[[Interactions], Awaitable[None]]]) -> None:
        """What is left to do of a message that is committed. It is on record, so its sender need not know of a failure."""
        try:
            for then in dict.fromkeys(what):
                await then(self._interactions)
        except (FhirError, PyMongoError) as error:
            log.warning("what a message began is finished later", type=received.label, reason=type(error).__name__)

    async def _refuse(
        self, received: Received, failure: Refused, told: Told = _always, *, final: bool = True, accept_level: bool = False
    ) -> tuple[str, bytes]:
        """Keep a refused message and say why. What isn't final may come again and is then processed afresh.

        One that was accepted, and of which its sender isn't told more, is for people to look at.
        """
        message = received.message
        code = f"C{failure.answer[1]}" if accept_level else failure.answer
        ack = self._ack(message, code, *failure.errors, reply=failure.reply)

        async def work(unit: UnitOfWork) -> None:
            if message is not None and failure.mixed_up is not None:
                await show_mix_up(unit, message, Sender.of(message, self._zone, received.partner), failure.mixed_up)
            for item in failure.shown:
                if not item.once:
                    await work_items.open_work_item(unit, item.kind, item.text, item.about, item.patient)
                elif await unit.get(item.about):  # it isn't there when the message would have made it
                    await raise_once(unit, item.kind, str(item.about), item.text, about=item.about, patient=item.patient)
            if failure.stranger:
                await refusals_shown.stranger(unit, received, failure)
            if not accept_level and not told(failure.answer):
                await refusals_shown.after_acceptance(unit, received, failure)
            errors = tuple(e.text for e in failure.errors)
            last = final and not failure.stranger
            about = await self._about_refused(unit, received, failure)
            outcome = Outcome(failure.answer, ack, final=last, errors=errors, about=about)
            if await self._is_kept(received):
                await self._store(unit, received, outcome)

        await self._interactions.transact(received.access, received.act(code), work, small=())
        metrics.MESSAGES_IN.labels(received.label, failure.answer, received.partner.reference).inc()
        return code, ack

    async def _is_kept(self, received: Received) -> bool:
        """Not what a stranger repeats of a message that has come from its sender, nor all of what nobody can read."""
        if received.is_strange:
            return not await message_log.taken(self._db, received.key)
        return received.message is not None or self._unreadable.has(received.peer.host)

    async def _about_refused(self, unit: UnitOfWork, received: Received, failure: Refused) -> tuple[str, ...]:
        """Whom and what a refused message would have been about, and its work items; strangers say nothing about anybody."""
        named: list[str] = []
        if received.message is not None and not failure.stranger:
            sender = Sender.of(received.message, self._zone, received.partner)
            named = await named_in(unit, received.message, sender)
            unit.shown.extend(named)
        return tuple(dict.fromkeys([*named, *(f"{c.type}/{c.id}" for c in unit.changes(unit.part))]))

    async def _store(self, unit: UnitOfWork | None, received: Received, outcome: Outcome) -> None:
        frame = received.frame if received.message is not None else received.frame[:MAX_UNREADABLE]
        await message_log.keep(
            self._db, unit, received.key, frame, kind=received.kind,
            peer=received.peer.host, partner=received.partner.reference, received=received.when, outcome=outcome,
        )  # fmt: skip

    async def _answered_elsewhere(self, received: Received) -> bytes:
        try:
            answer = None if received.is_strange else await self._answers.of(received.key)
        except PyMongoError:
            answer = None
        return answer or self._ack(received.message, "AR", _TRY_AGAIN)

    def _ack(self, message: Message | None, code: str, *errors: AckError, reply: Reply | None = None) -> bytes:
        text = "; ".join(e.text for e in errors)[:80] or (reply.text if reply else "")
        return acknowledge(
            message, code, errors=errors, text=text, control_id=uuid.uuid4().hex[:20], when=datetime.now(self._zone),
            extra_segments=reply.segments if reply else (), response=reply.message_type if reply else None,
        )  # fmt: skip


def _not_for_us(received: Received) -> Refused | None:
    """Why a message isn't even accepted: sender, type, processing id, version (HL7 v2.5.1 2.9.3.1)."""
    message = received.message
    assert message is not None
    try:
        if received.failure is not None:
            raise received.failure
        admit(message, received.partner)
        receiver(message)
    except Refused as failure:
        return failure if failure.answer == "AR" else None
    return None


def _log_error(received: Received, error: Exception) -> None:
    """Where it happened, without the error's text: that may name a patient."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    log.error(
        "a message could not be processed", type=received.label, error=type(error).__name__,
        where=f"{where.name}:{where.lineno}",
    )  # fmt: skip
