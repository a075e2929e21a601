"""What belongs to one exam: its order and everything that hangs on it, found by one search in the rights of the reader."""

from dataclasses import dataclass
from typing import Any, Final

from bridges.dicom.mpps_records import DATA_SET
from console.asking import Desk, Found
from fhir_server.elements import extension, has_code
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import terms

# By what the parts of an exam hang on it. Each may hang on another part: procedures on the order, steps on procedures, a report's
# results on the report. What a role may not search doesn't come.
_HANGS: Final = (
    "ServiceRequest:based-on:ServiceRequest", "Task:based-on:ServiceRequest", "Task:focus",
    "Appointment:based-on:ServiceRequest", "ImagingStudy:basedon:ServiceRequest", "Procedure:based-on:ServiceRequest",
    "DiagnosticReport:based-on:ServiceRequest", "Observation:based-on:ServiceRequest", "ChargeItem:service",
    "CommunicationRequest:*:DiagnosticReport",
    "CommunicationRequest:*:ServiceRequest", "Communication:*:CommunicationRequest", "Communication:*:ServiceRequest",
    "MedicationAdministration:*:Procedure", "QuestionnaireResponse:based-on:ServiceRequest",
    "DetectedIssue:implicated:ServiceRequest",
)  # fmt: skip
# What is shown beside it and is no part of it: whose changes are not the exam's.
_BESIDE: Final = frozenset({"Patient", "Practitioner", "PractitionerRole", "Organization", "Device", "Location"})
_ORDERS: Final = frozenset({"order", "original-order"})


@dataclass(frozen=True, slots=True)
class Exam:
    """An order and what hangs on it. `all`: every resource that came, by reference; `parts`: those that are of the exam."""

    order: Resource
    found: Found

    @property
    def id(self) -> str:
        return str(self.order["id"])

    @property
    def parts(self) -> dict[str, Resource]:
        return {name: r for name, r in self.found.by_reference.items() if r["resourceType"] not in _BESIDE}

    @property
    def patient(self) -> Resource | None:
        return self.found.of(self.order.get("subject"))

    def of(self, resource_type: str) -> list[Resource]:
        """The parts of a type, the oldest first."""
        return sorted(self.found.included(resource_type), key=lambda r: (_begun(r), r["id"]))

    @property
    def procedures(self) -> list[Resource]:
        return [r for r in self.of("ServiceRequest") if r["id"] != self.id]

    @property
    def steps(self) -> list[Resource]:
        return [t for t in self.of("Task") if t.get("intent") == "plan"]

    @property
    def readings(self) -> list[Resource]:
        return [t for t in self.of("Task") if has_code(t.get("code"), terms.TASK_CODE, terms.INTERPRETATION)]

    @property
    def data_sets(self) -> list[str]:
        """The ids of the Binaries in which the data sets of scanners (MPPS) are kept."""
        named = (extension(p, DATA_SET) for p in self.of("Procedure"))
        return [e["valueReference"]["reference"].partition("/")[2] for e in named if e is not None]

    def require(self, reference: str) -> Resource:
        """A part of this exam. FhirError 404 for anything else."""
        part = self.parts.get(reference)
        if part is None:
            raise fail("not-found", "this is no part of this exam")
        return part


async def load(desk: Desk, order_id: str) -> Exam:
    """The exam of an order. FhirError 404 where there is none, or none that may be seen."""
    asked = [("_revinclude:iterate", hangs) for hangs in _HANGS]
    asked += [("_include", "ServiceRequest:subject"), ("_include", "ServiceRequest:requester")]
    asked += [("_include:iterate", "Task:owner"), ("_include:iterate", "DiagnosticReport:result")]
    asked += [("_include:iterate", "DiagnosticReport:results-interpreter"), ("_include:iterate", "PractitionerRole:practitioner")]
    found = await desk.search("ServiceRequest", *asked, _id=order_id)
    order = next(iter(found.matches), None)
    if order is None:
        raise fail("not-found", "there is no such exam")
    return Exam(order, found)


def order_of(request: Resource) -> str:
    """The id of the order that a requested procedure is of; "" for an order itself."""
    if request.get("intent") in _ORDERS:
        return ""
    based_on: list[dict[str, Any]] = request.get("basedOn", [])
    references = (str(r.get("reference", "")) for r in based_on)
    return next((r.partition("/")[2] for r in references if r.startswith("ServiceRequest/")), "")


def _begun(resource: Resource) -> str:
    """When a part was made, as far as it says so itself."""
    said = (resource.get(name) for name in ("authoredOn", "created", "recordedDate", "sent", "authored", "identified", "issued"))
    return next((str(text) for text in said if text), "")
