"""One order of the day, and what can happen to it, through the doors that it happens at."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from benchmarks.department.stage import CODE, LOINC, Resource, Stage
from demo import bookings, ehr

_SLOT = timedelta(minutes=15)
_AUTHORITY = "urn:fhir-ris:v2-authority:"


@dataclass(slots=True)
class Exam:
    """An order from its beginning. `station` counts from 0; `lock`: one patient at a time at it."""

    stage: Stage
    number: int
    station: int
    start: datetime
    lock: asyncio.Lock
    patient_id: str = ""
    order: Resource = field(default_factory=dict)
    appointment: Resource = field(default_factory=dict)
    report: Resource = field(default_factory=dict)
    told: int = 0  # messages so far
    sent: bytes = b""  # the last message

    def __post_init__(self) -> None:
        self.patient_id = self.patient_id or f"P{self.number:05d}"

    @property
    def placer(self) -> str:
        return f"PL{self.number:05d}"

    @property
    def device(self) -> str:
        """The reference to its scanner."""
        return f"Device/{self.stage.scanners[self.station].ae_title.lower()}"

    async def send(self, message: bytes) -> None:
        """A message that must be acknowledged AA."""
        self.sent = message
        ack = await ehr.send(self.stage.server.mllp_port, message)
        assert ack.all("MSA")[0].field(1) == "AA", ack.raw

    async def say(self, sender: str, kind: str, *segments: str) -> None:
        head = f"MSH|^~\\&|{sender}|FHIR_RIS|RAD|{ehr.stamp()}||{kind}|{self.control_id(kind[0])}|P|2.5.1||||||UNICODE UTF-8"
        await self.send("".join(f"{line}\r" for line in (head, *segments)).encode())

    def control_id(self, what: str) -> str:
        self.told += 1
        return f"{what}{self.number:05d}-{self.told}"

    # Patient and order

    async def admit(self) -> None:
        await self.send(ehr.registration(self.control_id("A"), self.patient_id))

    async def ordered(self, control: str = "NW") -> None:
        """ORM^O01 with this order control code."""
        await self.send(ehr.order(self.control_id("O"), self.placer, self.patient_id, control=control))
        await self.look()

    async def ordered_over_fhir(self) -> None:
        patient = await self.stage.one(f"Patient?identifier={_AUTHORITY}EXAMPLEHOSP|{self.patient_id}")
        number = {
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]},
            "system": f"{_AUTHORITY}EHR",
            "value": self.placer,
        }
        order = {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "identifier": [number],
            "code": {"coding": [{"system": LOINC, "code": CODE, "display": "CT Chest"}]},
            "subject": {"reference": f"Patient/{patient['id']}"},
            "reasonCode": [
                {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "R05"}], "text": "Cough for six weeks"}
            ],
        }
        self.order = await self.stage.app.ok("POST", "ServiceRequest", order)

    async def look(self) -> None:
        """The order as it is now."""
        self.order = await self.stage.one(f"ServiceRequest?identifier={self.placer}&intent=order")

    async def procedure(self) -> Resource:
        return await self.stage.one(f"ServiceRequest?based-on=ServiceRequest/{self.order['id']}&intent=filler-order")

    async def step(self) -> Resource:
        return await self.stage.one(f"Task?based-on=ServiceRequest/{(await self.procedure())['id']}&intent=plan")

    # Scheduling

    async def book(self) -> None:
        self.appointment = await self.stage.app.ok("POST", "Appointment", self.booking())

    def booking(self) -> Resource:
        """The Appointment of this order, at its scanner and its time."""
        return bookings.booking(self.order, self.device, self.start, _SLOT / timedelta(minutes=1))

    async def become(self, status: str) -> None:
        """The appointment: arrived, checked-in, cancelled, noshow."""
        self.appointment = await self.stage.write(self.appointment, status=status)

    async def call_in(self) -> None:
        """Without an appointment: the step gets its station and its time."""
        await self.stage.write(
            await self.step(),
            status="accepted",
            owner={"reference": self.device},
            restriction={"period": {"start": self.start.isoformat(), "end": (self.start + _SLOT).isoformat()}},
        )

    # At the scanner

    async def scan(self, status: str = "COMPLETED", meanwhile: Any = None) -> None:
        """The scanner takes the patient from its worklist and performs the step. `meanwhile`: what happens while it does."""
        scanner = self.stage.scanners[self.station]
        async with self.lock:
            items = await scanner.worklist(f"{self.start:%Y%m%d}", PatientID=self.patient_id)
            assert len(items) == 1, f"{self.placer}: {len(items)} on the worklist"
            uid = await scanner.begin(items[0])
            if meanwhile is not None:
                await meanwhile
            await scanner.end(uid, images=2, status=status)

    async def scan_unscheduled(self) -> None:
        """The scanner examines the patient without an entry of its worklist, and somebody says which order that was."""
        scanner = self.stage.scanners[self.station]
        item, step = Dataset(), Dataset()
        item.StudyInstanceUID = generate_uid()
        item.AccessionNumber = item.RequestedProcedureID = ""
        item.PatientName, item.PatientID, item.PatientBirthDate, item.PatientSex = "Muster^Mara", self.patient_id, "19700131", "F"
        step.ScheduledProcedureStepID, step.Modality = "", "CT"
        item.ScheduledProcedureStepSequence = [step]
        async with self.lock:
            uid = await scanner.begin(item)
            performed = await self.stage.one(f"Procedure?identifier=urn:dicom:uid|urn:oid:{uid}")
            said = {"name": "order", "valueReference": {"reference": f"ServiceRequest/{self.order['id']}"}}
            body = {"resourceType": "Parameters", "parameter": [said]}
            await self.stage.app.ok("POST", f"Procedure/{performed['id']}/$reconcile", body)
            await scanner.end(uid, images=2)

    # The report

    async def claim(self) -> None:
        procedure = await self.procedure()
        reading = await self.stage.one(f"Task?based-on=ServiceRequest/{procedure['id']}&code=interpretation")
        await self.stage.write(reading, status="in-progress")

    async def dictate(self, status: str) -> None:
        """The report, first or again, in this status."""
        text = {"conclusion": f"No acute finding. ({status})"}
        if self.report:
            self.report = await self.stage.write(self.report, status=status, **text)
            return
        report: Resource = {
            "resourceType": "DiagnosticReport",
            "status": status,
            "basedOn": [{"reference": f"ServiceRequest/{self.order['id']}"}],
            "code": self.order["code"],
            "subject": self.order["subject"],
            "resultsInterpreter": [{"display": "Reader, Rosa"}],
        }
        self.report = await self.stage.app.ok("POST", "DiagnosticReport", report | text)

    async def result(self, status: str) -> None:
        """The report from an outside reading service, as ORU^R01; `status` is OBR-25."""
        accession = next(i["value"] for i in self.order["identifier"] if i["type"]["coding"][0]["code"] == "ACSN")
        signed = f"{accession}||||{ehr.stamp()}||RAD|{status}"
        await self.say(
            "READER|TELERAD",
            "ORU^R01^ORU_R01",
            f"PID|1||{self.patient_id}^^^EXAMPLEHOSP^MR||Muster^Mara|||F",
            f"ORC|RE|{self.placer}^EHR",
            f"OBR|1|{self.placer}^EHR|TR{self.number}^READER|{CODE}^CT Chest^LN{'|' * 14}{signed}",
            f"OBX|1|TX|59776-5^Findings^LN||No acute finding. ({status})||||||{status}",
        )

    # Identity

    async def merge(self, into: str) -> None:
        """ADT^A40: this patient's record is another's."""
        await self.say(
            "HIS|EXAMPLEHOSP",
            "ADT^A40^ADT_A39",
            f"EVN|A40|{ehr.stamp()}",
            f"PID|1||{into}^^^EXAMPLEHOSP^MR||Muster^Mara^^^^^L||19700131|F",
            f"MRG|{self.patient_id}^^^EXAMPLEHOSP^MR",
        )
        self.patient_id = into
        await self.look()
