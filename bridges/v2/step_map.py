"""OBR and IPC -> the requested procedure (ServiceRequest `filler-order`) and its scheduled steps (Task) (HL7 v2.5.1 4.5.6)."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from bridges.v2.datatypes import CWE, XCN
from bridges.v2.mapping import Row, table
from bridges.v2.message import Field, Segment
from bridges.v2.order_groups import ObrGroup, Order
from bridges.v2.order_map import accession, accession_identifier, concepts, modality, modality_detail, ordered_code, short
from bridges.v2.refused import wrong
from bridges.v2.systems import concept
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource
from resources import device, imaging_study, terms
from resources.order_plan import PlannedProcedure, PlannedStep


@dataclass(frozen=True, slots=True)
class Requested:
    """One requested procedure: its OBR, and those IPC of it that have the same IPC-2."""

    order: Order
    group: ObrGroup
    steps: list[Segment]

    @property
    def obr(self) -> Segment:
        return self.group.obr

    @property
    def alone(self) -> bool:
        """Whether the ids of OBR-19 are this procedure's: they are those of the OBR's only one."""
        return len(self.group.details.steps) == len(self.steps)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One step of a requested procedure; without IPC what OBR says is all."""

    procedure: Requested
    ipc: Segment | None


# The requested procedure


def _procedure_id(of: Requested) -> list[Resource]:
    found = next((i for s in of.steps if (i := short(s, 2))), "") or (short(of.obr, 19) if of.alone else "")
    return [{"system": terms.REQUESTED_PROCEDURE_ID, "value": found}] if found else []


def _own_accession(of: Requested) -> list[Resource]:
    """Only where it isn't the order's, which the first OBR has."""
    first = of.order.group.procedures[0]
    own = accession(of.obr if of.alone else None, of.steps)
    return [accession_identifier(own)] if own and own != accession(first.obr, first.details.steps) else []


def _code(of: Requested) -> Awaitable[Resource | None]:
    return ordered_code(of.order, of.obr, 44 if of.obr.field(44).strip() else 4)


def _modality(of: Requested) -> list[Resource]:
    found = next((m for s in of.steps if (m := _step_modality(s))), "")
    return [coded(terms.DCM, found)] if found else modality_detail(of.obr, of.order.sender)


async def _performers(of: Requested) -> list[Resource]:
    """OBR-34 (NDL): the person in its first component; from senders that put an XCN there, that."""
    found = [await of.order.people.reference(_ndl(field)) for field in of.obr.repetitions(34)]
    return [who for who in found if who]


def _ndl(field: Field) -> XCN:
    plain = field.get(2).strip() and not field.get(2).strip().isdigit() and not field.component(1).get(2)
    return XCN.from_field(field) if plain else XCN.from_component(field)


PROCEDURE = table(
    "OBR, IPC -> ServiceRequest, a requested procedure",
    "ServiceRequest",
    Row("IPC-2, OBR-19", "identifier", _procedure_id, "at most 16 characters; assigned (`R` and nine digits) where absent"),
    Row("OBR-18, IPC-1", "identifier", _own_accession, "an accession number other than the order's"),
    Row("OBR-44, OBR-4", "code", _code),
    Row("IPC-5, OBR-24", "orderDetail", _modality, "the modality"),
    Row("OBR-45", "orderDetail", lambda of: concepts(of.obr, 45, of.order.sender), "modifiers of the procedure code"),
    Row("OBR-34", "performer", _performers),
)  # fmt: skip


# The scheduled step


def _step_id(of: Scheduled) -> list[Resource]:
    found = short(of.ipc, 4) if of.ipc else ""
    if not found and len(of.procedure.group.details.steps) < 2:
        found = short(of.procedure.obr, 20)
    return [{"system": terms.SCHEDULED_STEP_ID, "value": found}] if found else []


def _step_modality(ipc: Segment) -> str:
    """IPC-5 is a modality and nothing else: one that DICOM doesn't know is refused."""
    code = ipc.field(5).strip()
    found = modality(code)
    if code and not found:
        raise wrong(ipc, 5, "the modality is none that DICOM knows", code=103)
    return found


def _input(code: str, value: Resource) -> Resource:
    return {"type": coded(terms.TASK_DETAIL, code)} | value


