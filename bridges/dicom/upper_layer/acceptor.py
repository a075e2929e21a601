"""Takes associations: listens, lets those in that may come, agrees on presentation contexts, and serves them (PS3.8 7.1)."""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from bridges.dicom.upper_layer import pdu
from bridges.dicom.upper_layer.association import Association, Times
from bridges.dicom.upper_layer.items import Role, UserInformation
from bridges.dicom.upper_layer.pdu import AssociateAccept, AssociateReject, AssociateRequest, ContextResult
from bridges.dicom.upper_layer.services import Admission, Context, Peer, Rejection, Service

log = structlog.get_logger()

IMPLEMENTATION_CLASS: Final = "2.25.223617483058430614297735137209462883157"  # PS3.7 D.3.3.2: of this implementation
IMPLEMENTATION_VERSION: Final = "FHIR_RIS_1"
MAX_LENGTH: Final = 128 * 1024  # of the P-DATA-TF PDUs that we take, in bytes
_BACKLOG = 256
_SEND_BUFFER = 64 * 1024  # bytes in the system's hands, so that a C-CANCEL is heard before the list is gone
_TLS_HANDSHAKE_SECONDS = 10.0
_PERMANENT = 1  # result of a rejection

WRONG_APPLICATION_CONTEXT: Final = Rejection(1, 1, 2, "the application context name is not DICOM's")
LIMIT_EXCEEDED: Final = Rejection(2, 3, 2, "too many associations")
TEMPORARY_CONGESTION: Final = Rejection(2, 3, 1, "try again")

