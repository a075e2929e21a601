"""How fast a partner may send: a token bucket each. Who is faster waits, and while it waits its connection isn't read."""

import asyncio
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
