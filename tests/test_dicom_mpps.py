"""Modality Performed Procedure Step over real associations: what a scanner reports, and what the department then knows."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time from a table
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
)

from bridges.dicom.mpps import DATA_SET
from bridges.dicom.server import DicomServer, DicomSettings
from fhir_server.elements import extension
from fhir_server.interactions import Interactions
from fhir_server.references import ref
from fhir_server.store import Store
from resources import terms
from tests.dicom_client import (
    ACCESS,
    OUR_TITLE,
    ZONE,
    Department,
    Resource,
    Running,
    Scanner,
    Scheduled,
    mpps,
    mpps_end,
    running_department,
    worklist_keys,
)

_patients = iter(range(1, 1000))


@pytest.fixture(scope="module")
def site(mongodb_uri: str) -> Iterator[Running]:
    with running_department(mongodb_uri) as running:
        running.run(running.department.station("CT1"))
        yield running


def schedule(site: Running, **patient: Any) -> Scheduled:
    """A step of a new patient (born 1970-03-04, female) at a time of its own."""
    number = next(_patients)

    async def work(dep: Department) -> Scheduled:
        (station,) = await dep.search("Device", identifier="CT1")
        return await dep.scheduled(f"M{number}", station, f"2026-09-{number // 20 + 1:02d}T{number % 20:02d}:15", **patient)

    return site.run(work(site.department))


def create(site: Running, data: Dataset, uid: str | None = None) -> tuple[Dataset, str]:
    uid = uid or str(generate_uid(prefix=None))
    return site.department.scanner().create(data, uid)[0], uid


def began(site: Running) -> tuple[Scheduled, str]:
    """A step that a scanner has begun, and its SOP Instance UID."""
    scheduled = schedule(site)
    status, uid = create(site, mpps(scheduled))
    assert status.Status == 0x0000
    return scheduled, uid


def procedures(site: Running, uid: str) -> list[Resource]:
    return site.run(site.department.search("Procedure", identifier=f"urn:oid:{uid}"))


def procedure(site: Running, uid: str) -> Resource:
    (found,) = procedures(site, uid)
    return found


def now(site: Running, resource: Resource | None) -> Resource:
    """A resource as it is now."""
    assert resource is not None
    return site.run(site.department.read(ref(resource)["reference"]))


def asked(site: Running, code: str, uid: str) -> list[Resource]:
    """The work items of this kind about a performed step."""
    about = ref(procedure(site, uid))
    return [t for t in site.run(site.department.work_items(code)) if t["focus"] == about]


# The usual course


def test_a_scanner_that_begins_starts_the_step_and_checks_the_patient_in(site: Running) -> None:
    scheduled, uid = began(site)
    performed = procedure(site, uid)
    assert performed["status"] == "in-progress"
    assert performed["basedOn"] == [ref(scheduled.procedure)]
    assert performed["subject"] == scheduled.order["subject"]
    assert performed["performedPeriod"] == {"start": "2026-09-07T08:17:30+02:00"}
    assert performed["code"]["text"] == "CT chest"
    assert site.run(site.department.read(performed["performer"][0]["actor"]["reference"]))["identifier"][0]["value"] == "CT1"
    assert (extension(performed, terms.SCHEDULED_STEP) or {})["valueReference"] == ref(scheduled.step)
    assert now(site, scheduled.step)["status"] == "in-progress"
    assert now(site, scheduled.appointment)["status"] == "checked-in"
    keys = worklist_keys()
    keys.AccessionNumber = scheduled.accession
    assert site.department.scanner().find(keys).data == []


def test_a_scanner_that_ends_fills_the_study_and_asks_for_the_reading(site: Running) -> None:
    scheduled, uid = began(site)
    series_uid = str(generate_uid(prefix=None))
    assert site.department.scanner().set(mpps_end(images=3, series_uid=series_uid), uid).Status == 0x0000
    performed = procedure(site, uid)
    assert performed["status"] == "completed"
    assert performed["performedPeriod"] == {"start": "2026-09-07T08:17:30+02:00", "end": "2026-09-07T08:30:10+02:00"}
    study = now(site, scheduled.study)
    assert (study["numberOfSeries"], study["numberOfInstances"], study["modality"][0]["code"]) == (1, 3, "CT")
    (series,) = study["series"]
    assert (series["uid"], series["description"], series["numberOfInstances"]) == (series_uid, "Lung 1.5 mm", 3)
    assert series["modality"]["code"] == "CT"
    assert series["instance"][0]["sopClass"] == {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2"}
    assert {"display": "John Doe"} in [p["actor"] for p in series["performer"]]
    assert now(site, scheduled.step)["status"] == "completed"
    assert now(site, scheduled.appointment)["status"] == "fulfilled"
    readings = site.run(site.department.search("Task", focus=ref(study)["reference"]))
    assert [t["code"]["coding"][0]["code"] for t in readings] == [terms.INTERPRETATION]
    for code in ("patient-mismatch", "unscheduled-procedure-step", "performed-step-incomplete", "unexpected-procedure-step"):
        assert asked(site, code, uid) == []


def test_a_discontinued_step_has_failed_with_its_reason(site: Running) -> None:
    scheduled, uid = began(site)
    data, reason = mpps_end("DISCONTINUED", images=0), Dataset()
    reason.CodeValue, reason.CodingSchemeDesignator, reason.CodeMeaning = "110501", "DCM", "Equipment failure"
    data.PerformedProcedureStepDiscontinuationReasonCodeSequence = [reason]
    assert site.department.scanner().set(data, uid).Status == 0x0000
    expected = {"coding": [{"system": terms.DCM, "code": "110501", "display": "Equipment failure"}]}
    assert (procedure(site, uid)["status"], procedure(site, uid)["statusReason"]) == ("stopped", expected)
    assert (now(site, scheduled.step)["status"], now(site, scheduled.step)["statusReason"]) == ("failed", expected)
    assert asked(site, "performed-step-incomplete", uid) == []


def test_a_wrong_worklist_entry_asks_somebody_to_look(site: Running) -> None:
    _, uid = began(site)
    data, reason = mpps_end("DISCONTINUED"), Dataset()
    reason.CodeValue, reason.CodingSchemeDesignator, reason.CodeMeaning = "110514", "DCM", "Incorrect worklist entry selected"
    data.PerformedProcedureStepDiscontinuationReasonCodeSequence = [reason]
    assert site.department.scanner().set(data, uid).Status == 0x0000
    assert len(asked(site, "wrong-worklist-entry", uid)) == 1


def test_the_data_set_is_kept_as_it_came_and_with_each_change(site: Running) -> None:
    scheduled = schedule(site)
    begin = mpps(scheduled)
    begin.add_new(0x00091010, "LO", "private")
    begin.CommentsOnThePerformedProcedureStep = "ß and \u00e9"
    begin.SpecificCharacterSet = "ISO_IR 100"
    _, uid = create(site, begin)
    site.department.scanner().set(mpps_end(), uid)
    reference = (extension(procedure(site, uid), DATA_SET) or {})["valueReference"]["reference"]
    versions = [_content(site.run(_version(site.department, reference, number))) for number in ("1", "2")]
    assert versions[0]["00400280"]["Value"] == ["ß and é"]
    assert versions[0]["00400252"]["Value"] == ["IN PROGRESS"]
    assert versions[0]["00100020"]["Value"] == [scheduled.patient_id]
    assert "00091010" in versions[0]
    assert versions[1]["00400252"]["Value"] == ["COMPLETED"]
    assert versions[1]["00100020"]["Value"] == [scheduled.patient_id]


async def _version(dep: Department, reference: str, version: str) -> Resource:
    resource_type, id_ = reference.split("/")
    found = await dep.interactions.vread(ACCESS, resource_type, id_, version)
    assert found.resource is not None
    return found.resource


def _content(binary: Resource) -> Any:
    assert binary["contentType"] == "application/dicom+json"
    return json.loads(base64.b64decode(binary["data"]))


def test_a_sequence_in_a_later_message_replaces_the_earlier_one(site: Running) -> None:
    scheduled, uid = began(site)
    scanner = site.department.scanner()
    first = mpps_end("IN PROGRESS", images=1)
    del first.PerformedProcedureStepEndDate, first.PerformedProcedureStepEndTime
    assert scanner.set(first, uid).Status == 0x0000
    assert procedure(site, uid)["status"] == "in-progress"
    end = mpps_end(images=2)
    assert scanner.set(end, uid).Status == 0x0000
    series = now(site, scheduled.study)["series"]
    assert [s["uid"] for s in series] == [end.PerformedSeriesSequence[0].SeriesInstanceUID]


def test_what_only_the_first_message_may_say_is_not_changed_later(site: Running) -> None:
    _, uid = began(site)
    data = mpps_end()
    data.PatientID, data.PerformedProcedureStepStartTime = "SOMEBODY-ELSE", "000000"
    assert site.department.scanner().set(data, uid).Status == 0x0107
    assert procedure(site, uid)["performedPeriod"]["start"] == "2026-09-07T08:17:30+02:00"


def test_a_second_performed_step_adds_its_series_to_the_study(site: Running) -> None:
    scheduled, uid = began(site)
    site.department.scanner().set(mpps_end(), uid)
    status, again = create(site, mpps(scheduled))
    assert status.Status == 0x0000
    assert site.department.scanner().set(mpps_end(), again).Status == 0x0000
    assert now(site, scheduled.study)["numberOfSeries"] == 2
    assert now(site, scheduled.step)["status"] == "completed"


def test_times_are_read_in_the_offset_of_the_data_set(site: Running) -> None:
    scheduled = schedule(site)
    data = mpps(scheduled)
    data.TimezoneOffsetFromUTC = "-0500"
    _, uid = create(site, data)
    assert procedure(site, uid)["performedPeriod"]["start"] == "2026-09-07T08:17:30-05:00"


def test_without_a_sop_instance_uid_the_server_chooses_one(site: Running) -> None:
    scheduled = schedule(site)
    status, answer = site.department.scanner().create(mpps(scheduled), None)
    assert status.Status == 0x0000
    assert now(site, scheduled.step)["status"] == "in-progress"
    made = [i["valueReference"] for i in now(site, scheduled.step)["output"]]
    assert site.run(site.department.read(made[0]["reference"]))["identifier"][0]["value"].startswith("urn:oid:2.25.")
    assert answer is None or "AffectedSOPInstanceUID" not in answer


# Refusals


def test_the_same_step_again_is_a_duplicate_and_changes_nothing(site: Running) -> None:
    scheduled, uid = began(site)
    before = procedure(site, uid)
    status, _ = create(site, mpps(scheduled), uid)
    assert status.Status == 0x0111
    assert procedure(site, uid) == before


def test_of_many_at_the_same_time_one_is_accepted(site: Running) -> None:
    scheduled = schedule(site)
    uid, data = str(generate_uid(prefix=None)), mpps(scheduled)
    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(pool.map(lambda _: create(site, data, uid)[0].Status, range(6)))
    assert statuses == [0x0000] + [0x0111] * 5
    assert len(procedures(site, uid)) == 1


def test_an_unknown_step_can_not_be_changed(site: Running) -> None:
    assert site.department.scanner().set(mpps_end(), "1.2.3.4.5").Status == 0x0112


@pytest.mark.parametrize("end", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_has_ended_may_no_longer_be_changed(site: Running, end: str) -> None:
    _, uid = began(site)
    scanner = site.department.scanner()
    assert scanner.set(mpps_end(end), uid).Status == 0x0000
    before = procedure(site, uid)
    status = scanner.set(mpps_end(), uid)
    assert (status.Status, status.ErrorID) == (0x0110, 0xA710)
    assert "may no longer be updated" in status.ErrorComment
    assert procedure(site, uid) == before


def test_a_step_begins_in_progress(site: Running) -> None:
    scheduled = schedule(site)
    data = mpps(scheduled)
    data.PerformedProcedureStepStatus = "COMPLETED"
    status, uid = create(site, data)
    assert status.Status == 0x0106
    assert procedures(site, uid) == []
    assert now(site, scheduled.step)["status"] == "accepted"


@pytest.mark.parametrize(
    "keyword", ["PerformedProcedureStepID", "PerformedStationAETitle", "PerformedProcedureStepStartDate", "Modality"]
)
def test_what_is_required_must_be_there_with_a_value(site: Running, keyword: str) -> None:
    data = mpps(None)
    setattr(data, keyword, "")
    status, _ = create(site, data)
    assert (status.Status, status.ErrorComment) == (0x0121, f"{keyword} has no value")
    delattr(data, keyword)
    status, _ = create(site, data)
    assert (status.Status, status.ErrorComment) == (0x0120, f"{keyword} is missing")


def test_a_start_that_is_no_time_is_refused(site: Running) -> None:
    data = mpps(None)
    data["PerformedProcedureStepStartDate"]._value = "20261399"
    assert create(site, data)[0].Status == 0x0106


def test_an_unknown_status_is_refused(site: Running) -> None:
    _, uid = began(site)
    assert site.department.scanner().set(mpps_end("DONE"), uid).Status == 0x0106
    assert procedure(site, uid)["status"] == "in-progress"


def test_a_step_can_not_end_when_it_never_named_its_series(site: Running) -> None:
    scheduled = schedule(site)
    begin, end = mpps(scheduled), mpps_end()
    del begin.PerformedSeriesSequence, end.PerformedSeriesSequence
    _, uid = create(site, begin)
    assert site.department.scanner().set(end, uid).Status == 0x0121
    assert procedure(site, uid)["status"] == "in-progress"


# Doubts: the examination is kept, and somebody is asked


def test_an_end_without_time_is_accepted_and_no_time_is_invented(site: Running) -> None:
    _, uid = began(site)
    end = mpps_end()
    end.PerformedProcedureStepEndDate = end.PerformedProcedureStepEndTime = ""
    assert site.department.scanner().set(end, uid).Status == 0x0000
    assert procedure(site, uid)["status"] == "completed"
    assert "end" not in procedure(site, uid)["performedPeriod"]
    assert len(asked(site, "performed-step-incomplete", uid)) == 1


def test_an_end_before_the_start_is_left_out(site: Running) -> None:
    _, uid = began(site)
    end = mpps_end()
    end.PerformedProcedureStepEndTime = "080000"
    assert site.department.scanner().set(end, uid).Status == 0x0000
    assert "end" not in procedure(site, uid)["performedPeriod"]
    assert len(asked(site, "performed-step-incomplete", uid)) == 1


@pytest.mark.parametrize(
    ("keyword", "value", "word"),
    [
        ("PatientID", "X99", "patient id"),
        ("PatientBirthDate", "19710304", "birth date"),
        ("PatientSex", "M", "sex"),
        ("PatientName", "Schmidt^Karl", "name"),
        ("PatientName", "Roe^Karl", "name"),
        ("PatientName", "Schmidt^Jane", "name"),
        ("PatientName", "Jane^Roe", "swapped"),
        ("PatientName", "Schmidt", "name"),
    ],
)
def test_another_patient_at_the_scanner_is_kept_and_asked_about(site: Running, keyword: str, value: str, word: str) -> None:
    scheduled = schedule(site)
    data = mpps(scheduled)
    setattr(data, keyword, value)
    status, uid = create(site, data)
    assert status.Status == 0x0000
    (item,) = asked(site, "patient-mismatch", uid)
    assert word in item["description"]
    assert "Roe" not in json.dumps(item)
    assert item["for"] == scheduled.order["subject"]
    assert procedure(site, uid)["basedOn"] == [ref(scheduled.procedure)]


@pytest.mark.parametrize(
    ("family", "given", "said"),
    [
        ("Roe", "Jane", ""),
        ("Roe", "Jane", "^^^"),
        ("Roe", "Jane", "ROE^JANE^^MRS"),
        ("Roe", "Jane", "Roe"),
        ("Roe", "Jane", "Roe^J"),
        ("Roe", "Jane Mary", "Roe^Mary"),
        ("Roe", "Jane", "ROE, JANE"),
        ("Roe", "Jane", "Roe Jane"),
        ("Müller", "Zoë", "MULLER^ZOE"),
        ("Müller", "Zoë", "Mueller^Zoe"),
        ("von Ahn", "Ida", "Ahn^Ida"),
        ("Wolfeschlegelsteinhausen", "Hubert", "Wolfeschlegelste"),
        ("Иванов", "Пётр", "Ivanov^Petr"),
    ],
)
def test_a_name_written_otherwise_is_no_other_patient(site: Running, family: str, given: str, said: str) -> None:
    scheduled = schedule(site, family=family, given=given)
    data = mpps(scheduled)
    data.PatientName = said
    _, uid = create(site, data)
    assert asked(site, "patient-mismatch", uid) == []
    assert now(site, scheduled.step)["status"] == "in-progress"


@pytest.mark.parametrize("cut", [8, 64])
@pytest.mark.parametrize("named_meanwhile", [True, False])
def test_a_patient_without_a_name_comes_back_as_the_worklist_called_it(site: Running, cut: int, *, named_meanwhile: bool) -> None:
    scheduled = schedule(site, name=[{"use": "old", "family": "Former"}])
    if named_meanwhile:
        patient = site.run(site.department.read(scheduled.order["subject"]["reference"]))
        site.run(site.department.update(patient, name=[{"family": "Roe", "given": ["Jane"]}]))
    data = mpps(scheduled)
    data.PatientName = f"Unknown^{scheduled.patient_id}"[:cut]
    _, uid = create(site, data)
    assert asked(site, "patient-mismatch", uid) == []
    assert now(site, scheduled.step)["status"] == "in-progress"


def test_an_unscheduled_examination_of_a_known_patient_gets_its_study(site: Running) -> None:
    id_ = schedule(site).patient_id
    data = mpps(None, patient_id=id_)
    status, uid = create(site, data)
    assert status.Status == 0x0000
    performed = procedure(site, uid)
    (patient,) = site.run(site.department.search("Patient", identifier=id_))
    assert performed["subject"] == ref(patient)
    assert "basedOn" not in performed
    assert len(asked(site, "unscheduled-procedure-step", uid)) == 1
    assert site.department.scanner().set(mpps_end(), uid).Status == 0x0000
    study_uid = data.ScheduledStepAttributesSequence[0].StudyInstanceUID
    (study,) = site.run(site.department.search("ImagingStudy", identifier=f"urn:oid:{study_uid}"))
    assert (study["status"], study["subject"], study["numberOfInstances"]) == ("registered", ref(patient), 3)


def test_an_unscheduled_examination_of_an_unknown_patient_is_kept(site: Running) -> None:
    data = mpps(None, patient_id="NOBODY-WE-KNOW")
    status, uid = create(site, data)
    assert status.Status == 0x0000
    subject = procedure(site, uid)["subject"]
    assert subject == {"identifier": {"value": "NOBODY-WE-KNOW"}, "display": "Jane Roe"}
    assert len(asked(site, "unscheduled-procedure-step", uid)) == 1
    assert site.department.scanner().set(mpps_end(), uid).Status == 0x0000
    assert procedure(site, uid)["status"] == "completed"


def test_a_known_id_with_another_birth_date_is_no_known_patient(site: Running) -> None:
    id_ = schedule(site).patient_id
    data = mpps(None, patient_id=id_)
    data.PatientBirthDate = "19991231"
    _, uid = create(site, data)
    assert "reference" not in procedure(site, uid)["subject"]


def test_an_unscheduled_examination_under_a_malformed_study_uid_is_kept(site: Running) -> None:
    data = mpps(None, patient_id=schedule(site).patient_id)
    data.ScheduledStepAttributesSequence[0]["StudyInstanceUID"]._value = "1.2.03.4"
    status, uid = create(site, data)
    assert status.Status == 0x0000
    assert site.department.scanner().set(mpps_end(), uid).Status == 0x0000
    assert procedure(site, uid)["status"] == "completed"


def test_an_empty_scheduled_sequence_is_unscheduled_work(site: Running) -> None:
    data = mpps(None, patient_id="NOBODY")
    data.ScheduledStepAttributesSequence = []
    status, uid = create(site, data)
    assert status.Status == 0x0000
    assert len(asked(site, "unscheduled-procedure-step", uid)) == 1


@pytest.mark.parametrize(("state", "becomes"), [("on-hold", "completed"), ("revoked", "cancelled")])
def test_a_step_that_was_not_to_be_performed_is_kept_and_asked_about(site: Running, state: str, becomes: str) -> None:
    scheduled = schedule(site)
    site.run(site.department.update(scheduled.order, status=state))
    status, uid = create(site, mpps(scheduled))
    assert status.Status == 0x0000
    assert len(asked(site, "unexpected-procedure-step", uid)) == 1
    assert site.department.scanner().set(mpps_end(), uid).Status == 0x0000
    assert procedure(site, uid)["status"] == "completed"
    assert now(site, scheduled.step)["status"] == becomes


# Which step it is


@pytest.mark.parametrize("kept", ["ScheduledProcedureStepID", "RequestedProcedureID", "StudyInstanceUID", "AccessionNumber"])
def test_one_id_is_enough_to_find_the_step(site: Running, kept: str) -> None:
    scheduled = schedule(site)
    data = mpps(scheduled)
    item = data.ScheduledStepAttributesSequence[0]
    for keyword in ("ScheduledProcedureStepID", "RequestedProcedureID", "AccessionNumber", "StudyInstanceUID"):
        if keyword != kept:
            setattr(
                item,
                keyword,
                generate_uid(prefix=None) if keyword == "StudyInstanceUID" and kept != "ScheduledProcedureStepID" else "",
            )
    status, uid = create(site, data)
    assert status.Status == 0x0000
    assert procedure(site, uid)["basedOn"] == [ref(scheduled.procedure)]
    assert now(site, scheduled.step)["status"] == "in-progress"


def test_a_step_id_of_another_study_is_not_believed(site: Running) -> None:
    one, other = schedule(site), schedule(site)
    data = mpps(other)
    data.ScheduledStepAttributesSequence[0].ScheduledProcedureStepID = one.step_id
    create(site, data)
    assert now(site, one.step)["status"] == "accepted"
    assert now(site, other.step)["status"] == "in-progress"


def test_several_steps_of_one_study_go_together(site: Running) -> None:
    scheduled = schedule(site)
    second = site.run(_second_step(site.department, scheduled))
    data = mpps(scheduled)
    more = mpps(Scheduled(scheduled.order, scheduled.procedure, second, scheduled.study))
    data.ScheduledStepAttributesSequence.append(more.ScheduledStepAttributesSequence[0])
    _, uid = create(site, data)
    assert [now(site, s)["status"] for s in (scheduled.step, second)] == ["in-progress", "in-progress"]
    assert site.department.scanner().set(mpps_end(), uid).Status == 0x0000
    assert [now(site, s)["status"] for s in (scheduled.step, second)] == ["completed", "completed"]
    readings = site.run(site.department.search("Task", focus=ref(scheduled.study)["reference"]))
    assert len(readings) == 1


async def _second_step(dep: Department, scheduled: Scheduled) -> Resource:
    step = {k: v for k, v in scheduled.step.items() if k not in {"id", "meta"}}
    return await dep.create(step | {"identifier": [{"system": terms.SCHEDULED_STEP_ID, "value": f"{scheduled.step_id}B"}]})


# The database goes away


class _Wire:
    """A TCP port that leads to MongoDB until it is cut."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: set[asyncio.StreamWriter] = set()
        self.up = True

    async def listen(self) -> int:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(self._path)
        self._open |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    def cut(self) -> None:
        self.up = False
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def close(self) -> None:
        self.cut()
        self._server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def test_while_the_database_is_away_nothing_is_half_written_and_the_scanner_is_told(site: Running, mongodb_uri: str) -> None:
    async def begin() -> tuple[_Wire, Any, DicomServer]:
        wire = _Wire(unquote(urlsplit(mongodb_uri).netloc))
        port = await wire.listen()
        client: AsyncMongoClient[Any] = AsyncMongoClient(
            f"mongodb://127.0.0.1:{port}/?directConnection=true", serverSelectionTimeoutMS=100, w="majority", tz_aware=False
        )
        known = site.department.interactions
        store = Store(client[known.store.db.name])
        await store.ensure(*known.store._ensured)
        server = DicomServer(Interactions(store, known.registry), DicomSettings("127.0.0.1", 0, OUR_TITLE, ZONE))
        await server.start()
        return wire, client, server

    async def end() -> None:
        await server.stop()
        await client.close()
        await wire.close()

    async def restore() -> None:
        wire.up = True
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(PyMongoError):
                    await client.admin.command("ping")
                    return

    async def cut() -> None:
        wire.cut()

    wire, client, server = site.run(begin())
    try:
        scanner, scheduled = Scanner(server.port), schedule(site)
        association = scanner.associate()
        assert association.is_established
        site.run(cut())
        uid, data = str(generate_uid(prefix=None)), mpps(scheduled)
        status, _ = association.send_n_create(data, ModalityPerformedProcedureStep, uid)
        assert status.Status == 0x0110
        assert "try again" in status.ErrorComment
        answers = list(association.send_c_find(worklist_keys(), ModalityWorklistInformationFind))
        assert answers[-1][0].Status == 0xC002
        association.release()
        assert procedures(site, uid) == []
        assert now(site, scheduled.step)["status"] == "accepted"
        site.run(restore())
        assert scanner.create(data, uid)[0].Status == 0x0000
        assert procedure(site, uid)["status"] == "in-progress"
    finally:
        site.run(end())
