"""Who does the loading: this process, or several that each write through interactions of their own."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop
from pymongo.errors import PyMongoError

from fhir_server.garbage import spare_tables
from fhir_server.interactions import Interactions
from fhir_server.loading.ledger import Tally
from fhir_server.loading.loader import Loader
from fhir_server.loading.sources import Chunk, Line
from fhir_server.outcome import FhirError
from fhir_server.start_error import StartError

T = TypeVar("T")

# Makes the interactions in whichever process it is called; it must be importable there (a function of a module, or a partial).
OpenInteractions = Callable[[], Awaitable[Interactions]]
_CONTEXT = multiprocessing.get_context("forkserver")  # a copy of this process, which has threads, may deadlock


WORTH_PROCESSES = 256 * 1024  # bytes of files below which further processes take longer to start than to do without


def are_worth(processes: int, paths: Iterable[Path]) -> bool:
    """Whether to load these files with several processes."""
    return processes > 1 and sum(path.stat().st_size for path in set(paths)) >= WORTH_PROCESSES


def prepare(module: str) -> None:
    """Let the process that the others will be copies of import this module (for `open_interactions`) while we do other things."""
    _CONTEXT.set_forkserver_preload([module, __name__])
    forkserver.ensure_running()


class Here:
    """This process alone."""

    width = 1

    def __init__(self, interactions: Interactions, base_url: str) -> None:
        self._loader = Loader(interactions, base_url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to end."""

    async def load(self, chunk: Chunk, *, defer: bool) -> Tally | None:
        return await self._loader.load(chunk, defer=defer)

    async def retry(self, file: str, lines: list[Line]) -> Tally:
        return await self._loader.retry(file, lines)


class Processes:
    """Several processes: parsing, validation and indexing are work for a processor each."""

    def __init__(self, count: int, open_interactions: OpenInteractions, base_url: str) -> None:
        self._pool = ProcessPoolExecutor(count, _CONTEXT, initializer=_begin, initargs=(open_interactions, base_url))
        self.width = 2 * count  # so that none waits for the next chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=kind is not None)

    async def load(self, chunk: Chunk, *, defer: bool) -> Tally | None:
        found: Tally | None = await self._run(_load, chunk, defer)
        return found

    async def retry(self, file: str, lines: list[Line]) -> Tally:
        found: Tally = await self._run(_retry, file, lines)
        return found

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        except BrokenProcessPool:
            raise StartError("a process of the loading died; the same command goes on where it stopped") from None


# In a process of the pool


_runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
_loaders: list[Loader] = []


def _begin(open_interactions: OpenInteractions, base_url: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()

    async def begin() -> None:
        _loaders.append(Loader(await open_interactions(), base_url))
        spare_tables()

    _runner.run(begin())


def _end_with_parent() -> None:
    """A process that was forked for another one isn't told when that is killed: it would hold its transaction for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _load(chunk: Chunk, defer: bool) -> Tally | None:
    return _told(lambda: _runner.run(_loaders[0].load(chunk, defer=defer)))


def _retry(file: str, lines: list[Line]) -> Tally:
    return _told(lambda: _runner.run(_loaders[0].retry(file, lines)))


def _told(work: Callable[[], T]) -> T:
    """The result of `work`; its errors in a form that can be sent to the other process."""
    try:
        return work()
    except (FhirError, PyMongoError) as error:
        text = str(error) if isinstance(error, FhirError) else f"MongoDB: {type(error).__name__}"
        raise StartError(f"{text}; the same command goes on where it stopped") from None
