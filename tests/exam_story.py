"""One exam played through every door, for the pages that show what happened to it: HL7 v2, FHIR, MPPS, and the PACS."""

import itertools
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bridges.dicom.availability import Availability
from bridges.dicom.callers import Caller
from bridges.dicom.dicom_json import of_dataset
from bridges.dicom.mpps import PerformedSteps
from demo import ehr
from tests.console_world import ConsoleWorld
from tests.dicom_client import Scheduled, mpps, mpps_end

Resource = dict[str, Any]
POLICY = "POLICY-77"  # IN1-36, which who doesn't read Coverage is not to see
_numbers = itertools.count(1)


@dataclass(slots=True)
class Story:
    """An order that came by HL7 v2, and what it has become. `number`: the patient's."""

    world: ConsoleWorld
    number: str
    placer: str
    order: Resource
    mpps_uid: str = ""
    report: Resource | None = None

    @property
    def path(self) -> str:
        return f"/exams/{self.order['id']}"

    def now(self, resource: Resource) -> Resource:
        return self.world.read(f"{resource['resourceType']}/{resource['id']}")


def ordered(world: ConsoleWorld, family: str = "Muster", given: str = "Mara") -> Story:
    """The HIS registers a patient, and the EHR orders a CT of the chest."""
    n = next(_numbers)
    number, placer = f"X{n:05}", f"PLX{n:05}"
    accept(world, ehr.registration(f"XA{n}", number, family, given))
    message = ehr.order(f"XO{n}", placer, number, family, given).decode()
    insured = f"IN1|1|GKV^Statutory|AOK^^^^NIIP|Example Health{'|' * 32}{POLICY}"
    accept(world, message.replace("\rORC|", f"\r{insured}\rORC|").encode())
    (order,) = world.search("ServiceRequest", identifier=placer, intent="order")
    return Story(world, number, placer, order)


def accept(world: ConsoleWorld, message: bytes) -> None:
    answer = world.v2(message)
    assert b"MSA|AA|" in answer, answer


def scanned(story: Story, scanner: Resource) -> None:
    """It is booked, arrives, and the scanner tells its beginning and its end; then the PACS has the images."""
    world, title = story.world, scanner["identifier"][0]["value"]
    appointment = world.booked(story.order, scanner)
    world.update(appointment, status="arrived")
    (step,) = world.steps(story.order)
    (procedure,) = world.search("ServiceRequest", based_on=f"ServiceRequest/{story.order['id']}", intent="filler-order")
    (study,) = world.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}")
    scheduled = Scheduled(story.now(story.order), procedure, step, study, appointment, story.number)
    interactions, zone = world.app.ris.interactions, world.app.ris.settings.zone
    service, caller = PerformedSteps(interactions, zone), Caller(title, "127.0.0.1")
    begin, series = mpps(scheduled, station=title), str(generate_uid(prefix=None))
    begin.PatientName, begin.PatientBirthDate = "Muster^Mara", "19700131"
    story.mpps_uid = str(generate_uid(prefix=None))
    world.app.run(service.create(story.mpps_uid, of_dataset(begin), caller))
    world.app.run(service.update(story.mpps_uid, of_dataset(mpps_end(series_uid=series)), caller))
    told = Availability(interactions, zone).create(
        str(generate_uid(prefix=None)), of_dataset(_notification(study, series)), caller
    )
    world.app.run(told)


def _notification(study: Resource, series: str) -> Dataset:
    """Instance availability: two images of one series."""
    told, item = Dataset(), Dataset()
    told.StudyInstanceUID = str(study["identifier"][0]["value"]).removeprefix("urn:oid:")
    told.ReferencedPerformedProcedureStepSequence = []
    item.SeriesInstanceUID, item.ReferencedSOPSequence = series, []
    for _ in range(2):
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid(prefix=None)
        image.InstanceAvailability, image.RetrieveAETitle = "ONLINE", "PACS"
        item.ReferencedSOPSequence.append(image)
    told.ReferencedSeriesSequence = [item]
    return told


def reported(story: Story) -> None:
    """A report is written, and signed."""
    elements = {"code": story.order["code"], "subject": story.order["subject"]}
    draft = story.world.create(
        {
            "resourceType": "DiagnosticReport",
            "status": "preliminary",
            "basedOn": [{"reference": f"ServiceRequest/{story.order['id']}"}],
            "conclusion": "Lungs clear.",
            **elements,
        }
    )
    story.report = story.world.update(draft, status="final", conclusion="Lungs clear. No effusion.")


def whole(world: ConsoleWorld) -> Story:
    """From the order to the report, with an EHR that is told but can't be reached."""
    story = ordered(world)
    scanned(story, world.scanner())
    reported(story)
    return story


def destination(world: ConsoleWorld, id_: str = "ehr") -> Resource:
    """An EHR that wants to be told of orders, bookings, reports and charges."""
    wants = ("ORM^O01", "SIU^S12", "SIU^S14", "ORU^R01", "DFT^P03")
    return world.put(
        {
            "resourceType": "Endpoint",
            "id": id_,
            "status": "active",
            "connectionType": {
                "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
                "code": "hl7v2-mllp",
            },
            "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": w}]} for w in wants],
            "address": "mllp://127.0.0.1:9",
            "header": ["receiving-application: EHR", "receiving-facility: EXAMPLEHOSP"],
        }
    )
