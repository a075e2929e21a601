"""v2 times to FHIR and back."""

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.v2 import times

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("sent", "fhir", "precision"),
    [
        ("2026", "2026", "year"),
        ("202609", "2026-09", "month"),
        ("20260907", "2026-09-07", "day"),
        ("20260907+0200", "2026-09-07", "day"),
        ("2026090708", "2026-09-07T08:00:00+02:00", "hour"),
        ("202609070830", "2026-09-07T08:30:00+02:00", "minute"),
        ("20260907083012", "2026-09-07T08:30:12+02:00", "second"),
        ("20260107083012", "2026-01-07T08:30:12+01:00", "second"),
        ("20260907083012.1234", "2026-09-07T08:30:12.1234+02:00", "fraction"),
        ("20260907120000.123-0500", "2026-09-07T12:00:00.123-05:00", "fraction"),
        ("20260907083012+00", "2026-09-07T08:30:12+00:00", "second"),
        ("20260907083012+0545", "2026-09-07T08:30:12+05:45", "second"),
        ("20260907083012+05:30", "2026-09-07T08:30:12+05:30", "second"),
        ("20260907083012-0330", "2026-09-07T08:30:12-03:30", "second"),
        ("20161231235960+0000", "2017-01-01T00:00:00+00:00", "second"),
        (" 20260907083012 ", "2026-09-07T08:30:12+02:00", "second"),
    ],
)
def test_a_v2_time_becomes_a_fhir_datetime_of_its_precision(sent, fhir, precision):
    assert times.to_datetime(sent, BERLIN) == fhir
    assert times.precision(sent) == precision


@pytest.mark.parametrize(
    "sent",
    [
        '""',
        "0000",
        "00000000",
        "20260000",
        "20260230",
        "20261301",
        "2026090",
        "2026090724",
        "202609070860",
        "20260907083061",
        "20260907083012.",
        "now",
        "20260907083012Z",
        "2026-09-07",
        "20260907083012+1500",
        "20260907083012+0260",
        "20260907T0830",
        "２０２６０９０７",
    ],
)
def test_what_is_no_time_or_can_not_be_is_refused_without_being_repeated(sent):
    with pytest.raises(ValueError, match=r"not a|no such|offset") as refused:
        times.to_datetime(sent, BERLIN)
    assert sent not in str(refused.value)


@pytest.mark.parametrize("convert", [times.to_datetime, times.to_instant, times.from_fhir])
def test_nothing_is_no_time(convert):
    with pytest.raises(ValueError, match="not a"):
        convert("", BERLIN)


def test_a_date_keeps_the_calendar_day_of_the_sender():
    assert times.to_date("19640812233000-0800") == "1964-08-12"
    assert times.to_date("1964") == "1964"


def test_an_instant_needs_a_time_of_day():
    assert times.to_instant("202609070830", BERLIN) == "2026-09-07T08:30:00+02:00"
    with pytest.raises(ValueError, match="only a date"):
        times.to_instant("20260907", BERLIN)


def test_a_local_time_that_comes_twice_is_the_first_and_one_that_is_skipped_counts_from_before_the_change():
    assert times.to_datetime("202610250230", BERLIN) == "2026-10-25T02:30:00+02:00"
    assert times.to_datetime("202603290230", BERLIN) == "2026-03-29T02:30:00+01:00"
    assert times.to_aware("202603290230", BERLIN).astimezone(UTC) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_a_sent_offset_wins_over_the_zone():
    assert times.to_aware("20260907083012-0500", BERLIN) == datetime(2026, 9, 7, 13, 30, 12, tzinfo=UTC)
    assert times.parse_ts("20260907083012").offset is None


@pytest.mark.parametrize(("sent", "fhir"), [("0830", "08:30:00"), ("08", "08:00:00"), ("235959.25", "23:59:59.25")])
def test_a_time_of_day(sent, fhir):
    assert times.to_time(sent) == fhir


@pytest.mark.parametrize("sent", ["", "24", "8", "0830+0200", "083060", "08:30"])
def test_a_time_of_day_that_can_not_be_is_refused(sent):
    with pytest.raises(ValueError, match=r"not a|no such|offset"):
        times.to_time(sent)


@pytest.mark.parametrize(
    ("fhir", "options", "v2"),
    [
        ("2026", {}, "2026"),
        ("2026-09", {}, "202609"),
        ("2026-09-07", {}, "20260907"),
        ("2026-09-07T08:30:12+02:00", {}, "20260907083012+0200"),
        ("2026-09-07T06:30:12Z", {}, "20260907083012+0200"),
        ("2026-09-07T06:30:12Z", {"offset": False}, "20260907083012"),
        ("2026-01-07T06:30:12Z", {"offset": False}, "20260107073012"),
        ("2026-09-07T23:30:00Z", {"precision": "day"}, "20260908"),
        ("2026-09-07T06:30:12.123456Z", {}, "20260907083012.1234+0200"),
        ("2026-09-07T06:30:12.123Z", {"precision": "second"}, "20260907083012+0200"),
        ("2026-09-07T06:00:00Z", {"precision": "hour"}, "2026090708+0200"),
        ("2026-09-07", {"precision": "second"}, "20260907"),
        ("2016-12-31T23:59:60Z", {}, "20170101010000+0100"),
    ],
)
def test_a_fhir_time_becomes_a_v2_time_of_the_receivers_zone(fhir, options, v2):
    assert times.from_fhir(fhir, BERLIN, **options) == v2


@pytest.mark.parametrize(
    "fhir",
    [
        "2026-9",
        "2026-02-30",
        "2026-09-07T08:30:12",
        "2026-09-07T08:30Z",
        "2026-09-07T25:00:00Z",
        "20260907",
        "0001-01-01T00:00:00+14:00",
    ],
)
def test_a_fhir_time_that_can_not_be_is_refused(fhir):
    with pytest.raises(ValueError, match=r"not a|no such|offset"):
        times.from_fhir(fhir, NEW_YORK)


def test_times_of_our_own():
    when = datetime(2026, 9, 7, 8, 30, 12, 999, timezone(timedelta(hours=-3, minutes=-30)))
    assert times.from_datetime(when) == "20260907083012-0330"
    assert times.from_datetime(when, offset=False) == "20260907083012"
    assert times.from_date(date(896, 1, 2)) == "08960102"
    with pytest.raises(ValueError, match="zone"):
        times.from_datetime(datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake under test


def test_local_mean_time_is_told_to_the_minute():
    assert times.to_datetime("188001010000", BERLIN) == "1880-01-01T00:00:00+00:53"


@given(st.datetimes(datetime(1000, 1, 1), datetime(9998, 1, 1)), st.sampled_from([BERLIN, NEW_YORK, UTC]))  # noqa: DTZ001 - local times
def test_the_instant_survives_the_way_out_and_back(local, zone):
    sent = times.from_datetime(local.replace(tzinfo=UTC))
    back = times.from_fhir(times.to_datetime(sent, zone), UTC)
    assert back == sent


@given(st.text("0123456789.+-:Z ", max_size=30))
def test_any_text_is_a_time_or_a_value_error(text):
    try:
        fhir = times.to_datetime(text, BERLIN)
    except ValueError:
        return
    try:
        times.from_fhir(fhir, NEW_YORK)
    except ValueError:
        assert fhir[:4] in {"0001", "9999"}
