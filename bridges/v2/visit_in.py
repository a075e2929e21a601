"""PV1, PV2 -> Encounter (HL7 v2-to-FHIR guide, segments PV1 and PV2): the mapping table, and finding the visit."""

from dataclasses import dataclass
from typing import Any, Final

from bridges.v2.codes import CONFIDENTIALITY, PATIENT_CLASS
from bridges.v2.datatypes import CWE, CX, XCN
from bridges.v2.mapping import Row, table
from bridges.v2.message import Message, Segment
from bridges.v2.people_in import People
from bridges.v2.reception import Sender, date_time
from bridges.v2.systems import RAW, concept, identifier, typed
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.identifiers import carriers
from resources.security_labels import labelled

_V2: Final = "http://terminology.hl7.org/CodeSystem/v2-"
_NULL_FLAVOR: Final = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_PARTICIPATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
PREGNANT: Final = "B6"  # table 0009
OVER: Final = frozenset({"finished", "cancelled", "entered-in-error"})


@dataclass(frozen=True, slots=True)
class Pv1:
    """A PV1 of a sender, with the segments that say more of the same visit."""

    segment: Segment
    sender: Sender
    people: People
    pv2: Segment | None = None
    pid: Segment | None = None

    @classmethod
    def of(cls, message: Message, sender: Sender, people: People) -> "Pv1 | None":
        segment = message.first("PV1")
        return cls(segment, sender, people, message.first("PV2"), message.first("PID")) if segment else None

    @property
    def number(self) -> Resource | None:
        """The visit number: PV1-19, else PID-18 (IHE RAD-1: one of them is there)."""
        for segment, field, kind in ((self.segment, 19, "VN"), (self.pid, 18, "AN")):
            if segment is not None and segment.field(field).strip():
                cx = self.sender.known(CX.from_field(segment.repetitions(field)[0]))
                return identifier(cx, self.sender.authority) | {"type": typed(kind)}
        return None


# The table


def _numbers(of: Pv1) -> list[Resource]:
    alternate = _plain_identifier(of, 50)
    return [number for number in (of.number, alternate) if number]


def _plain_identifier(of: Pv1, field: int) -> Resource | None:
    if not of.segment.field(field).strip():
        return None
    return identifier(of.sender.known(CX.from_field(of.segment.repetitions(field)[0])), of.sender.authority)


def _class(of: Pv1) -> dict[str, Any] | None:
    code = " ".join(of.segment.field(2).split()).upper()
    if not code:
        return None
    known = PATIENT_CLASS.fhir(code)
    return {"system": PATIENT_CLASS.target, "code": known} if known else {"system": PATIENT_CLASS.source, "code": code}


def _location(of: Pv1) -> list[dict[str, Any]]:
    """PV1-3 as people read it, and as it came."""
    place = of.segment.repetitions(3)[0] if of.segment.raw(3) else None
    shown = "/".join(c for c in place.components() if c) if place else ""
    if place is None or not shown:
        return []
    return [{"extension": [{"url": RAW, "valueString": place.standard}], "location": {"display": shown}}]


def _people(field: int, role: str) -> Any:
    async def read(of: Pv1) -> list[dict[str, Any]]:
        return [
            {"type": [coded(_PARTICIPATION, role)], "individual": who}
            for person in of.segment.repetitions(field)
            if (who := await of.people.reference(XCN.from_field(person)))
        ]

    return read


def _coded(segment: Segment | None, field: int, table_number: str, sender: Sender) -> Resource | None:
    """An IS or CWE of a table that sites fill themselves: as their own system where they name one, else as the table's."""
    if segment is None or not segment.raw(field):
        return None
    element = CWE.from_field(segment.repetitions(field)[0])
    if element.code.strip() and not element.system.strip():
        return coded(_V2 + table_number, " ".join(element.code.split()), element.text.strip() or None)
    return concept(element, sender.authority)


