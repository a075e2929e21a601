"""Scanners that do otherwise than usual: silent, refused, or with empty worklists for longer than they are used to."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridges.dicom import habits
from bridges.dicom.habits import Habits
from bridges.dicom.watch import ScannerWatch
from fhir_server import clock
from resources.alerts import ALERT
from tests.conftest import RunWithDb
from tests.dicom_client import Department, blocking, department, worklist_keys

MORNING = datetime(2026, 11, 2, 8, tzinfo=UTC)


class Time:
    """A clock that stands until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = MORNING
        monkeypatch.setattr(habits.clock, "now", lambda: self.now)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


async def usual_days(seen: Habits, time: Time, title: str, days: int, filled: bool = True) -> None:
    """It asks every 20 minutes from 8 to 18 h, with a lunch break of an hour, and gets an entry each time."""
    for day in range(days):
        for minutes in (*range(0, 240, 20), *range(300, 600, 20)):
            time.now = MORNING + timedelta(days=day, minutes=minutes)
            seen.asked(title, 1 if filled else 0)
        await seen.flush()


async def open_alerts(dep: Department) -> list[str]:
    return sorted(t["description"] for t in await dep.work_items(ALERT) if t["status"] == "requested")


def test_a_scanner_that_falls_silent_for_longer_than_its_nights_raises_one_alert_that_ends_by_itself(
    run_with_db: RunWithDb[None], time: Time
) -> None:
    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            await dep.station("CT1")
            watch, seen = ScannerWatch(dep.interactions, lambda: time.now), Habits(db)
            await usual_days(seen, time, "CT1", 5)
            time.now = MORNING + timedelta(days=5)  # the next morning: no longer than a night
            await watch.look()
            assert await open_alerts(dep) == []
            time.now = MORNING + timedelta(days=6)
            await watch.look()
            await watch.look()
            (alert,) = await open_alerts(dep)
            assert alert.startswith("The scanner CT1 has not asked for its worklist since 2026-11-06 17:40 UTC")
            seen.asked("CT1", 1)
            await seen.flush()
            await watch.look()
            assert await open_alerts(dep) == []

    run_with_db(scenario)


def test_a_scanner_whose_worklists_stay_empty_raises_an_alert(run_with_db: RunWithDb[None], time: Time) -> None:
    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            await dep.station("CT1")
            watch, seen = ScannerWatch(dep.interactions, lambda: time.now), Habits(db)
            await usual_days(seen, time, "CT1", 5)
            for hours in range(30):
                time.now = MORNING + timedelta(days=5, hours=hours)
                seen.asked("CT1", 0)
                await seen.flush()
            await watch.look()
            assert [a.split(" since")[0] for a in await open_alerts(dep)] == ["The scanner CT1 has had empty worklists"]

    run_with_db(scenario)


def test_a_registered_scanner_that_is_refused_for_minutes_raises_an_alert_with_the_reason(
    run_with_db: RunWithDb[None], time: Time
) -> None:
    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            await dep.station("CT1")
            watch, seen = ScannerWatch(dep.interactions, lambda: time.now), Habits(db)
            for minutes in range(0, 8, 2):
                time.now = MORNING + timedelta(minutes=minutes)
                seen.refused("CT1", "the called AE title is not ours")
                seen.refused("STRANGER", "the calling AE title is not registered")
                await seen.flush()
            await watch.look()
            assert await open_alerts(dep) == [
                "The scanner CT1 is refused since 2026-11-02 08:00 UTC: the called AE title is not ours"
            ]
            seen.accepted("CT1")
            await seen.flush()
            await watch.look()
            assert await open_alerts(dep) == []

    run_with_db(scenario)


def test_three_days_make_a_habit_and_fewer_do_not(run_with_db: RunWithDb[None], time: Time) -> None:
    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            await dep.station("CT1")
            watch, seen = ScannerWatch(dep.interactions, lambda: time.now), Habits(db)
            await usual_days(seen, time, "CT1", 2)
            time.now = MORNING + timedelta(days=9)
            await watch.look()
            assert await open_alerts(dep) == []

    run_with_db(scenario)


def test_what_scanners_do_on_the_network_is_noted(run_with_db: RunWithDb[None]) -> None:
    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            await dep.scheduled("A1", await dep.station("CT1"), "2026-09-07T08:15")
            await blocking(dep.scanner("CT1").find, worklist_keys())
            await blocking(dep.scanner("CT1").find, worklist_keys(ScheduledStationAETitle="CT9"))
            await blocking(dep.scanner("XX").refused)
        day = f"{clock.now():%Y%m%d}"
        known = {d["_id"]: d async for d in db[habits.COLLECTION].find()}
        assert known["CT1"]["days"][day]["n"] == 2
        assert known["CT1"]["answers"] == 0
        assert known["CT1"]["asked"] > known["CT1"]["filled"]
        assert (known["XX"]["refused_times"], known["XX"]["why"]) == (1, "the calling AE title is not registered")

    run_with_db(scenario)