def _modality_input(of: Scheduled) -> list[Resource]:
    found = (_step_modality(of.ipc) if of.ipc else "") or modality(of.procedure.obr.field(24))
    return [_input("modality", {"valueCodeableConcept": coded(terms.DCM, found)})] if found else []


def _protocol(of: Scheduled) -> Resource | None:
    order = of.procedure.order
    if of.ipc is not None and of.ipc.raw(6):
        return concept(CWE.from_field(of.ipc.repetitions(6)[0]), order.sender.authority)
    if order.sender.partner.protocol_field and of.procedure.obr.raw(4):
        said = CWE.from_field(of.procedure.obr.repetitions(4)[0])
        return concept(CWE(said.alternate_code, said.alternate_text, said.alternate_system), order.sender.authority)
    return None


async def _stations(of: Scheduled) -> list[Resource]:
    """The stations that the placer would like: by AE title (IPC-9, or ORC-18 where agreed), else as IPC-7 names it."""
    order = of.procedure.order
    titles = [f.get(1).strip() for f in of.ipc.repetitions(9)] if of.ipc else []
    if order.sender.partner.station_field and not any(titles):
        titles = [order.orc.field(18).strip()]
    found: list[Resource] = []
    for title in titles:
        if station := await device.by_ae_title(order.unit, title):
            found.append(_input("wanted-station", {"valueReference": ref(station)}))
        elif title:
            found.append(_input("wanted-station", {"valueString": title}))
    if not found and of.ipc is not None and (name := (of.ipc.get(7, 2) or of.ipc.field(7)).strip()):
        found = [_input("wanted-station", {"valueString": name})]
    return found


def _location(of: Scheduled) -> Resource | None:
    place = (of.ipc.get(8, 2) or of.ipc.field(8)).strip() if of.ipc else ""
    return {"display": place} if place else None


STEP = table(
    "IPC, OBR, ORC -> Task, a scheduled step",
    "Task",
    Row("IPC-4, OBR-20", "identifier", _step_id, "at most 16 characters; assigned (`S` and nine digits) where absent"),
    Row("IPC-6, OBR-4.4", "code", _protocol, "the protocol; OBR-4.4 to 4.6 with `accept-protocol-field: OBR-4.4`"),
    Row("IPC-5, OBR-24", "input", _modality_input, "modality; a code in IPC-5 that DICOM doesn't know is refused"),
    Row("IPC-9, ORC-18, IPC-7", "input", _stations,
        "wanted-station: a wish, not a booking; ORC-18 with `accept-station-field: ORC-18`"),
    Row("IPC-8", "location.display", lambda of: (_location(of) or {}).get("display")),
)  # fmt: skip


# All of an order


async def planned(order: Order) -> list[PlannedProcedure]:
    """What the placer says of the requested procedures of an order, and of their steps."""
    found = []
    for group in order.group.procedures:
        for steps in _by_procedure(group.details.steps):
            requested = Requested(order, group, steps)
            elements = await PROCEDURE.build(requested)
            made = [PlannedStep(await STEP.build(Scheduled(requested, ipc))) for ipc in steps or (None,)]
            found.append(PlannedProcedure(_without_type(elements), _study_uid(requested), made))
    return found


def _by_procedure(steps: list[Segment]) -> list[list[Segment]]:
    """IPC by their IPC-2: those without one belong to the procedure before."""
    groups: list[list[Segment]] = []
    for step in steps:
        procedure = step.field(2).strip()
        known = next((g for g in groups if not procedure or g[0].field(2).strip() in {"", procedure}), None)
        if known is None:
            groups.append([step])
        else:
            (groups[-1] if not procedure else known).append(step)
    return groups or [[]]


def _study_uid(of: Requested) -> str:
    """IPC-3, else ZDS-1. One requested procedure is one study."""
    places = [(s, 3) for s in of.steps] + ([(z, 1) for z in of.group.details.studies] if of.alone else [])
    found = ""
    for segment, field in places:
        uid = segment.field(field).strip()
        if uid and not imaging_study.is_uid(uid):
            raise wrong(segment, field, "the Study Instance UID is no UID", code=102)
        if uid and found and uid != found:
            raise wrong(segment, field, "the steps of one requested procedure are of one study", code=102)
        found = found or uid
    return found


def _without_type(elements: dict[str, Any]) -> Resource:
    return {k: v for k, v in elements.items() if k != "resourceType"}
