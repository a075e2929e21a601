"""ServiceRequest and its steps -> ORC, OBR, TQ1, IPC and ZDS of the order messages (IHE RAD-3, RAD-4, RAD-13)."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from bridges.v2.codes import PRIORITY
from bridges.v2.datatypes import CWE, EI, XCN
from bridges.v2.destination import Destination
from bridges.v2.mapping import Layout, Out, layout
from bridges.v2.message import Comp, Seg
from bridges.v2.order_facts import OrderFacts, modality
from bridges.v2.segments_out import moment, xcn
from bridges.v2.systems import OWN, ei_of
from bridges.v2.writing import NULL, Raw
from fhir_server.elements import identifier_of_type, identifier_value
from fhir_server.registry import Resource
from resources import device, status_reason, terms

_OWN_NUMBERS = frozenset({terms.ACCESSION_NUMBER, terms.REQUESTED_PROCEDURE_ID, terms.SCHEDULED_STEP_ID})


@dataclass(frozen=True, slots=True)
class Step:
    """A scheduled procedure step with its station and the station's place."""

    task: Resource
    station: Resource | None = None
    place: Resource | None = None

    @property
    def modality(self) -> str:
        """The step's; a station that does one only says it for a step that doesn't, as on the worklist."""
        done = device.modalities(self.station) if self.station else []
        return modality(self.task) or (done[0] if len(done) == 1 else "")

    @property
    def period(self) -> dict[str, Any]:
        found: dict[str, Any] = self.task.get("restriction", {}).get("period", {})
        return found


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One ORC with what follows it: an order, what is said of it (ORC-1, ORC-5), and the steps that it is said of.

    kind: ORM^O01, OMG^O19, OMI^O23 or ORU^R01; number: OBR-1
    """

    facts: OrderFacts
    kind: str
    control: str
    status: str
    now: datetime
    steps: tuple[Step, ...] = ()
    number: int = 1
    report: dict[int, Any] = field(default_factory=dict)

    @property
    def order(self) -> Resource:
        return self.facts.order

    @property
    def step(self) -> Step | None:
        return self.steps[0] if self.steps else None

    @property
    def has_timing(self) -> bool:
        """Whether its timing is in ORC-7 and OBR-27: ORM has no TQ1, in no version; OMG got it with 2.5."""
        return self.kind == "ORM^O01"


def placer(order: Resource) -> EI:
    return ei_of(identifier_of_type(order, terms.V2_0203, "PLAC"))


def filler(order: Resource) -> EI:
    return ei_of(identifier_of_type(order, terms.V2_0203, "FILL"))


def requester(facts: OrderFacts) -> XCN | None:
    return xcn(facts.order.get("requester"), facts.requester)


def _group(order: Resource) -> EI:
    return ei_of(order.get("requisition"))


def accession(order: Resource) -> str:
    return str((identifier_of_type(order, terms.V2_0203, "ACSN") or {}).get("value", ""))


def _start(line: OrderLine, to: Destination) -> str:
    return to.time(line.step.period.get("start") if line.step else line.order.get("occurrenceDateTime"))


def _timing(line: OrderLine, to: Destination) -> Comp | None:
    """TQ: start, end and priority."""
    if not (line.has_timing or (line.kind == "OMG^O19" and to.before("2.5"))):
        return None
    end = to.time(line.step.period.get("end")) if line.step else ""
    return Comp(None, None, None, _start(line, to), end, PRIORITY.v2(line.order.get("priority")))


def _why(line: OrderLine, to: Destination) -> CWE | None:
    """Why the order is held or has ended, where somebody has said so."""
    reason = status_reason.of(line.order)
    return to.code(reason) if reason and line.status in {"HD", "CA", "DC"} and line.control in {"OC", "SC"} else None


ORC: Final[Layout[OrderLine]] = layout(
    "ServiceRequest -> ORC",
    "ORC",
    Out(1, "", lambda of, _: of.control, "SC, SN, OC to the placer; NW, XO, CA, DC to the image manager; RE with results", "R"),
    Out(2, "ServiceRequest.identifier[PLAC]", lambda of, _: placer(of.order), "as it came"),
    Out(3, "ServiceRequest.identifier[FILL]", lambda of, _: filler(of.order), "", "R"),
    Out(4, "ServiceRequest.requisition", lambda of, _: _group(of.order), "as it came"),
    Out(5, "Task.status", lambda of, _: of.status, "table 0038", "R"),
    Out(7, "Task.restriction.period", _timing, "TQ: start (4), end (5), priority (6). Where a message has TQ1, empty", "C"),
    Out(9, "now", lambda of, to: moment(of.now, to), "when it happened"),
    Out(12, "ServiceRequest.requester", lambda of, _: requester(of.facts)),
    Out(16, "ServiceRequest.extension[request-statusReason]", _why, "with a hold, a cancellation or a rejection"),
)

_SHARED: Final[tuple[Out[OrderLine], ...]] = (
    Out(1, "", lambda of, _: of.number),
    Out(2, "ServiceRequest.identifier[PLAC]", lambda of, _: placer(of.order), "as it came"),
    Out(3, "ServiceRequest.identifier[FILL]", lambda of, _: filler(of.order), "", "R"),
    Out(
        4,
        "ServiceRequest.code",
        lambda of, to: to.code(of.facts.code),
        "as ordered; of an order of several procedures the procedure's. concept-map, code-first",
        "R",
    ),
    Out(16, "ServiceRequest.requester", lambda of, _: requester(of.facts)),
    Out(31, "ServiceRequest.reasonCode", lambda of, to: [to.code(r) for r in of.order.get("reasonCode", ())]),
    Out(44, "ServiceRequest.code", lambda of, to: _procedure_code(of.facts, to), "of the requested procedure"),
)


def _procedure_code(facts: OrderFacts, to: Destination) -> CWE | None:
    return to.code(facts.procedure.get("code")) if facts.procedure else None


def _unless_omi(value: Any) -> Any:
    return lambda of, to: None if of.kind == "OMI^O23" else value(of, to)


_NUMBERS: Final[tuple[Out[OrderLine], ...]] = (
    Out(18, "ServiceRequest.identifier[ACSN]", _unless_omi(lambda of, _: accession(of.order)),
                   "accession number; in OMI in IPC-1"),
    Out(19, "ServiceRequest.identifier", _unless_omi(lambda of, _: _procedure_id(of.facts)),
                   "requested procedure id; in OMI in IPC-2"),
)  # fmt: skip

OBR: Final[Layout[OrderLine]] = layout(
    "ServiceRequest, Task -> OBR of an order",
    "OBR",
    *_SHARED,
    *_NUMBERS,
    Out(13, "ServiceRequest.note", lambda of, _: " ".join(n.get("text", "") for n in of.order.get("note", ()))[:300],
        "clinical information, its first 300 characters"),
    Out(20, "Task.identifier", _unless_omi(lambda of, _: _step_id(of.step)), "scheduled procedure step id; in OMI in IPC-4"),
    Out(24, "Task.input, Device.type", lambda of, _: of.step.modality if of.step else "",
        "modality, else that of a station that does one only"),
    Out(27, "Task.restriction.period", _timing, "as in ORC-7", "C"),
    Out(36, "Task.restriction.period.start", lambda of, to: _scheduled(of, to), "`\"\"` when the time is gone", "C"),
)  # fmt: skip


def _scheduled(line: OrderLine, to: Destination) -> str | Raw:
    """When it is scheduled; of a step that waits again, that this is no more so (HL7 v2.5.1 2.5.3)."""
    if line.step is None:
        return ""
    return NULL if line.step.task["status"] == "requested" else to.time(line.step.period.get("start"))


def _procedure_id(facts: OrderFacts) -> str:
    return (identifier_value(facts.procedure, terms.REQUESTED_PROCEDURE_ID) or "") if facts.procedure else ""


def _step_id(step: Step | None) -> str:
    return (identifier_value(step.task, terms.SCHEDULED_STEP_ID) or "") if step else ""


OBR_RESULT: Final[Layout[OrderLine]] = layout(
    "DiagnosticReport -> OBR of a result",
    "OBR",
    *_SHARED,
    *_NUMBERS,
    Out(7, "DiagnosticReport.effective", lambda of, _: of.report.get(7), "else when the study began"),
    Out(22, "DiagnosticReport.issued", lambda of, _: of.report.get(22), "else when it was last changed"),
    Out(24, "", lambda _of, _: "RAD", "table 0074"),
    Out(25, "DiagnosticReport.status", lambda of, _: of.report.get(25), "table 0123", "R"),
    Out(32, "DiagnosticReport.resultsInterpreter", lambda of, _: of.report.get(32), "the first; an NDL"),
    Out(33, "DiagnosticReport.resultsInterpreter", lambda of, _: of.report.get(33), "the others"),
)

TQ1: Final[Layout[OrderLine]] = layout(
    "Task -> TQ1",
    "TQ1",
    Out(1, "", lambda _of, _: 1),
    Out(7, "Task.restriction.period.start", _start, "else when the order is wanted"),
    Out(8, "Task.restriction.period.end", lambda of, to: to.time(of.step.period.get("end")) if of.step else ""),
    Out(
        9,
        "ServiceRequest.priority",
        lambda of, _: PRIORITY.v2(of.order.get("priority")),
        "table 0485; empty where the order has none",
    ),
)


def _numbered(value: str, resource: Resource | None, system: str) -> EI:
    """An id of ours under our name; of another, just the id."""
    own = identifier_value(resource, system) == value if resource else False
    return EI(value, OWN if own and system in _OWN_NUMBERS else "")


@dataclass(frozen=True, slots=True)
class StepLine:
    """A step of an order, for IPC."""

    line: OrderLine
    step: Step

    @property
    def station(self) -> Resource:
        return self.step.station or {}

    @property
    def place(self) -> Resource:
        return self.step.place or {}


def _station_name(station: Resource) -> str:
    return next((n.get("name", "") for n in station.get("deviceName", ())), "")


def _protocols(step: Resource, to: Destination) -> list[CWE]:
    return [to.code(step["code"])] if "code" in step else []


IPC: Final[Layout[StepLine]] = layout(
    "Task -> IPC",
    "IPC",
    Out(1, "ServiceRequest.identifier[ACSN]",
        lambda of, _: _numbered(accession(of.line.order), of.line.order, terms.ACCESSION_NUMBER), "accession number", "R"),
    Out(2, "ServiceRequest.identifier",
        lambda of, _: _numbered(_procedure_id(of.line.facts), of.line.facts.procedure, terms.REQUESTED_PROCEDURE_ID),
        "requested procedure id", "R"),
    Out(3, "ImagingStudy.identifier", lambda of, _: EI(of.line.facts.study_uid), "Study Instance UID", "R"),
    Out(4, "Task.identifier", lambda of, _: _numbered(_step_id(of.step), of.step.task, terms.SCHEDULED_STEP_ID),
        "scheduled procedure step id", "R"),
    Out(5, "Task.input, Device.type", lambda of, _: Comp(of.step.modality, None, "DCM") if of.step.modality else None,
        "modality, else that of a station that does one only"),
    Out(6, "Task.code", lambda of, to: _protocols(of.step.task, to), "protocol code"),
    Out(7, "Device.deviceName", lambda of, _: _station_name(of.station), "station name"),
    Out(8, "Location.name", lambda of, _: Comp(of.place.get("id"), of.place["name"], "L") if "name" in of.place else None),
    Out(9, "Device.identifier", lambda of, _: identifier_value(of.station, terms.AE_TITLE) or "", "AE title"),
)  # fmt: skip

ZDS: Final[Layout[str]] = layout(
    "ImagingStudy -> ZDS",
    "ZDS",
    Out(1, "ImagingStudy.identifier", lambda of, _: Comp(of, "100", "Application", "DICOM"), "Study Instance UID (RP)", "R"),
)


def orc(line: OrderLine, to: Destination) -> Seg:
    return ORC.seg(line, to)


def order_segments(line: OrderLine, to: Destination) -> list[Seg]:
    """ORC, TQ1, OBR and IPC of one order line, as its kind of message has them."""
    found = [ORC.seg(line, to)]
    if not line.has_timing and not to.before("2.5"):
        found.append(TQ1.seg(line, to))
    found.append(OBR.seg(line, to))
    if line.kind == "OMI^O23":
        found += [IPC.seg(StepLine(line, step), to) for step in line.steps]
    return found


def zds(uid: str, to: Destination) -> Seg | None:
    """The Study Instance UID of IHE's 2.3.1 dialect."""
    return ZDS.seg(uid, to) if uid else None
