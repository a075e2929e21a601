"""The server as processes: roles, HTTP workers, readiness, ports that are taken, and the end. Real processes."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from demo import ehr
from demo.apps import App
from demo.server import Server, free_ports
from tests import quick_command
from tests.quick_command import QuickServer


def processes_of(directory: Path) -> list[int]:
    """The processes whose environment or command line names this data directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                text = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
                if str(directory).encode() in text and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
    return found


def wait_until_gone(directory: Path, seconds: float = 15) -> list[int]:
    deadline = time.monotonic() + seconds
    while processes_of(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes_of(directory)


def test_http_workers_share_the_port_answer_for_all_components_and_are_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Server(tmp_path, RIS_HTTP_WORKERS="3")
        await server.start()
        try:
            workers = await workers_of(tmp_path, 2)
            await ehr.send(server.mllp_port, ehr.registration("M1", "M1"))
            async with httpx.AsyncClient() as http:
                for _ in range(30):
                    async with httpx.AsyncClient() as fresh:
                        ready = (await fresh.get(f"{server.base_url}/readyz")).json()
                        shown = (await fresh.get(f"{server.base_url}/metrics")).text
                    assert "ris_v2_messages_in_total{" in shown
                    assert ready == dict.fromkeys(("mongodb", "http", "v2", "dicom", "delivery"), "ready")
                os.kill(workers[0], signal.SIGKILL)
                again = await workers_of(tmp_path, 2, without=workers[0])
                assert len(again) == 2
                assert (await http.get(f"{server.base_url}/livez")).status_code == 200
        finally:
            assert await server.stop() == 0
        assert wait_until_gone(tmp_path) == []

    asyncio.run(scenario())


async def workers_of(directory: Path, count: int, without: int = 0) -> list[int]:
    async with asyncio.timeout(60):
        while True:
            found = []
            for pid in processes_of(directory):
                with contextlib.suppress(OSError):
                    if b"--roles\0http" in Path(f"/proc/{pid}/cmdline").read_bytes() and pid != without:
                        found.append(pid)
            if len(found) == count:
                return found
            await asyncio.sleep(0.1)


def test_when_the_supervising_process_is_killed_its_workers_and_mongod_end_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Server(tmp_path, RIS_HTTP_WORKERS="2")
        await server.start()
        await workers_of(tmp_path, 1)
        await server.kill(mongod=False)
        await server.start()
        await workers_of(tmp_path, 1)
        await server.kill(mongod=False)

    asyncio.run(scenario())
    assert wait_until_gone(tmp_path) == []


def test_a_client_that_is_added_or_removed_beside_the_server_is_known_or_unknown_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = QuickServer(tmp_path)
        await server.start()
        try:
            app = App("beside", "system/Patient.rs", server.base_url)
            await server.command("client", "add", "beside", "--scope", app.scope, "--jwks", str(app.write_jwks(tmp_path)))
            assert (await app.request("GET", "Patient")).status_code == 200
            assert "beside" in await server.command("client", "list")
            await server.command("client", "remove", "beside")
            await asyncio.sleep(1.1)
            assert (await app.request("GET", "Patient")).status_code == 401
            await app.close()
        finally:
            await server.stop()

    asyncio.run(scenario())


def test_a_second_server_on_the_same_data_directory_is_refused_with_one_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Server(tmp_path)
        await server.start()
        try:
            second = Server(tmp_path)
            with pytest.raises(RuntimeError, match="data"):
                await second.start()
            lines = [line for line in server.log.read_text().splitlines() if line.startswith("fhir-ris:")]
            assert len(lines) == 1
            assert str(server.process.pid if server.process else 0) in lines[0]
        finally:
            await server.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("port", ["RIS_HTTP_PORT", "RIS_MLLP_PORT", "RIS_DICOM_PORT"])
def test_a_port_that_is_taken_stops_the_start_with_one_line(tmp_path: Path, port: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = free_ports() | {port: str(taken.getsockname()[1]), "RIS_DATA_DIR": str(tmp_path)}
        done = quick_command.run("serve", env=os.environ | settings)
    lines = [line for line in done.stderr.splitlines() if line.startswith("fhir-ris:")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert settings[port] in lines[0]
    assert "Traceback" not in done.stderr
    assert wait_until_gone(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["serve"], {"RIS_HTTP_PORT": "not-a-port"}, "http_port"),
        (["serve"], {"RIS_TYPO": "1"}, "RIS_TYPO"),
        (["serve", "--roles", "http,magic"], {}, "magic"),
        (["serve"], {"RIS_BASE_URL": "http://ris.example.org"}, "RIS_BASE_URL"),
        (["serve"], {"RIS_MONGODB_URI": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300"}, "MongoDB"),
        (["client", "add", "x", "--scope", "nonsense", "--jwks", "missing.json"], {}, "missing.json"),
        (["client", "remove", "nobody"], {}, "nobody"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], said: str
) -> None:
    env = os.environ | free_ports() | {"RIS_DATA_DIR": str(tmp_path)} | settings
    done = quick_command.run(*arguments, env=env, cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("fhir-ris:")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert wait_until_gone(tmp_path) == []
