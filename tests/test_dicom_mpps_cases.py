"""MPPS: what is done in each case, and what FHIR says of it afterwards."""

import base64
import contextlib
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bridges.dicom import mpps_watch
from bridges.dicom.mpps_records import DATA_SET
from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.elements import concept, extension
from fhir_server.references import ref
from fhir_server.unit_of_work import UnitOfWork
from resources import order_changes, order_plan, terms
from resources.order_plan import PlannedProcedure, PlannedStep
from tests.dicom_client import (
    ACCESS,
    Department,
    Resource,
    Running,
    Scheduled,
    imaging_order,
    mpps,
    mpps_end,
    running_department,
)
from tests.mpps_site import (
    began,
    change,
    create,
    items_about,
    now,
    patients,
    procedure,
    reason,
    schedule,
    serving_department,
)


@pytest.fixture(scope="module")
def site(mongodb_uri: str) -> Iterator[Running]:
    with serving_department(mongodb_uri) as running:
        yield running


# Section 4.3


def test_a_step_sent_again_with_other_content_changes_nothing_either(site: Running) -> None:
    scheduled, uid = began(site)
    before = procedure(site, uid)
    again = mpps(scheduled)
    again.PerformedProcedureStepDescription = "something else"
    assert create(site, again, uid=uid)[0].Status == 0x0111
    assert procedure(site, uid) == before


def test_an_end_before_the_beginning_is_unknown_and_may_come_again_after_it(site: Running) -> None:
    scheduled, uid = schedule(site), str(generate_uid(prefix=None))
    assert change(site, mpps_end(), uid).Status == 0x0112
    assert create(site, mpps(scheduled), uid=uid)[0].Status == 0x0000
    assert change(site, mpps_end(), uid).Status == 0x0000
    assert now(site, scheduled.step)["status"] == "completed"


def test_of_two_ends_at_the_same_time_one_counts(site: Running) -> None:
    scheduled, uid = began(site)
    ends = [mpps_end("COMPLETED", images=2), mpps_end("DISCONTINUED", images=1)]
    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(lambda end: change(site, end, uid), ends))
    assert sorted(int(s.Status) for s in statuses) == [0x0000, 0x0110]
    (late,) = [s for s in statuses if s.Status == 0x0110]
    assert late.ErrorID == 0xA710
    won = "completed" if statuses[0].Status == 0x0000 else "stopped"
    assert procedure(site, uid)["status"] == won
    assert now(site, scheduled.step)["status"] == ("completed" if won == "completed" else "failed")


def test_the_wrong_entry_reopens_the_step_and_leaves_the_study_alone(site: Running) -> None:
    scheduled, uid = began(site)
    end = mpps_end("DISCONTINUED", images=2)
    end.PerformedProcedureStepDiscontinuationReasonCodeSequence = reason("110514")
    assert change(site, end, uid).Status == 0x0000
    step = now(site, scheduled.step)
    assert (step["status"], step["businessStatus"]["coding"][0]["code"]) == ("accepted", "SCHEDULED")
    assert scheduled.appointment is not None
    assert now(site, scheduled.appointment)["status"] == "booked"
    assert "executionPeriod" not in step
    assert "series" not in now(site, scheduled.study)
    assert len(items_about(site, "wrong-worklist-entry", procedure(site, uid))) == 1
    assert items_about(site, "examination-stopped", step) == []
    status, right = create(site, mpps(scheduled))
    assert status.Status == 0x0000
    change(site, mpps_end(), right)
    assert now(site, scheduled.step)["status"] == "completed"


@pytest.mark.parametrize(
    ("appointment", "visit", "waits"),
    [("booked", "planned", "accepted"), ("arrived", "arrived", "ready"), ("checked-in", "arrived", "ready")],
)
def test_the_wrong_entry_leaves_everything_as_it_was(site: Running, appointment: str, visit: str, waits: str) -> None:
    scheduled, stored = site.run(_in_visit(site.department, "AMB", numbered=False))
    site.run(site.department.update(stored, status=visit))
    assert scheduled.appointment is not None
    site.run(site.department.update(scheduled.appointment, status=appointment))
    for _ in range(2):  # and once more
        _, uid = create(site, mpps(scheduled))
        assert now(site, stored)["status"] == "in-progress"
        assert now(site, scheduled.appointment)["status"] == "checked-in"
        end = mpps_end("DISCONTINUED")
        end.PerformedProcedureStepDiscontinuationReasonCodeSequence = reason("110514")
        assert change(site, end, uid).Status == 0x0000
        found = [now(site, r)["status"] for r in (scheduled.step, scheduled.appointment, stored)]
        assert found == [waits, appointment, visit]


