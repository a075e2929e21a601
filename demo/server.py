"""A fhir-ris server as a process of its own, to be started, stopped, killed and started again."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, Protocol

import httpx

_READY_SECONDS = 120.0
_PREFERRED = {"RIS_HTTP_PORT": 8080, "RIS_MLLP_PORT": 2575, "RIS_DICOM_PORT": 11112}


def free_port(preferred: int = 0) -> int:
    """A port that is free on loopback: the preferred one if it is.

    Else one below the range that systems give to outgoing connections: nobody is given it before the server listens there.
    """
    candidates = [preferred] if preferred else []
    for port in [*candidates, *random.sample(range(20000, 32000), 100)]:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")


def free_ports(*, preferred: bool = False) -> dict[str, str]:
    """The settings of a server's ports: three different ones that are free."""
    found: dict[str, str] = {}
    while len(set(found.values())) < len(_PREFERRED):  # by chance the same is free twice
        found = {name: str(free_port(port if preferred else 0)) for name, port in _PREFERRED.items()}
    return found


class Process(Protocol):
    """What we need of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class Server:
    """One server with an embedded MongoDB under `directory`; its log is `directory/serve.log`."""

    def __init__(self, directory: Path, *, preferred_ports: bool = False, **settings: str) -> None:
        self.directory = directory
        self.process: Process | None = None
        self._more = settings
        self._take_ports(preferred=preferred_ports)

    def _take_ports(self, *, preferred: bool) -> None:
        ports = free_ports(preferred=preferred)
        self.settings = {"RIS_DATA_DIR": str(self.directory / "data"), "RIS_LOG_FORMAT": "json", **ports, **self._more}
        self.base_url = f"http://127.0.0.1:{self.settings['RIS_HTTP_PORT']}"
        self.mllp_port = int(self.settings["RIS_MLLP_PORT"])
        self.dicom_port = int(self.settings["RIS_DICOM_PORT"])

    async def start_somewhere(self) -> None:
        """Start; on other ports if somebody took ours in the meantime."""
        try:
            await self.start()
        except RuntimeError as error:
            if "can't listen" not in str(error):
                raise
            self._take_ports(preferred=False)
            await self.start()

    async def start(self) -> None:
        """Start and wait until it is ready. RuntimeError with the end of the log when it isn't."""
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = self._spawn(log)
        async with httpx.AsyncClient() as http:
            for _ in range(int(_READY_SECONDS / 0.05)):
                if self.process.poll() is not None:
                    break
                # Its own word first: on a port that was taken meanwhile another server would answer.
                with contextlib.suppress(httpx.HTTPError):
                    if (
                        b'"event": "ready"' in self.log.read_bytes()[said:]
                        and (await http.get(f"{self.base_url}/readyz", timeout=2)).status_code == 200
                    ):
                        return
                await asyncio.sleep(0.05)
        raise RuntimeError("the server did not start: " + self.log.read_text(errors="replace")[-500:])

    def _spawn(self, log: BinaryIO) -> Process:
        return subprocess.Popen(  # noqa: S603 - our own command
            [*_command(), "serve"],
            env=self._environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    @property
    def log(self) -> Path:
        return self.directory / "serve.log"

    async def stop(self) -> int:
        """SIGTERM, and wait for the end; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 30)

    async def kill(self, *, mongod: bool = True) -> None:
        """SIGKILL to the server and to its mongod, as a power cut would."""
        assert self.process is not None
        database = _mongod_of(self.directory) if mongod else []
        self.process.kill()
        for pid in database:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self.process.wait, 30)

    async def command(self, *arguments: str, said: str = "") -> str:
        """Run `fhir-ris ...` beside the server, with this on its standard input; its output. RuntimeError when it fails."""
        process = await asyncio.create_subprocess_exec(
            *_command(),
            *arguments,
            env=self._environment(),
            cwd=self.directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate(said.encode())
        if process.returncode:
            raise RuntimeError(f"fhir-ris {arguments[0]}: {output.decode().strip()}")
        return output.decode()

    def _environment(self) -> dict[str, str]:
        outer = {k: v for k, v in os.environ.items() if not k.startswith("RIS_")}
        return outer | self.settings


def _command() -> list[str]:
    return [sys.executable, "-m", "fhir_server"]


def _mongod_of(directory: Path) -> list[int]:
    """The mongod processes that serve a data directory (from /proc)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"mongod") and any(str(directory).encode() in w for w in words[1:]):
                    found.append(int(entry.name))
    return found
