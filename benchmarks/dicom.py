"""The DICOM bridge: worklist queries beside DCMTK's wlmscpfs, a worklist of ten years, time to visible, MPPS, and many scanners.

python -m benchmarks.dicom [query] [million] [visible] [mpps] [poll] [--seconds 5] [--rows 1000000] [--scanners 200]

query: 20 answers of 1,000 scheduled steps, one association a query as scanners do, at 1 and 4 clients; beside wlmscpfs with the
    same 1,000 as files, where DCMTK is installed; and with one of the 20 changed before each query
million: the same of `--rows` steps
visible: an order is booked over FHIR; from its answer until a query shows it
mpps: N-CREATE of a scheduled step, until its response
poll: so many scanners, each asking every 5 s, for `--seconds` times 6; refusals and the slowest

The steps of `query` and `million` are rows like one that was made by a booking, with their own ids, patients, stations and days.
"""

import argparse
import asyncio
import contextlib
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from bson import ObjectId
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pymongo import AsyncMongoClient

from benchmarks.load import machine, percentile
from benchmarks.stand import Stand, standing
from bridges.dicom import mpps_service, worklist_service
from bridges.dicom.upper_layer import command, pdu, requestor
from bridges.dicom.upper_layer.items import UserInformation
from bridges.dicom.upper_layer.pdu import AssociateRequest, ProposedContext
from bridges.dicom.upper_layer.requestor import Remote
from demo.bookings import booking
from demo.server import free_port

_PARTS = ("query", "million", "visible", "mpps", "poll")
_DAY = "20270315"
_ITEMS, _WANTED = 1000, 20
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_ROOT_KEYS = (
    "AccessionNumber ReferringPhysicianName PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID "
    "RequestingPhysician RequestedProcedureDescription RequestedProcedureID RequestedProcedurePriority AdmissionID"
).split()
_STEP_KEYS = (
    "ScheduledStationAETitle ScheduledProcedureStepStartDate ScheduledProcedureStepStartTime Modality "
    "ScheduledPerformingPhysicianName ScheduledProcedureStepDescription ScheduledProcedureStepID ScheduledStationName "
    "ScheduledProcedureStepLocation"
).split()


# A client in plain bytes: it costs little, so that the server is what is measured


def identifier(**step: str) -> Dataset:
    """The keys of a usual query."""
    keys, item = Dataset(), Dataset()
    for keyword in _ROOT_KEYS:
        setattr(keys, keyword, "")
    for keyword in _STEP_KEYS:
        setattr(item, keyword, step.get(keyword, ""))
    keys.ScheduledProcedureStepSequence = [item]
    return keys


def encoded(data: Dataset, *, implicit: bool = True) -> bytes:
    to = DicomBytesIO()
    to.is_little_endian, to.is_implicit_VR = True, implicit
    write_dataset(to, data)
    return bytes(to.getvalue())


class Query:
    """A C-FIND as the bytes that a scanner sends, association and release included."""

    def __init__(self, calling: str, called: str, keys: Dataset) -> None:
        context = ProposedContext(1, worklist_service.SOP_CLASS, ("1.2.840.10008.1.2",))
        user = UserInformation(131072, "2.25.1", "BENCH")
        self._request = AssociateRequest(called, calling, (context,), user).encode()
        told: command.Command = {
            command.AFFECTED_SOP_CLASS: worklist_service.SOP_CLASS,
            command.COMMAND_FIELD: command.C_FIND,
            command.MESSAGE_ID: 1,
            command.PRIORITY: 0,
            command.DATA_SET_TYPE: command.DATA_SET,
        }
        sent = pdu.fragments(1, pdu.COMMAND, command.encode(told), 16384)
        self._find = sent + pdu.fragments(1, 0, encoded(keys), 16384)

    async def ask(self, port: int) -> int:
        """Ask once; how many answers there were. ConnectionError when the association is refused or ends early."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        try:
            writer.write(self._request)
            await _pdu(reader, pdu.ASSOCIATE_AC)
            writer.write(self._find)
            answers = 0
            while True:
                body = await _pdu(reader, pdu.DATA_TF)
                if body[5] & pdu.COMMAND:
                    status = int.from_bytes(body[-2:], "little")
                    if status == 0:
                        break
                    if status & 0xFF00 != 0xFF00:
                        raise ConnectionError(f"status {status:04X}")
                    answers += 1
            writer.write(pdu.ReleaseRequest().encode())
            await _pdu(reader, pdu.RELEASE_RP)
            return answers
        finally:
            writer.close()


async def _pdu(reader: asyncio.StreamReader, kind: int) -> bytes:
    try:
        head = await reader.readexactly(6)
        body = await reader.readexactly(int.from_bytes(head[2:], "big"))
    except asyncio.IncompleteReadError:
        raise ConnectionError("the connection ended") from None
    if head[0] != kind:
        raise ConnectionError(f"a PDU of type {head[0]} instead of {kind}: {body[:4].hex()}")
    return body


async def repeated(ask: Callable[[], Awaitable[object]], clients: int, seconds: float) -> list[float]:
    """The milliseconds of each call, by so many clients at a time."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            await ask()
            times.append(1000 * (time.perf_counter() - began))

    await asyncio.gather(*(client() for _ in range(clients)))
    return times


def told(what: str, times: list[float], seconds: float) -> float:
    rate = len(times) / seconds
    print(f"  {what}: {rate:.0f}/s, median {statistics.median(times):.1f} ms, 99 % within {percentile(times, 99):.1f} ms")
    return rate


# What is on the worklist


async def scheduled(stand: Stand, number: int, start: datetime) -> dict[str, Any]:
    """An order of a new patient, booked over FHIR on the station `CT1`; its Appointment."""
    patient = await stand.app.ok(
        "POST",
        "Patient",
        {
            "resourceType": "Patient",
            "identifier": [{"system": "urn:oid:2.999.1", "value": f"B{number}"}],
            "name": [{"family": f"Muster{number}", "given": ["Mara"]}],
            "gender": "female",
            "birthDate": "1970-01-31",
        },
    )
    order = await stand.app.ok(
        "POST",
        "ServiceRequest",
        {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "subject": {"reference": f"Patient/{patient['id']}"},
            "code": {"coding": [{"system": "http://loinc.org", "code": "24627-2", "display": "CT Chest"}], "text": "CT chest"},
            "orderDetail": [{"coding": [{"system": _DCM, "code": "CT"}]}],
        },
    )
    return await stand.app.ok("POST", "Appointment", booking(order, "Device/ct1", start, 5))


async def register(stand: Stand, titles: dict[str, str]) -> None:
    """Devices by id and AE title."""
    for start in range(0, len(titles), 50):
        await stand.app.put(
            {
                "resourceType": "Device",
                "id": id_,
                "identifier": [{"system": "urn:fhir-ris:ae-title", "value": title}],
                "status": "active",
                "type": {"coding": [{"system": _DCM, "code": "CT"}]},
            }
            for id_, title in list(titles.items())[start : start + 50]
        )


def row_like(sample: dict[str, Any], number: int, station: str, start: str) -> dict[str, Any]:
    """A worklist row of another patient and order."""
    found: dict[str, Any] = sample["attributes"]
    item = found["00400100"]["Value"][0] | {
        "00400001": {"vr": "AE", "Value": [station]},
        "00400002": {"vr": "DA", "Value": [start[:8]]},
        "00400003": {"vr": "TM", "Value": [start[8:]]},
        "00400009": {"vr": "SH", "Value": [f"S{number}"]},
    }
    uid = f"2.25.{10**30 + number}"
    attributes = found | {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"Muster{number}^Mara"}]},
        "00100020": {"vr": "LO", "Value": [f"M{number}"]},
        "00080050": {"vr": "SH", "Value": [f"A{number}"]},
        "0020000D": {"vr": "UI", "Value": [uid]},
        "00401001": {"vr": "SH", "Value": [f"R{number}"]},
        "00400100": {"vr": "SQ", "Value": [item]},
    }
    patient = f"Patient/m{number}"
    return sample | {
        "_id": f"m{number}",
        "version": ObjectId(),
        "start": start,
        "stations": [station],
        "patient_ids": [f"M{number}"],
        "accession": f"A{number}",
        "procedure_id": f"R{number}",
        "step_id": f"S{number}",
        "study_uid": uid,
        "names": [f"muster{number}^mara"],
        "name_keys": [f"muster{number}^mara"],
        "patient": patient,
        "of": [patient, f"Task/m{number}"],
        "attributes": attributes,
    }


def spread(sample: dict[str, Any], rows: int) -> Iterator[dict[str, Any]]:
    """So many rows: 20 of station CT1 on the day that is asked for; the others on 40 stations over ten years around it."""
    day = datetime.strptime(_DAY, "%Y%m%d")  # noqa: DTZ007 - the department's
    for number in range(rows):
        if number < _WANTED:
            station, start = "CT1", day + timedelta(hours=8, minutes=15 * number)
        else:
            station = f"CT{number % 40 + 1}"
            start = day + timedelta(days=number % 3650 - 1825, minutes=number % 1440)
            if station == "CT1" and start.date() == day.date():
                station = "CT2"
        yield row_like(sample, number, station, f"{start:%Y%m%d%H%M%S}")


async def fill(stand: Stand, rows: int) -> None:
    async with _database(stand) as db:
        sample = await db.worklist.find_one({"_id": {"$not": {"$regex": "^m[0-9]"}}})
        if sample is None:
            await scheduled(stand, 0, datetime.now(UTC) + timedelta(days=2))
            sample = await db.worklist.find_one()
            assert sample is not None
        await db.worklist.delete_many({"_id": {"$regex": "^m[0-9]"}})
        group: list[dict[str, Any]] = []
        for row in spread(sample, rows):
            group.append(row)
            if len(group) == 5000:
                await db.worklist.insert_many(group, ordered=False)
                group.clear()
        if group:
            await db.worklist.insert_many(group, ordered=False)


@contextlib.asynccontextmanager
async def _database(stand: Stand) -> AsyncIterator[Any]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stand.mongodb_uri)
    try:
        yield client["ris"]
    finally:
        await client.close()


# The parts


async def queries(stand: Stand, seconds: float, what: str) -> dict[int, float]:
    keys = identifier(ScheduledStationAETitle="CT1", ScheduledProcedureStepStartDate=_DAY, Modality="CT")
    query, port = Query("CT1", "FHIR_RIS", keys), stand.server.dicom_port
    found = await query.ask(port)
    assert found == _WANTED, found
    rates = {}
    for clients in (1, 4):
        with stand.watched() as used:
            times = await repeated(lambda: query.ask(port), clients, seconds)
            rates[clients] = told(f"{what}, {clients} client(s)", times, seconds)
            print(f"    {used(len(times))}")
    return rates


async def query_part(stand: Stand, seconds: float) -> None:
    await fill(stand, _ITEMS)
    ours = await queries(stand, seconds, f"{_WANTED} of {_ITEMS}")
    async with _database(stand) as db:
        keys = identifier(ScheduledStationAETitle="CT1", ScheduledProcedureStepStartDate=_DAY, Modality="CT")
        query, number = Query("CT1", "FHIR_RIS", keys), 0

        async def after_change() -> None:
            nonlocal number
            number += 1
            sample = await db.worklist.find_one({"_id": f"m{number % _WANTED}"})
            assert sample is not None
            await db.worklist.replace_one({"_id": sample["_id"]}, sample | {"version": ObjectId()})
            await query.ask(stand.server.dicom_port)

        told(
            "the same, with a row written anew before each query (its write included)",
            await repeated(after_change, 1, seconds),
            seconds,
        )
        theirs = await wlmscpfs([row async for row in db.worklist.find({"_id": {"$regex": "^m[0-9]"}})], seconds)
    for clients, rate in theirs.items():
        print(f"  {ours[clients] / rate:.1f} times wlmscpfs at {clients} client(s)")


async def wlmscpfs(rows: list[dict[str, Any]], seconds: float) -> dict[int, float]:
    """The same items as files, served by DCMTK."""
    program = shutil.which("wlmscpfs")
    if program is None:
        print("  wlmscpfs is not installed (Debian: dcmtk)")
        return {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "FHIR_RIS"
        folder.mkdir()
        (folder / "lockfile").touch()
        for row in rows:
            _write_file(folder / f"{row['_id']}.wl", Dataset.from_json(row["attributes"]))
        port = free_port(0)
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [program, "-dfr", "-dfp", place, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            keys = identifier(ScheduledStationAETitle="CT1", ScheduledProcedureStepStartDate=_DAY, Modality="CT")
            query, rates = Query("CT1", "FHIR_RIS", keys), {}
            found = await _when_listening(query, port)
            assert found == _WANTED, f"wlmscpfs found {found}"
            for clients in (1, 4):
                times = await repeated(lambda: query.ask(port), clients, seconds)
                rates[clients] = told(f"wlmscpfs, {clients} client(s)", times, seconds)
            return rates
        finally:
            process.terminate()
            process.wait(10)


async def _when_listening(query: Query, port: int) -> int:
    for _ in range(100):
        with contextlib.suppress(ConnectionRefusedError):
            return await query.ask(port)
        await asyncio.sleep(0.1)
    raise TimeoutError


def _write_file(path: Path, data: Dataset) -> None:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = worklist_service.SOP_CLASS
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    data.SpecificCharacterSet = "ISO_IR 100"
    data.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=True)


async def million_part(stand: Stand, seconds: float, rows: int) -> None:
    await fill(stand, _ITEMS)
    few = await queries(stand, seconds, f"{_WANTED} of {_ITEMS}")
    began = time.perf_counter()
    await fill(stand, rows)
    print(f"  {rows} rows written in {time.perf_counter() - began:.0f} s")
    many = await queries(stand, seconds, f"{_WANTED} of {rows}")
    for clients in few:
        print(f"  {few[clients] / many[clients]:.2f} times slower at {clients} client(s)")


async def visible_part(stand: Stand) -> None:
    """From the answer to the booking until a query shows it; and from the booking's being sent."""
    query = Query("CT1", "FHIR_RIS", identifier(ScheduledStationAETitle="CT1", ScheduledProcedureStepStartDate="20280101-"))
    first, after, whole = datetime(2028, 1, 1, tzinfo=UTC), [], []
    known = await query.ask(stand.server.dicom_port)
    for number in range(40):
        await asyncio.sleep(0.02)
        sent = time.perf_counter()
        await scheduled(stand, 1000 + number, first + timedelta(minutes=10 * number))
        answered = time.perf_counter()
        while await query.ask(stand.server.dicom_port) == known:
            pass
        known += 1
        after.append(1000 * (time.perf_counter() - answered))
        whole.append(1000 * (time.perf_counter() - sent))
    print(f"  booking accepted to visible: median {statistics.median(after):.1f} ms, most {max(after):.1f} ms")
    print(f"  patient, order and booking sent to visible: median {statistics.median(whole):.1f} ms")


async def mpps_part(stand: Stand) -> None:
    first = datetime(2029, 1, 1, tzinfo=UTC)
    remote = Remote("127.0.0.1", stand.server.dicom_port, "FHIR_RIS", "CT1")
    for number in range(60):
        await scheduled(stand, 3000 + number, first + timedelta(minutes=10 * number))
    times = []
    async with _database(stand) as db:
        rows = [r async for r in db.worklist.find({"start": {"$gte": "20290101"}}).sort("start")]
    for row in rows:
        async with requestor.associate(remote, [mpps_service.SOP_CLASS]) as client:
            data = encoded(_performed(row), implicit=not client.context(mpps_service.SOP_CLASS).explicit)
            began = time.perf_counter()
            response = await client.n_create(mpps_service.SOP_CLASS, str(generate_uid(prefix=None)), data)
            times.append(1000 * (time.perf_counter() - began))
            assert requestor.status(response) == 0, requestor.comment(response)
    print(
        f"  MPPS N-CREATE: median {statistics.median(times):.1f} ms, 95 % within {percentile(times, 95):.1f} ms, of {len(times)}"
    )


def _performed(row: dict[str, Any]) -> Dataset:
    data, item = Dataset(), Dataset()
    item.StudyInstanceUID, item.ReferencedStudySequence, item.AccessionNumber = row["study_uid"], [], row["accession"]
    item.RequestedProcedureID, item.RequestedProcedureDescription = row["procedure_id"], ""
    item.ScheduledProcedureStepID, item.ScheduledProcedureStepDescription = row["step_id"], ""
    item.ScheduledProtocolCodeSequence = []
    data.ScheduledStepAttributesSequence = [item]
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "", row["patient_ids"][0], "19700131", "F"
    data.ReferencedPatientSequence = []
    data.PerformedProcedureStepID, data.PerformedStationAETitle = "PPS1", "CT1"
    data.PerformedStationName = data.PerformedLocation = ""
    data.PerformedProcedureStepStartDate, data.PerformedProcedureStepStartTime = "20290101", "081500"
    data.PerformedProcedureStepEndDate = data.PerformedProcedureStepEndTime = ""
    data.PerformedProcedureStepStatus, data.Modality, data.StudyID = "IN PROGRESS", "CT", ""
    data.PerformedProcedureStepDescription = data.PerformedProcedureTypeDescription = ""
    data.ProcedureCodeSequence, data.PerformedProtocolCodeSequence, data.PerformedSeriesSequence = [], [], []
    return data


async def poll_part(stand: Stand, seconds: float, scanners: int) -> None:
    await fill(stand, _ITEMS)
    titles = {f"poll{n}": f"POLL{n}" for n in range(scanners)}
    await register(stand, titles)
    times: list[float] = []
    failed: list[str] = []
    end = time.perf_counter() + seconds

    async def scanner(title: str, wait: float) -> None:
        query = Query(title, "FHIR_RIS", identifier(ScheduledStationAETitle="CT1", ScheduledProcedureStepStartDate=_DAY))
        await asyncio.sleep(wait)
        while time.perf_counter() < end:
            began = time.perf_counter()
            try:
                await query.ask(stand.server.dicom_port)
                times.append(1000 * (time.perf_counter() - began))
            except OSError as error:
                failed.append(str(error))
            await asyncio.sleep(max(0.0, 5 - (time.perf_counter() - began)))

    await asyncio.gather(*(scanner(t, 5 * n / scanners) for n, t in enumerate(titles.values())))
    told(f"{scanners} scanners every 5 s for {seconds:.0f} s, {len(failed)} refused or failed", times, seconds)
    for reason in sorted(set(failed)):
        print(f"    {failed.count(reason)} times: {reason}")


async def main(parts: list[str], seconds: float, rows: int, scanners: int) -> None:
    print(machine())
    async with standing() as stand:
        await register(stand, {"ct1": "CT1"})
        await scheduled(stand, 0, datetime.now(UTC) + timedelta(days=2))
        for part in parts:
            print(part)
            if part == "query":
                await query_part(stand, seconds)
            elif part == "million":
                await million_part(stand, seconds, rows)
            elif part == "visible":
                await visible_part(stand)
            elif part == "mpps":
                await mpps_part(stand)
            else:
                await poll_part(stand, 6 * seconds, scanners)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], choices=[*_PARTS, []])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--scanners", type=int, default=200)
    given = parser.parse_args()
    uvloop.run(main(given.parts, given.seconds, given.rows, given.scanners))
