"""A scanner (pynetdicom as SCU) and a small department for it to talk to."""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pymongo.asynchronous.database import AsyncDatabase
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time from a table
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    Verification,
)

from bridges.dicom import dicom_endpoints, study_watch, worklist_rows
from bridges.dicom.server import DicomServer, DicomSettings
from bridges.dicom.worklist_rows import WorklistRows
from fhir_server.database import connect
from fhir_server.interactions import Interactions
from fhir_server.references import ref
from fhir_server.registry import Registry
from fhir_server.store import Store
from resources import reconcile_operation, registration, terms
from resources.worklist_preferences import EXTENSIONS, PREFIX
from smart_auth.access import Access
from tests import databases

T = TypeVar("T")
Resource = dict[str, Any]
ZONE = ZoneInfo("Europe/Amsterdam")
ACCESS = Access.system("test")
OUR_TITLE = "FHIR_RIS"
_SOP_CLASSES = (
    Verification,
    ModalityWorklistInformationFind,
    ModalityPerformedProcedureStep,
    InstanceAvailabilityNotification,
)


def worklist_keys(**step: str) -> Dataset:
    """The identifier of a usual query: return keys empty, and these keys of the scheduled procedure step."""
    keys = Dataset()
    for keyword in (
        "AccessionNumber ReferringPhysicianName PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex "
        "StudyInstanceUID RequestingPhysician RequestedProcedureID RequestedProcedureDescription RequestedProcedurePriority "
        "AdmissionID"
    ).split():
        setattr(keys, keyword, "")
    keys.RequestedProcedureCodeSequence = []
    item = Dataset()
    for keyword in (
        "ScheduledStationAETitle ScheduledProcedureStepStartDate ScheduledProcedureStepStartTime Modality ScheduledStationName "
        "ScheduledProcedureStepDescription ScheduledProcedureStepID ScheduledProcedureStepLocation ScheduledProcedureStepStatus"
    ).split():
        setattr(item, keyword, step.get(keyword, ""))
    keys.ScheduledProcedureStepSequence = [item]
    return keys


@dataclass
class Answers:
    """The responses to a C-FIND: the status of each, their data sets, and the final status."""

    statuses: list[int] = field(default_factory=list)
    data: list[Dataset] = field(default_factory=list)
    final: Dataset = field(default_factory=Dataset)

    @property
    def patients(self) -> list[str]:
        return [str(d.PatientID) for d in self.data]