def test_a_step_on_hold_that_was_selected_by_mistake_is_on_hold_again(site: Running) -> None:
    scheduled = schedule(site)
    site.run(site.department.update(scheduled.order, status="on-hold"))
    _, uid = create(site, mpps(scheduled))
    assert now(site, scheduled.step)["status"] == "in-progress"
    end = mpps_end("DISCONTINUED")
    end.PerformedProcedureStepDiscontinuationReasonCodeSequence = reason("110514")
    assert change(site, end, uid).Status == 0x0000
    assert now(site, scheduled.step)["status"] == "on-hold"


def discontinue(site: Running, scheduled: Scheduled) -> None:
    """The placer's DC."""

    async def work(unit: UnitOfWork) -> None:
        await order_changes.discontinue(unit, await unit.get(ref(scheduled.order)) or {}, "no longer wanted")

    site.run(site.department.interactions.transact(ACCESS, Act("order", "test"), work))


@pytest.mark.parametrize(
    ("status", "images", "asked"), [("COMPLETED", 3, 1), ("DISCONTINUED", 3, 1), ("DISCONTINUED", 0, 0), ("IN PROGRESS", 3, 0)]
)
def test_images_of_an_order_that_was_discontinued_meanwhile_are_asked_about(
    site: Running, status: str, images: int, asked: int
) -> None:
    scheduled, uid = began(site)
    discontinue(site, scheduled)
    assert now(site, scheduled.step)["status"] == "failed"
    assert now(site, scheduled.study)["status"] == "cancelled"
    assert change(site, mpps_end(status, images=images), uid).Status == 0x0000
    found = items_about(site, "unexpected-procedure-step", procedure(site, uid))
    assert len(found) == asked
    assert all("step is failed, its study was cancelled" in i["description"] for i in found)
    if asked:
        assert now(site, scheduled.study)["status"] == "registered"


def test_a_wrong_entry_does_not_undo_what_was_done_before(site: Running) -> None:
    scheduled, first = began(site)
    change(site, mpps_end(), first)
    _, second = create(site, mpps(scheduled))
    end = mpps_end("DISCONTINUED")
    end.PerformedProcedureStepDiscontinuationReasonCodeSequence = reason("110514")
    change(site, end, second)
    assert now(site, scheduled.step)["status"] == "completed"
    assert now(site, scheduled.study)["numberOfSeries"] == 1


def test_an_appended_step_leaves_the_earlier_one_completed(site: Running) -> None:
    scheduled, first = began(site)
    change(site, mpps_end(), first)
    _, second = create(site, mpps(scheduled))
    assert now(site, scheduled.step)["status"] == "completed"
    assert procedure(site, first)["status"] == "completed"
    change(site, mpps_end(), second)
    assert now(site, scheduled.study)["numberOfSeries"] == 2
    readings = site.run(site.department.search("Task", focus=ref(scheduled.study)["reference"]))
    assert len(readings) == 1


def test_a_step_is_done_when_the_last_of_two_performed_steps_has_ended(site: Running) -> None:
    scheduled, first = began(site)
    _, second = create(site, mpps(scheduled))
    change(site, mpps_end("DISCONTINUED"), first)
    assert now(site, scheduled.step)["status"] == "in-progress"
    change(site, mpps_end(), second)
    assert now(site, scheduled.step)["status"] == "completed"


