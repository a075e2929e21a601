"""A small load generator: keep-alive HTTP/1.1 connections that each send one prepared request after another.

It shares the machine with what it measures, so it does little: bytes out, status and length in, nothing parsed.
`Result.generator` says how much of a core it took, so that one can see when it is the limit itself.
"""

import asyncio
import itertools
import os
import platform
import re
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

Request = Callable[[int], bytes]
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_WARM_SECONDS = 1.0
_LIMIT = 0.9  # of a core: from here on the generator may be what is measured
FHIR_JSON = "application/fhir+json"


@dataclass(slots=True)
class Answer:
    """One HTTP answer. `body` is as it came over the wire: compressed or in chunks if the server sent it so."""

    status: int
    head: bytes
    body: bytes


class Connection(asyncio.Protocol):
    """One connection, one request at a time. ConnectionError when the server closes it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._whole = 0  # length of the answer once its head is there; 0: not known, -1: until the last chunk
        self._head_end = 0
        self._waiting: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._whole:
            self._read_head()
        done = len(self._received) >= self._whole if self._whole > 0 else self._received.endswith(_LAST_CHUNK)
        if self._whole and done and self._waiting is not None and not self._waiting.done():
            received = bytes(self._received)
            head = received[: self._head_end]
            self._received.clear()
            self._whole = 0
            self._waiting.set_result(Answer(int(head[9:12]), head, received[self._head_end :]))

    def _read_head(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        self._head_end = end + 4
        length = _LENGTH.search(self._received, 0, end)
        chunked = length is None and _CHUNKED.search(self._received, 0, end)
        self._whole = -1 if chunked else self._head_end + (int(length[1]) if length else 0)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionResetError("the server closed the connection"))

    async def send(self, request: bytes) -> Answer:
        """Send a request; its answer."""
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    async def timed(self, request: bytes) -> tuple[Answer, float]:
        """The same, and the milliseconds it took."""
        began = time.perf_counter()
        answer = await self.send(request)
        return answer, (time.perf_counter() - began) * 1000

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A connection to a port of this machine."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    try:
        yield connection
    finally:
        connection.close()


@dataclass(slots=True)
class Result:
    """What one run came to: each answer's time in milliseconds, the run's seconds, the answers by status."""

    times: list[float]
    seconds: float
    statuses: Counter[int]
    generator: float  # cores that the load generator itself took

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.times) / self.seconds

    @property
    def errors(self) -> int:
        """Answers outside 200 to 299."""
        return sum(n for status, n in self.statuses.items() if not 200 <= status < 300)

    def percentile(self, percent: int) -> float:
        """Milliseconds."""
        return percentile(self.times, percent)

    @classmethod
    def together(cls, parts: "Iterable[Result]") -> Self:
        """Runs that went on at the same time, as one."""
        each = list(parts)
        statuses = sum((p.statuses for p in each), Counter[int]())
        times = [t for p in each for t in p.times]
        return cls(times, max(p.seconds for p in each), statuses, max(p.generator for p in each))

    def __str__(self) -> str:
        """One line: rate, times, errors if there are any, and a warning where the generator may be the limit."""
        spread = "   ".join(f"p{p} {self.percentile(p):7.1f} ms" for p in (50, 95, 99))
        errors = ", ".join(f"{n} times {status}" for status, n in sorted(self.statuses.items()) if not 200 <= status < 300)
        limit = f"   load generator at {self.generator:.2f} cores: it may be the limit" if self.generator > _LIMIT else ""
        return f"{self.rate:8.0f}/s   {spread}   errors {errors or 0}{limit}"


def percentile(times: list[float], percent: int) -> float:
    """Of any number of times."""
    return statistics.quantiles(times, n=100)[percent - 1] if len(times) > 1 else times[0] if times else float("nan")


async def run(port: int, request: Request, *, connections: int, count: int | None = None, seconds: float | None = None) -> Result:
    """Send `request(0)`, `request(1)`, ... over this many connections: `count` of them, or for so many `seconds`."""
    numbers = iter(range(count)) if count is not None else itertools.count()
    result = Result([], 0.0, Counter(), 0.0)

    async def work(connection: Connection, more: Callable[[], bool]) -> None:
        for number in numbers:
            if not more():
                return
            answer, took = await connection.timed(request(number))
            result.times.append(took)
            result.statuses[answer.status] += 1

    result.seconds, result.generator = await drive(port, work, connections=connections, seconds=seconds)
    return result


async def drive(
    port: int,
    work: Callable[[Connection, Callable[[], bool]], Awaitable[None]],
    *,
    connections: int,
    seconds: float | None = None,
) -> tuple[float, float]:
    """Run `work(connection, more)` on each connection until it returns; `more()` is false when the time is over.

    The seconds it took, and the cores that this process used meanwhile.
    """
    opened = [await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port) for _ in range(connections)]
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds if seconds is not None else float("inf")

    def more() -> bool:
        return time.perf_counter() < end

    try:
        await asyncio.gather(*(work(connection, more) for _, connection in opened))
    finally:
        for _, connection in opened:
            connection.close()
    took = time.perf_counter() - began
    return took, (time.process_time() - cpu) / took


@dataclass(slots=True)
class Side:
    """One of several servers that are compared: what it is asked, and what came of each round."""

    port: int
    request: Request
    results: list[Result] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median of its rounds: answers a second."""
        return statistics.median(r.rate for r in self.results)

    @property
    def p50(self) -> float:
        """The median of its rounds' medians, in milliseconds."""
        return statistics.median(r.percentile(50) for r in self.results)

    @property
    def wrong(self) -> Counter[int]:
        """Its answers outside 200 to 299, by status."""
        every = sum((r.statuses for r in self.results), Counter[int]())
        return Counter({status: n for status, n in every.items() if not 200 <= status < 300})


async def in_turns(sides: Iterable[Side], *, connections: int, rounds: int, seconds: float) -> None:
    """Measure each side for so many seconds, round after round, so that a slow moment of the machine meets them all."""
    every = list(sides)
    for side in every:
        await run(side.port, side.request, connections=connections, seconds=min(_WARM_SECONDS, seconds))
    for _ in range(rounds):
        for side in every:
            side.results.append(await run(side.port, side.request, connections=connections, seconds=seconds))


def http(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    """One FHIR request to us, ready to be written."""
    return request_bytes(method, f"/fhir/{path}", body, Authorization=f"Bearer {token}")


def request_bytes(method: str, path: str, body: bytes = b"", content_type: str = FHIR_JSON, **headers: str) -> bytes:
    """One HTTP request, ready to be written. Header names are given with underscores."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Accept: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method in {"POST", "PUT"}:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def machine() -> str:
    """One line on what this was measured on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, load generator and MongoDB on the same machine; "
        f"one core counts to ten million in {_pace():.2f} s; {os.getloadavg()[0]:.1f} processes were busy before"
    )


def _pace() -> float:
    """How fast this machine is just now (shared ones vary): seconds for a plain Python loop of ten million additions."""
    began, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - began
