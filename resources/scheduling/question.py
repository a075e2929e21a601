"""What `$find` is asked, as it is kept with its proposals: whoever comes too late is told the next free times."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """For which orders, or what (codes of the catalogue, or modalities), from when to when, and among whom and what.

    orders: ids of ServiceRequests, all to be done in one visit
    codes: `system|code` of the catalogue, any of them; modalities: DCM codes, any of them
    moved: the id of a booking that is to be moved
    devices, people, locations: references, the preferred first
    minutes: how long each takes, whatever the catalogue says; wait: minutes at most between two of a visit
    """

    start: datetime
    end: datetime
    orders: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    patient: str | None = None
    moved: str | None = None
    devices: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()
    minutes: int | None = None
    wait: int = 60
    count: int = 20

    @classmethod
    def again(cls, kept: dict[str, Any]) -> "Question":
        """As MongoDB gives it back: moments without a zone, lists for tuples."""
        told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
        return cls(**told | {k: kept[k].replace(tzinfo=UTC) for k in ("start", "end")})