async def _in_visit(dep: Department, kind: str, *, numbered: bool) -> tuple[Scheduled, Resource]:
    """A booked order in a visit of this class; `numbered`: the hospital system has given it a visit number."""
    number = next(patients)
    patient = await dep.patient(f"E{number}")
    visit: Resource = {
        "resourceType": "Encounter",
        "status": "arrived",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": kind},
        "subject": ref(patient),
    }
    if numbered:
        own = {"type": {"coding": [{"system": terms.V2_0203, "code": "VN"}]}, "value": f"V{number}"}
        visit["identifier"] = [own]
    stored = await dep.create(visit)
    order = await dep.order(patient, encounter=ref(stored))
    (device,) = await dep.search("Device", identifier="NORMAL")
    day = f"2026-11-{number % 28 + 1:02d}"
    booked = await dep.book(order, device, f"{day}T05:00:00+01:00", f"{day}T05:20:00+01:00")
    return await dep.scheduled_of(order, booked, f"E{number}"), stored


def group(site: Running) -> tuple[Scheduled, Scheduled, Dataset]:
    """Two orders of one patient, and the data set of a scanner that performs both in a study of its own."""
    one = schedule(site)

    async def another(dep: Department) -> Scheduled:
        patient = await dep.read(one.order["subject"]["reference"])
        order = await dep.order(patient)
        (device,) = await dep.search("Device", identifier="NORMAL")
        day = f"2026-10-{next(patients) % 28 + 1:02d}"
        booked = await dep.book(order, device, f"{day}T03:00:00+02:00", f"{day}T03:20:00+02:00")
        return await dep.scheduled_of(order, booked, one.patient_id)

    two = site.run(another(site.department))
    data, more = mpps(one), mpps(two)
    data.ScheduledStepAttributesSequence.append(more.ScheduledStepAttributesSequence[0])
    common = str(generate_uid(prefix=None))
    for item, scheduled in zip(data.ScheduledStepAttributesSequence, (one, two), strict=True):
        planned = Dataset()
        planned.ReferencedSOPClassUID, planned.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", scheduled.study_uid
        item.ReferencedStudySequence, item.StudyInstanceUID = [planned], common
    return one, two, data


def test_the_steps_of_several_orders_in_one_study_are_done_together(site: Running) -> None:
    one, two, data = group(site)
    uid = create(site, data)[1]
    performed = procedure(site, uid)
    assert performed["basedOn"] == [ref(one.procedure), ref(two.procedure)]
    assert change(site, mpps_end(images=4), uid).Status == 0x0000
    assert [now(site, s.step)["status"] for s in (one, two)] == ["completed", "completed"]
    common = data.ScheduledStepAttributesSequence[0].StudyInstanceUID
    (study,) = site.run(site.department.search("ImagingStudy", identifier=f"urn:oid:{common}"))
    assert study["basedOn"] == [ref(one.procedure), ref(two.procedure)]
    assert [now(site, s.study)["status"] for s in (one, two)] == ["cancelled", "cancelled"]
    readings = site.run(site.department.search("Task", focus=ref(study)["reference"], code="interpretation"))
    assert len(readings) == 1


def test_in_a_group_the_planned_study_alone_tells_the_order(site: Running) -> None:
    one, two, data = group(site)
    for item in data.ScheduledStepAttributesSequence:
        item.ScheduledProcedureStepID = item.RequestedProcedureID = item.AccessionNumber = ""
    uid = create(site, data)[1]
    assert procedure(site, uid)["basedOn"] == [ref(one.procedure), ref(two.procedure)]


def test_a_group_of_two_patients_is_nobodys_until_somebody_has_looked(site: Running) -> None:
    one, two = schedule(site), schedule(site)
    data = mpps(one)
    data.ScheduledStepAttributesSequence.append(mpps(two).ScheduledStepAttributesSequence[0])
    _, uid = create(site, data)
    performed = procedure(site, uid)
    assert "basedOn" not in performed
    (item,) = items_about(site, "unscheduled-procedure-step", performed)
    proposed = [i["valueReference"] for i in item["input"]]
    assert ref(one.procedure) in proposed
    assert ref(two.procedure) in proposed
    assert change(site, mpps_end(), uid).Status == 0x0000
    assert [now(site, s.step)["status"] for s in (one, two)] == ["accepted", "accepted"]


