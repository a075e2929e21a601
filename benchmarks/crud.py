"""The public Health Samurai CRUD mix: nine linked types created, read, changed and deleted, over and over.

python -m benchmarks.crud [--connections 32] [--seconds 20] [--workers 1]

Each connection creates a Patient, Location, Organization, Practitioner, Encounter, Observation, MedicationRequest, Claim and
ExplanationOfBenefit that refer to each other, reads all nine, puts all nine with one field changed, and deletes them in reverse
order: 36 requests, a quarter of each kind. Headers as in the workload: JSON, gzip accepted, no cache. Ours are the resources
(invented, of the same sizes) and that a deletion may answer 204.
"""

import argparse
import contextlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import uvloop

from benchmarks import seeds
from benchmarks.load import Answer, Connection, Result, drive, machine, request_bytes
from benchmarks.stand import Stand, standing

KINDS = {"create": {201}, "read": {200}, "update": {200}, "delete": {200, 204}}
_LOCATION = re.compile(rb"\r\nlocation: *[^\r\n]*/fhir/([A-Za-z]+)/([A-Za-z0-9.-]+)", re.IGNORECASE)
_PLACE = re.compile(rb"@([A-Za-z]+)@")
_PREWARM_SECONDS = 5.0


@dataclass(slots=True)
class _Template:
    """A body in pieces: between them go the ids of these types."""

    pieces: list[bytes]
    types: list[str]

    @classmethod
    def of(cls, body: bytes) -> "_Template":
        parts = _PLACE.split(body)
        return cls(parts[::2], [p.decode() for p in parts[1::2]])

    def filled(self, ids: dict[str, bytes]) -> bytes:
        made = self.pieces[0]
        for name, piece in zip(self.types, self.pieces[1:], strict=True):
            made += ids[name] + piece
        return made


_BODIES = {name: _Template.of(seeds.body(name)) for name in seeds.TYPES}
_CHANGED = {name: _Template.of(seeds.changed_body(name)) for name in seeds.TYPES}


class _Over(Exception):
    """The time is over."""


class _Send(Protocol):
    """Sends one request of the mix."""

    async def __call__(self, kind: str, method: str, path: str, body: bytes = b"") -> Answer: ...


@dataclass(slots=True)
class Mix:
    """What the mix came to, by kind of request. `wrong` counts answers that the workload does not allow."""

    stand: Stand
    by_kind: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    async def run(self, connections: int, seconds: float) -> Result:
        """Run the mix for so many seconds; the result of all kinds together."""
        took, generator = await drive(self.stand.port, self._rounds, connections=connections, seconds=seconds)
        return Result([t for times in self.by_kind.values() for t in times], took, self.statuses, generator)

    async def _rounds(self, connection: Connection, more: Callable[[], bool]) -> None:
        async def send(kind: str, method: str, path: str, body: bytes = b"") -> Answer:
            if not more():
                raise _Over
            return await self._send(connection, kind, method, path, body)

        with contextlib.suppress(_Over):
            while True:
                await self._round(send)

    async def _round(self, send: _Send) -> None:
        """The 36 requests, or those before a create is refused."""
        ids: dict[str, bytes] = {}
        for name in seeds.TYPES:
            answer = await send("create", "POST", name, _BODIES[name].filled(ids))
            found = _LOCATION.search(answer.head)
            if answer.status != 201 or found is None:
                return
            ids[name] = found[2]
        paths = {name: f"{name}/{ids[name].decode()}" for name in seeds.TYPES}
        for name in seeds.TYPES:
            await send("read", "GET", paths[name])
        for name in seeds.TYPES:
            await send("update", "PUT", paths[name], _CHANGED[name].filled({**ids, "self": ids[name]}))
        for name in reversed(seeds.TYPES):
            await send("delete", "DELETE", paths[name])

    async def _send(self, connection: Connection, kind: str, method: str, path: str, body: bytes = b"") -> Answer:
        request = request_bytes(
            method,
            f"/fhir/{path}",
            body,
            content_type="application/json",
            Authorization=f"Bearer {self.stand.token}",
            Accept_Encoding="gzip",
            Cache_Control="no-cache",
        )
        answer, took = await connection.timed(request)
        self.by_kind[kind].append(took)
        self.statuses[answer.status] += 1
        if answer.status not in KINDS[kind]:
            self.wrong[f"{kind} {path.partition('/')[0]}: {answer.status}"] += 1
        return answer


async def measure(connections: int, seconds: float, workers: int) -> None:
    """Prewarm, measure, print."""
    async with standing(RIS_HTTP_WORKERS=str(workers)) as stand:
        print(f"{machine()}; {workers} HTTP worker(s)\n", flush=True)
        await Mix(stand).run(10, _PREWARM_SECONDS)
        mix = Mix(stand)
        with stand.watched() as shares:
            whole = await mix.run(connections, seconds)
            used = shares(len(whole.times))
        print(f"CRUD mix  c={connections:<3} {whole}")
        for kind, times in mix.by_kind.items():
            print(f"{kind:<15} {Result(times, whole.seconds, Counter(), 0.0)}")
        print("answers: " + ", ".join(f"{n} times {status}" for status, n in sorted(mix.statuses.items())))
        print("not what the workload wants: " + (", ".join(f"{what} ({n} times)" for what, n in mix.wrong.items()) or "none"))
        print(f"used: {used}, load generator {whole.generator:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=1, help="HTTP worker processes")
    given = parser.parse_args()
    uvloop.run(measure(given.connections, given.seconds, given.workers))


if __name__ == "__main__":
    main()
