"""What of the messages about an exam who may read (docs/security.md, "Messages"): no more than as resources.

A message is kept as it came, and says more than one resource. Who reads the exam's messages (`exam-messages` in
`smart_auth/roles.py`) sees one if everything that it is about is visible, and of it the segments whose content the role may read
as resources. What isn't in the table is not shown.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from console.screens.exam.record import Exam
from console.visit import Visit
from fhir_server import outbox
from fhir_server.outcome import FhirError

Document = dict[str, Any]
OPERATION: Final = "exam-messages"
_RESULTS: Final = frozenset({"ORU", "MDM", "OUL"})
_TYPES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("MSH", "MSA", "ERR", "SFT", "EVN", "QAK"), ()),
    **dict.fromkeys(("PID", "PD1", "MRG"), ("Patient",)),
    "NK1": ("Patient", "RelatedPerson"),
    **dict.fromkeys(("PV1", "PV2", "ROL"), ("Encounter",)),
    **dict.fromkeys(("IN1", "IN2", "IN3", "GT1", "BLG"), ("Coverage",)),
    "AL1": ("AllergyIntolerance",),
    "DG1": ("Condition",),
    **dict.fromkeys(("ORC", "OBR", "TQ1", "TQ2", "IPC", "ZDS"), ("ServiceRequest",)),
    **dict.fromkeys(("SCH", "RGS", "AIS", "AIG", "AIL", "AIP"), ("Appointment",)),
    "OBX": ("Observation",),
    "SPM": ("Specimen",),
    "FT1": ("ChargeItem",),
    "PR1": ("Procedure",),
}
# What in a message of results tells of them, and so of the report.
_OF_RESULTS: Final = frozenset({"OBR", "OBX", "NTE", "TXA"})


def may_list(visit: Visit, exam: Exam) -> bool:
    """Whether the reader learns of messages at all: of nobody who has denied the reader anything."""
    about = visit.access.circumstances
    whose = str(exam.order.get("subject", {}).get("reference", "")).partition("/")[2]
    denied = about is not None and whose not in about.opened and any(whose in d.patients for d in about.denials)
    return visit.calls(OPERATION) and not denied and exam.patient is not None


async def visible(visit: Visit, exam: Exam, documents: Iterable[Document]) -> list[Document]:
    """Those messages of which everything that they are about, of the types that the role reads, is visible to the reader."""
    about = [(d, {*d["about"], *([d["patient"]] if d.get("patient") else [])}) for d in documents if not _is_for_payer(d)]
    unknown: dict[str, set[str]] = {}
    for reference in {r for _, references in about for r in references} - exam.found.by_reference.keys():
        resource_type, _, id_ = reference.partition("/")
        if visit.allows(resource_type, "r"):
            unknown.setdefault(resource_type, set()).add(id_)
    hidden = {r for found in await visit.desk.together(*(_hidden(visit, t, ids) for t, ids in unknown.items())) for r in found}
    return [document for document, references in about if not references & hidden]


async def _hidden(visit: Visit, resource_type: str, ids: set[str]) -> set[str]:
    """Which of these the reader doesn't see. What was deleted says so to who saw it."""
    found = await visit.desk.search(resource_type, _id=",".join(sorted(ids)), _elements="id")
    hidden = set()
    for id_ in ids - {r["id"] for r in found}:
        try:
            await visit.desk.read(f"{resource_type}/{id_}")
        except FhirError as error:
            if error.code != "deleted":
                hidden.add(f"{resource_type}/{id_}")
    return hidden


def hides(visit: Visit, document: Document) -> Callable[[str, str], bool]:
    """Which segments (by name, and for a note the one before it) are not for the reader."""
    kind = str(document.get("type", "")).partition("^")[0]
    reports = any(r.startswith("DiagnosticReport/") for r in document["about"])

    def hidden(name: str, owner: str) -> bool:
        needed = _TYPES.get(owner if name == "NTE" else name)
        if needed is None:
            return True
        if kind in _RESULTS and name in _OF_RESULTS:
            needed = (*needed, "DiagnosticReport", "Observation")
            if not reports:  # of which report it tells is not known: it may be one that is hidden
                return True
        return not all(visit.allows(resource_type, "r") for resource_type in needed)

    return hidden


def is_v2(document: Document) -> bool:
    """Whether it is an HL7 v2 message, and not a performed step for a PACS."""
    return not str(document.get("destination", "")).startswith(outbox.DICOM)


def _is_for_payer(document: Document) -> bool:
    return str(document.get("destination", "")).startswith(outbox.PAYER)
