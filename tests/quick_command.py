"""`fhir-ris ...` in a process of its own that has imported everything already: a forked one (multiprocessing's forkserver).

What a command does, prints and ends with is the same; the seconds that Python needs to import it are spent once.
"""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from demo.server import Process, Server

_SECONDS = 120
_PRELOAD = """fhir_server.cli fhir_server.serve fhir_server.user_commands fhir_server.client_commands
    fhir_server.audit_commands fhir_server.key_commands fhir_server.outbox_workers bridges.v2.message_commands
    bridges.dicom.server bridges.dicom.mpps_delivery bridges.dicom.pacs_worker bridges.payer.delivery
    smart_auth.people smart_auth.routes smart_auth.account_pages console.routes capability.documents
    capability.statement uvicorn.protocols.http.auto""".split()
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(_PRELOAD)


def run(*arguments: str, env: Mapping[str, str], stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command's exit code and what it wrote, as `subprocess.run` has them."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        given, out, err = place / "in", place / "out", place / "err"
        given.write_text(stdin)
        process = _processes.Process(target=_command, args=(arguments, dict(env), (given, out, err), cwd or Path.cwd()))
        process.start()
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, _SECONDS)
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


class QuickServer(Server):
    """A server that starts in this way, and so do the commands beside it. Not for further HTTP workers: these are seen by their
    command line, and share their metrics by what is in the environment when Python starts."""

    def _spawn(self, log: BinaryIO) -> Process:
        return _Serving(self._environment(), self.log, self.directory)

    async def command(self, *arguments: str, said: str = "") -> str:
        done = await asyncio.to_thread(run, *arguments, env=self._environment(), stdin=said, cwd=self.directory)
        if done.returncode:
            raise RuntimeError(f"fhir-ris {arguments[0]}: {(done.stdout + done.stderr).strip()}")
        return done.stdout + done.stderr


class _Serving:
    """`fhir-ris serve`, which adds to a log."""

    def __init__(self, env: Mapping[str, str], log: Path, cwd: Path) -> None:
        files = (Path(os.devnull), log, log)
        # A daemon in multiprocessing's sense: it ends with the tests that started it.
        self._process = _processes.Process(target=_command, args=(("serve",), dict(env), files, cwd), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("fhir-ris serve", timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        os.kill(self.pid, sig)

    def kill(self) -> None:
        self._process.kill()


def _command(arguments: tuple[str, ...], env: dict[str, str], files: tuple[Path, Path, Path], cwd: Path) -> None:
    """`files`: standard input, output and error."""
    for number, (name, mode) in enumerate(zip(files, "raa", strict=True)):
        with name.open(mode) as file:
            os.dup2(file.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, m, closefd=False) for n, m in enumerate(("r", "w", "w")))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["fhir-ris", *arguments]
    from fhir_server.cli import main

    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
