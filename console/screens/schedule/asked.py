"""What the address of the board asks for: which board, and what is picked on it. A page made of it is right after a reload."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from console.visit import Visit
from fhir_server.outcome import FhirError
from fhir_server.references import target

ALL = "*"  # every modality, where what is picked would choose one
_YEARS = range(2000, 2100)
_MOST_ORDERS = 5
_MOST_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Asked:
    """A board, and what is picked: orders or a booking (`moving`: for another time), a scanner, a slot; and a time to confirm.

    `at` is a moment, `on` the id of a Device; `waiting`: the waiting list is shown in place of the orders.
    """

    day: date
    week: bool = False
    modality: str = ""
    location: str = ""
    scanner: str = ""
    orders: tuple[str, ...] = ()
    booking: str = ""
    moving: bool = False
    slot: str = ""
    at: datetime | None = None
    on: str = ""
    minutes: int | None = None
    waiting: bool = False

    def to(self, **changes: Any) -> str:
        """The address of this board with some changes."""
        to = replace(self, **changes)
        told = {
            "day": to.day.isoformat(),
            "view": "week" if to.week else "",
            "modality": to.modality,
            "location": to.location,
            "scanner": to.scanner,
            "order": to.orders,
            "booking": to.booking,
            "move": "1" if to.moving else "",
            "slot": to.slot,
            "minutes": str(to.minutes or ""),
            "list": "waiting" if to.waiting else "",
            "at": instant(to.at) if to.at else "",
            "on": to.on,
        }
        return "/schedule?" + urlencode({name: value for name, value in told.items() if value}, doseq=True, safe=":*")

    @property
    def plain(self) -> "Asked":
        """The same board with nothing picked."""
        kept = self.scanner if self.week else ""
        return replace(self, orders=(), booking="", moving=False, slot="", at=None, on="", minutes=None, scanner=kept)

    @property
    def days(self) -> list[date]:
        """The days on the board: one, or those of its week from Monday on."""
        if not self.week:
            return [self.day]
        monday = self.day - timedelta(days=self.day.weekday())
        return [monday + timedelta(days=n) for n in range(7)]

    def another(self, step: int) -> date:
        """The day that leads to the board before or after."""
        return self.day + timedelta(days=step * (7 if self.week else 1))


def asked(visit: Visit) -> Asked:
    """What this request asks for; what makes no sense is left out, as the page shows what it is about."""
    at = _moment(visit, visit.asked("at"))
    orders = [id_ for id_ in visit.request.query_params.getlist("order") if _is_id(id_)]
    return Asked(
        _day(visit, at),
        week=visit.asked("view") == "week",
        modality=visit.asked("modality")[:16],
        location=_id(visit, "location"),
        scanner=_id(visit, "scanner"),
        orders=tuple(dict.fromkeys(orders))[:_MOST_ORDERS],
        booking=_id(visit, "booking"),
        moving=visit.asked("move") == "1",
        slot=_id(visit, "slot"),
        at=at,
        on=_id(visit, "on"),
        minutes=minutes(visit.asked("minutes")),
        waiting=visit.asked("list") == "waiting",
    )


def instant(at: datetime) -> str:
    """A moment in an address."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%MZ}"


def minutes(text: str) -> int | None:
    """A length that somebody has typed."""
    return int(text) if re.fullmatch("[1-9][0-9]{0,3}", text) and int(text) <= _MOST_MINUTES else None


def _id(visit: Visit, name: str) -> str:
    return id_ if _is_id(id_ := visit.asked(name)) else ""


def _is_id(text: str) -> bool:
    return (to := target(f"Device/{text}")) is not None and to.id == text


def _moment(visit: Visit, text: str) -> datetime | None:
    try:
        at = visit.moment(text) if text else None
    except (FhirError, OverflowError):
        return None
    return at if at and at.year in _YEARS else None


def _day(visit: Visit, at: datetime | None) -> date:
    try:
        day = date.fromisoformat(visit.asked("day"))
    except ValueError:
        day = at.astimezone(visit.zone).date() if at else visit.today
    return day if day.year in _YEARS else visit.today
