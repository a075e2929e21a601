"""The answer to an order: ORR^O02, ORG^O20 and ORI^O24 (HL7 v2.5.1 chapter 4), an ORC for each order of the message."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridges.v2.datatypes import EI
from bridges.v2.mapping import Layout, Out, layout
from bridges.v2.message import Comp, Message, Raw, Seg
from bridges.v2.order_groups import OrderGroup
from bridges.v2.reception import Reply
from bridges.v2.systems import ei_of, name
from fhir_server.elements import codings, identifier_of_type, identifier_value
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import imaging_study, order_changes, order_numbers, service_request, task, terms

# Message type -> its answer.
_ANSWERS: Final = {"ORM": ("ORR", "O02", "ORR_O02"), "OMG": ("ORG", "O20", "ORG_O20"), "OMI": ("ORI", "O24", "ORI_O24")}
# How far an order is (resources/order_changes.py) -> table 0038. Accepted and not scheduled has no code there.
STATUS: Final[dict[str, str]] = {
    "draft": "", "accepted": "", "scheduled": "SC", "started": "IP", "examined": "A", "completed": "CM", "on-hold": "HD",
    "cancelled": "CA", "stopped": "DC", "entered-in-error": "ER",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step with its requested procedure and study."""

    procedure: Resource
    study: Resource | None
    step: Resource


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered to one order of a message. `order` is None where we have none."""

    control: str
    group: OrderGroup
    order: Resource | None = None
    status: str = ""
    steps: Sequence[StepFacts] = ()


def _number(of: Answer, field: int, code: str) -> EI | Raw | None:
    """As the message has it, byte for byte; else the order's."""
    for segment in (of.group.orc, *(p.obr for p in of.group.procedures[:1])):
        if segment.field(field).strip():
            return Raw(segment.repetitions(field)[0].raw)
    found = identifier_of_type(of.order, terms.V2_0203, code) if of.order else None
    return ei_of(found) if found else None


ORC: Layout[Answer] = layout(
    "ServiceRequest -> ORC of an order response",
    "ORC",
    Out(1, "(the order control)", lambda of, _: of.control, "table 0119, the code that answers the one received", "R"),
    Out(2, "identifier", lambda of, _: _number(of, 2, "PLAC"), "the placer's number as it came", "C"),
    Out(3, "identifier", lambda of, _: _number(of, 3, "FILL"), "the filler's number; none where the order was refused", "C"),
    Out(5, "status", lambda of, _: of.status, "table 0038; empty for one that waits to be scheduled"),
)  # fmt: skip
OBR: Layout[Answer] = layout(
    "ServiceRequest -> OBR of an order response",
    "OBR",
    Out(1, "(its number)", lambda *_: 1),
    Out(2, "identifier", lambda of, _: _number(of, 2, "PLAC")),
    Out(3, "identifier", lambda of, _: _number(of, 3, "FILL")),
    Out(4, "code", lambda of, _: _service(of), "as it came", "R"),
    Out(18, "identifier", lambda of, _: _accession(of), "accession number"),
)  # fmt: skip
IPC: Layout[tuple[Answer, StepFacts]] = layout(
    "ServiceRequest, ImagingStudy, Task -> IPC of an order response (ORI^O24)",
    "IPC",
    Out(1, "identifier", lambda of, _: _accession(of[0], of[1].procedure), "", "R"),
    Out(2, "identifier", lambda of, _: identifier_value(of[1].procedure, terms.REQUESTED_PROCEDURE_ID), "", "R"),
    Out(3, "identifier", lambda of, _: imaging_study.study_uid(of[1].study) if of[1].study else "", "", "R"),
    Out(4, "identifier", lambda of, _: identifier_value(of[1].step, terms.SCHEDULED_STEP_ID), "", "R"),
    Out(5, "input[modality]", lambda of, _: task.modality(of[1].step)),
    Out(6, "code", lambda of, _: _coded(of[1].step.get("code"))),
)  # fmt: skip


def _accession(of: Answer, procedure: Resource | None = None) -> str:
    """That of the requested procedure, where it has its own, else the order's."""
    found = (order_numbers.accession_number(r) for r in (procedure, of.order) if r)
    return next((number for number in found if number), "")


def _service(of: Answer) -> Raw | None:
    for procedure in of.group.procedures[:1]:
        if procedure.obr.raw(4):
            return Raw(procedure.obr.repetitions(4)[0].raw)
    return None


def _coded(concept: Resource | None) -> Comp | None:
    found = next(iter(codings(concept or {})), None)
    return Comp(found.get("code"), found.get("display"), name(found.get("system", ""))) if found else None


async def answer(unit: UnitOfWork, message: Message, control: str, group: OrderGroup, order: Resource | None) -> Answer:
    """The answer for an order as it stands now."""
    if order is None:
        return Answer(control, group)
    now = await unit.get({"reference": f"ServiceRequest/{order['id']}"}) or order
    status = STATUS[await order_changes.progress(unit, now)]
    return Answer(control, group, now, status, await _steps(unit, now) if message.type[0] == "OMI" else ())


async def _steps(unit: UnitOfWork, order: Resource) -> list[StepFacts]:
    found = []
    for procedure in await service_request.procedures_of(unit, order["id"]):
        studies = await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}")
        steps = await task.steps_of(unit, procedure["id"])
        found += [StepFacts(procedure, next(iter(studies), None), step) for step in steps]
    return found


def reply(message: Message, answers: Sequence[Answer], text: str = "", state: str = "", *, typed: bool = False) -> Reply:
    """The order response with these answers; where all have to wait (`state`), with `typed` one without orders.

    A plain acknowledgement where there is nothing to answer.
    """
    if not answers and not (typed and state):
        return Reply(text=text, state=state)
    kind, event, structure = _ANSWERS.get(message.type[0], _ANSWERS["ORM"])
    segments: list[Seg] = []
    for one in answers:
        segments.append(ORC.seg(one, None))
        if one.group.procedures:
            segments.append(OBR.seg(one, None))
        if kind == "ORI":
            segments += [IPC.seg((one, step), None) for step in one.steps] or _echoed(one.group)
    old = message.version.startswith(("2.1", "2.2", "2.3"))
    return Reply((kind, event, "" if old else structure), segments, text, state)


def _echoed(group: OrderGroup) -> list[Seg]:
    """The IPC as they came: of an order that was refused we have no steps, and ORI wants at least one."""
    found = [ipc for details in group.details for ipc in details.steps]
    return [Seg("IPC", {n: [Raw(f.raw) for f in ipc.repetitions(n)] for n in range(1, 10)}) for ipc in found]
