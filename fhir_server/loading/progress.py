"""What `fhir-ris load` shows while it works: bytes read, resources a second, refusals; and one line a file when it is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from fhir_server.loading.ledger import Tally
from fhir_server.loading.sources import Opened


class Progress:
    """A progress bar on a terminal; only the lines of what is done elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self._bars = Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._before = 0
        self._loaded = 0

    def looked_at(self, path: Path, open_it: Callable[[Callable[[int], None]], Opened]) -> Opened:
        """Open a file, which is read once for that."""
        size = path.stat().st_size if path.is_file() else 0
        with self._bars:
            task = self._bars.add_task(f"looking at {path.name}", total=size, note="")
            try:
                return open_it(lambda count: self._bars.advance(task, count))
            finally:
                self._bars.remove_task(task)

    @contextmanager
    def file(self, path: Path, size: int, tally: Tally) -> Iterator[None]:
        """The bar of one file."""
        self._began, self._before = time.monotonic(), tally.loaded
        with self._bars:
            self._task = self._bars.add_task(path.name, total=size, note="")
            try:
                yield
            finally:
                self._bars.remove_task(self._task)

    def read(self, position: int, tally: Tally) -> None:
        """So much of the file is read, and so many of its resources are in."""
        if self._task is not None:
            rate = (tally.loaded - self._before) / max(time.monotonic() - self._began, 0.001)
            refused = f", {tally.refused:,} refused" if tally.refused else ""
            self._bars.update(self._task, completed=position, note=f"{tally.loaded:,} resources, {rate:,.0f}/s{refused}")

    def arrived(self, count: int) -> None:
        """So many that had to wait are in."""
        self._loaded += count

    def already(self, path: Path, row: dict[str, Any]) -> None:
        """A file that was loaded before."""
        self._say(f"{path}: was loaded on {row['finished']:%Y-%m-%d %H:%M} UTC (--again loads it again)", row["refused"])

    def done(self, path: Path, tally: Tally) -> None:
        """A file that is done."""
        self._say(f"{path}: {tally.loaded:,} loaded", tally.refused, f"listed in {path.name}.refused.ndjson")

    def _say(self, text: str, refused: int, where: str = "") -> None:
        if refused:
            text += f", {refused:,} refused" + (f" ({where})" if where else "")
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
