"""The sending side of MLLP: a connection to one receiver, and the acknowledgement of each message."""

import asyncio
import logging
import ssl as tls
from collections import deque
from collections.abc import Callable
from typing import cast

from bridges.v2.ack import POSITIVE, Ack, read_ack
from bridges.v2.message import MessageError
from bridges.v2.mllp import MAX_SIZE, FrameError, FrameReader, MllpError, frame, tune
from fhir_server.tls_files import TlsError

log = logging.getLogger(__name__)

_REMEMBERED = 100  # messages of a connection that may be refused after they were accepted


class ConnectError(MllpError):
    """No connection to the receiver. The message was not sent."""


class AckTimeout(MllpError):
    """No acknowledgement in time. Whether the receiver has the message is unknown."""


class ConnectionLost(MllpError):
    """The connection ended before the acknowledgement. Whether the receiver has the message is unknown."""


class _Link(asyncio.Protocol):
    """One connection of a client, and the one message on it that waits for its acknowledgement."""

    def __init__(self, max_size: int, late: Callable[[Ack], object]) -> None:
        self._late = late
        self._accepted: deque[str] = deque(maxlen=_REMEMBERED)  # control ids of messages for which CA was the last word
        self.frames = FrameReader(max_size)
        self.strays = 0
        self.transport: asyncio.Transport | None = None
        self._control_id = ""
        self._application = False
        self._waiting: asyncio.Future[Ack] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses
        tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        try:
            answers = self.frames.feed(data)
        except FrameError as error:
            self._fail(ConnectionLost(str(error)))
            self.close()
            return
        for answer in answers:
            self._answered(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        for answer in self.frames.finish():
            self._answered(answer)
        self.transport = None
        self._fail(
            ConnectionLost(f"the connection ended ({type(exc).__name__})" if exc else "the receiver closed the connection")
        )

    def expect(self, control_id: str, *, application: bool) -> "asyncio.Future[Ack]":
        self._control_id = control_id
        self._application = application
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    def _answered(self, data: bytes) -> None:
        try:
            ack = read_ack(data)
        except MessageError:
            ack = None
        waiting = self._waiting
        if ack is not None and ack.control_id in self._accepted and not ack.positive:
            self._late(ack)
            return
        if ack is None or waiting is None or waiting.done() or not self._fits(ack):
            self.strays += 1
            log.warning("an acknowledgement that no message waits for was dropped")
            return
        if ack.code == "CA" and self._application:
            return  # the receiver has it; what it makes of it is still to come
        if ack.code == "CA":
            self._accepted.append(ack.control_id)
        waiting.set_result(ack)

    def _fits(self, ack: Ack) -> bool:
        """By MSA-2. A refusal may lack it: its sender could not read our message, and just one is under way."""
        return ack.control_id == self._control_id or (not ack.control_id and ack.code not in POSITIVE)

    def _fail(self, error: MllpError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


class MllpClient:
    """A persistent connection to one receiver, opened when there is something to send, with one message under way at a time.

    ssl: the TLS context, or what gives the one for the next connection
    server_name: the name in the receiver's certificate, where that isn't `host`
    connect_timeout, ack_timeout: seconds
    late: told of a refusal that comes after the message was accepted (CA)
    strays: how many acknowledgements were dropped because no message waited for them
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ssl: tls.SSLContext | Callable[[], tls.SSLContext] | None = None,
        server_name: str = "",
        connect_timeout: float = 10,
        ack_timeout: float = 30,
        max_size: int = MAX_SIZE,
        late: Callable[[Ack], object] = lambda _: None,
    ) -> None:
        self.host = host
        self.port = port
        self.ssl = ssl
        self.server_name = server_name
        self.connect_timeout = connect_timeout
        self.ack_timeout = ack_timeout
        self.max_size = max_size
        self._late = late
        self._lock = asyncio.Lock()
        self._link: _Link | None = None
        self._strays = 0

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.transport is not None and not self._link.transport.is_closing()

    @property
    def strays(self) -> int:
        return self._strays + (self._link.strays if self._link else 0)

    async def send(self, message: bytes, control_id: str, *, application: bool = False) -> Ack:
        """Send, and wait for the acknowledgement of this control id, positive or not.

        application: CA is not enough, the application's acknowledgement is to follow it (HL7 v2.5.1 2.9.3)

        Raises ConnectError, AckTimeout or ConnectionLost. After the last two, and when cancelled, the connection is closed: a
        late acknowledgement can't be taken for the next message's.
        """
        framed = frame(message)
        async with self._lock:
            link = await self._connect()
            assert link.transport is not None
            waiting = link.expect(control_id.strip(), application=application)
            link.transport.write(framed)
            try:
                async with asyncio.timeout(self.ack_timeout):
                    return await waiting
            except TimeoutError:
                raise AckTimeout(f"no acknowledgement from {self.host}:{self.port} in {self.ack_timeout:g} s") from None
            finally:
                if waiting.cancelled() or waiting.exception():
                    self._drop()

    async def close(self) -> None:
        """Close the connection; a message under way ends in ConnectionLost. A later `send` opens another."""
        self._drop()
        await asyncio.sleep(0)  # the loop tells the link that its connection is gone

    async def _connect(self) -> _Link:
        if self.connected:
            assert self._link is not None
            return self._link
        self._drop()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.connect_timeout):
                context = self.ssl() if callable(self.ssl) else self.ssl
                name = self.server_name or self.host if context else None
                _, self._link = await loop.create_connection(
                    lambda: _Link(self.max_size, self._late), self.host, self.port, ssl=context, server_hostname=name
                )
        except TlsError as error:
            raise ConnectError(str(error)) from None
        except (OSError, TimeoutError) as error:
            raise ConnectError(f"no connection to {self.host}:{self.port} ({type(error).__name__})") from None
        return self._link

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._strays += link.strays
            link.close()
