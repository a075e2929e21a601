"""A `mongod` that outlived its owner: found by what it was called with, ended, and waited for until its files are free."""

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path


async def stop_left_behind(db: Path, replica_set: str, patience: float) -> None:
    """End every `mongod` on these data files: the caller owns them, so nobody else may be serving them.

    Asked to, and after `patience` (seconds) made to. One that was killed has lost its command line a while before its lock on the
    files: that is waited for as long again; after that the next `mongod` says what is wrong.
    """
    began = time.monotonic()
    asked: set[int] = set()
    while (left := set(_serving(db, replica_set))) or _is_locked(db / "mongod.lock"):
        waited = time.monotonic() - began
        if not left and waited > 2 * patience:
            return
        late = waited > patience
        for pid in left if late else left - asked:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= left
        await asyncio.sleep(0.05)


def _serving(db: Path, replica_set: str) -> Iterator[int]:
    """The process ids of our `mongod`s on these data files."""
    wanted = [("--dbpath", os.fsencode(db)), ("--replSet", replica_set.encode())]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                pairs = set(pairwise(words))
                if entry.stat().st_uid == os.geteuid() and all((name.encode(), value) in pairs for name, value in wanted):
                    yield int(entry.name)


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the lock that a `mongod` has on its files."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
