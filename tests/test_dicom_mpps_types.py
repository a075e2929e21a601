"""MPPS by the book: the types of PS3.4 table F.7.2-1, strict, normal and lenient."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydicom.dataset import Dataset

from bridges.dicom import mpps_checks
from fhir_server.outcome import FhirError
from resources import scanner_preferences
from tests.dicom_client import Running, mpps, mpps_end
from tests.mpps_site import began, change, create, items_about, procedure, reason, schedule, serving_department, stored


@pytest.fixture(scope="module")
def site(mongodb_uri: str) -> Iterator[Running]:
    with serving_department(mongodb_uri) as running:
        yield running


def without(data: Dataset, keyword: str, within: str = "") -> Dataset:
    for holder in getattr(data, within) if within else [data]:
        delattr(holder, keyword)
    return data


def emptied(data: Dataset, keyword: str, within: str = "") -> Dataset:
    for holder in getattr(data, within) if within else [data]:
        setattr(holder, keyword, [] if keyword.endswith("Sequence") else "")
    return data


def name(row: mpps_checks.Row) -> str:
    return f"{row.within}>{row.keyword}" if row.within else row.keyword


AT_CREATE = [r for r in mpps_checks.TABLE if r.create in {"1", "2"} and r.within != "PerformedSeriesSequence"]
BY_THE_BOOK = [r for r in AT_CREATE if not r.needed and r.keyword != "ScheduledStepAttributesSequence"]
TYPE_1 = [r for r in AT_CREATE if r.create == "1"]
IN_SERIES = [r for r in mpps_checks.TABLE if r.within == "PerformedSeriesSequence"]


# Section 4.2: N-CREATE


@pytest.mark.parametrize("row", AT_CREATE, ids=name)
def test_strict_what_is_missing_at_the_beginning_is_refused(site: Running, row: mpps_checks.Row) -> None:
    data = without(mpps(schedule(site, "STRICT"), station="STRICT"), row.keyword, row.within)
    status, uid = create(site, data, "STRICT")
    assert status.Status == 0x0120
    assert row.keyword in status.ErrorComment or len(status.ErrorComment) == 64
    assert not stored(site, uid)


@pytest.mark.parametrize("row", TYPE_1, ids=name)
def test_strict_what_needs_a_value_at_the_beginning_and_has_none_is_refused(site: Running, row: mpps_checks.Row) -> None:
    data = emptied(mpps(schedule(site, "STRICT"), station="STRICT"), row.keyword, row.within)
    status, uid = create(site, data, "STRICT")
    assert status.Status == 0x0121
    assert not stored(site, uid)


@pytest.mark.parametrize(
    "row", [r for r in AT_CREATE if not r.needed and r.keyword != "ScheduledStepAttributesSequence"], ids=name
)
def test_normal_what_only_the_book_asks_for_is_taken_as_empty(site: Running, row: mpps_checks.Row) -> None:
    status, uid = create(site, without(mpps(schedule(site)), row.keyword, row.within))
    assert status.Status == 0x0000
    assert procedure(site, uid)["status"] == "in-progress"


@pytest.mark.parametrize("row", [r for r in AT_CREATE if r.needed], ids=name)
def test_normal_what_nothing_can_be_told_without_is_refused(site: Running, row: mpps_checks.Row) -> None:
    assert create(site, without(mpps(schedule(site)), row.keyword))[0].Status == 0x0120
    assert create(site, emptied(mpps(schedule(site)), row.keyword))[0].Status == 0x0121


@pytest.mark.parametrize("row", [r for r in AT_CREATE if r.needed], ids=name)
def test_lenient_what_is_missing_is_guessed_and_the_scanner_is_warned(site: Running, row: mpps_checks.Row) -> None:
    status, uid = create(site, without(mpps(schedule(site, "LENIENT"), station="LENIENT"), row.keyword), "LENIENT")
    assert status.Status == 0x0107
    performed = procedure(site, uid)
    assert performed["status"] == "in-progress"
    assert len(items_about(site, "performed-step-incomplete", performed)) == 1
    status, uid = create(site, emptied(mpps(schedule(site, "LENIENT"), station="LENIENT"), row.keyword), "LENIENT")
    assert status.Status == 0x0116
    assert "start" in procedure(site, uid)["performedPeriod"]


def test_lenient_a_start_that_is_no_time_is_replaced_by_the_time_of_the_message(site: Running) -> None:
    data = mpps(schedule(site, "LENIENT"), station="LENIENT")
    data["PerformedProcedureStepStartDate"]._value = "20261399"
    status, uid = create(site, data, "LENIENT")
    assert status.Status == 0x0116
    started = datetime.fromisoformat(procedure(site, uid)["performedPeriod"]["start"])
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=5)


def test_lenient_a_step_of_another_status_than_in_progress_is_refused_all_the_same(site: Running) -> None:
    data = mpps(schedule(site, "LENIENT"), station="LENIENT")
    data.PerformedProcedureStepStatus = "COMPLETED"
    assert create(site, data, "LENIENT")[0].Status == 0x0106


# Section 4.2: N-SET

CREATE_ONLY = [r.keyword for r in mpps_checks.TABLE if r.change == "-" and not r.within]


@pytest.mark.parametrize("keyword", CREATE_ONLY)
def test_what_only_the_beginning_may_say_is_left_as_it_was(site: Running, keyword: str) -> None:
    first = mpps(schedule(site))
    _, uid = create(site, first)
    before = procedure(site, uid)
    data = Dataset()
    item = Dataset()
    item.StudyInstanceUID = "1.2.3"
    setattr(data, keyword, [item] if keyword.endswith("Sequence") else "19990101" if "Date" in keyword else "010101")
    assert change(site, data, uid).Status == 0x0107
    assert procedure(site, uid)["performedPeriod"] == before["performedPeriod"]
    assert procedure(site, uid)["performer"] == before["performer"]


@pytest.mark.parametrize("keyword", CREATE_ONLY)
def test_strict_what_only_the_beginning_may_say_is_refused_later(site: Running, keyword: str) -> None:
    first = mpps(schedule(site, "STRICT"), station="STRICT")
    _, uid = create(site, first, "STRICT")
    data = Dataset()
    setattr(data, keyword, getattr(first, keyword))
    assert change(site, data, uid, "STRICT").Status == 0x0106


def test_what_is_sent_again_as_it_was_is_no_error(site: Running) -> None:
    scheduled = schedule(site)
    _, uid = create(site, mpps(scheduled))
    end = mpps_end()
    end.PatientID, end.Modality = scheduled.patient_id, "CT"
    assert change(site, end, uid).Status == 0x0000


def strict_began(site: Running) -> str:
    data = mpps(schedule(site, "STRICT"), station="STRICT")
    _, uid = create(site, data, "STRICT")
    return uid


@pytest.mark.parametrize("keyword", [r.keyword for r in mpps_checks.TABLE if r.final == "1"])
def test_strict_what_an_end_needs_is_required(site: Running, keyword: str) -> None:
    uid = strict_began(site)
    assert change(site, emptied(mpps_end(), keyword), uid, "STRICT").Status == 0x0121
    assert procedure(site, uid)["status"] == "in-progress"
    assert change(site, mpps_end(), uid, "STRICT").Status == 0x0000


@pytest.mark.parametrize("row", IN_SERIES, ids=name)
def test_strict_each_series_has_what_the_table_says(site: Running, row: mpps_checks.Row) -> None:
    uid = strict_began(site)
    assert change(site, without(mpps_end(), row.keyword, row.within), uid, "STRICT").Status == 0x0120
    if row.create == "1":
        assert change(site, emptied(mpps_end(), row.keyword, row.within), uid, "STRICT").Status == 0x0121
    assert procedure(site, uid)["status"] == "in-progress"


def test_strict_a_series_without_images_is_enough(site: Running) -> None:
    uid = strict_began(site)
    end = mpps_end(images=1)
    end.PerformedSeriesSequence[0].ReferencedImageSequence = []
    assert change(site, end, uid, "STRICT").Status == 0x0000


def test_strict_a_discontinuation_reason_must_have_been_created(site: Running) -> None:
    uid = strict_began(site)
    end = mpps_end("DISCONTINUED")
    end.PerformedProcedureStepDiscontinuationReasonCodeSequence = reason("110501")
    assert change(site, end, uid, "STRICT").Status == 0x0105
    data = mpps(schedule(site, "STRICT"), station="STRICT")
    data.PerformedProcedureStepDiscontinuationReasonCodeSequence = []
    _, uid = create(site, data, "STRICT")
    assert change(site, end, uid, "STRICT").Status == 0x0000
    assert procedure(site, uid)["statusReason"]["coding"][0]["code"] == "110501"


def test_lenient_an_end_without_anything_is_taken_and_asked_about(site: Running) -> None:
    data = mpps(schedule(site, "LENIENT"), station="LENIENT")
    del data.PerformedSeriesSequence
    _, uid = create(site, data, "LENIENT")
    end = Dataset()
    end.PerformedProcedureStepStatus = "COMPLETED"
    assert change(site, end, uid, "LENIENT").Status == 0x0107
    performed = procedure(site, uid)
    assert performed["status"] == "completed"
    assert len(items_about(site, "performed-step-incomplete", performed)) == 1


def test_lenient_an_end_that_is_no_time_is_left_out(site: Running) -> None:
    _, uid = began(site, "LENIENT")
    end = mpps_end()
    end["PerformedProcedureStepEndDate"]._value = "20261399"
    assert change(site, end, uid, "LENIENT").Status == 0x0116
    assert "end" not in procedure(site, uid)["performedPeriod"]


def test_a_preference_that_means_nothing_is_refused(site: Running) -> None:
    with pytest.raises(FhirError, match="strict, normal, lenient"):
        site.run(site.department.station("ODD", extension=[{"url": scanner_preferences.CHECKS, "valueCode": "sloppy"}]))
    with pytest.raises(FhirError, match="from 1 to 240"):
        site.run(site.department.station("ODD", extension=[{"url": scanner_preferences.ABANDONED, "valueInteger": 0}]))
