"""Runs the roles of one server process, and its further HTTP workers, until a signal ends them."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn

from capability import concept_maps
from fhir_server.app import (
    SUPERVISOR,
    Ris,
    assemble,
    department_watches,
    dicom_door,
    http_app,
    mllp_door,
    pacs_workers,
    payer_workers,
    publish,
)
from fhir_server.child import ends_with_us
from fhir_server.database import connect
from fhir_server.garbage import spare_tables
from fhir_server.mongod import mongodb
from fhir_server.settings import Settings
from fhir_server.start_error import StartError, taken_address
from smart_auth import break_glass

ROLES = ("http", "v2", "dicom", "delivery")
# From the supervising process to its HTTP workers: the listening socket, and whose workers they are.
_FD = "RIS_HTTP_FD"
log = structlog.get_logger()


class _Http(uvicorn.Server):
    """uvicorn in our event loop: the signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, roles: frozenset[str]) -> None:
    """Run these roles until SIGTERM or SIGINT. Raises StartError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, roles, stop):
        log.info("ready", roles=sorted(roles), base_url=settings.base_url)
        await stop.wait()
        log.info("stopping")


@contextlib.asynccontextmanager
async def running(settings: Settings, roles: frozenset[str], stop: asyncio.Event) -> AsyncIterator[Ris]:
    """The product, running these roles. The listening sockets are opened before MongoDB starts: a taken port shows at once."""
    async with contextlib.AsyncExitStack() as stack:
        listener = _http_socket(settings) if "http" in roles else None
        if listener is not None:
            stack.callback(listener.close)
        uri = await stack.enter_async_context(mongodb(settings))
        db = await connect(uri, settings.mongodb_database)
        stack.push_async_callback(db.client.close)
        ris = await assemble(settings, db)
        await publish(ris)
        if "v2" in roles:
            await concept_maps.publish(ris.interactions)
        if "delivery" in roles:
            await stack.enter_async_context(ris.delivery.running())
            ris.components["delivery"] = lambda: ris.delivery.working
            await stack.enter_async_context(pacs_workers(ris))
            await stack.enter_async_context(payer_workers(ris))
        if "v2" in roles:
            await stack.enter_async_context(mllp_door(ris))
        if not roles.isdisjoint({"v2", "delivery"}):
            await stack.enter_async_context(ris.watcher.running())
        if "dicom" in roles:
            await stack.enter_async_context(dicom_door(ris))
        if listener is not None:
            await stack.enter_async_context(_http(ris, listener, stop))
            await stack.enter_async_context(_workers(ris, uri))
        await stack.enter_async_context(ris.interactions.store.trail.noting())
        await stack.enter_async_context(break_glass.watching(ris.interactions))
        await stack.enter_async_context(department_watches(ris))
        await stack.enter_async_context(ris.refusals.watching())
        await stack.enter_async_context(ris.heartbeat.beating(ris.components))
        spare_tables()
        yield ris


@contextlib.asynccontextmanager
async def _http(ris: Ris, listener: socket.socket, stop: asyncio.Event) -> AsyncIterator[None]:
    try:
        app = http_app(ris)
    except ValueError as error:  # a base URL that no token may travel to
        raise StartError(f"RIS_BASE_URL (base_url): {error}") from None
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=75,  # longer than clients keep one idle: no request is to meet a connection that we are closing
        h11_max_incomplete_event_size=65536,
    )
    server = _Http(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    task.add_done_callback(lambda _: stop.set())
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells it by an attribute only
        await asyncio.sleep(0.01)
    ris.components["http"] = lambda: server.started and not server.should_exit
    try:
        yield
    finally:
        ris.ending.set()
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def _workers(ris: Ris, uri: str) -> AsyncIterator[None]:
    """The HTTP workers beyond this process; each is started again when it dies. They end when this process does."""
    settings = ris.settings
    if os.environ.get(_FD) or settings.http_workers == 1:
        yield
        return
    environment = {
        **os.environ,
        SUPERVISOR: ris.heartbeat.instance,
        "RIS_MONGODB_URI": uri,
        "RIS_HTTP_WORKERS": "1",
        "RIS_LOG_FORMAT": settings.log_format,
    }
    command = [sys.executable, "-m", "fhir_server", "serve", "--roles", "http"]
    processes: list[asyncio.subprocess.Process] = []

    async def keep(slot: int) -> None:
        while True:
            # It listens once it is ready, and its share of the connections ends with it.
            with _bound(settings, shared=True) as share:
                process = await asyncio.create_subprocess_exec(
                    *ends_with_us(command, signal.SIGKILL),
                    env=environment | {_FD: str(share.fileno())},
                    pass_fds=[share.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            processes[slot : slot + 1] = [process]
            code = await process.wait()
            log.warning("http worker ended", code=code)
            await asyncio.sleep(1)

    keepers = [asyncio.create_task(keep(slot)) for slot in range(settings.http_workers - 1)]
    try:
        yield
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for process in processes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in processes))


def _http_socket(settings: Settings) -> socket.socket:
    """The listening socket: handed down by the supervisor, or opened here."""
    if inherited := os.environ.get(_FD):
        return socket.socket(fileno=int(inherited))
    try:
        listener = _bound(settings)
        if settings.http_workers > 1:
            # Nobody else has the port; from here on our own workers may have it too.
            listener.close()
            listener = _bound(settings, shared=True)
        listener.listen(1024)
    except OSError as error:
        raise StartError(taken_address("HTTP", settings.http_host, settings.http_port, error)) from None
    return listener


def _bound(settings: Settings, *, shared: bool = False) -> socket.socket:
    """A socket on our port. `shared`: one of several, among which the system spreads the connections (SO_REUSEPORT)."""
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((settings.http_host, settings.http_port))
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound
