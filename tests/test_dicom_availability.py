"""What the PACS says has arrived: notifications (IAN), and what it answers when it is asked (QIDO-RS)."""

import asyncio
import contextlib
import gzip
import threading
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bridges import contacts
from bridges.dicom import study_watch
from bridges.dicom.pacs_worker import PacsWorker, Timing
from bridges.dicom.qido import NotAnswered, Qido
from fhir_server import clock
from fhir_server.elements import extension
from fhir_server.outcome import FhirError
from fhir_server.references import ref
from resources import scanner_preferences, terms
from tests.dicom_client import ZONE, Department, Resource, Running, Scheduled, mpps, mpps_end, running_department
from tests.pacs import Pacs, Study, serving_qido

IAN = "1.2.840.10008.5.1.4.33"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
TYPE = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
_patients = iter(range(1, 1000))
_uid = iter(range(1, 10_000))


def endpoint(kind: str, address: str, **more: Any) -> Resource:
    system = "urn:fhir-ris:endpoint-connection-type" if kind == "dicom-mpps" else TYPE
    found = {
        "resourceType": "Endpoint",
        "status": "active",
        "connectionType": {"system": system, "code": kind},
        "payloadType": [{"text": "any"}],
        "address": address,
    }
    return found | more


@pytest.fixture(scope="module")
def pacs() -> Iterator[Pacs]:
    with serving_qido() as running:
        yield running


@pytest.fixture(scope="module")
def site(mongodb_uri: str, pacs: Pacs) -> Iterator[Running]:
    with running_department(mongodb_uri) as running:
        department = running.department
        running.run(department.station("CT1"))
        for title, end in (("US1", "availability"), ("CR1", "study-stable")):
            preference = [{"url": scanner_preferences.END, "valueCode": end}]
            running.run(department.station(title, extension=preference))
        running.run(department.create(endpoint("dicom-qido-rs", pacs.url)))
        running.run(department.create(endpoint("dicom-wado-rs", f"{pacs.url}/wado", header=["ae-title: PACS"])))
        running.run(study_watch.ensure_indexes(department.interactions.store.db))
        yield running


@pytest.fixture(autouse=True)
def fresh(pacs: Pacs) -> None:
    pacs.studies.clear()
    pacs.asked.clear()
    pacs.instead = None
    pacs.broken.clear()


def schedule(site: Running, station: str = "CT1") -> Scheduled:
    number = next(_patients)

    async def work(dep: Department) -> Scheduled:
        (device,) = await dep.search("Device", identifier=station)
        return await dep.scheduled(f"A{number}", device, f"2026-09-{number // 20 + 1:02d}T{number % 20:02d}:15")

    return site.run(work(site.department))


def examined(site: Running, images: int = 3) -> tuple[Scheduled, str, str]:
    """A step performed with one series; its MPPS and series UIDs."""
    scheduled, series = schedule(site), str(generate_uid(prefix=None))
    uid = str(generate_uid(prefix=None))
    scanner = site.department.scanner()
    assert scanner.create(mpps(scheduled), uid)[0].Status == 0
    assert scanner.set(mpps_end(images=images, series_uid=series), uid).Status == 0
    return scheduled, uid, series


def notification(
    study_uid: str, series_uid: str = "", images: int = 3, state: str = "ONLINE", performed: str = "", first: int = 1
) -> Dataset:
    data = Dataset()
    data.ReferencedPerformedProcedureStepSequence = []
    if performed:
        step = Dataset()
        step.ReferencedSOPClassUID, step.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.3", performed
        step.PerformedWorkitemCodeSequence = []
        data.ReferencedPerformedProcedureStepSequence = [step]
    data.StudyInstanceUID = study_uid
    series = Dataset()
    series.SeriesInstanceUID = series_uid or str(generate_uid(prefix=None))
    series.ReferencedSOPSequence = []
    for number in range(first, first + images):
        image = Dataset()
        image.ReferencedSOPClassUID = CT_IMAGE
        image.ReferencedSOPInstanceUID = f"{series.SeriesInstanceUID}.{number}"[:64]
        image.InstanceAvailability, image.RetrieveAETitle = state, "PACS"
        series.ReferencedSOPSequence.append(image)
    data.ReferencedSeriesSequence = [series]
    return data


def notify(site: Running, data: Dataset, station: str = "CT1") -> Dataset:
    return site.department.scanner(station).notify(data, str(generate_uid(prefix=None)))


def now(site: Running, resource: Resource) -> Resource:
    return site.run(site.department.read(ref(resource)["reference"]))


def study_of(site: Running, uid: str) -> Resource:
    (found,) = site.run(site.department.search("ImagingStudy", identifier=f"{terms.DICOM_UID}|urn:oid:{uid}"))
    return found


def items_about(site: Running, code: str, resource: Resource) -> list[Resource]:
    return [t for t in site.run(site.department.work_items(code)) if t["focus"] == ref(resource)]


# Section 4.5: IAN


def test_a_notification_makes_the_study_available_with_counts_and_where_to_get_it(site: Running) -> None:
    scheduled, uid, series = examined(site)
    assert notify(site, notification(scheduled.study_uid, series, 5, performed=uid)).Status == 0x0000
    study = now(site, scheduled.study)
    assert (study["status"], study["numberOfSeries"], study["numberOfInstances"]) == ("available", 1, 5)
    (wado,) = site.run(site.department.search("Endpoint", connection_type="dicom-wado-rs"))
    assert study["endpoint"] == [ref(wado)]
    (one,) = study["series"]
    assert (one["numberOfInstances"], one["endpoint"], one["description"]) == (5, [ref(wado)], "Lung 1.5 mm")
    assert (extension(one, terms.AVAILABILITY) or {})["valueCode"] == "ONLINE"
    assert (extension(one, terms.RETRIEVE_AE_TITLE) or {})["valueString"] == "PACS"


def test_notifications_of_parts_add_up_and_the_same_again_changes_nothing(site: Running) -> None:
    scheduled, _, series = examined(site)
    notify(site, notification(scheduled.study_uid, series, 2))
    notify(site, notification(scheduled.study_uid, series, 2, first=3))
    assert now(site, scheduled.study)["numberOfInstances"] == 4
    before = now(site, scheduled.study)
    assert notify(site, notification(scheduled.study_uid, series, 2, first=3)).Status == 0x0000
    assert now(site, scheduled.study) == before


@pytest.mark.parametrize("state", ["ONLINE", "NEARLINE", "OFFLINE"])
def test_what_can_be_had_in_any_way_is_available(site: Running, state: str) -> None:
    scheduled, _, series = examined(site)
    notify(site, notification(scheduled.study_uid, series, 2, state))
    study = now(site, scheduled.study)
    assert study["status"] == "available"
    assert (extension(study["series"][0], terms.AVAILABILITY) or {})["valueCode"] == state


def test_images_that_are_lost_are_asked_about(site: Running) -> None:
    scheduled, _, series = examined(site)
    notify(site, notification(scheduled.study_uid, series, 2))
    notify(site, notification(scheduled.study_uid, series, 2, "UNAVAILABLE"))
    study = now(site, scheduled.study)
    assert (study["status"], study["numberOfInstances"]) == ("registered", 0)
    assert len(items_about(site, "images-unavailable", study)) == 1


def test_the_notification_before_the_scanners_end_is_not_overwritten_by_it(site: Running) -> None:
    scheduled, uid, series = schedule(site), str(generate_uid(prefix=None)), str(generate_uid(prefix=None))
    scanner = site.department.scanner()
    scanner.create(mpps(scheduled), uid)
    notify(site, notification(scheduled.study_uid, series, 7, performed=uid))
    scanner.set(mpps_end(images=2, series_uid=series), uid)
    (one,) = now(site, scheduled.study)["series"]
    assert (one["numberOfInstances"], one["description"]) == (7, "Lung 1.5 mm")
    assert (extension(one, terms.AVAILABILITY) or {})["valueCode"] == "ONLINE"


def test_a_study_that_only_the_notification_knows_is_that_of_its_performed_step(site: Running) -> None:
    scheduled, uid, _ = examined(site)
    other = str(generate_uid(prefix=None))
    assert notify(site, notification(other, performed=uid)).Status == 0x0000
    study = study_of(site, other)
    assert (study["status"], study["subject"], study["basedOn"]) == (
        "available", scheduled.order["subject"], [ref(scheduled.procedure)],
    )  # fmt: skip


def test_images_that_nobody_ordered_are_asked_about_once(site: Running) -> None:
    uid, series = str(generate_uid(prefix=None)), str(generate_uid(prefix=None))
    notify(site, notification(uid, series, 1))
    notify(site, notification(uid, series, 2))
    study = study_of(site, uid)
    assert (study["status"], study["subject"]) == ("available", {"display": "unknown patient"})
    assert len(items_about(site, "study-without-order", study)) == 1


def drop(data: Dataset, path: str) -> None:
    *within, keyword = path.split(".")
    for sequence in within:
        data = getattr(data, sequence)[0]
    delattr(data, keyword)


def empty(data: Dataset, path: str) -> None:
    *within, keyword = path.split(".")
    for sequence in within:
        data = getattr(data, sequence)[0]
    setattr(data, keyword, [] if keyword.endswith("Sequence") else "")


_SOP = "ReferencedSeriesSequence.ReferencedSOPSequence"
REQUIRED = [
    "StudyInstanceUID",
    "ReferencedSeriesSequence",
    "ReferencedSeriesSequence.SeriesInstanceUID",
    _SOP,
    f"{_SOP}.ReferencedSOPClassUID",
    f"{_SOP}.ReferencedSOPInstanceUID",
    f"{_SOP}.InstanceAvailability",
    f"{_SOP}.RetrieveAETitle",
]


@pytest.mark.parametrize("path", [*REQUIRED, "ReferencedPerformedProcedureStepSequence"])
def test_a_notification_without_what_it_must_have_is_refused(site: Running, path: str) -> None:
    data = notification("1.2.3.4")
    drop(data, path)
    assert notify(site, data).Status == 0x0120


@pytest.mark.parametrize("path", REQUIRED)
def test_a_notification_with_an_empty_value_is_refused(site: Running, path: str) -> None:
    data = notification("1.2.3.4")
    empty(data, path)
    assert notify(site, data).Status == 0x0121


def test_a_notification_with_an_unknown_availability_is_refused(site: Running) -> None:
    assert notify(site, notification("1.2.3.4", state="SOMEWHERE")).Status == 0x0106


# Exam end without MPPS


def test_a_notification_ends_the_examination_of_a_scanner_that_is_set_so(site: Running) -> None:
    scheduled = schedule(site, "US1")
    notify(site, notification(scheduled.study_uid), "US1")
    assert now(site, scheduled.step)["status"] == "completed"
    (performed,) = site.run(site.department.search("Procedure", based_on=ref(scheduled.procedure)["reference"]))
    assert (performed["status"], performed["subject"]) == ("completed", scheduled.order["subject"])
    readings = site.run(site.department.search("Task", focus=ref(scheduled.study)["reference"], code="interpretation"))
    assert len(readings) == 1


def test_a_notification_does_not_end_the_examination_of_a_scanner_with_mpps(site: Running) -> None:
    scheduled = schedule(site)
    notify(site, notification(scheduled.study_uid))
    assert now(site, scheduled.step)["status"] == "accepted"


# QIDO-RS


def worker(site: Running) -> PacsWorker:
    return PacsWorker(site.department.interactions, ZONE, Timing(first_pause=0, between_counts=0))


async def look(dep: Department, who: PacsWorker, *uids: str) -> None:
    """Let these studies be due, and the worker look."""
    watch = dep.interactions.store.db[study_watch.COLLECTION]
    await watch.update_many({"_id": {"$nin": list(uids)}}, {"$set": {"due": clock.naive(clock.now() + timedelta(days=1))}})
    await watch.update_many({"_id": {"$in": list(uids)}}, {"$set": {"due": clock.naive(clock.now() - timedelta(seconds=1))}})
    (found,) = await who.endpoints()
    async with Qido(found) as pacs:
        await who.look_up(pacs)


def watched(site: Running, uid: str) -> Resource | None:
    async def work() -> Resource | None:
        return await site.department.interactions.store.db[study_watch.COLLECTION].find_one({"_id": uid})

    return site.run(work())


def tags(scheduled: Scheduled, series: dict[str, int] | None = None, **more: Any) -> Study:
    own = {"patient_id": scheduled.patient_id, "accession": scheduled.accession}
    return Study(scheduled.study_uid, series or {f"1.2.826.{next(_uid)}": 3}, **(own | more))


def test_after_the_end_the_pacs_is_asked_until_the_images_are_there(site: Running, pacs: Pacs) -> None:
    scheduled, _, series = examined(site)
    who = worker(site)
    site.run(look(site.department, who, scheduled.study_uid))
    assert now(site, scheduled.study)["status"] == "registered"
    pacs.put(tags(scheduled, {series: 4}))
    site.run(look(site.department, who, scheduled.study_uid))
    study = now(site, scheduled.study)
    assert (study["status"], study["numberOfSeries"], study["numberOfInstances"]) == ("available", 1, 4)
    assert study["endpoint"]
    assert watched(site, scheduled.study_uid) is not None
    site.run(look(site.department, who, scheduled.study_uid))
    assert watched(site, scheduled.study_uid) is None
    assert items_about(site, "patient-mismatch", study) == []


def test_images_of_an_order_that_was_cancelled_meanwhile_are_there_all_the_same(site: Running) -> None:
    scheduled, series, uid = schedule(site), str(generate_uid(prefix=None)), str(generate_uid(prefix=None))
    site.run(site.department.update(scheduled.order, status="revoked"))
    assert now(site, scheduled.study)["status"] == "cancelled"
    scanner = site.department.scanner()
    assert scanner.create(mpps(scheduled), uid)[0].Status == 0
    assert scanner.set(mpps_end(images=3, series_uid=series), uid).Status == 0
    assert now(site, scheduled.study)["status"] == "registered"
    assert notify(site, notification(scheduled.study_uid, series, performed=uid)).Status == 0x0000
    assert now(site, scheduled.study)["status"] == "available"
    assert items_about(site, "unexpected-study", scheduled.study) == []  # the performed step is asked about


def test_images_of_a_cancelled_study_that_no_scanner_told_of_are_asked_about(site: Running) -> None:
    scheduled = schedule(site)
    site.run(site.department.update(scheduled.order, status="revoked"))
    for first in (1, 4):
        assert notify(site, notification(scheduled.study_uid, "1.2.3.77", first=first)).Status == 0x0000
    study = now(site, scheduled.study)
    assert (study["status"], study["numberOfInstances"]) == ("available", 6)
    assert len(items_about(site, "unexpected-study", study)) == 1


def test_images_of_a_study_entered_in_error_are_noted_and_asked_about(site: Running) -> None:
    scheduled = schedule(site)
    site.run(site.department.update(scheduled.study, status="entered-in-error"))
    assert notify(site, notification(scheduled.study_uid)).Status == 0x0000
    study = now(site, scheduled.study)
    assert (study["status"], study["numberOfInstances"]) == ("entered-in-error", 3)
    assert len(items_about(site, "unexpected-study", study)) == 1


@pytest.mark.parametrize("performed", ["1.2.3,4.5.6", "x", "1.2.3$"])
def test_a_performed_step_whose_uid_is_none_is_refused_and_finds_nobody(site: Running, performed: str) -> None:
    _, uid, _ = examined(site)
    unknown = str(generate_uid(prefix=None))
    data = notification(unknown, performed="1.2.3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = f"{uid},{performed}" if "," in performed else performed
        data.ReferencedPerformedProcedureStepSequence[0]["ReferencedSOPInstanceUID"]._value = said
        assert notify(site, data).Status == 0x0106
    assert site.run(site.department.search("ImagingStudy", identifier=f"urn:oid:{unknown}")) == []


def test_images_that_still_come_are_counted(site: Running, pacs: Pacs) -> None:
    scheduled, _, series = examined(site)
    who = worker(site)
    pacs.put(tags(scheduled, {series: 1}))
    site.run(look(site.department, who, scheduled.study_uid))
    pacs.put(tags(scheduled, {series: 9}))
    site.run(look(site.department, who, scheduled.study_uid))
    assert now(site, scheduled.study)["numberOfInstances"] == 9


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"patient_id": "SOMEBODY"}, "patient id"),
        ({"name": "Poe^Edgar"}, "name"),
        ({"birth_date": "19800101"}, "birth date"),
        ({"sex": "M"}, "sex"),
        ({"accession": "A1"}, "accession number"),
    ],
)
def test_images_of_another_patient_are_asked_about(site: Running, pacs: Pacs, other: dict[str, str], word: str) -> None:
    scheduled, _, series = examined(site)
    pacs.put(tags(scheduled, {series: 2}, **other))
    site.run(look(site.department, worker(site), scheduled.study_uid))
    (item,) = items_about(site, "patient-mismatch", scheduled.study)
    assert word in item["description"]


def test_a_stable_study_ends_the_examination_of_a_scanner_that_is_set_so(site: Running, pacs: Pacs) -> None:
    scheduled = schedule(site, "CR1")
    assert (watched(site, scheduled.study_uid) or {})["reason"] == "booked"
    pacs.put(tags(scheduled))
    who = worker(site)
    site.run(look(site.department, who, scheduled.study_uid))
    site.run(look(site.department, who, scheduled.study_uid))
    assert now(site, scheduled.step)["status"] == "accepted"

    async def long_since() -> None:
        watch = site.department.interactions.store.db[study_watch.COLLECTION]
        old = clock.naive(clock.now() - timedelta(minutes=6))
        await watch.update_one({"_id": scheduled.study_uid}, {"$set": {"seen": old}})

    site.run(long_since())
    site.run(look(site.department, who, scheduled.study_uid))
    assert now(site, scheduled.step)["status"] == "completed"
    site.run(look(site.department, who, scheduled.study_uid))
    assert watched(site, scheduled.study_uid) is None


def sweep(site: Running, pacs: Pacs) -> int:
    who = worker(site)

    async def work() -> int:
        (found,) = await who.endpoints()
        async with Qido(found) as asked:
            return await who.sweep(asked)

    return site.run(work())


def test_of_two_workers_one_asks_the_pacs_by_itself(site: Running, pacs: Pacs) -> None:
    scheduled, _, series = examined(site)
    pacs.put(tags(scheduled, {series: 2}))
    workers = [PacsWorker(site.department.interactions, ZONE, Timing(look=0.05, sweep=3600)) for _ in range(2)]

    async def run_until_there() -> None:
        async with contextlib.AsyncExitStack() as stack:
            watch = site.department.interactions.store.db[study_watch.COLLECTION]
            await watch.delete_many({"_id": {"$ne": scheduled.study_uid}})
            for one in workers:
                await stack.enter_async_context(one.running())
            async with asyncio.timeout(60):
                while (await site.department.read(ref(scheduled.study)["reference"]))["status"] != "available":
                    await asyncio.sleep(0.05)
                while not any("StudyDate" in path for path in pacs.asked):
                    await asyncio.sleep(0.05)

    site.run(run_until_there())
    assert sum("StudyDate" in path for path in pacs.asked) == 1
    assert sum(f"StudyInstanceUID={scheduled.study_uid}" in path for path in pacs.asked) == 1


def test_a_pacs_that_hangs_does_not_keep_the_others_from_being_asked(site: Running, pacs: Pacs) -> None:
    async def run_until_asked(slow: Pacs) -> None:
        slow.hangs = threading.Event()
        second = await site.department.create(endpoint("dicom-qido-rs", slow.url, header=["request-timeout: 30"]))
        who = PacsWorker(site.department.interactions, ZONE, Timing(look=0.05, sweep=0.05))
        try:
            async with who.running(), asyncio.timeout(60):
                while not slow.asked:
                    await asyncio.sleep(0.05)
                before = len(pacs.asked)
                while len(pacs.asked) < before + 3:
                    await asyncio.sleep(0.05)
        finally:
            slow.hangs.set()
            await site.department.update(second, status="off")

    with serving_qido() as slow:
        site.run(run_until_asked(slow))


def today() -> str:
    return f"{clock.now().astimezone(ZONE):%Y%m%d}"


def test_images_without_an_order_are_found_and_candidates_proposed(site: Running, pacs: Pacs) -> None:
    scheduled = schedule(site)
    found = pacs.put(Study("1.2.3.100", {"1.2.3.100.1": 2}, patient_id=scheduled.patient_id, date=today()))
    assert sweep(site, pacs) == 1
    study = study_of(site, found.uid)
    assert (study["status"], study["subject"]) == ("available", scheduled.order["subject"])
    assert len(items_about(site, "study-without-order", study)) == 1
    assert sweep(site, pacs) == 0


def test_images_with_accession_number_and_patient_of_an_order_are_its_own(site: Running, pacs: Pacs) -> None:
    scheduled = schedule(site)
    pacs.put(tags(scheduled, {"1.2.3.200.1": 2}, date=today()))
    pacs.studies["1.2.3.200"] = pacs.studies.pop(scheduled.study_uid)
    pacs.studies["1.2.3.200"].uid = "1.2.3.200"
    sweep(site, pacs)
    study = study_of(site, "1.2.3.200")
    assert study["basedOn"] == [ref(scheduled.procedure)]
    assert items_about(site, "study-without-order", study) == []


def test_a_study_that_the_pacs_can_not_tell_about_does_not_hide_the_others(site: Running, pacs: Pacs) -> None:
    for number in (1, 2, 3):
        pacs.put(Study(f"1.2.5.{number}", {f"1.2.5.{number}.1": 1}, patient_id=f"Y{number}", date=today()))
    pacs.broken.add("1.2.5.1")
    assert sweep(site, pacs) == 2
    pacs.broken.clear()
    assert sweep(site, pacs) == 1


def test_a_day_of_many_studies_is_read_in_pages(site: Running, pacs: Pacs) -> None:
    for number in range(105):
        pacs.put(Study(f"1.2.4.{number}", {f"1.2.4.{number}.1": 1}, patient_id=f"Z{number}", date=today()))
    assert sweep(site, pacs) == 105
    assert sum("offset=100" in path for path in pacs.asked) == 1


@pytest.mark.parametrize(
    "instead",
    [
        (500, b"", {}),
        (302, b"", {"Location": "http://127.0.0.1:9/elsewhere"}),
        (200, b"<html>", {}),
        (200, b'{"a": 1}', {}),
        (200, b"[" * 100_000, {}),
        (200, b"[" + b'"x",' * (3 * 1024 * 1024) + b'"x"]', {}),
        (200, gzip.compress(b"[]"), {"Content-Encoding": "gzip"}),
        (200, gzip.compress(gzip.compress(bytes(32 * 1024 * 1024))), {"Content-Encoding": "gzip, gzip"}),
    ],
    ids=["error", "redirect", "html", "no list", "nested", "too long", "compressed", "compressed twice"],
)
def test_an_answer_that_is_none_costs_nobody_anything(site: Running, pacs: Pacs, instead: Any) -> None:
    scheduled, _, series = examined(site)
    pacs.instead = instead
    with pytest.raises(NotAnswered) as refused:
        site.run(look(site.department, worker(site), scheduled.study_uid))
    assert "127.0.0.1" not in str(refused.value)
    pacs.instead = None
    pacs.put(tags(scheduled, {series: 1}))
    site.run(look(site.department, worker(site), scheduled.study_uid))
    assert now(site, scheduled.study)["status"] == "available"


def test_elements_that_are_no_dicom_json_are_left_out(site: Running, pacs: Pacs) -> None:
    scheduled, _, _ = examined(site)
    pacs.instead = (200, b'[{"0020000D": {"vr": "UI", "Value": {"a": 1}}, "00100010": {"vr": "PN", "Value": ["x"]}}]', {})
    site.run(look(site.department, worker(site), scheduled.study_uid))
    assert now(site, scheduled.study)["status"] == "registered"


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("dicom-qido-rs", "file:///etc/passwd"),
        ("dicom-qido-rs", "http://user:secret@pacs.example.org/"),
        ("dicom-qido-rs", "https://pacs.example.org/?a=b"),
        ("dicom-mpps", "http://pacs.example.org"),
        ("dicom-mpps", "dicom://pacs.example.org:104"),
        ("dicom-mpps", "dicom://AN-AE-TITLE-THAT-IS-TOO-LONG@pacs.example.org:104"),
    ],
)
def test_an_address_that_could_not_be_asked_is_refused(site: Running, kind: str, address: str) -> None:
    with pytest.raises(FhirError, match="the address isn't"):
        site.run(site.department.create(endpoint(kind, address)))


def test_when_a_pacs_was_last_reached_is_remembered(site: Running, pacs: Pacs) -> None:
    db = site.department.interactions.store.db

    async def run_until(*, ok: bool) -> str:
        who = PacsWorker(site.department.interactions, ZONE, Timing(look=0.05, sweep=0.05))
        (found,) = await who.endpoints()
        reference = f"Endpoint/{found['id']}"
        async with who.running(), asyncio.timeout(60):
            while (known := (await contacts.last(db, [reference])).get(reference)) is None or known.ok is not ok:
                await asyncio.sleep(0.05)
        return known.text

    assert site.run(run_until(ok=True)) == "QIDO-RS"
    pacs.instead = (503, b"", {})
    assert site.run(run_until(ok=False)) == "it answers 503"
    pacs.instead = None
    assert site.run(run_until(ok=True)) == "QIDO-RS"
