"""The bridge's listener on a real socket, partners that are registered with it, and a sender's side of a connection."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

from bridges.v2.door import listener
from bridges.v2.message import Message, parse
from bridges.v2.mllp import FrameReader, MllpServer, frame
from fhir_server.tls_files import TlsFiles
from tests.department import Department, Resource

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def door(ris: Department, tls: TlsFiles | None = None) -> AsyncIterator[MllpServer]:
    """The department's listener on a free port."""
    server = listener(ris.inbound, ris.interactions, "127.0.0.1", 0, tls or TlsFiles())
    await server.start()
    try:
        yield server
    finally:
        await server.stop(1)


@contextlib.asynccontextmanager
async def registered(ris: Department, *headers: str, **elements: Any) -> AsyncIterator[Resource]:
    """A partner whose Endpoint says these headers, while inside."""
    endpoint = await ris.create(partner(*headers) | elements)
    try:
        yield endpoint
    finally:
        await ris.become(endpoint, "off")


def partner(*headers: str) -> Resource:
    """The Endpoint of a partner, not yet stored."""
    return {
        "resourceType": "Endpoint",
        "status": "active",
        "connectionType": {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"},
        "payloadType": [{"text": "none"}],
        "address": "mllp://127.0.0.1:9",
        "header": list(headers),
    }


class Caller:
    """A sender that keeps its connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames = FrameReader()
        self._come: list[bytes] = []

    async def send(self, *messages: bytes) -> None:
        self.writer.write(b"".join(frame(m) for m in messages))
        await self.writer.drain()

    async def answer(self) -> Message:
        """The next answer. ConnectionError when the connection ends before it."""
        while not self._come:
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            if not data:
                raise ConnectionError("closed")
            self._come += self._frames.feed(data)
        return parse(self._come.pop(0))

    async def ask(self, message: bytes) -> Message:
        await self.send(message)
        return await self.answer()

    async def quiet(self) -> bool:
        """Whether nothing more comes but the end, once we have said that nothing more is sent."""
        self.writer.write_eof()
        return not self._come and await asyncio.wait_for(self.reader.read(), 10) == b""


@contextlib.asynccontextmanager
async def calling(server: MllpServer, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> AsyncIterator[Caller]:
    """A connection to a listener, from this address of ours."""
    name = "127.0.0.1" if context else None
    streams = await asyncio.open_connection(
        "127.0.0.1", server.port, local_addr=(host, 0), ssl=context, server_hostname=name
    )  # fmt: skip
    caller = Caller(*streams)
    try:
        yield caller
    finally:
        caller.writer.close()
        with contextlib.suppress(OSError):
            await caller.writer.wait_closed()
