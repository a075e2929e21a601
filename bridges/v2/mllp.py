"""MLLP, the transport of v2 messages: the listening side, and frames (`mllp_frames.py`). Neither knows what is in a message."""

import asyncio
import contextlib
import functools
import hashlib
import logging
import socket
import ssl as tls
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bridges.v2.mllp_frames import END, MAX_JUNK, MAX_SIZE, START, FrameError, FrameReader, MllpError, frame, tune

__all__ = [
    "END", "MAX_JUNK", "MAX_SIZE", "START",
    "FrameError", "FrameReader", "Handler", "MllpError", "MllpServer", "Peer", "frame", "tune",
]  # fmt: skip

log = logging.getLogger(__name__)

_CR_WAIT: Final = 0.5  # seconds in which the 0D of a frame end may come after its 1C
_LINGER: Final = 2  # seconds in which what was written may still leave a connection that closes
_CHUNK: Final = 65536
_HANDSHAKE: Final = 5  # seconds that a TLS handshake may take
_BACKLOG: Final = 100
_NO_SOCKETS: Final = 0.5  # seconds to wait when the system has no more sockets for us


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end.

    certificate: as `ssl.SSLSocket.getpeercert` tells it, None without mutual TLS
    fingerprint: SHA-256 of the certificate, as hex
    """

    host: str
    port: int
    certificate: dict[str, Any] | None = field(default=None, repr=False)
    fingerprint: str = ""

    @property
    def names(self) -> frozenset[str]:
        """What its certificate may be known by: fingerprint and common names of the subject."""
        subject = (self.certificate or {}).get("subject", ())
        common = {value for part in subject for name, value in part if name == "commonName"}
        return frozenset(common | {self.fingerprint}) - {""}


# Several answers are sent as they come: an accept acknowledgement, and later that of the application.
Handler = Callable[[bytes, Peer], Awaitable[bytes | AsyncIterator[bytes] | None]]


@dataclass(slots=True, eq=False)
class _Connection:
    task: "asyncio.Task[None]"
    host: str
    busy: bool = False
    open: bool = False  # after its TLS handshake, where there is one
    dropped: bool = False


async def _everybody(_host: str) -> bool:
    return True


async def _unnoticed(_host: str, _reason: str) -> None:
    return None


class MllpServer:
    """Listens for messages and answers them with what `handler` gives; None is no answer.

    The messages of one connection are handled in their order, one at a time; what a sender sends ahead waits in the connection,
    and is not even read while a handler takes its time. A handler that raises costs its connection, so that the sender gets no
    answer and repeats; the listener goes on.

    idle_timeout: seconds a connection may be silent between messages
    frame_timeout: seconds a frame may take to arrive, and an answer to be taken
    max_connections: more are closed at once; so are more than `max_of_one` of one address. Where one of them is still at its
        TLS handshake, the oldest such goes instead, so that silent sockets keep nobody out.
    ssl: the TLS context, or what gives the one that is valid now, asked for each connection
    admits: whether connections from an address are taken at all; asked before a byte is read
    counted: told how many connections are open, whenever that changes
    refused: told of each connection that is not taken: its address, and `address`, `connections` or `tls`
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Handler,
        *,
        max_size: int = MAX_SIZE,
        max_junk: int = MAX_JUNK,
        idle_timeout: float = 3600,
        frame_timeout: float = 60,
        max_connections: int = 200,
        max_of_one: int = 50,
        ssl: tls.SSLContext | Callable[[], tls.SSLContext] | None = None,
        admits: Callable[[str], Awaitable[bool]] = _everybody,
        refused: Callable[[str, str], Awaitable[None]] = _unnoticed,
        counted: Callable[[float], object] = lambda _: None,
    ) -> None:
        self.host = host
        self.port = port
        self.handler = handler
        self.max_size = max_size
        self.max_junk = max_junk
        self.idle_timeout = idle_timeout
        self.frame_timeout = frame_timeout
        self.max_connections = max_connections
        self.max_of_one = max_of_one
        self.ssl = ssl
        self._admits = admits
        self._refused = refused
        self._counted = counted
        self._sockets: list[socket.socket] = []
        self._listening: list[asyncio.Task[None]] = []
        self._connections: dict[_Connection, None] = {}  # the oldest first
        self._stopping = False

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen. `port` 0 becomes the port that was given to us. OSError where the address can't be had."""
        self._stopping = False
        try:
            for family, address in await _addresses(self.host, self.port):
                self._sockets.append(_bound(family, (address[0], self.port, *address[2:])))
                self.port = self._sockets[-1].getsockname()[1]
        except OSError:
            for listener in self._sockets:
                listener.close()
            self._sockets = []
            raise
        self._listening = [asyncio.create_task(self._accept(listener)) for listener in self._sockets]

    async def stop(self, grace: float = 10) -> None:
        """Stop listening, let messages under way be handled and answered for `grace` seconds, then close.

        A message that has come but is not yet in hand stays unanswered, so that its sender repeats it.
        """
        self._stopping = True
        for listening in self._listening:
            listening.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        for listener in self._sockets:
            listener.close()
        self._listening, self._sockets = [], []
        tasks = {connection.task for connection in self._connections}
        for connection in self._connections:
            if not connection.busy:
                connection.task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:
                log.error("no connection can be accepted: %s", type(error).__name__)  # noqa: TRY400 - it says all
                await asyncio.sleep(_NO_SOCKETS)
                continue
            sock.setblocking(False)
            task = asyncio.create_task(self._taken(sock, address[0], address[1]))
            connection = _Connection(task, address[0])
            self._connections[connection] = None
            self._counted(len(self._connections))
            task.add_done_callback(functools.partial(self._gone, connection))

    async def _taken(self, sock: socket.socket, host: str, port: int) -> None:
        """One connection, from its first to its last moment."""
        writer: asyncio.StreamWriter | None = None
        try:
            if reason := await self._objection(host):
                log.warning("connection from %s refused: %s", host, reason)
                await self._refused(host, reason)
                return
            reader, writer = await self._opened(sock, host)
            self._own().open = True
            await self._converse(self._own(), reader, writer, _peer(writer, host, port))
        except MllpError as error:
            log.warning("connection from %s closed: %s", host, error)
        except (OSError, TimeoutError) as error:
            log.info("connection from %s ended: %s", host, type(error).__name__)
        except asyncio.CancelledError:
            reason = "it is slow to speak TLS, and others wait" if self._own().dropped else "the server stops"
            log.info("connection from %s closed: %s", host, reason)
        finally:
            await self._closed(sock, writer)

    def _gone(self, connection: _Connection, _: "asyncio.Task[None]") -> None:
        self._connections.pop(connection, None)
        self._counted(len(self._connections))

    async def _objection(self, host: str) -> str:
        """Why a connection isn't taken; empty when it is."""
        if self._stopping:
            return "connections"
        held = [c for c in self._connections if not c.dropped]
        of_one = [c for c in held if c.host == host]
        for among, most in ((of_one, self.max_of_one), (held, self.max_connections)):
            if len([c for c in among if not c.dropped]) > most and not await self._drop_silent(among):
                return "connections"
        return "" if await self._admits(host) else "address"

    async def _drop_silent(self, among: list[_Connection]) -> bool:
        """Close the oldest of these that hasn't done its TLS handshake; whether there was one."""
        own = self._own()
        silent = next((c for c in among if not c.open and not c.dropped and c is not own), None) if self.ssl else None
        if silent is None:
            return False
        silent.dropped = True
        silent.task.cancel()
        await self._refused(silent.host, "connections")
        return True

    async def _opened(self, sock: socket.socket, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection's streams, after its TLS handshake where there is one."""
        loop = asyncio.get_running_loop()
        tune(sock)
        reader = asyncio.StreamReader(limit=_CHUNK, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        context = self.ssl() if callable(self.ssl) else self.ssl
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=context, ssl_handshake_timeout=_HANDSHAKE if context else None
            )
        except (OSError, TimeoutError) as error:
            if context is None:
                raise
            log.warning("connection from %s refused: no TLS (%s)", host, getattr(error, "reason", None) or type(error).__name__)
            await self._refused(host, "tls")
            raise
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _own(self) -> _Connection:
        task = asyncio.current_task()
        return next(connection for connection in self._connections if connection.task is task)

    async def _closed(self, sock: socket.socket, writer: asyncio.StreamWriter | None) -> None:
        if writer is None:
            sock.close()
            return
        writer.close()
        self._own().busy = True  # the last answer may still be on its way
        with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(_LINGER):
                await writer.wait_closed()
        writer.transport.abort()

    async def _converse(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer
    ) -> None:
        frames = FrameReader(self.max_size, self.max_junk)
        clock = asyncio.get_running_loop().time
        begun: float | None = None
        open_ = True
        while open_:
            if not frames.inside:
                begun = None
            elif begun is None:
                begun = clock()
            due = clock() + self.idle_timeout if begun is None else begun + self.frame_timeout
            try:
                async with asyncio.timeout_at(min(due, clock() + _CR_WAIT) if frames.waits_for_cr else due):
                    data = await reader.read(_CHUNK)
            except TimeoutError:
                if not frames.waits_for_cr:
                    raise
                messages = frames.finish()
            else:
                open_ = bool(data)
                messages = frames.feed(data) if open_ else frames.finish()
            if messages:
                begun = None
            connection.busy = True
            for message in messages:
                if self._stopping or not await self._answer(message, writer, peer):
                    return
            connection.busy = False
            if self._stopping:
                return

    async def _answer(self, message: bytes, writer: asyncio.StreamWriter, peer: Peer) -> bool:
        """Whether the connection may go on."""
        try:
            answer = await self.handler(message, peer)
            if isinstance(answer, bytes):
                await self._write(answer, writer)
            elif answer is not None:
                async for one in answer:
                    await self._write(one, writer)
        except (OSError, TimeoutError) as error:
            if not isinstance(error, _Unsent):
                _log_failure(peer, error)
                return False
            raise error.error from None
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the listener lives
            _log_failure(peer, error)
            return False
        return True

    async def _write(self, answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(answer))
        try:
            async with asyncio.timeout(self.frame_timeout):
                await writer.drain()
        except (OSError, TimeoutError) as error:
            raise _Unsent(error) from None


class _Unsent(OSError):
    """An answer could not be sent: no fault of the handler's."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error


def _log_failure(peer: Peer, error: Exception) -> None:
    """Where it happened, without the error's text: that may name a patient."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    log.error("handling a message from %s failed: %s at %s:%s", peer.host, type(error).__name__, where.name, where.lineno)


async def _addresses(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    """The family and address of every place that `host` means on this machine, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _peer(writer: asyncio.StreamWriter, host: str, port: int) -> Peer:
    session = writer.get_extra_info("ssl_object")
    shown = session.getpeercert(binary_form=True) if session else None
    fingerprint = hashlib.sha256(shown).hexdigest() if shown else ""
    return Peer(host, port, writer.get_extra_info("peercert") or None, fingerprint)