@dataclass
class Scanner:
    """What a modality does on the network. Everything here blocks: run it with `asyncio.to_thread`."""

    port: int
    ae_title: str = "CT1"
    called: str = OUR_TITLE
    transfer_syntaxes: tuple[str, ...] = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")

    def associate(self) -> Association:
        entity = AE(ae_title=self.ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 15
        for sop_class in _SOP_CLASSES:
            entity.add_requested_context(sop_class, list(self.transfer_syntaxes))
        return entity.associate("127.0.0.1", self.port, ae_title=self.called)

    def _with(self, act: Callable[[Association], T]) -> T:
        association = self.associate()
        assert association.is_established, "no association"
        try:
            return act(association)
        finally:
            association.release()

    def refused(self) -> tuple[int, int]:
        """Result and diagnostic of the A-ASSOCIATE-RJ that a try to associate ends with (PS3.8 9.3.4)."""
        association = self.associate()
        assert association.is_rejected
        answer = association.acceptor.primitive
        assert answer is not None
        return int(answer.result or 0), int(answer.diagnostic or 0)

    def echo(self) -> int:
        return self._with(lambda a: int(a.send_c_echo().Status))

    def find(self, keys: Dataset) -> Answers:
        def act(association: Association) -> Answers:
            answers = Answers()
            for status, data in association.send_c_find(keys, ModalityWorklistInformationFind):
                if data is not None:
                    answers.statuses.append(status.Status)
                    answers.data.append(data)
                else:
                    answers.final = status
            return answers

        return self._with(act)

    def create(self, data: Dataset, uid: str | None) -> tuple[Dataset, Dataset | None]:
        return self._with(lambda a: a.send_n_create(data, ModalityPerformedProcedureStep, uid))

    def set(self, data: Dataset, uid: str) -> Dataset:
        return self._with(lambda a: a.send_n_set(data, ModalityPerformedProcedureStep, uid)[0])

    def notify(self, data: Dataset, uid: str) -> Dataset:
        """An instance availability notification."""
        return self._with(lambda a: a.send_n_create(data, InstanceAvailabilityNotification, uid)[0])


def imaging_order(patient: Resource, modality: str = "CT") -> Resource:
    coding = [{"system": "http://loinc.org", "code": "24627-2", "display": "CT Chest"}]
    return {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "priority": "urgent",
        "subject": ref(patient),
        "code": {"coding": coding, "text": "CT chest"},
        "orderDetail": [{"coding": [{"system": terms.DCM, "code": modality}]}],
    }


@dataclass
class Department:
    """A running DICOM server over one database, with what tests need to fill it."""

    interactions: Interactions
    server: DicomServer

    def scanner(self, ae_title: str = "CT1", **more: Any) -> Scanner:
        return Scanner(self.server.port, ae_title, **more)

    async def create(self, resource: Resource) -> Resource:
        return await self.interactions.create(ACCESS, resource)

    async def update(self, resource: Resource, **elements: Any) -> Resource:
        return (await self.interactions.update(ACCESS, resource | elements))[0]

    async def search(self, resource_type: str, **parameters: str) -> list[Resource]:
        wanted = [(n.replace("_", "-"), v) for n, v in parameters.items()]
        return (await self.interactions.search(ACCESS, resource_type, [*wanted, ("_count", "1000")])).matches

    async def read(self, reference: str) -> Resource:
        resource_type, id_ = reference.split("/")
        found = (await self.interactions.read(ACCESS, resource_type, id_)).resource
        assert found is not None
        return found

    async def station(self, title: str = "CT1", modality: str = "CT", preferences: Any = None, **more: Any) -> Resource:
        """A scanner; `preferences` by name (`{"worklist-limit": 5}`). Its queries without a date are for any day, as tests of
        matching want it.
        """
        said = {"worklist-days-back": 3650, "worklist-days-ahead": 3650} | (preferences or {})
        more["extension"] = [
            {"url": PREFIX + name, EXTENSIONS[name].element: one}
            for name, value in said.items()
            for one in (value if isinstance(value, list) else [value])
        ] + more.get("extension", [])
        return await self.create(
            {
                "resourceType": "Device",
                "identifier": [{"system": terms.AE_TITLE, "value": title}],
                "status": "active",
                "deviceName": [{"name": f"Scanner {title}", "type": "user-friendly-name"}],
                "type": {"coding": [{"system": terms.DCM, "code": modality}]},
            }
            | more
        )

    async def patient(self, id_: str = "P1", family: str = "Roe", given: str = "Jane", **more: Any) -> Resource:
        return await self.create(
            {
                "resourceType": "Patient",
                "identifier": [{"system": "urn:oid:2.999.1", "value": id_, "assigner": {"display": "HOSP"}}],
                "name": [{"family": family, "given": [given]}],
                "gender": "female",
                "birthDate": "1970-03-04",
            }
            | more
        )

    async def order(self, patient: Resource, modality: str = "CT", **more: Any) -> Resource:
        return await self.create(imaging_order(patient, modality) | more)

    async def book(self, order: Resource, station: Resource, start: str, end: str, status: str = "booked") -> Resource:
        return await self.create(
            {
                "resourceType": "Appointment",
                "status": status,
                "basedOn": [ref(order)],
                "start": start,
                "end": end,
                "participant": [
                    {"actor": order["subject"], "status": "accepted"},
                    {"actor": ref(station), "status": "accepted"},
                ],
            }
        )

    async def scheduled(
        self, id_: str, station: Resource, start: str, minutes: int = 20, modality: str = "CT", **patient: Any
    ) -> "Scheduled":
        """An order of a new patient, booked at this time: `2026-09-07T08:15`, in the department's zone."""
        who = await self.patient(id_, **patient)
        order = await self.order(who, modality)
        hour, minute = int(start[11:13]), int(start[14:16]) + minutes
        end = f"{start[:11]}{hour + minute // 60:02d}:{minute % 60:02d}"
        offset = "+02:00" if "-04-" <= start[4:8] <= "-09-" else "+01:00"
        appointment = await self.book(order, station, f"{start}:00{offset}", f"{end}:00{offset}")
        return await self.scheduled_of(order, appointment, id_)

    async def scheduled_of(self, order: Resource, appointment: Resource | None = None, patient_id: str = "") -> "Scheduled":
        procedure = (await self.search("ServiceRequest", based_on=f"ServiceRequest/{order['id']}"))[0]
        step = (await self.search("Task", based_on=f"ServiceRequest/{procedure['id']}", intent="plan"))[0]
        study = (await self.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}"))[0]
        return Scheduled(await self.read(f"ServiceRequest/{order['id']}"), procedure, step, study, appointment, patient_id)

    async def work_items(self, code: str) -> list[Resource]:
        return await self.search("Task", code=f"{terms.TASK_CODE}|{code}")


@dataclass
class Scheduled:
    """An order with what came of it."""

    order: Resource
    procedure: Resource
    step: Resource
    study: Resource
    appointment: Resource | None = None
    patient_id: str = ""

    @property
    def study_uid(self) -> str:
        return str(self.study["identifier"][0]["value"]).removeprefix("urn:oid:")

    @property
    def step_id(self) -> str:
        return str(self.step["identifier"][0]["value"])

    @property
    def procedure_id(self) -> str:
        found = [i["value"] for i in self.procedure["identifier"] if i["system"] == terms.REQUESTED_PROCEDURE_ID]
        return str(found[0])

    @property
    def accession(self) -> str:
        types = {c["code"]: i["value"] for i in self.order["identifier"] for c in i.get("type", {}).get("coding", ())}
        return str(types["ACSN"])


@asynccontextmanager
async def department(db: AsyncDatabase[Any], **settings: Any) -> AsyncIterator[Department]:
    """A department whose DICOM server listens on a free port."""
    registry = Registry()
    registration.register(registry, uid_root="2.25")
    registry.projection(WorklistRows(ZONE).project)
    registry.projection(study_watch.project)
    dicom_endpoints.register(registry)
    reconcile_operation.register(registry)
    store = Store(db)
    await worklist_rows.ensure_indexes(db)
    server = DicomServer(Interactions(store, registry), DicomSettings("127.0.0.1", 0, OUR_TITLE, ZONE, **settings))
    await server.start()
    try:
        yield Department(server.interactions, server)
    finally:
        await server.stop()


def mpps(scheduled: Scheduled | None, *, patient_id: str = "", station: str = "CT1") -> Dataset:
    """The data set of an N-CREATE for a step; without one, of an examination that nobody scheduled."""
    patient_id = patient_id or (scheduled.patient_id if scheduled else "")
    data = Dataset()
    item = Dataset()
    item.StudyInstanceUID = scheduled.study_uid if scheduled else generate_uid(prefix=None)
    item.ReferencedStudySequence = []
    item.AccessionNumber = scheduled.accession if scheduled else ""
    item.RequestedProcedureID = scheduled.procedure_id if scheduled else ""
    item.RequestedProcedureDescription = ""
    item.ScheduledProcedureStepID = scheduled.step_id if scheduled else ""
    item.ScheduledProcedureStepDescription = ""
    item.ScheduledProtocolCodeSequence = []
    data.ScheduledStepAttributesSequence = [item]
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Roe^Jane", patient_id, "19700304", "F"
    data.ReferencedPatientSequence = []
    data.PerformedProcedureStepID = "PPS1"
    data.PerformedStationAETitle, data.PerformedStationName, data.PerformedLocation = station, "", ""
    data.PerformedProcedureStepStartDate, data.PerformedProcedureStepStartTime = "20260907", "081730"
    data.PerformedProcedureStepEndDate, data.PerformedProcedureStepEndTime = "", ""
    data.PerformedProcedureStepStatus = "IN PROGRESS"
    data.PerformedProcedureStepDescription = data.PerformedProcedureTypeDescription = ""
    data.ProcedureCodeSequence = []
    data.Modality, data.StudyID = "CT", ""
    data.PerformedProtocolCodeSequence, data.PerformedSeriesSequence = [], []
    return data


def mpps_end(status: str = "COMPLETED", images: int = 3, series_uid: str | None = None) -> Dataset:
    """The data set of the last N-SET, with one series."""
    data = Dataset()
    data.PerformedProcedureStepStatus = status
    data.PerformedProcedureStepEndDate, data.PerformedProcedureStepEndTime = "20260907", "083010"
    series = Dataset()
    series.SeriesInstanceUID = series_uid or generate_uid(prefix=None)
    series.SeriesDescription, series.ProtocolName = "Lung 1.5 mm", "Chest"
    series.PerformingPhysicianName, series.OperatorsName, series.RetrieveAETitle = "", "Doe^John", ""
    series.ReferencedImageSequence = []
    for _ in range(images):
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid(prefix=None)
        series.ReferencedImageSequence.append(image)
    series.ReferencedNonImageCompositeSOPInstanceSequence = []
    data.PerformedSeriesSequence = [series] if images else []
    return data


async def blocking(act: Callable[..., T], *arguments: Any) -> T:
    """Run what a scanner does while the server's loop goes on."""
    return await asyncio.to_thread(act, *arguments)


@dataclass
class Running:
    """A department in an event loop of its own thread, for tests that are plain functions."""

    department: Department
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)


@contextmanager
def running_department(uri: str) -> Iterator[Running]:
    """One department on a database of its own, which is given back afterwards (tests/databases.py)."""
    ready: concurrent.futures.Future[Running] = concurrent.futures.Future()
    ended = threading.Event()

    async def serve() -> None:
        db = await connect(uri, databases.take(uri))
        try:
            async with department(db) as running:
                ready.set_result(Running(running, asyncio.get_running_loop()))
                await asyncio.to_thread(ended.wait)
        finally:
            await db.client.close()
            await asyncio.to_thread(databases.give_back, uri, db.name)

    def thread() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    worker = threading.Thread(target=thread)
    worker.start()
    try:
        yield ready.result(120)
    finally:
        ended.set()
        worker.join(30)
