"""The app of docs/smart.md: registered by the command that stands there, and running as it stands there."""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from typer.testing import CliRunner

from demo.server import free_port
from fhir_server.cli import app as cli
from tests.smart_app import SmartApp

TEXT = (Path(__file__).parent.parent / "docs" / "smart.md").read_text()
SAID = "Patient: Muster, granted: launch/patient openid fhirUser offline_access patient/*.rs"


def blocks(language: str) -> list[str]:
    """The pieces of code in the text."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@contextmanager
def docs_app(server: SmartApp, mongodb_uri: str, directory: Path) -> Iterator[str]:
    """The app's own URL, on a port of its own, as a native app may have it."""
    registration = next(block for block in blocks("sh") if "client add" in block)
    arguments = shlex.split(registration.replace("\\\n", " "))
    assert arguments[0].endswith("fhir-ris")
    settings = {"RIS_MONGODB_URI": mongodb_uri, "RIS_MONGODB_DATABASE": server.db.name}
    assert CliRunner().invoke(cli, arguments[1:], env=settings).exit_code == 0
    (directory / "app.py").write_text(blocks("python")[0])
    port = free_port()
    process = subprocess.Popen([sys.executable, "app.py", server.fhir, str(port)], cwd=directory, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/not-here")
                break
            except httpx.ConnectError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
