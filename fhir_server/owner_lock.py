"""Who owns a data directory: one process at a time, by an advisory lock on a file in it."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Role = Literal["server", "command"]


@dataclass(frozen=True)
class Owner:
    """Who holds a data directory. A process id of 0: not known."""

    pid: int
    role: Role
    socket: str

    @property
    def is_alive(self) -> bool:
        return self.pid > 0 and Path(f"/proc/{self.pid}").exists()


class OwnerLock:
    """An advisory lock on a file whose content says who holds it. The kernel frees it when the holder ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self, me: Owner) -> Owner | None:
        """None when the lock is ours now, else its holder."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                return Owner(**json.loads(os.read(fd, 4096)))
            except (ValueError, TypeError):
                return Owner(0, "server", "")
            finally:
                os.close(fd)
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(asdict(me)).encode(), 0)
        self._fd = fd
        return None

    def release(self) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None
