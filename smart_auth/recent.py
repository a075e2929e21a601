"""What was looked up within the last second, in this process."""

import time
from typing import Generic, TypeVar

T = TypeVar("T")
SECONDS = 0.9  # with the time of one look-up, what changes takes effect within a second
_MOST = 1000


class Recent(Generic[T]):
    """By key, with the time of the look (of the monotonic clock). What was not there is not remembered."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, T]] = {}

    def get(self, key: str) -> T | None:
        seen = self._known.get(key)
        return seen[1] if seen is not None and time.monotonic() < seen[0] + SECONDS else None

    def put(self, key: str, value: T | None, looked_at: float) -> None:
        if value is None:
            self._known.pop(key, None)
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = (looked_at, value)