@pytest.mark.parametrize("keyword", ["ScheduledProcedureStepID", "RequestedProcedureID", "AccessionNumber"])
def test_an_item_that_names_another_order_does_not_vanish_in_the_study_of_the_group(site: Running, keyword: str) -> None:
    scheduled = schedule(site)
    data, other = mpps(scheduled), mpps(None).ScheduledStepAttributesSequence[0]
    other.StudyInstanceUID = scheduled.study_uid
    setattr(other, keyword, "ELSE9")
    data.ScheduledStepAttributesSequence.append(other)
    _, uid = create(site, data)
    performed = procedure(site, uid)
    assert "basedOn" not in performed
    assert len(items_about(site, "unscheduled-procedure-step", performed)) == 1
    assert now(site, scheduled.step)["status"] == "accepted"


# Ids that are unique within their order only (PS3.3 C.4.11)


_alike = iter(range(1, 1000))


def numbered_alike(site: Running, *whose: Resource) -> list[Scheduled]:
    """An order of each of these patients, all booked; requested procedure and step of each are number 1."""

    async def work(dep: Department, patient: Resource) -> Scheduled:
        number = next(_alike)
        accession = {"type": concept(terms.V2_0203, "ACSN"), "value": f"ALIKE{number}"}
        uid = str(generate_uid(prefix=None))
        step = {"identifier": [{"system": terms.SCHEDULED_STEP_ID, "value": "1"}]}
        own = {"identifier": [{"system": terms.REQUESTED_PROCEDURE_ID, "value": "1"}]}

        async def make(unit: UnitOfWork) -> Resource:
            order = await unit.create(imaging_order(patient) | {"identifier": [accession]})
            await order_plan.plan(unit, order, [PlannedProcedure(own, uid, [PlannedStep(step)])])
            return order

        order = await dep.interactions.transact(ACCESS, Act("order", "test"), make)
        (device,) = await dep.search("Device", identifier="NORMAL")
        hour = f"2026-12-{number // 20 + 1:02d}T{number % 20:02d}"
        booked = await dep.book(order, device, f"{hour}:00:00Z", f"{hour}:20:00Z")
        return await dep.scheduled_of(order, booked, patient["identifier"][0]["value"])

    return [site.run(work(site.department, patient)) for patient in whose]


def new_patients(site: Running, count: int) -> list[Resource]:
    return [site.run(site.department.patient(f"ALIKE{next(_alike)}")) for _ in range(count)]


@pytest.mark.parametrize("of_one_patient", [True, False])
@pytest.mark.parametrize("said", ["StudyInstanceUID AccessionNumber", "StudyInstanceUID", "AccessionNumber"])
def test_of_orders_numbered_alike_study_and_accession_number_tell_the_right_one(
    site: Running, said: str, *, of_one_patient: bool
) -> None:
    whose = new_patients(site, 1) * 3 if of_one_patient else new_patients(site, 3)
    one, two, three = numbered_alike(site, *whose)
    data = mpps(three)
    for keyword in {"StudyInstanceUID", "AccessionNumber"} - set(said.split()):
        unknown = str(generate_uid(prefix=None)) if keyword == "StudyInstanceUID" else ""
        setattr(data.ScheduledStepAttributesSequence[0], keyword, unknown)
    uid = create(site, data)[1]
    assert procedure(site, uid)["basedOn"] == [ref(three.procedure)]
    assert items_about(site, "patient-mismatch", procedure(site, uid)) == []
    assert change(site, mpps_end(), uid).Status == 0x0000
    assert [now(site, s.step)["status"] for s in (one, two, three)] == ["accepted", "accepted", "completed"]
    assert [now(site, s.study)["status"] for s in (one, two)] == ["registered", "registered"]


def without_study_and_number(scheduled: Scheduled) -> Dataset:
    data = mpps(scheduled)
    item = data.ScheduledStepAttributesSequence[0]
    item.StudyInstanceUID, item.AccessionNumber = str(generate_uid(prefix=None)), ""
    data.PerformedProcedureStepStartDate = scheduled.step["restriction"]["period"]["start"][:10].replace("-", "")
    return data


