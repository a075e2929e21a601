"""`fhir-ris load`: files of resources into the store, resumable, with what is refused listed beside each file.

What was done is noted in the transactions that do it (`ledger`): after a crash the same command goes on where it stopped, and
nothing is lost or doubled. Lines that refer to what is not there (yet) are tried again when the rest of all files is in, until
nothing more goes in.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import Sequence
from functools import partial
from gzip import BadGzipFile
from pathlib import Path

import orjson

from fhir_server.garbage import spare_tables
from fhir_server.interactions import Interactions
from fhir_server.loading.bundle_file import load_bundle
from fhir_server.loading.ledger import Ledger, Tally
from fhir_server.loading.progress import Progress
from fhir_server.loading.sources import CHUNK_LINES, Chunk, Opened, open_file
from fhir_server.loading.workers import Here, OpenInteractions, Processes, are_worth
from fhir_server.outcome import FhirError
from fhir_server.start_error import StartError

__all__ = ["load_files"]


async def load_files(
    paths: Sequence[Path],
    open_interactions: OpenInteractions,
    progress: Progress,
    *,
    base_url: str,
    processes: int = 1,
    again: bool = False,
) -> Tally:
    """Load these files; the sum of what became of their resources. `again`: also what was loaded before.

    `base_url` is our own FHIR base. `open_interactions` is called in each process that writes (with more than one it must be
    picklable). What is refused is listed in `<file>.refused.ndjson`. StartError for a file that can't be read, and when the
    database stays away.
    """
    files = [
        await asyncio.to_thread(progress.looked_at, path, partial(open_file, path, base_url)) for path in dict.fromkeys(paths)
    ]
    interactions = await open_interactions()
    spare_tables()
    run = _Run(interactions, progress, base_url)
    try:
        unfinished = [f for f in {f.key: f for f in files}.values() if await run.begun(f, again=again)]
        if unfinished:
            several = are_worth(processes, [f.path for f in unfinished])
            workers = Processes(processes, open_interactions, base_url) if several else Here(interactions, base_url)
            async with workers:
                await run.through(sorted(unfinished, key=lambda f: f.rank), workers)
    except (EOFError, zlib.error, BadGzipFile) as error:
        raise StartError(f"a file is damaged: {error}") from None
    except FhirError as error:
        raise StartError(f"{error}; the same command goes on where it stopped") from None
    finally:
        await interactions.store.db.client.close()
    return run.total


class _Run:
    """One run of the command."""

    def __init__(self, interactions: Interactions, progress: Progress, base_url: str) -> None:
        self._interactions = interactions
        self._ledger = Ledger(interactions.store.db)
        self._progress = progress
        self._base_url = base_url
        self.total = Tally()

    async def begun(self, file: Opened, *, again: bool) -> bool:
        """Whether anything is left to do of a file."""
        found = await self._ledger.begin(file, again=again)
        if not found["finished"]:
            return True
        self._progress.already(file.path, found)
        self.total.add(Tally(0, found["refused"]))
        return False

    async def through(self, files: list[Opened], workers: Here | Processes) -> None:
        tallies = {}
        for file in files:
            tallies[file.key] = await self._ledger.tally(file.key)
            with self._progress.file(file.path, file.size, tallies[file.key]):
                if file.source is None:
                    tallies[file.key] = await load_bundle(self._interactions, self._ledger, file, self._base_url)
                else:
                    await self._first_pass(file, workers, tallies[file.key])
        await self._wait_no_more(files, workers)
        for file in files:
            await self._ledger.refuse_waiting(file.key)
            tally = await self._ledger.tally(file.key)
            _list_refusals(file.path, await self._ledger.refusals(file.key))
            await self._ledger.finish(file.key, tally)
            self._progress.done(file.path, tally)
            self.total.add(tally)

    async def _first_pass(self, file: Opened, workers: Here | Processes, tally: Tally) -> None:
        """Every chunk in the order of the file; as many at a time as there are workers for."""
        assert file.source is not None
        under_way: deque[tuple[Chunk, asyncio.Task[Tally | None]]] = deque()
        try:
            for chunk in file.source.chunks(await self._ledger.done(file.key)):
                if len(under_way) >= workers.width:
                    await self._oldest(under_way, workers, tally)
                # Lines of a later chunk may refer to what the earlier ones bring.
                loading = workers.load(chunk, defer=not under_way)
                under_way.append((chunk, asyncio.create_task(loading)))
            while under_way:
                await self._oldest(under_way, workers, tally)
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)

    async def _oldest(
        self, under_way: deque[tuple[Chunk, asyncio.Task[Tally | None]]], workers: Here | Processes, tally: Tally
    ) -> None:
        chunk, task = under_way[0]
        done = await task
        if done is None:
            done = await workers.load(chunk, defer=True)
            assert done is not None
        under_way.popleft()
        tally.add(done)
        self._progress.read(chunk.read, tally)

    async def _wait_no_more(self, files: list[Opened], workers: Here | Processes) -> None:
        """Try what waits again, as long as some of it goes in."""
        while True:
            arrived = 0
            for file in files:
                arrived += await self._retried(file, workers) if file.source is not None else 0
            if not arrived:
                return

    async def _retried(self, file: Opened, workers: Here | Processes) -> int:
        assert file.source is not None
        arrived, after = 0, -1
        while places := await self._ledger.waiting(file.key, after, CHUNK_LINES):
            lines = await asyncio.to_thread(file.source.lines, places)
            tally = await workers.retry(file.key, lines)
            arrived += tally.loaded
            after = places[-1].offset
            self._progress.arrived(tally.loaded)
        return arrived


def _list_refusals(path: Path, refusals: list[dict[str, object]]) -> None:
    """`<file>.refused.ndjson`: a line {line, resource, outcome} for each; no file where nothing was refused."""
    beside = path.with_name(f"{path.name}.refused.ndjson")
    try:
        if not refusals:
            beside.unlink(missing_ok=True)
            return
        new = beside.with_name(f".{beside.name}.new")
        new.write_bytes(b"".join(orjson.dumps(refusal) + b"\n" for refusal in refusals))
        new.replace(beside)
    except OSError as error:
        raise StartError(f"{beside} can't be written: {error.strerror}; the same command tries again") from None