def _arrangements(of: Pv1) -> list[Resource]:
    codes = [f.get(1).strip().upper() for f in of.segment.repetitions(15)]
    return [coded(_V2 + "0009", code) for code in codes if code and code != PREGNANT]


def _confidentiality(of: Pv1) -> list[Resource]:
    code = of.segment.field(16).strip().upper()
    if code in {"", "N", "0"}:
        return []
    return [{"system": CONFIDENTIALITY.target, "code": CONFIDENTIALITY.fhir(code) or "R"}]


def _reason(of: Pv1) -> list[Resource]:
    reason = concept(CWE.from_field(of.pv2.repetitions(3)[0]), of.sender.authority) if of.pv2 and of.pv2.raw(3) else None
    return [reason] if reason else []


PV1 = table(
    "PV1, PV2 -> Encounter",
    "Encounter",
    Row("PV1-19, PV1-50, PID-18", "identifier", _numbers,
        "type VN; PID-18 (AN) where PV1-19 is empty. The visit is found by it, its authority and the patient", "C"),
    Row("PV1-2", "class", _class, "E EMER, I IMP, O AMB, P PRENC; others keep their code of table 0004; none is UNK"),
    Row("PV1-3", "location", _location, "as a display, and as it came in an extension"),
    Row("PV1-7", "participant", _people(7, "ATND"), "found or made by id and authority"),
    Row("PV1-8", "participant", _people(8, "REF")),
    Row("PV1-9", "participant", _people(9, "CON")),
    Row("PV1-17", "participant", _people(17, "ADM")),
    Row("PV1-10", "serviceType", lambda of: _coded(of.segment, 10, "0069", of.sender)),
    Row("PV1-5", "hospitalization.preAdmissionIdentifier", lambda of: _plain_identifier(of, 5)),
    Row("PV1-14", "hospitalization.admitSource", lambda of: _coded(of.segment, 14, "0023", of.sender)),
    Row("PV1-15", "hospitalization.specialArrangement", _arrangements, "but for B6, which makes an Observation (pregnant)"),
    Row("PV1-36", "hospitalization.dischargeDisposition", lambda of: _coded(of.segment, 36, "0112", of.sender)),
    Row("PV1-16", "meta.security", _confidentiality, "V stays V (very restricted); N is none; any other is R (restricted)"),
    Row("PV1-44", "period.start", lambda of: date_time(of.sender, of.segment, 44)),
    Row("PV1-45", "period.end", lambda of: date_time(of.sender, of.segment, 45)),
    Row("PV2-3", "reasonCode", _reason),
)  # fmt: skip


# Finding


async def find(unit: UnitOfWork, number: Resource, patient: Resource) -> Resource | None:
    """The patient's visit of this number. After a merge there may be two: the one that goes on, of several the newest."""
    found = await carriers(unit, "Encounter", [number], patient=f"Patient/{patient['id']}")
    if not found:
        await unit.lock(f"visit:{number['value']}")
        return None
    return max(found, key=lambda e: (e.get("status") not in OVER, e["id"]))


async def visit(unit: UnitOfWork, pv1: Segment | None, patient: Resource, sender: Sender, people: People) -> Resource | None:
    """The Encounter that an order names, found or made; None without a visit number.

    Where the patient is, ADT tells: of a visit that is known, an order adds what is missing and changes nothing.
    """
    source = Pv1(pv1, sender, people) if pv1 else None
    if source is None or (number := source.number) is None:
        return None
    said = await PV1.build(source)
    found = await find(unit, number, patient)
    if found is None:
        return await unit.create(begun(said, patient))
    return await unit.update(labelled(said | found, said))


def begun(said: Resource, patient: Resource, status: str = "unknown") -> Resource:
    """A new Encounter of what a PV1 says."""
    unknown = {"system": _NULL_FLAVOR, "code": "UNK"}
    return {"status": status, "class": unknown} | said | {"subject": ref(patient)}
