"""Small charts as inline SVG: bars of equal width, upwards what passed, below the line what failed. Their text says the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BAR: Final = 6
GAP: Final = 1
UP: Final = 28  # height of the part above the line, and of the one below it
DOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle, in the units of the chart."""

    x: int
    y: float
    height: float
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """`text` is what a reader who doesn't see it is told."""

    bars: tuple[Bar, ...]
    width: int
    text: str

    @property
    def height(self) -> int:
        return UP + DOWN

    @property
    def bar(self) -> int:
        return BAR

    @property
    def line(self) -> int:
        return UP


def chart(counts: Sequence[int], text: str, failed: Sequence[int] = ()) -> Chart:
    """The chart of so many of each hour or day; `failed` of them."""
    most, worst = max([*counts, 1]), max([*failed, 1])
    bars = []
    for n, count in enumerate(counts):
        if count:
            height = max(1.5, (UP - 1) * count / most)
            bars.append(Bar(n * (BAR + GAP), UP - height, height))
    for n, count in enumerate(failed):
        if count:
            bars.append(Bar(n * (BAR + GAP), UP + 1, max(2.5, (DOWN - 1) * count / worst), failed=True))
    return Chart(tuple(bars), len(counts) * (BAR + GAP) - GAP, text)
