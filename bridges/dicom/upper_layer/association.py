"""An association: messages over the provider, requests served one after the other, and our own requests to the peer."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bridges.dicom.upper_layer import command, pdu
from bridges.dicom.upper_layer.command import Command
from bridges.dicom.upper_layer.messages import Assembler, BrokenMessage, Message
from bridges.dicom.upper_layer.pdu import AssociateAccept, AssociateReject, AssociateRequest, DataValue
from bridges.dicom.upper_layer.provider import AssociationEnded, Provider
from bridges.dicom.upper_layer.services import (
    MISTYPED_ARGUMENT,
    PROCESSING_FAILURE,
    UNRECOGNISED_OPERATION,
    Context,
    Operation,
    Peer,
    Request,
    Response,
    Service,
)

log = structlog.get_logger()

# No asynchronous operations are negotiated: a peer has one request under way. One that sends on regardless is cut off here.
_MOST_WAITING: Final = 16
_OPERATIONS: Final = frozenset(Operation)


@dataclass(frozen=True, slots=True)
class Times:
    """Limits in seconds.

    negotiation: for the association request to come, and for the end of a connection (ARTIM, PS3.8 9.1.5)
    idle: without anything from the peer, while no request is under way
    total: of a whole association; a request under way may end, for as long as `write`
    write: for the peer to take what it is sent
    """

    negotiation: float = 10
    idle: float = 60
    total: float = 3600
    write: float = 20


class Association:
    """One association, in either role. It is the user of its `provider`."""

    def __init__(self, services: Mapping[str, Service], times: Times, *, request: AssociateRequest | None = None) -> None:
        self._services = services
        self._times = times
        self._loop = asyncio.get_running_loop()
        self.provider = Provider(self, artim=times.negotiation, write=times.write, request=request)
        self.calling = request.calling if request else ""
        self.called = request.called if request else ""
        self.peer = Peer("")
        self.caller: Any = None
        self.contexts: dict[int, Context] = {}
        self.rejection: AssociateReject | None = None
        self.end_reason = ""
        self.ended = False
        self.over: asyncio.Event = asyncio.Event()  # set when the connection is closed
        self._proposed = {c.id: c.abstract_syntax for c in request.contexts} if request else {}
        self._ready: asyncio.Future[None] = self._loop.create_future()  # the requestor's: until the answer to its request
        self._peer_takes = 0
        self._assembler = Assembler()
        self._waiting: deque[Request] = deque()
        self._current: Request | None = None
        self._worker: asyncio.Task[None] | None = None
        self._release_asked = False
        self._responses: dict[int, asyncio.Queue[Message | None]] = {}
        self._next_id = 0
        self._began = self._loop.time()
        self._watch: asyncio.TimerHandle | None = None

    # What the acceptor does with it

    def establish(self, accept: AssociateAccept, contexts: dict[int, Context], peer_takes: int) -> None:
        """Accept the request; from here on the peer's messages are served."""
        self.contexts, self._peer_takes = contexts, peer_takes
        self._keep_watch()
        self.provider.accept(accept)

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return self._worker is not None

    async def idle(self) -> None:
        """Wait until no request is being served."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    def abort(self) -> None:
        self.provider.abort()

    def stop(self) -> None:
        """Abort, end what is being served, and close the connection."""
        self.abort()
        if self._worker is not None:
            self._worker.cancel()
        if self.provider.transport is not None:
            self.provider.transport.close()

    # Sending

    async def send_all(self, context_id: int, command_set: bytes, answers: Sequence[bytes]) -> None:
        """Send a message, or one with each of these data sets, in one go. AssociationEnded when the peer is gone."""
        head = pdu.fragments(context_id, pdu.COMMAND, command_set, self._peer_takes)
        parts = [part for data in answers for part in (head, pdu.fragments(context_id, 0, data, self._peer_takes))]
        await self.provider.send(b"".join(parts) if answers else head)

    # Our own requests

    async def request(self, context: Context, told: Command, data: bytes | None = None, *, timeout: float) -> Message:
        """Send a request and wait for its one response. AssociationEnded, TimeoutError."""
        async with asyncio.timeout(timeout):
            async for message in self.responses(context, told, data):
                return message
        raise AssociationEnded

    async def responses(self, context: Context, told: Command, data: bytes | None = None) -> AsyncIterator[Message]:
        """Send a request and get its responses, the last of which isn't pending. Its message id is put in here."""
        self._next_id = self._next_id % 0xFFFF + 1
        message_id, queue = self._next_id, asyncio.Queue[Message | None]()
        self._responses[message_id] = queue
        told = told | {
            command.MESSAGE_ID: message_id,
            command.DATA_SET_TYPE: command.NO_DATA_SET if data is None else command.DATA_SET,
        }
        try:
            await self.send_all(context.id, command.encode(told), [] if data is None else [data])
            while not self.ended or not queue.empty():
                message = await queue.get()
                if message is None:
                    break
                yield message
                if command.number(message.command, command.STATUS) & 0xFF00 != 0xFF00:
                    return
            raise AssociationEnded
        finally:
            del self._responses[message_id]

    async def cancel(self, context: Context) -> None:
        """C-CANCEL our last request."""
        told: Command = {
            command.COMMAND_FIELD: command.C_CANCEL,
            command.RESPONDED_TO: self._next_id,
            command.DATA_SET_TYPE: command.NO_DATA_SET,
        }
        await self.send_all(context.id, command.encode(told), [])

    async def established(self) -> None:
        """As requestor: wait for the answer to the association request. AssociationEnded when it was refused."""
        await self._ready

    async def release(self, timeout: float) -> None:
        """Release the association in an orderly way; abort it when the peer doesn't answer."""
        self.provider.release()
        try:
            await asyncio.wait_for(self.over.wait(), timeout)
        except TimeoutError:
            self.abort()

    def context_of(self, abstract_syntax: str) -> Context | None:
        return next((c for c in self.contexts.values() if c.abstract_syntax == abstract_syntax), None)

    # Indications of the provider

    def connected(self) -> None:
        transport = self.provider.transport
        if transport is not None:
            self.peer = _peer(transport)

    def requested(self, request: AssociateRequest) -> None:
        """The acceptor's association takes it (`acceptor._Incoming`); a requestor never gets one."""

    def accepted(self, accept: AssociateAccept) -> None:
        self._peer_takes = accept.user.max_length
        for result in accept.contexts:
            if result.result == pdu.ACCEPTED and result.id in self._proposed:
                self.contexts[result.id] = Context(result.id, self._proposed[result.id], result.transfer_syntax)
        self._keep_watch()
        if not self._ready.done():
            self._ready.set_result(None)

    def rejected(self, reject: AssociateReject) -> None:
        self.rejection = reject
        self._end(f"rejected: result {reject.result}, source {reject.source}, reason {reject.reason}")

    def received(self, values: tuple[DataValue, ...]) -> None:
        try:
            for value in values:
                if value.context_id not in self.contexts:
                    raise BrokenMessage("the presentation context was not accepted")
                if (message := self._assembler.add(value)) is not None:
                    self._message(message)
        except BrokenMessage as error:
            log.warning("dicom.broken_message", ae_title=self.calling, address=self.peer.address, reason=str(error))
            self.abort()

    def release_requested(self) -> None:
        self._release_asked = True
        if self._worker is None:
            self.provider.respond_to_release()

    def released(self) -> None:
        self._end("released")

    def aborted(self, reason: str) -> None:
        self._end(reason)

    def closed(self) -> None:
        self._end("the connection was lost")
        self.over.set()

    def _end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended, self.end_reason = True, reason
        if self._watch is not None:
            self._watch.cancel()
        if not self._ready.done():
            self._ready.set_exception(AssociationEnded(reason))
            self._ready.exception()  # nobody may be waiting for it
        for queue in self._responses.values():
            queue.put_nowait(None)

    # Messages of the peer

    def _message(self, message: Message) -> None:
        if message.field & command.RESPONSE:
            queue = self._responses.get(command.number(message.command, command.RESPONDED_TO))
            if queue is not None:
                queue.put_nowait(message)
            return
        if message.field == command.C_CANCEL:
            self._cancel(command.number(message.command, command.RESPONDED_TO))
            return
        if message.field not in _OPERATIONS or len(self._waiting) >= _MOST_WAITING:
            raise BrokenMessage("a command that is none, or too many requests at once")
        self._waiting.append(Request(self, self.contexts[message.context_id], message))
        if self._worker is None:
            self._worker = self._loop.create_task(self._serve())

    def _cancel(self, message_id: int) -> None:
        for request in (self._current, *self._waiting):
            if request is not None and request.message_id == message_id:
                request.cancel()

    async def _serve(self) -> None:
        try:
            while self._waiting and not self.ended:
                self._current = self._waiting.popleft()
                if not await self._still_admitted():
                    self.abort()
                    break
                await self._current.respond(await self._answer(self._current))
        except AssociationEnded:
            pass
        finally:
            self._current, self._worker = None, None
            if self._release_asked:
                self.provider.respond_to_release()

    async def _still_admitted(self) -> bool:
        """Whether the peer's next request is served: the acceptor's association asks (`acceptor._Incoming`)."""
        return True

    async def _answer(self, request: Request) -> Response:
        service = self._services.get(request.context.abstract_syntax)
        handler = service.handlers.get(Operation(request.operation)) if service else None
        if handler is None:
            return Response(UNRECOGNISED_OPERATION, "this SOP class is not served that way")
        if not request.message_id and command.MESSAGE_ID not in request.message.command:
            return Response(MISTYPED_ARGUMENT, "the request has no Message ID")
        try:
            return await handler(request)
        except AssociationEnded:
            raise
        except Exception:
            log.exception("dicom.failed", operation=request.operation, ae_title=self.calling)
            return Response(PROCESSING_FAILURE, "an internal error; it is in the server's log")

    # Time

    def _keep_watch(self) -> None:
        now = self._loop.time()
        over = self._began + self._times.total + (self._times.write if self.busy else 0)
        quiet_until = (now if self.busy else self.provider.heard) + self._times.idle
        if now >= min(quiet_until, over):
            log.info("dicom.timed_out", ae_title=self.calling, address=self.peer.address, idle=now >= quiet_until)
            self.abort()
            return
        self._watch = self._loop.call_later(max(min(quiet_until, over) - now, 1.0), self._keep_watch)


def _peer(transport: asyncio.Transport) -> Peer:
    name = transport.get_extra_info("peername")
    tls: Any = transport.get_extra_info("ssl_object")
    address = str(name[0]) if isinstance(name, tuple) else ""
    return Peer(address.removeprefix("::ffff:"), tls is not None, tls.getpeercert(binary_form=True) if tls else None)
