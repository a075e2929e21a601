"""How fast a partner may send: a token bucket each. Who is faster waits, and while it waits its connection isn't read."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

_BURST: Final = 5  # seconds of its rate that a partner may send at once
_MOST: Final = 10_000  # buckets that are kept


@dataclass(slots=True)
class _Bucket:
    free_at: float  # when its next message is due at its average rate


@dataclass(slots=True)
class Rates:
    """The buckets of one process."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    async def take(self, name: str, rate: float) -> None:
        """Wait until `name` may send another message at `rate` messages a second. Those that wait are served as they came."""
        delay = self.delay(name, rate, asyncio.get_running_loop().time())
        if delay > 0:
            await asyncio.sleep(delay)

    def delay(self, name: str, rate: float, now: float) -> float:
        """The seconds that a message of now must wait; it is counted."""
        if len(self._buckets) >= _MOST:
            self._buckets = {n: b for n, b in self._buckets.items() if b.free_at > now}
        bucket = self._buckets.setdefault(name, _Bucket(float("-inf")))
        earliest = now - max(_BURST, 1 / rate)
        bucket.free_at = max(bucket.free_at, earliest) + 1 / rate
        return max(0.0, bucket.free_at - now)


@dataclass(slots=True)
class Allowance:
    """What each may have `most` of in `seconds`, in one process."""

    most: int
    seconds: float
    _taken: dict[str, tuple[float, int]] = field(default_factory=dict)

    def take(self, name: str) -> None:
        """Count one more of `name`."""
        now = time.monotonic()
        if len(self._taken) >= _MOST:
            self._taken = {n: (since, count) for n, (since, count) in self._taken.items() if now - since < self.seconds}
        since, count = self._taken.get(name, (now, 0))
        self._taken[name] = (since, count + 1) if now - since < self.seconds else (now, 1)

    def has(self, name: str) -> bool:
        """Whether what was counted last is within what `name` may have."""
        return self._taken.get(name, (0.0, 0))[1] <= self.most
