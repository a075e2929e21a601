"""A CT scanner: asks its worklist, tells what it performs."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import AE

# PS3.4 annexes K and F.
WORKLIST_FIND = UID("1.2.840.10008.5.1.4.31")
PERFORMED_STEP = UID("1.2.840.10008.3.1.2.3.3")
DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


class Scanner:
    """A scanner with its AE title. The calls run in a thread: pynetdicom blocks."""

    def __init__(self, ae_title: str, port: int, called: str = "FHIR_RIS") -> None:
        self.ae_title = ae_title
        self._port = port
        self._called = called

    async def worklist(self, date: str = "", modality: str = "CT", **keys: str) -> list[Dataset]:
        """The entries scheduled for this station; `date` as YYYYMMDD or a range."""
        return await asyncio.to_thread(self._find, self._query(date, modality, keys))

    async def begin(self, item: Dataset, *more: Dataset, at: datetime | None = None) -> str:
        """MPPS N-CREATE IN PROGRESS for a worklist entry, or several in one study; the SOP Instance UID. `at`: the time told."""
        uid = str(generate_uid())
        now = at or datetime.now(UTC)
        told = self._started(item, now)
        told.ScheduledStepAttributesSequence.extend(self._started(one, now).ScheduledStepAttributesSequence[0] for one in more)
        if more:
            self._in_one_study(told)
        await asyncio.to_thread(self._tell, "N-CREATE", told, uid)
        return uid

    async def end(self, uid: str, images: int = 3, status: str = "COMPLETED", at: datetime | None = None) -> None:
        """MPPS N-SET with one performed series."""
        await asyncio.to_thread(self._tell, "N-SET", self._performed(images, status, at or datetime.now(UTC)), uid)

    def _query(self, date: str, modality: str, keys: dict[str, str]) -> Dataset:
        query = Dataset()
        for name in (
            "PatientName PatientID PatientBirthDate PatientSex AccessionNumber StudyInstanceUID RequestedProcedureID "
            "RequestedProcedureDescription ReferringPhysicianName AdmissionID"
        ).split():
            setattr(query, name, keys.get(name, ""))
        step = Dataset()
        step.ScheduledStationAETitle = self.ae_title
        step.ScheduledProcedureStepStartDate = date
        step.Modality = modality
        for name in (
            "ScheduledProcedureStepStartTime ScheduledProcedureStepID ScheduledProcedureStepDescription "
            "ScheduledProcedureStepStatus ScheduledPerformingPhysicianName"
        ).split():
            setattr(step, name, "")
        query.ScheduledProcedureStepSequence = [step]
        return query

    def _started(self, item: Dataset, now: datetime) -> Dataset:
        step = item.ScheduledProcedureStepSequence[0]
        scheduled = Dataset()
        scheduled.StudyInstanceUID = item.StudyInstanceUID
        scheduled.ReferencedStudySequence = []
        scheduled.AccessionNumber = item.AccessionNumber
        scheduled.RequestedProcedureID = item.RequestedProcedureID
        scheduled.RequestedProcedureDescription = item.get("RequestedProcedureDescription", "")
        scheduled.ScheduledProcedureStepID = step.ScheduledProcedureStepID
        scheduled.ScheduledProcedureStepDescription = step.get("ScheduledProcedureStepDescription", "")
        scheduled.ScheduledProtocolCodeSequence = []
        told = Dataset()
        told.ScheduledStepAttributesSequence = [scheduled]
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
            setattr(told, name, item.get(name, ""))
        told.ReferencedPatientSequence = []
        told.PerformedProcedureStepID = f"PPS{now:%H%M%S}"
        told.PerformedStationAETitle = self.ae_title
        told.PerformedStationName = ""
        told.PerformedLocation = ""
        told.PerformedProcedureStepStartDate = f"{now:%Y%m%d}"
        told.PerformedProcedureStepStartTime = f"{now:%H%M%S}"
        told.PerformedProcedureStepStatus = "IN PROGRESS"
        told.PerformedProcedureStepDescription = ""
        told.PerformedProcedureTypeDescription = ""
        told.ProcedureCodeSequence = []
        told.PerformedProcedureStepEndDate = ""
        told.PerformedProcedureStepEndTime = ""
        told.Modality = step.Modality
        told.StudyID = ""
        told.PerformedProtocolCodeSequence = []
        told.PerformedSeriesSequence = []
        return told

    def _in_one_study(self, told: Dataset) -> None:
        """The group case (IHE RAD-6): a study of the scanner's own, which refers to those that were planned."""
        common = generate_uid()
        for item in told.ScheduledStepAttributesSequence:
            planned = Dataset()
            planned.ReferencedSOPClassUID, planned.ReferencedSOPInstanceUID = DETACHED_STUDY, item.StudyInstanceUID
            item.ReferencedStudySequence, item.StudyInstanceUID = [planned], common

    def _performed(self, images: int, status: str, now: datetime) -> Dataset:
        series = Dataset()
        series.PerformingPhysicianName = ""
        series.ProtocolName = "CT CHEST"
        series.OperatorsName = "Technologist^Tilda"
        series.SeriesInstanceUID = generate_uid()
        series.SeriesDescription = "Axial 1 mm"
        series.RetrieveAETitle = ""
        series.ReferencedNonImageCompositeSOPInstanceSequence = []
        series.ReferencedImageSequence = [self._image() for _ in range(images)]
        told = Dataset()
        told.PerformedProcedureStepStatus = status
        told.PerformedProcedureStepEndDate = f"{now:%Y%m%d}"
        told.PerformedProcedureStepEndTime = f"{now:%H%M%S}"
        told.PerformedSeriesSequence = [series]
        return told

    def _image(self) -> Dataset:
        image = Dataset()
        image.ReferencedSOPClassUID = CT_IMAGE_STORAGE
        image.ReferencedSOPInstanceUID = generate_uid()
        return image

    # The blocking part

    def _associate(self, sop_class: Any) -> Any:
        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(sop_class)
        association = ae.associate("127.0.0.1", self._port, ae_title=self._called)
        if not association.is_established:
            raise ConnectionError(f"{self.ae_title}: the association was refused")
        return association

    def _find(self, query: Dataset) -> list[Dataset]:
        association = self._associate(WORKLIST_FIND)
        try:
            answers = list(association.send_c_find(query, WORKLIST_FIND))
        finally:
            association.release()
        if not answers or answers[-1][0].get("Status") != 0:
            raise ConnectionError(f"C-FIND ended with {answers[-1][0] if answers else 'nothing'}")
        return [identifier for status, identifier in answers if status.Status in {0xFF00, 0xFF01}]

    def _tell(self, operation: str, told: Dataset, uid: str) -> None:
        """N-CREATE or N-SET of a performed step."""
        association = self._associate(PERFORMED_STEP)
        try:
            send = association.send_n_create if operation == "N-CREATE" else association.send_n_set
            status, _ = send(told, PERFORMED_STEP, uid)
        finally:
            association.release()
        _check(operation, status)


def _check(what: str, status: Dataset) -> None:
    if status.get("Status") != 0:
        raise ConnectionError(f"{what} was answered {status.get('Status', 0):#06x} {status.get('ErrorComment', '')}")