def test_of_orders_numbered_alike_the_patients_is_taken_and_of_several_none(site: Running) -> None:
    first, second = new_patients(site, 2)
    one, two, three = numbered_alike(site, first, second, second)
    _, uid = create(site, without_study_and_number(one))
    assert procedure(site, uid)["basedOn"] == [ref(one.procedure)]
    _, uid = create(site, without_study_and_number(two))
    performed = procedure(site, uid)
    assert "basedOn" not in performed
    (item,) = items_about(site, "unscheduled-procedure-step", performed)
    proposed = [i["valueReference"] for i in item["input"]]
    assert ref(two.procedure) in proposed
    assert ref(three.procedure) in proposed
    site.run(site.department.update(now(site, two.order), status="revoked"))
    _, uid = create(site, without_study_and_number(three))
    assert procedure(site, uid)["basedOn"] == [ref(three.procedure)]


def test_ids_of_another_accession_number_are_another_orders(site: Running) -> None:
    (one,) = numbered_alike(site, *new_patients(site, 1))
    data = without_study_and_number(one)
    data.ScheduledStepAttributesSequence[0].AccessionNumber = "ELSE9"
    _, uid = create(site, data)
    assert "basedOn" not in procedure(site, uid)
    assert now(site, one.step)["status"] == "accepted"


def test_an_id_that_many_have_tells_the_patients_order(site: Running) -> None:
    *_, last = numbered_alike(site, *new_patients(site, 9))
    _, uid = create(site, without_study_and_number(last))
    assert procedure(site, uid)["basedOn"] == [ref(last.procedure)]


def test_the_study_is_believed_before_the_accession_number(site: Running) -> None:
    one, two = numbered_alike(site, *new_patients(site, 1) * 2)
    data = mpps(one)
    data.ScheduledStepAttributesSequence[0].AccessionNumber = two.accession
    _, uid = create(site, data)
    assert procedure(site, uid)["basedOn"] == [ref(one.procedure)]


def test_in_a_group_of_orders_numbered_alike_each_item_is_its_own(site: Running) -> None:
    one, two = numbered_alike(site, *new_patients(site, 1) * 2)
    data, more = mpps(one), mpps(two)
    more.ScheduledStepAttributesSequence[0].StudyInstanceUID = one.study_uid
    data.ScheduledStepAttributesSequence.append(more.ScheduledStepAttributesSequence[0])
    _, uid = create(site, data)
    assert procedure(site, uid)["basedOn"] == [ref(one.procedure), ref(two.procedure)]


def test_another_patient_at_the_scanner_holds_the_steps_back(site: Running) -> None:
    scheduled = schedule(site)
    data = mpps(scheduled)
    data.PatientBirthDate = "19310101"
    _, uid = create(site, data)
    assert now(site, scheduled.step)["status"] == "accepted"
    change(site, mpps_end(), uid)
    performed = procedure(site, uid)
    assert performed["status"] == "completed"
    assert (extension(performed, terms.IDENTITY_IN_DOUBT) or {})["valueBoolean"] is True
    assert now(site, scheduled.step)["status"] == "accepted"
    assert len(items_about(site, "patient-mismatch", performed)) == 1


def test_unscheduled_an_accession_number_of_the_patient_is_certain(site: Running) -> None:
    scheduled = schedule(site)
    data = mpps(None, patient_id=scheduled.patient_id)
    data.ScheduledStepAttributesSequence[0].AccessionNumber = scheduled.accession
    _, uid = create(site, data)
    assert procedure(site, uid)["basedOn"] == [ref(scheduled.procedure)]


def test_unscheduled_orders_of_the_patient_are_proposed_the_likeliest_first(site: Running) -> None:
    scheduled = schedule(site)

    async def more(dep: Department) -> Scheduled:
        order = await dep.order(await dep.read(scheduled.order["subject"]["reference"]), "MR")
        return await dep.scheduled_of(order)

    of_other_modality = site.run(more(site.department))
    data = mpps(None, patient_id=scheduled.patient_id, station="NORMAL")
    start = scheduled.step["restriction"]["period"]["start"]
    data.PerformedProcedureStepStartDate, data.PerformedProcedureStepStartTime = (
        start[:10].replace("-", ""),
        start[11:13] + "2000",
    )
    _, uid = create(site, data)
    (item,) = items_about(site, "unscheduled-procedure-step", procedure(site, uid))
    assert [i["valueReference"] for i in item["input"]] == [ref(scheduled.procedure)]
    assert item["input"][0]["extension"] == [{"url": "urn:fhir-ris:match-score", "valueInteger": 50}]
    assert ref(of_other_modality.procedure) not in [i["valueReference"] for i in item["input"]]
    assert now(site, scheduled.step)["status"] == "accepted"


