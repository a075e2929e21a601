"""Time as FHIR and MongoDB have it: a moment is the same moment, whatever zone it was told in."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from fhir_server import clock


@pytest.mark.parametrize(
    ("moment", "told"),
    [
        (datetime(2026, 9, 10, 7, 0, tzinfo=UTC), "2026-09-10T07:00:00.000Z"),
        (datetime(2026, 9, 10, 9, 0, tzinfo=ZoneInfo("Europe/Berlin")), "2026-09-10T07:00:00.000Z"),
        (datetime(2026, 12, 10, 9, 0, tzinfo=ZoneInfo("Europe/Berlin")), "2026-12-10T08:00:00.000Z"),
        (datetime(2026, 9, 10, 22, 30, 0, 5000, tzinfo=timezone(timedelta(hours=-4))), "2026-09-11T02:30:00.005Z"),
        (datetime(2026, 9, 10, 7, 0), "2026-09-10T07:00:00.000Z"),  # noqa: DTZ001 - as MongoDB gives it
    ],
)
def test_instant_is_utc_wherever_the_time_was_told(moment, told):
    assert clock.instant(moment) == told
