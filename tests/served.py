"""An ASGI application on a loopback port, in a thread with an event loop of its own."""

import asyncio
import socket
import threading
from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvicorn

T = TypeVar("T")


class Served:
    """Started when made; `stop` ends it. `run` runs a coroutine in its event loop."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._main)
        self._thread.start()
        assert self._started.wait(120)
        if self._failed is not None:
            raise self._failed

    @abstractmethod
    async def opened(self, port: int) -> Any:
        """The application, which will be at this port."""

    @abstractmethod
    async def closed(self) -> None:
        """What is to be done at the end."""

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(300)

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._failed = error
            self._started.set()
            raise

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        app = await self.opened(listening.getsockname()[1])
        self._uvicorn = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
        serving = asyncio.create_task(self._uvicorn.serve(sockets=[listening]))
        while not self._uvicorn.started and not serving.done():
            await asyncio.sleep(0.005)
        self._started.set()
        await serving
        await self.closed()