Admit = Callable[[AssociateRequest, Peer], Awaitable[Admission | Rejection]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many associations at a time: in all, from one AE title, from one address; and how many connections of one address may
    be there that are no association yet or no more.
    """

    total: int = 400
    per_title: int = 20
    per_address: int = 100
    connecting: int = 100


class Observer:
    """Hears of associations: for audit trail and metrics. Does nothing by itself."""

    def accepted(self, association: Association) -> None: ...
    def refused(self, request: AssociateRequest, peer: Peer, rejection: Rejection) -> None: ...
    def failed(self, peer: Peer, reason: str) -> None:
        """A connection that ended without an association request that could be read."""

    def ended(self, association: Association) -> None: ...


class Acceptor:
    """Serves `services` to whom `admit` lets in. One acceptor may listen on several ports (`listen`)."""

    def __init__(
        self,
        services: Iterable[Service],
        admit: Admit,
        *,
        times: Times | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.services: Mapping[str, Service] = {s.sop_class: s for s in services}
        self._admit = admit
        self.times = times or Times()
        self._limits = limits or Limits()
        self._observer = observer or Observer()
        self._servers: dict[int, asyncio.Server] = {}  # by port
        self._open: set[_Incoming] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._established: set[_Incoming] = set()

    async def renew(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        """Listen anew, with another context, on a port that it listens on; what is open stays open. OSError as for `listen`."""
        if (before := self._servers.pop(port, None)) is not None:
            before.close()
        await self.listen(host, port, tls)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen on an address (port 0: any free one); the port. OSError when it can't be had."""
        handshake = _TLS_HANDSHAKE_SECONDS if tls else None
        server = await asyncio.get_running_loop().create_server(
            lambda: _Incoming(self).provider, host, port, backlog=_BACKLOG, ssl=tls, ssl_handshake_timeout=handshake
        )
        port = int(server.sockets[0].getsockname()[1])
        self._servers[port] = server
        return port

    @property
    def associations(self) -> list[Association]:
        """Those that are established."""
        return list(self._established)

    async def stop(self, grace: float) -> None:
        """Stop listening, let requests under way end for so many seconds, and abort what is still open."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        if busy := [asyncio.ensure_future(a.idle()) for a in self._established if a.busy]:
            _, late = await asyncio.wait(busy, timeout=grace)
            for waiter in late:
                waiter.cancel()
        for connection in list(self._open):
            connection.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.sleep(0)

    # Its connections

    def opened(self, incoming: "_Incoming") -> bool:
        """Whether this connection is taken. Beyond these limits nobody is told why: one address can't keep the others out."""
        self._open.add(incoming)
        if len(self._open) > 2 * self._limits.total:
            return False
        address = incoming.peer.address
        of_address = sum(o.peer.address == address for o in self._open - self._established)
        return of_address <= self._limits.connecting

    def closed(self, incoming: "_Incoming") -> None:
        self._open.discard(incoming)
        if incoming in self._established:
            self._established.discard(incoming)
            self._observer.ended(incoming)
        elif not incoming.answered:
            self._observer.failed(incoming.peer, "it ended before an association request was understood")

    def decide(self, incoming: "_Incoming", request: AssociateRequest) -> None:
        task = asyncio.get_running_loop().create_task(self._decide(incoming, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, incoming: "_Incoming", request: AssociateRequest) -> None:
        incoming.answered = True
        try:
            verdict = await self._verdict(request, incoming.peer)
        except Exception:
            log.exception("dicom.admission_failed")
            verdict = TEMPORARY_CONGESTION
        if incoming.ended:
            return
        if isinstance(verdict, Rejection):
            incoming.provider.reject(AssociateReject(verdict.result, verdict.source, verdict.reason))
            self._observer.refused(request, incoming.peer, verdict)
            return
        incoming.caller = verdict.caller
        accept, contexts = negotiate(request, self.services)
        self._established.add(incoming)
        self._observer.accepted(incoming)
        incoming.establish(accept, contexts, request.user.max_length)

    async def admits_still(self, incoming: "_Incoming", request: AssociateRequest) -> bool:
        """Whether who was let in still is. A refusal that is for now only (PS3.8 9.3.4, result 2) ends nothing."""
        try:
            verdict = await self._admit(request, incoming.peer)
        except Exception:
            log.exception("dicom.admission_failed")
            return True
        if isinstance(verdict, Admission):
            incoming.caller = verdict.caller
        elif verdict.result == _PERMANENT:
            self._observer.refused(request, incoming.peer, verdict)
            return False
        return True

    async def _verdict(self, request: AssociateRequest, peer: Peer) -> Admission | Rejection:
        if request.application_context != pdu.APPLICATION_CONTEXT:
            return WRONG_APPLICATION_CONTEXT
        verdict = await self._admit(request, peer)
        if isinstance(verdict, Rejection):
            return verdict
        open_ = [a for a in self._established if not a.ended]
        titles, addresses = Counter(a.calling for a in open_), Counter(a.peer.address for a in open_)
        per_title = verdict.most_associations or self._limits.per_title
        if len(open_) >= self._limits.total:
            return LIMIT_EXCEEDED
        if titles[request.calling] >= per_title:
            return Rejection(2, 3, 2, "too many associations of this AE title")
        if addresses[peer.address] >= self._limits.per_address:
            return Rejection(2, 3, 2, "too many associations from this address")
        return verdict


class _Incoming(Association):
    """An association that the peer asks for."""

    def __init__(self, acceptor: Acceptor) -> None:
        super().__init__(acceptor.services, acceptor.times)
        self._acceptor = acceptor
        self._asked: AssociateRequest | None = None
        self.answered = False

    def connected(self) -> None:
        super().connected()
        transport = self.provider.transport
        assert transport is not None
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
            # Nagle's algorithm would hold the last packet of each answer back for 20 to 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if not self._acceptor.opened(self):
            transport.abort()

    def requested(self, request: AssociateRequest) -> None:
        self.calling, self.called, self._asked = request.calling, request.called, request
        self._acceptor.decide(self, request)

    async def _still_admitted(self) -> bool:
        return self._asked is None or await self._acceptor.admits_still(self, self._asked)

    def closed(self) -> None:
        super().closed()
        self._acceptor.closed(self)


def negotiate(request: AssociateRequest, services: Mapping[str, Service]) -> tuple[AssociateAccept, dict[int, Context]]:
    """The answer to a request: each presentation context accepted with one transfer syntax, or refused (PS3.8 9.3.3.2).

    We are SCP; a requestor that wants to be SCP is told no (PS3.7 D.3.3.4). Asynchronous operations and user identity are not
    answered, which says that they are not supported (PS3.7 D.3.3.3, D.3.3.7).
    """
    results, contexts = [], {}
    for proposed in request.contexts:
        service = services.get(proposed.abstract_syntax)
        first = proposed.transfer_syntaxes[0]
        if service is None:
            results.append(ContextResult(proposed.id, pdu.ABSTRACT_SYNTAX_NOT_SUPPORTED, first))
            continue
        chosen = next((t for t in service.transfer_syntaxes if t in proposed.transfer_syntaxes), None)
        if chosen is None:
            results.append(ContextResult(proposed.id, pdu.TRANSFER_SYNTAXES_NOT_SUPPORTED, first))
            continue
        results.append(ContextResult(proposed.id, pdu.ACCEPTED, chosen))
        contexts[proposed.id] = Context(proposed.id, proposed.abstract_syntax, chosen)
    known = {c.abstract_syntax for c in contexts.values()}
    roles = tuple(Role(r.sop_class, r.scu, scp=False) for r in request.user.roles if r.sop_class in known)
    extended = {
        name: answer(asked)
        for name, asked in request.user.extended.items()
        if name in known and (answer := services[name].extended) is not None
    }
    user = UserInformation(MAX_LENGTH, IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION, roles, extended)
    return AssociateAccept(request.called, request.calling, tuple(results), user), contexts
