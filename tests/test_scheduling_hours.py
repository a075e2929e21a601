"""Slots from weekly hours on the department's clock, on the two nights when it is changed as well."""

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from resources.scheduling.hours import Interval, slots

BERLIN = ZoneInfo("Europe/Berlin")
SPRING, AUTUMN, SUNDAY = date(2027, 3, 28), date(2027, 10, 31), date(2027, 6, 6)


def of(start: str, end: str, *days: str) -> dict[str, Any]:
    hours = {"availableStartTime": f"{start}:00", "availableEndTime": f"{end}:00"} | ({"daysOfWeek": list(days)} if days else {})
    return {"availableTime": [hours]}


def shown(found: list[Interval], zone: ZoneInfo = BERLIN) -> list[str]:
    """As the clock on the wall shows it, with the offset from UTC."""
    return [f"{start.astimezone(zone):%H:%M}+{start.astimezone(zone).utcoffset().seconds // 3600}" for start, _ in found]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("day", "start", "end", "minutes", "expected"),
    [
        (SUNDAY, "02:30", "04:00", 30, ["02:30+2", "03:00+2", "03:30+2"]),
        # The clock goes from 02:00 to 03:00: there is no 02:30, and the first hour after it is 03:00.
        (SPRING, "02:30", "04:00", 30, ["03:00+2", "03:30+2"]),
        (SPRING, "02:00", "03:00", 30, []),
        (SPRING, "01:00", "04:00", 60, ["01:00+1", "03:00+2"]),
        # The hour from 02:00 is there twice.
        (AUTUMN, "02:30", "03:30", 30, ["02:30+2", "02:30+1", "03:00+1"]),
        (AUTUMN, "01:00", "04:00", 60, ["01:00+2", "02:00+2", "02:00+1", "03:00+1"]),
        (AUTUMN, "02:00", "02:30", 30, ["02:00+2", "02:00+1"]),
    ],
)
def test_a_slot_is_where_the_clock_on_the_wall_shows_it(day, start, end, minutes, expected):
    assert shown(slots([of(start, end)], day, minutes, BERLIN)) == expected


def test_hours_over_midnight_and_round_the_clock():
    assert shown(slots([of("23:00", "01:00", "sat")], date(2027, 6, 5), 60, BERLIN)) == ["23:00+2"]
    assert shown(slots([of("23:00", "01:00", "sat")], SUNDAY, 60, BERLIN)) == ["00:00+2"]
    all_day = {"availableTime": [{"allDay": True}]}
    assert [len(slots([all_day], day, 60, BERLIN)) for day in (SUNDAY, SPRING, AUTUMN)] == [24, 23, 25]


def test_it_is_open_when_all_are_open_and_closed_when_one_is_closed():
    scanner = of("08:00", "10:00") | {
        "notAvailable": [{"during": {"start": "2027-06-06T09:10:00+02:00", "end": "2027-06-06T09:20:00+02:00"}}]
    }
    person, holidays = of("08:30", "12:00", "sun"), {"notAvailable": [{"during": {"start": "2027-06-13", "end": "2027-06-13"}}]}
    assert shown(slots([scanner, person, holidays], SUNDAY, 30, BERLIN)) == ["08:30+2", "09:30+2"]
    assert slots([scanner, person, holidays], date(2027, 6, 13), 30, BERLIN) == []
    assert slots([scanner, person], date(2027, 6, 14), 30, BERLIN) == []
    assert slots([holidays], SUNDAY, 30, BERLIN) == []
    month = {"notAvailable": [{"during": {"start": "2027-06", "end": "2027-06"}}]}
    assert slots([person, month], date(2027, 6, 27), 30, BERLIN) == []
    assert len(slots([person, month], date(2027, 7, 4), 30, BERLIN)) == 7
    for start, end in (("2027", "9999"), ("0001-01-01", "9999-12-31"), ("2027", "9999-12-31T23:59:60-12:00")):
        assert slots([person, {"notAvailable": [{"during": {"start": start, "end": end}}]}], date(2027, 7, 4), 30, BERLIN) == []