def test_a_step_that_nobody_ends_is_asked_about_once(site: Running) -> None:
    scheduled, uid = began(site)
    performed = procedure(site, uid)

    async def long_ago() -> int:
        store = site.department.interactions.store
        old = clock.instant(clock.now() - timedelta(hours=13))
        where = {"_id": performed["id"]}
        moment = clock.naive(clock.now() - timedelta(hours=13))
        await store.current("Procedure").update_one(where, {"$set": {"resource.meta.lastUpdated": old, "updated": moment}})
        return await mpps_watch.ask_about_abandoned(site.department.interactions)

    assert site.run(long_ago()) == 1
    assert site.run(mpps_watch.ask_about_abandoned(site.department.interactions)) == 0
    assert len(items_about(site, mpps_watch.ABANDONED, performed)) == 1
    assert now(site, scheduled.step)["status"] == "in-progress"
    assert change(site, mpps_end(), uid).Status == 0x0000


@pytest.mark.parametrize("station", ["NORMAL", "LENIENT"])
@pytest.mark.parametrize("text", ["Thorax\x03", "\x1b$B6;It\x1b(B", "a\r\nb", "\x01"])
def test_control_characters_in_texts_cost_no_examination(site: Running, station: str, text: str) -> None:
    scheduled = schedule(site, station)
    begin, end = mpps(scheduled, station=station), mpps_end()
    item = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "A  1\x03", "99X", text
        begin.PerformedProcedureStepDescription = begin.PerformedLocation = begin.PerformedStationName = text
        begin.ProcedureCodeSequence = [item]
        series = end.PerformedSeriesSequence[0]
        series.SeriesDescription = series.ProtocolName = series.OperatorsName = text
        series.RetrieveAETitle = "P\x03"
        status, uid = create(site, begin, station)
        assert status.Status == 0x0000
        assert change(site, end, uid, station).Status == 0x0000
    assert procedure(site, uid)["code"]["coding"][0]["code"] == "A 1"
    assert now(site, scheduled.step)["status"] == "completed"
    raw = site.run(site.department.read((extension(procedure(site, uid), DATA_SET) or {})["valueReference"]["reference"]))
    assert any(c in base64.b64decode(raw["data"]) for c in (b"\\u", b"\\r"))


def test_control_characters_in_who_was_examined_cost_no_examination(site: Running) -> None:
    data = mpps(None, patient_id="X")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.PatientName, data.PatientID = "Yamada=\x1b$B;3ED\x1b(B", "1\x072"
        status, uid = create(site, data)
    assert status.Status == 0x0000
    assert procedure(site, uid)["subject"] == {"identifier": {"value": "1 2"}, "display": "Yamada"}


@pytest.mark.parametrize("year", ["0001", "1850", "9999"])
def test_a_year_that_cannot_be_is_left_out_and_asked_about(site: Running, year: str) -> None:
    scheduled, end = schedule(site), mpps_end()
    data = mpps(scheduled)
    data.PerformedProcedureStepStartDate = f"{year}0101"
    status, uid = create(site, data)
    assert status.Status == 0x0000
    assert "performedPeriod" not in procedure(site, uid)
    assert len(items_about(site, "performed-step-incomplete", procedure(site, uid))) == 1
    end.PerformedProcedureStepEndDate = f"{year}0101"
    assert change(site, end, uid).Status == 0x0000
    assert now(site, scheduled.step)["status"] == "completed"


# Section 4.4


