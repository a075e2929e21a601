"""Ours side by side with other FHIR servers on MongoDB: create ServiceRequest, read Patient, search by patient and status.

python -m benchmarks.peers [--connections 16] [--seconds 3] [--rounds 3] [--orders 5]
                           [--without-fhirstarter] [--peer NAME URL TOKEN]... [--meta JSON]

FHIRStarter is installed from PyPI into a temporary directory for the run, with a plain MongoDB storage
(`benchmarks/peer_fhirstarter.py`) over an embedded mongod like our own. icanbwell/fhir-server can't be installed like that:
neither it nor two packages that it needs are published. It, or any other FHIR server that somebody has already running on this
machine, is measured by `--peer`: its FHIR base URL (http only), and a bearer token or `-`. `--meta` is the meta
that such a server wants in each resource; all get it.

All have the same resources (a Patient of 0.9 kB, ServiceRequests of 1.1 kB, `--orders` of them found by each search), and are
measured in turns; ours checks tokens, validates, keeps history, indexes and audits.
"""

import argparse
import asyncio
import re
import shutil
import subprocess
import venv
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import uvloop

from benchmarks import seeds
from benchmarks.bare import listening
from benchmarks.load import FHIR_JSON, Side, connected, in_turns, machine, request_bytes
from benchmarks.stand import Stand, standing, temporary
from fhir_server.mongod import EmbeddedMongod, MongodError

_PACKAGES = ("fhirstarter>=4.2,<5", "pymongo>=4.13", "uvicorn[standard]")
_PATIENTS = 50
_ID = re.compile(rb"\r\nlocation: *[^\r\n]*/[A-Za-z]+/([A-Za-z0-9.-]+)", re.IGNORECASE)


@dataclass(slots=True)
class Peer:
    """A FHIR server to be measured. `token` gives the one of the moment; None where it wants none."""

    name: str
    port: int
    path: str
    token: Callable[[], str] | None
    meta: seeds.Resource = field(default_factory=dict)
    patients: list[str] = field(default_factory=list)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A request to it."""
        authorization = {"Authorization": f"Bearer {self.token()}"} if self.token is not None else {}
        return request_bytes(method, f"{self.path}/{path}", body, FHIR_JSON, **authorization)

    def body(self, resource: seeds.Resource) -> bytes:
        """A resource as it is sent."""
        return orjson.dumps({**resource, "meta": self.meta} if self.meta else resource)

    async def prepare(self, orders: int) -> None:
        """Give it 50 patients with so many active orders each."""
        async with connected(self.port) as connection:

            async def create(resource: seeds.Resource) -> str:
                answer = await connection.send(self.request("POST", resource["resourceType"], self.body(resource)))
                found = _ID.search(answer.head)
                if answer.status != 201 or found is None:
                    raise RuntimeError(f"{self.name}: create {resource['resourceType']}: {answer.status} {answer.body[:300]!r}")
                return found[1].decode()

            self.patients = [await create(seeds.SMALL_PATIENT) for _ in range(_PATIENTS)]
            for number in range(_PATIENTS * orders):
                await create(seeds.service_request(self.patients[number % _PATIENTS], number))

    def sides(self) -> dict[str, Side]:
        """What is measured: name -> what is asked."""

        def create(n: int) -> bytes:
            resource = seeds.service_request(self.patients[n % _PATIENTS], n)
            return self.request("POST", "ServiceRequest", self.body(resource))

        def read(n: int) -> bytes:
            return self.request("GET", f"Patient/{self.patients[n % _PATIENTS]}")

        def search(n: int) -> bytes:
            query = f"patient=Patient/{self.patients[n % _PATIENTS]}&status=active&_count=20"
            return self.request("GET", f"ServiceRequest?{query}")

        # The creates come last: they make the searches' answers no longer, but what these choose from larger.
        asked = {"read Patient": read, "search by patient and status": search, "create ServiceRequest": create}
        return {what: Side(self.port, request) for what, request in asked.items()}


def ours(stand: Stand) -> Peer:
    """Our own server."""
    return Peer("fhir-ris", stand.port, "/fhir", lambda: stand.token)


def running(name: str, url: str, token: str) -> Peer:
    """A server that somebody else has started."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in {"127.0.0.1", "localhost"}:
        raise SystemExit(f"--peer {name}: the URL must be one of this machine, http://127.0.0.1:PORT/PATH")
    return Peer(name, parts.port or 80, parts.path.rstrip("/"), None if token == "-" else lambda: token)


