"""MLLP, the transport of v2 messages (HL7 "Minimal Lower Layer Protocol", release 1): 0B, message, 1C 0D.

Frames and the listening side. Neither knows what is in a message.
"""

import asyncio
import contextlib
import logging
import socket
import ssl as tls
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

log = logging.getLogger(__name__)

START: Final = b"\x0b"
END: Final = b"\x1c\x0d"
MAX_SIZE: Final = 16 * 1024 * 1024
MAX_JUNK: Final = 4096
_END_MARK: Final = 0x1C
_AFTER_END: Final = b"\x0d\x0a\x0b"
_CR_WAIT: Final = 0.5  # seconds in which the 0D of a frame end may come after its 1C
_LINGER: Final = 2  # seconds in which what was written may still leave a connection that closes
_CHUNK: Final = 65536


class MllpError(Exception):
    """What the transport can't do. The texts hold nothing of a message."""


class FrameError(MllpError):
    """A frame is longer than allowed, or a peer sends bytes outside of frames."""


def frame(message: bytes) -> bytes:
    """The message in its frame. ValueError where it holds the frame's own end mark."""
    if b"\x1c" in message:
        raise ValueError("the message holds the byte that ends a frame")
    return START + message + END


class FrameReader:
    """Finds frames in a byte stream, however it is cut.

    A frame ends with 1C 0D. Two habits are allowed for: 1C 0A, and a 1C with nothing after it but the next frame (or a
    pause: `waits_for_cr`, then `finish`). A 1C before any other byte belongs to the message. Where a sender broke off a frame
    and began anew, what came before is dropped.

    junk: how many bytes outside of frames were dropped, line ends not counted
    """

    def __init__(self, max_size: int = MAX_SIZE, max_junk: int = MAX_JUNK) -> None:
        self.max_size = max_size
        self.max_junk = max_junk
        self.junk = 0
        self._junk_in_a_row = 0
        self._buffer = bytearray()
        self._inside = False
        self._seen = 0

    @property
    def inside(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._inside

    @property
    def waits_for_cr(self) -> bool:
        """Whether the last byte was a 1C within a frame, so that nothing but 0D should follow."""
        return self._inside and self._buffer.endswith(b"\x1c")

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete, without their frames. Raises FrameError."""
        self._buffer += data
        messages: list[bytes] = []
        while self._enter() and (end := self._end()) >= 0:
            messages.append(self._take(end))
        return messages

    def finish(self) -> list[bytes]:
        """The message of a frame that ended in 1C without a 0D, when nothing more has come."""
        return [self._take(len(self._buffer) - 1)] if self.waits_for_cr else []

    def _enter(self) -> bool:
        """Drop what stands before the next frame; whether one has begun."""
        if not self._inside:
            start = self._buffer.find(START)
            outside = self._buffer[: start if start >= 0 else len(self._buffer)]
            self._drop(outside)
            del self._buffer[: len(outside) + 1]
            self._inside = start >= 0
            self._seen = 0
        return self._inside

    def _end(self) -> int:
        """Where the message ends; -1 while it doesn't."""
        buffer = self._buffer
        end = buffer.find(_END_MARK, self._seen)
        while 0 <= end < len(buffer) - 1 and buffer[end + 1] not in _AFTER_END:
            end = buffer.find(_END_MARK, end + 1)
        complete = 0 <= end < len(buffer) - 1
        self._seen = end if end >= 0 else len(buffer)
        if (end if complete else len(buffer)) > self.max_size:
            raise FrameError(f"a frame is longer than {self.max_size} bytes")
        return end if complete else -1

    def _take(self, end: int) -> bytes:
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1 if self._buffer[end + 1 : end + 2] == START else end + 2]
        self._inside = False
        self._junk_in_a_row = 0
        restart = message.rfind(b"\x0bMSH")
        if restart >= 0:
            self.junk += restart
            return message[restart + 1 :]
        return message

    def _drop(self, outside: bytearray) -> None:
        dropped = len(outside.translate(None, b"\r\n"))
        self.junk += dropped
        self._junk_in_a_row += dropped
        if self._junk_in_a_row > self.max_junk:
            raise FrameError(f"more than {self.max_junk} bytes outside of frames")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. `certificate` is as `ssl.SSLSocket.getpeercert` tells it, None without mutual TLS."""

    host: str
    port: int
    certificate: dict[str, Any] | None = field(default=None, repr=False)


Handler = Callable[[bytes, Peer], Awaitable[bytes | None]]


@dataclass(slots=True, eq=False)
class _Connection:
    task: "asyncio.Task[None]"
    busy: bool = False


class MllpServer:
    """Listens for messages and answers them with what `handler` gives; None is no answer.

    The messages of one connection are handled in their order, one at a time. A handler that raises costs its connection, so
    that the sender gets no answer and repeats; the listener goes on.

    idle_timeout: seconds a connection may be silent between messages
    frame_timeout: seconds a frame may take to arrive, and an answer to be taken
    max_connections: more are closed at once
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
        ssl: tls.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.handler = handler
        self.max_size = max_size
        self.max_junk = max_junk
        self.idle_timeout = idle_timeout
        self.frame_timeout = frame_timeout
        self.max_connections = max_connections
        self.ssl = ssl
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._stopping = False

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen. `port` 0 becomes the port that was given to us. OSError where the address can't be had."""
        handshake = self.frame_timeout if self.ssl else None
        self._stopping = False
        self._server = await asyncio.start_server(
            self._accepted, self.host, self.port, ssl=self.ssl, limit=_CHUNK, ssl_handshake_timeout=handshake
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self, grace: float = 10) -> None:
        """Stop listening, let messages under way be handled and answered for `grace` seconds, then close.

        A message that has come but is not yet in hand stays unanswered, so that its sender repeats it.
        """
        self._stopping = True
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = {connection.task for connection in self._connections}
        for connection in self._connections:
            if not connection.busy:
                connection.task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = (writer.get_extra_info("peername") or ("unknown", 0))[:2]
        peer = Peer(host, port, writer.get_extra_info("peercert") or None)
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(task)
        if self._stopping or len(self._connections) >= self.max_connections:
            log.warning("connection from %s refused: %d are open", host, len(self._connections))
            writer.close()
            return
        self._connections.add(connection)
        try:
            tune(writer.get_extra_info("socket"))
            await self._converse(connection, reader, writer, peer)
        except MllpError as error:
            log.warning("connection from %s closed: %s", host, error)
        except (OSError, TimeoutError) as error:
            log.info("connection from %s ended: %s", host, type(error).__name__)
        except asyncio.CancelledError:
            log.info("connection from %s closed: the server stops", host)
        finally:
            writer.close()
            connection.busy = True  # the last answer may still be on its way
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(_LINGER):
                    await writer.wait_closed()
            writer.transport.abort()
            self._connections.discard(connection)

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
            framed = None if answer is None else frame(answer)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the listener lives; the text may name a patient
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = type(error).__name__
            log.error("handling a message from %s failed: %s at %s:%s", peer.host, kind, where.name, where.lineno)  # noqa: TRY400 - as above
            return False
        if framed is not None:
            writer.write(framed)
            async with asyncio.timeout(self.frame_timeout):
                await writer.drain()
        return True


def tune(sock: socket.socket | None) -> None:
    """No delay for small answers, and probes that find a dead peer within about two minutes."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
