"""PV1 -> Encounter (HL7 v2-to-FHIR guide, segment PV1)."""

from typing import Any

from bridges.v2.codes import PATIENT_CLASS
from bridges.v2.datatypes import CX, XCN
from bridges.v2.message import Segment
from bridges.v2.people_in import People
from bridges.v2.reception import Sender, date_time
from bridges.v2.systems import RAW, identifier, typed
from fhir_server.elements import concept
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.identifiers import carriers

_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_ROLES = {7: "ATND", 8: "REF", 9: "CON", 17: "ADM"}
# Trigger event -> Encounter.status. An order or an update of demographics says nothing of where the patient is.
_STATUS = {"A01": "in-progress", "A04": "arrived", "A05": "planned"}


async def visit(
    unit: UnitOfWork, pv1: Segment | None, patient: Resource, sender: Sender, people: People, event: str = ""
) -> Resource | None:
    """The patient's Encounter of PV1-19, found or made; None without a visit number. `event` is the ADT event."""
    if pv1 is None or not pv1.field(19).strip():
        return None
    number = identifier(CX.from_field(pv1.repetitions(19)[0]), sender.authority) | {"type": typed("VN")}
    found = await carriers(unit, "Encounter", [number], patient=f"Patient/{patient['id']}")
    if not found:
        await unit.lock(f"visit:{number['value']}")
    encounter: Resource = found[0] if found else {"resourceType": "Encounter", "identifier": [number], "subject": ref(patient)}
    said: dict[str, Any] = {
        "status": _STATUS.get(event) or encounter.get("status", "unknown"),
        "class": _class(pv1) or encounter.get("class") or {"system": _NULL_FLAVOR, "code": "UNK"},
        "location": _location(pv1),
        "participant": [
            {"type": [concept(_PARTICIPATION, role)], "individual": who}
            for field, role in _ROLES.items()
            for person in pv1.repetitions(field)
            if (who := await people.reference(XCN.from_field(person)))
        ],
        "period": _period(pv1, sender) or None,
    }
    encounter = encounter | {k: v for k, v in said.items() if v}
    return await unit.update(encounter) if found else await unit.create(encounter)


def _class(pv1: Segment) -> dict[str, Any] | None:
    code = " ".join(pv1.field(2).split()).upper()
    if not code:
        return None
    known = PATIENT_CLASS.fhir(code)
    return {"system": PATIENT_CLASS.target, "code": known} if known else {"system": PATIENT_CLASS.source, "code": code}


def _location(pv1: Segment) -> list[dict[str, Any]]:
    """PV1-3 as people read it, and as it came."""
    place = pv1.repetitions(3)[0] if pv1.raw(3) else None
    shown = "/".join(c for c in place.components() if c) if place else ""
    if place is None or not shown:
        return []
    return [{"extension": [{"url": RAW, "valueString": place.standard}], "location": {"display": shown}}]


def _period(pv1: Segment, sender: Sender) -> dict[str, str]:
    said = {"start": date_time(sender, pv1, 44), "end": date_time(sender, pv1, 45)}
    return {k: v for k, v in said.items() if v}
