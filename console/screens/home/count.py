"""A count as the home page shows it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Count:
    """`name` of its text (`home.count.<name>`), `to` where it leads, `parts` what it is made of.

    `number` is None where it can't be said.
    """

    name: str
    to: str
    number: int | None
    parts: tuple[tuple[str, int], ...] = ()
    kind: str = ""
