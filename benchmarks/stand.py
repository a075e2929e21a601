"""What a measurement needs: a server of its own in a temporary directory, an app with a token, and a look at its processes."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

from benchmarks.load import http
from demo.apps import App
from demo.server import Server
from fhir_server.mongod import socket_path

_TICKS = os.sysconf("SC_CLK_TCK")
_SCOPE = "system/*.cruds"


@dataclass(slots=True)
class Stand:
    """A running server and an app that may do everything. `token` is kept fresh while it runs."""

    directory: Path
    server: Server
    app: App
    token: str

    @property
    def port(self) -> int:
        return int(self.server.settings["RIS_HTTP_PORT"])

    @property
    def mongodb_uri(self) -> str:
        return embedded_uri(self.directory)

    def http(self, method: str, path: str, body: bytes = b"") -> bytes:
        """One FHIR request with the token of the moment."""
        return http(method, path, self.token, body)

    def processes(self) -> dict[int, str]:
        """The server's processes: its own (http, with the other roles), mongod, and further HTTP workers, by process id."""
        assert self.server.process is not None
        main = self.server.process.pid
        found = {main: "server"}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    command = (entry / "cmdline").read_bytes().split(b"\0")[0]
                    if parent == main:
                        found[int(entry.name)] = "mongod" if command.endswith(b"mongod") else "worker"
        return found

    @contextlib.contextmanager
    def watched(self) -> Iterator[Callable[[int], str]]:
        """Says, when called at the end with the number of requests, what part of a core each process took, and a request's share.

        What the whole machine took beyond these and the load generator are others, who make the rates worse, but hardly the
        processor time of a request.
        """
        before = {pid: cpu_seconds(pid) for pid in self.processes()}
        busy = _machine_seconds()
        began = time.perf_counter()

        def said(requests: int) -> str:
            took = time.perf_counter() - began
            used = [(name, cpu_seconds(pid) - before.get(pid, 0.0)) for pid, name in self.processes().items()]
            shares = [f"{name} {cpu / took:.2f} ({1000 * cpu / max(1, requests):.2f} ms each)" for name, cpu in used]
            whole = (_machine_seconds() - busy) / took
            return ", ".join(shares) + f", whole machine {whole:.1f} of {os.cpu_count()} cores"

        yield said


@asynccontextmanager
async def standing(directory: Path | None = None, **settings: str) -> AsyncIterator[Stand]:
    """A server, started and at the end stopped and removed. `directory`: one that is already filled, which is left in place."""
    with temporary() if directory is None else contextlib.nullcontext(directory) as place:
        server = Server(place, preferred_ports=False, **settings)
        await server.start_somewhere()
        try:
            async with App("bench", _SCOPE, server.base_url) as app:
                await server.command("client", "add", "bench", "--scope", _SCOPE, "--jwks", str(app.write_jwks(place)))
                stand = Stand(place, server, app, await app.token())
                refreshing = asyncio.create_task(_refresh(stand))
                try:
                    yield stand
                finally:
                    refreshing.cancel()
        finally:
            await server.stop()


async def _refresh(stand: Stand) -> None:
    while True:
        await asyncio.sleep(20)
        stand.token = await stand.app.token()


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A temporary directory, removed at the end."""
    place = Path(tempfile.mkdtemp(prefix="fhir-ris-bench-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def embedded_uri(directory: Path) -> str:
    """Where the MongoDB of a server in this directory listens."""
    socket = socket_path((directory / "data").resolve() / "mongod")
    return f"mongodb://{quote_plus(str(socket))}/?directConnection=true"


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, in user and system mode; 0 when it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def _machine_seconds() -> float:
    """What all processes have used so far, and what a virtual machine was not given though it wanted it (proc(5), /proc/stat)."""
    user, nice, system, _idle, _waiting, *rest = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(int(ticks) for ticks in (user, nice, system, *rest)) / _TICKS


def memory(pid: int) -> tuple[float, float]:
    """Resident memory of a process in MB: now, and the most it ever had."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024
