"""`fhir-ris ...` in a process of its own that has imported everything already: a forked one (multiprocessing's forkserver).

What a command does, prints and ends with is the same; the second that Python needs to import it is spent once.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_SECONDS = 60
_PRELOAD = """fhir_server.cli fhir_server.app fhir_server.user_commands fhir_server.client_commands fhir_server.audit_commands
    fhir_server.key_commands bridges.v2.message_commands smart_auth.people smart_auth.routes""".split()
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(_PRELOAD)


def run(*arguments: str, env: Mapping[str, str], stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command's exit code and what it wrote, as `subprocess.run` has them."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "in").write_text(stdin)
        process = _processes.Process(target=_command, args=(arguments, dict(env), place, cwd or Path.cwd()))
        process.start()
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, _SECONDS)
        return subprocess.CompletedProcess(arguments, process.exitcode, (place / "out").read_text(), (place / "err").read_text())


def _command(arguments: tuple[str, ...], env: dict[str, str], place: Path, cwd: Path) -> None:
    for number, (name, mode) in enumerate([("in", "r"), ("out", "w"), ("err", "w")]):
        with (place / name).open(mode) as file:
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
