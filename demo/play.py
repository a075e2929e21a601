"""One imaging order in ten steps, from the EHR's order to the report back in the EHR. Each step checks what it claims."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset

from demo import bookings, ehr
from demo.apps import App
from demo.department import rooms
from demo.ehr import Listener
from demo.scanner import Scanner
from demo.server import Server

Resource = dict[str, Any]
Show = Callable[[str, str], None]

DCM = "http://dicom.nema.org/resources/ontology/DCM"
LOINC = "http://loinc.org"
_SCOPES = {
    "demo-admin": "system/*.cruds",
    "demo-scheduler": "system/Appointment.crus system/ServiceRequest.rs system/Task.rs system/Device.rs system/Patient.rs",
    "demo-radiologist": "system/Task.rus system/ImagingStudy.rs system/DiagnosticReport.crus system/Patient.rs",
    "demo-ehr": "system/DiagnosticReport.rs system/ServiceRequest.rs system/Patient.rs",
}


class StepFailed(Exception):
    """What was expected, and what was there."""


def expect(condition: object, what: str) -> None:
    """Raise StepFailed unless the condition holds."""
    if not condition:
        raise StepFailed(what)


@dataclass
class Play:
    """The actors, and what they have learnt so far. `show(channel, text)` prints what went over the wire."""

    server: Server
    listener: Listener
    show: Show = lambda _channel, _text: None
    apps: dict[str, App] = field(default_factory=dict)
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:6].upper())
    order: Resource = field(default_factory=dict)
    appointment: Resource = field(default_factory=dict)
    report: Resource = field(default_factory=dict)
    mpps: str = ""
    # Where and when it is booked: in about half an hour, or at a half-hour slot of a later day.
    station: int = 1
    slot: int | None = None

    def __post_init__(self) -> None:
        self.patient_id = f"P{self.run}"
        self.placer = f"PL-{self.run}"
        now = datetime.now(UTC)
        now = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0)  # where slots begin
        later = now.replace(hour=0, minute=0) + timedelta(days=3 + (self.slot or 0) // 48, minutes=30 * ((self.slot or 0) % 48))
        self.start = now + timedelta(minutes=30) if self.slot is None else later
        self.scanner = Scanner(f"CT{self.station}", self.server.dicom_port)

    @property
    def steps(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """The title of each step, and what it does."""
        return [
            ("The HIS registers the patient (ADT^A04)", self.register),
            ("The EHR orders a CT of the chest (ORM^O01 NW)", self.place_order),
            ("A scheduler's app books it (FHIR Appointment)", self.book),
            ("The patient arrives", self.arrive),
            ("The scanner asks its worklist (DICOM C-FIND)", self.ask_worklist),
            ("The scanner performs the examination (DICOM MPPS)", self.examine),
            ("A radiologist's app reads and signs (FHIR DiagnosticReport)", self.read_and_sign),
            ("The report arrives at the EHR (ORU^R01)", self.receive_report),
            ("The EHR reads the report over FHIR", self.read_over_fhir),
            ("Who did what (AuditEvent)", self.list_audit),
        ]

    # Before the play

    async def prepare(self) -> None:
        """Register the apps; enter the scanner, the catalogue and the EHR's address; and another patient for tomorrow."""
        self.apps = {client_id: App(client_id, scope, self.server.base_url) for client_id, scope in _SCOPES.items()}
        await asyncio.gather(*(self._register(app) for app in self.apps.values()))
        kinds = ("SIU^S12", "SIU^S14", "SIU^S15", "ORM^O01", "ORU^R01")
        ehr_ = rooms.endpoint("ehr", "EHR", self.listener.port, *kinds)
        await self.apps["demo-admin"].put([ct_scanner(1), self._catalogue(), ehr_])
        await self._somebody_else()

    async def _register(self, app: App) -> None:
        keys = app.write_jwks(self.server.directory)
        await self.server.command("client", "add", app.client_id, "--scope", app.scope, "--jwks", str(keys))

    async def close(self) -> None:
        for app in self.apps.values():
            await app.close()

    def _catalogue(self) -> Resource:
        return {
            "resourceType": "ActivityDefinition",
            "id": "ct-chest",
            "identifier": [{"system": LOINC, "value": "24627-2"}],
            "status": "active",
            "kind": "ServiceRequest",
            "title": "CT chest",
            "code": {"coding": [{"system": LOINC, "code": "24627-2", "display": "CT Chest"}]},
            "topic": [{"coding": [{"system": DCM, "code": "CT"}]}],
            "timingDuration": {"value": 30, "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"},
        }

    async def _somebody_else(self) -> None:
        """Another order on the same scanner, tomorrow: the worklist must not show it today."""
        port, other = self.server.mllp_port, f"Q{self.run}"
        await ehr.send(port, ehr.registration(f"X1{self.run}", other, "Andersen", "Anke"))
        await ehr.send(port, ehr.order(f"X2{self.run}", f"PX-{self.run}", other, "Andersen", "Anke"))
        order = (await self.apps["demo-admin"].search(f"ServiceRequest?identifier=PX-{self.run}&intent=order"))[0]
        await self.apps["demo-scheduler"].ok(
            "POST", "Appointment", bookings.booking(order, "Device/ct1", self.start + timedelta(days=1), 30)
        )

    # The ten steps

    async def register(self) -> None:
        message = ehr.registration(f"A1{self.run}", self.patient_id)
        ack = await ehr.send(self.server.mllp_port, message)
        self._show_v2("HIS -> RIS", message)
        self._show_v2("RIS -> HIS", ack.raw)
        expect(ack.all("MSA")[0].field(1) == "AA", "ADT^A04 is acknowledged AA")
        expect(len(await self._admin(f"Patient?identifier={self.patient_id}")) == 1, "there is one Patient")

    async def place_order(self) -> None:
        message = ehr.order(f"O1{self.run}", self.placer, self.patient_id)
        ack = await ehr.send(self.server.mllp_port, message)
        self._show_v2("EHR -> RIS", message)
        self._show_v2("RIS -> EHR", ack.raw)
        expect(ack.all("MSA")[0].field(1) == "AA", "ORM^O01 is acknowledged AA")
        expect(len(await self._admin(f"Patient?identifier={self.patient_id}")) == 1, "the patient is matched, not doubled")
        orders = await self._admin(f"ServiceRequest?identifier={self.placer}&intent=order")
        expect(len(orders) == 1, "there is one order")
        self.order = orders[0]
        kinds = {c["code"]: i["value"] for i in self.order["identifier"] for c in i["type"]["coding"]}
        expect(kinds.get("PLAC") == self.placer and kinds.keys() >= {"FILL", "ACSN"}, "the order has PLAC, FILL and ACSN")
        procedure = (await self._admin(f"ServiceRequest?based-on=ServiceRequest/{self.order['id']}&intent=filler-order"))[0]
        study = (await self._admin(f"ImagingStudy?basedon=ServiceRequest/{procedure['id']}"))[0]
        step = (await self._admin(f"Task?based-on=ServiceRequest/{procedure['id']}"))[0]
        expect(study["status"] == "registered", "the study is registered")
        expect(step["status"] == "requested", "the step is requested")
        self.show(
            "FHIR",
            f"order ServiceRequest/{self.order['id'][:8]}… accession {kinds['ACSN']}, study {study['identifier'][0]['value']}",
        )

    async def book(self) -> None:
        booking = self.booking()
        self.show("app -> RIS", f"POST Appointment: booked, Device/ct{self.station}, {booking['start']}")
        self.appointment = await self.apps["demo-scheduler"].ok("POST", "Appointment", booking)
        step = await self._step()
        expect(step["status"] == "accepted", "the step is accepted")
        expect(step["owner"]["reference"] == f"Device/ct{self.station}", "the step has its station")
        for kind in ("SIU^S12", "ORM^O01"):
            message = (await self.listener.expect(kind, placer=self.placer))[-1]
            self._show_v2("RIS -> EHR", message.raw)
        status = self.listener.of_type("ORM^O01", self.placer)[-1].all("ORC")[0]
        expect(status.field(5) == "SC" and status.raw(2) == f"{self.placer}^EHR", "ORC-5 is SC, ORC-2 as the EHR sent it")

    def booking(self) -> Resource:
        """The Appointment that books the order."""
        return bookings.booking(self.order, f"Device/ct{self.station}", self.start, 30)

    async def arrive(self) -> None:
        self.appointment = await self.apps["demo-scheduler"].ok("GET", f"Appointment/{self.appointment['id']}")
        arrived = self.appointment | {"status": "arrived"}
        version = self.appointment["meta"]["versionId"]
        self.show("app -> RIS", f"PUT Appointment/{self.appointment['id'][:8]}… arrived, If-Match {version}")
        self.appointment = await self.apps["demo-scheduler"].ok(
            "PUT", f"Appointment/{self.appointment['id']}", arrived, If_Match=f'W/"{version}"'
        )
        expect((await self._step())["status"] == "ready", "the step is ready")

    async def ask_worklist(self) -> None:
        items = await self._worklist()
        mine = [i for i in items if i.PatientID == self.patient_id]
        for item in items:
            step = item.ScheduledProcedureStepSequence[0]
            self.show(
                "RIS -> CT1", f"{item.PatientName} {item.PatientID} {item.AccessionNumber} {step.ScheduledProcedureStepStartTime}"
            )
        expect(len(items) == 1 and len(mine) == 1, f"the worklist shows just this patient, not {len(items)}")
        expect(not await self._worklist("MR"), "the worklist for MR is empty")

    async def examine(self) -> None:
        item = (await self._worklist())[0]
        self.mpps = await self.scanner.begin(item)
        self.show(f"CT{self.station} -> RIS", f"MPPS N-CREATE IN PROGRESS {self.mpps}")
        expect((await self._step())["status"] == "in-progress", "the step is in progress")
        await self.scanner.end(self.mpps)
        self.show(f"CT{self.station} -> RIS", "MPPS N-SET COMPLETED, 1 series of 3 images")
        expect((await self._step())["status"] == "completed", "the step is completed")
        performed = await self._admin(f"Procedure?identifier=urn:dicom:uid|urn:oid:{self.mpps}")
        expect(performed and performed[0]["status"] == "completed", "the Procedure is completed")
        expect((await self._study())["series"][0]["numberOfInstances"] == 3, "the study has its series")
        appointment = await self._one(f"Appointment/{self.appointment['id']}")
        expect(appointment["status"] == "fulfilled", "the appointment is fulfilled")
        expect(not await self._worklist(), "the worklist entry is gone")

    async def read_and_sign(self) -> None:
        radiologist = self.apps["demo-radiologist"]
        waiting = await radiologist.search("Task?code=interpretation&status=requested&_sort=-priority,authored-on")
        study = await self._study()
        mine = [t for t in waiting if t["focus"]["reference"] == f"ImagingStudy/{study['id']}"]
        self.show("RIS -> app", f"reading worklist: {len(waiting)} waiting")
        expect(len(mine) == 1, "the study waits to be read")
        report: Resource = {
            "resourceType": "DiagnosticReport",
            "status": "preliminary",
            "basedOn": [{"reference": f"ServiceRequest/{self.order['id']}"}],
            "code": self.order["code"],
            "subject": self.order["subject"],
            "imagingStudy": [{"reference": f"ImagingStudy/{study['id']}"}],
            "resultsInterpreter": [{"display": "Reader, Rosa"}],
            "conclusion": "No acute finding.",
        }
        self.report = await radiologist.ok("POST", "DiagnosticReport", report)
        self.show("app -> RIS", "POST DiagnosticReport preliminary")
        final = self.report | {"status": "final", "conclusion": "No acute finding.\nFollow-up CT in 12 months."}
        self.report = await radiologist.ok("PUT", f"DiagnosticReport/{self.report['id']}", final, If_Match='W/"1"')
        self.show("app -> RIS", "PUT DiagnosticReport final")
        expect((await self._one(f"Task/{mine[0]['id']}"))["status"] == "completed", "the reading is completed")

    async def receive_report(self) -> None:
        results = await self.listener.expect("ORU^R01", 2, placer=self.placer)
        final = next((m for m in results if m.all("OBR")[0].field(25) == "F"), None)
        expect(final is not None, "the final report has arrived")
        assert final is not None
        self._show_v2("RIS -> EHR", final.raw)
        expect(final.all("ORC")[0].raw(2) == f"{self.placer}^EHR", "under the EHR's own order number")
        expect("No acute finding.\nFollow-up CT in 12 months." in [o.text(5) for o in final.all("OBX")], "with its text")
        await self.listener.expect("ORM^O01", 4, placer=self.placer)
        order = await self._one(f"ServiceRequest/{self.order['id']}")
        expect(order["status"] == "completed", "the order is completed")
        listed = await self._until_delivered()
        self.show("outbox", f"{listed} messages, all delivered")

    async def read_over_fhir(self) -> None:
        query = f"DiagnosticReport?based-on=ServiceRequest/{self.order['id']}&status=final"
        reports = await self.apps["demo-ehr"].search(query)
        self.show("EHR -> RIS", f"GET {query}")
        expect(len(reports) == 1 and reports[0]["id"] == self.report["id"], "the EHR finds the final report")
        refused = await self.apps["demo-ehr"].request("GET", "Appointment")
        expect(refused.status_code == 403, "what its scopes don't cover is refused")

    async def list_audit(self) -> None:
        events = await self._admin("AuditEvent?_sort=-_lastUpdated&_count=1000")
        seen: dict[str, int] = {}
        for event in reversed(events):
            kind = f"{event['type']['code']} {event['subtype'][0]['code']}"
            seen[kind] = seen.get(kind, 0) + 1
        for kind, count in seen.items():
            self.show("audit", f"{count:4} {kind}")
        wanted = ("v2 ADT^A04", "v2 ORM^O01", "rest create", "rest update", "oauth token", "v2-out ORU^R01")
        missing = [k for k in wanted if k not in seen]
        expect(not missing, f"AuditEvents of all this are there; missing: {missing}")
        expect(any(k.startswith("dicom ") for k in seen), "the scanner's acts are there")

    # Looking

    async def _worklist(self, modality: str = "CT") -> list[Dataset]:
        return await self.scanner.worklist(f"{self.start:%Y%m%d}", modality)

    async def _until_delivered(self) -> int:
        """Wait until the outbox says that all messages of this order are delivered; how many."""

        for _ in range(100):
            output = await self.server.command("messages", "list", "--out", "--limit", "1000", "--plain")
            mine = [line for line in output.splitlines() if "Endpoint/ehr" in line]
            if mine and all("\tdelivered\t" in line for line in mine):
                return len(mine)
            await asyncio.sleep(0.2)
        raise StepFailed("the outbox says that all is delivered")

    async def _admin(self, query: str) -> list[Resource]:
        return await self.apps["demo-admin"].search(query)

    async def _one(self, path: str) -> Resource:
        return await self.apps["demo-admin"].ok("GET", path)

    async def _procedure(self) -> Resource:
        return (await self._admin(f"ServiceRequest?based-on=ServiceRequest/{self.order['id']}&intent=filler-order"))[0]

    async def _step(self) -> Resource:
        procedure = await self._procedure()
        return (await self._admin(f"Task?based-on=ServiceRequest/{procedure['id']}&intent=plan"))[0]

    async def _study(self) -> Resource:
        procedure = await self._procedure()
        return (await self._admin(f"ImagingStudy?basedon=ServiceRequest/{procedure['id']}"))[0]

    def _show_v2(self, channel: str, raw: bytes) -> None:
        self.show(channel, raw.decode("utf-8", "replace").replace("\r", "\n").strip())


def ct_scanner(number: int) -> Resource:
    """A CT scanner as a Device: AE title `CT1`, `CT2`, ..."""
    return {
        "resourceType": "Device",
        "id": f"ct{number}",
        "identifier": [{"system": "urn:fhir-ris:ae-title", "value": f"CT{number}"}],
        "status": "active",
        "deviceName": [{"name": f"CT scanner {number}", "type": "user-friendly-name"}],
        "type": {"coding": [{"system": DCM, "code": "CT"}]},
    }