@asynccontextmanager
async def fhirstarter() -> AsyncIterator[Peer]:
    """FHIRStarter in an environment and over a MongoDB of its own. RuntimeError when it can't be had."""
    with temporary() as directory:
        python = await asyncio.to_thread(_install, directory / "environment")
        mongod = EmbeddedMongod(directory / "data", role="command")
        uri = await mongod.start()
        try:
            script = Path(__file__).with_name("peer_fhirstarter.py")
            copied = shutil.copy(script, directory)  # beside it, so that nothing of the project can be imported
            environment = {"FHIR_SEQUENCE": "R4B", "PATH": str(python.parent)}
            async with listening(
                [str(python), "-W", "ignore", str(copied)], [uri, "peer"], env=environment, cwd=directory
            ) as port:
                yield Peer("FHIRStarter", port, "", None)
        finally:
            await mongod.stop()


def _install(environment: Path) -> Path:
    """A virtual environment with FHIRStarter; its Python."""
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *_PACKAGES], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip could not install it: {done.stderr.strip().splitlines()[-1]}")
    return python


async def measure(
    connections: int,
    seconds: float,
    rounds: int,
    others: list[Peer],
    meta: seeds.Resource,
    *,
    orders: int,
    with_fhirstarter: bool,
) -> None:
    """Prepare all, measure in turns, print the table."""
    async with AsyncExitStack() as stack:
        peers = [ours(await stack.enter_async_context(standing()))]
        if with_fhirstarter:
            try:
                peers.append(await stack.enter_async_context(fhirstarter()))
            except (RuntimeError, MongodError, OSError) as error:
                print(f"FHIRStarter: not run: {error}")
        peers += others
        for peer in peers:
            peer.meta = meta
            await peer.prepare(orders)
        print(f"{machine()}; 1 HTTP worker; {connections} connections\n", flush=True)
        if not others:
            print("icanbwell/fhir-server: not run: it is not published as a package; start one and give --peer\n")
        tables = [peer.sides() for peer in peers]
        for what in tables[0]:
            sides = [table[what] for table in tables]
            await in_turns(sides, connections=connections, rounds=rounds, seconds=seconds)
            print(what)
            for peer, side in zip(peers, sides, strict=True):
                ratio = "" if peer is peers[0] else f"   ours is {sides[0].rate / side.rate:.2f} times that"
                wrong = f"   errors {dict(side.wrong)}" if side.wrong else ""
                print(f"    {peer.name:<14} {side.rate:7.0f}/s   p50 {side.p50:6.1f} ms{ratio}{wrong}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each is measured each time")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--orders", type=int, default=5, help="what each search finds, at most 20")
    parser.add_argument("--peer", nargs=3, action="append", default=[], metavar=("NAME", "URL", "TOKEN"))
    parser.add_argument("--meta", type=orjson.loads, default={}, metavar="JSON")
    parser.add_argument("--without-fhirstarter", action="store_true")
    given = parser.parse_args()
    others = [running(*peer) for peer in given.peer]
    uvloop.run(
        measure(
            given.connections,
            given.seconds,
            given.rounds,
            others,
            given.meta,
            orders=given.orders,
            with_fhirstarter=not given.without_fhirstarter,
        )
    )


if __name__ == "__main__":
    main()