def full(site: Running) -> tuple[Scheduled, str]:
    scheduled = schedule(site)
    begin = mpps(scheduled, station="NORMAL")
    begin.PerformedStationName, begin.PerformedLocation = "CT-A", "Basement"
    _, uid = create(site, begin)
    end = mpps_end(images=2, series_uid="1.2.3.44")
    protocol = Dataset()
    protocol.CodeValue, protocol.CodingSchemeDesignator, protocol.CodeMeaning = "P12", "99LOCAL", "Low dose chest"
    end.PerformedProtocolCodeSequence = [protocol]
    end.PerformedSeriesSequence[0].PerformingPhysicianName = "Heart^Hanna"
    end.PerformedSeriesSequence[0].RetrieveAETitle = "PACS"
    assert change(site, end, uid).Status == 0x0000
    return scheduled, uid


def test_the_protocol_reaches_the_step_and_the_series(site: Running) -> None:
    scheduled, uid = full(site)
    code = {"coding": [{"code": "P12", "display": "Low dose chest"}]}
    outputs = [o["valueCodeableConcept"] for o in now(site, scheduled.step)["output"] if "valueCodeableConcept" in o]
    assert outputs == [code]
    (series,) = now(site, scheduled.study)["series"]
    protocols = [e["valueCodeableConcept"] for e in series["extension"] if e["url"] == terms.PERFORMED_PROTOCOL]
    assert protocols == [{"text": "Chest"}, code]
    assert (extension(procedure(site, uid), terms.PERFORMED_PROTOCOL) or {})["valueCodeableConcept"] == code


def test_station_physician_and_operator_are_performers(site: Running) -> None:
    _, uid = full(site)
    performers = procedure(site, uid)["performer"]
    assert performers[0]["actor"]["display"] == "CT-A"
    assert performers[0]["actor"]["reference"].startswith("Device/")
    functions = {p["actor"]["display"]: p["function"]["coding"][0]["code"] for p in performers[1:]}
    assert functions == {"Hanna Heart": "PPRF", "John Doe": "SPRF"}
    assert procedure(site, uid)["location"] == {"display": "Basement"}


def test_series_are_announced_until_the_pacs_has_them(site: Running) -> None:
    scheduled, _ = full(site)
    study = now(site, scheduled.study)
    assert study["status"] == "registered"
    (series,) = study["series"]
    assert (extension(series, terms.AVAILABILITY) or {})["valueCode"] == "ANNOUNCED"
    assert (extension(series, terms.RETRIEVE_AE_TITLE) or {})["valueString"] == "PACS"


def test_a_station_other_than_the_scheduled_one_is_kept_beside_it(site: Running) -> None:
    scheduled = schedule(site)
    _, uid = create(site, mpps(scheduled, station="LENIENT"), "LENIENT")
    (lenient,) = site.run(site.department.search("Device", identifier="LENIENT"))
    assert procedure(site, uid)["performer"][0]["actor"] == ref(lenient)
    assert now(site, scheduled.step)["owner"] == scheduled.step["owner"]
    assert now(site, scheduled.step)["status"] == "in-progress"


@pytest.mark.parametrize(
    ("kind", "numbered", "during", "after"),
    [
        ("AMB", False, "in-progress", "finished"),
        ("AMB", True, "in-progress", "in-progress"),
        ("IMP", False, "arrived", "arrived"),
    ],
)
def test_an_outpatients_visit_follows_the_examination(site: Running, kind: str, numbered: bool, during: str, after: str) -> None:
    scheduled, visit = site.run(_in_visit(site.department, kind, numbered=numbered))
    _, uid = create(site, mpps(scheduled))
    assert procedure(site, uid)["encounter"] == ref(visit)
    assert now(site, visit)["status"] == during
    change(site, mpps_end(), uid)
    assert now(site, visit)["status"] == after


def test_a_server_that_ends_between_begin_and_end_goes_on_where_it_was(mongodb_uri: str) -> None:
    with running_department(mongodb_uri) as first:
        first.run(first.department.station("NORMAL"))
        scheduled, uid = began(first)

        async def restart() -> None:
            with contextlib.suppress(Exception):
                await first.department.server.stop()
            await first.department.server.start()

        first.run(restart())
        assert change(first, mpps_end(), uid).Status == 0x0000
        assert now(first, scheduled.step)["status"] == "completed"
