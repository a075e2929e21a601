"""A small load generator: keep-alive HTTP/1.1 connections that send one prepared request after another."""

import asyncio
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Request = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Result:
    """What one run came to; times in milliseconds."""

    rate: float
    p50: float
    p95: float
    p99: float
    errors: int

    def __str__(self) -> str:
        spread = f"p50 {self.p50:7.1f} ms   p95 {self.p95:7.1f} ms   p99 {self.p99:7.1f} ms"
        return f"{self.rate:8.0f}/s   {spread}   errors {self.errors}"


async def run(port: int, request: Request, *, connections: int, count: int) -> Result:
    """Send `request(0)` to `request(count - 1)` over this many connections. Answers of 300 and above are errors."""
    numbers = iter(range(count))
    times: list[float] = []
    errors = 0

    async def connection() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            began = time.perf_counter()
            writer.write(request(number))
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(h[15:]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:")), 0)
            await reader.readexactly(length)
            times.append((time.perf_counter() - began) * 1000)
            errors += head[9:10] not in b"2"
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    took = time.perf_counter() - began
    cuts = statistics.quantiles(times, n=100)
    return Result(count / took, cuts[49], cuts[94], cuts[98], errors)


def http(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    """One FHIR request, ready to be written."""
    lines = [
        f"{method} /fhir/{path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        "Accept: application/fhir+json",
        "Content-Type: application/fhir+json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def machine() -> str:
    """One line on what this was measured on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, load generator and MongoDB on the same machine; "
        f"one core counts to ten million in {_pace():.2f} s"
    )


def _pace() -> float:
    """How fast this machine is just now (shared ones vary): seconds for a plain Python loop of ten million additions."""
    began, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - began
