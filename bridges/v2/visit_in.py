"""PV1 -> Encounter and XCN -> Practitioner (HL7 v2-to-FHIR guide, segment PV1, datatype XCN)."""

from typing import Any

from bridges.v2.datatypes import CX, XCN, XPN
from bridges.v2.message import Segment
from bridges.v2.patient_in import Sender, date_time, human_name
from bridges.v2.systems import RAW, identifier, typed
from fhir_server.elements import concept
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.identifiers import carriers

_CLASS = {"E": "EMER", "I": "IMP", "O": "AMB", "P": "PRENC"}
_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_TABLE_0004 = "http://terminology.hl7.org/CodeSystem/v2-0004"
_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_ROLES = {7: "ATND", 8: "REF", 9: "CON", 17: "ADM"}
# Trigger event -> Encounter.status. An order or an update of demographics says nothing of where the patient is.
_STATUS = {"A01": "in-progress", "A04": "arrived", "A05": "planned"}


class People:
    """The practitioners that one message names, each looked up or made once."""

    def __init__(self, unit: UnitOfWork, sender: Sender) -> None:
        self._unit = unit
        self._sender = sender
        self._known: dict[tuple[str, str], Resource] = {}

    async def reference(self, xcn: XCN) -> dict[str, Any] | None:
        """A Reference to the Practitioner of an XCN, found by id and authority, or made; without an id just the name."""
        display = ", ".join(x for x in (xcn.family, xcn.given) if x)
        if not xcn.id.strip():
            return {"display": display} if display else None
        wanted = identifier(CX(xcn.id, xcn.authority), self._sender.authority)
        key = wanted["system"], wanted["value"]
        if key not in self._known:
            self._known[key] = await self._find_or_make(wanted, xcn)
        return ref(self._known[key], display or None)

    async def _find_or_make(self, wanted: Resource, xcn: XCN) -> Resource:
        found = await carriers(self._unit, "Practitioner", [wanted])
        if found:
            return found[0]
        await self._unit.lock(f"practitioner:{wanted['value']}")  # whoever makes the same one meanwhile, makes us start again
        made: Resource = {"resourceType": "Practitioner", "identifier": [wanted], "active": True}
        name = human_name(XPN(xcn.family, xcn.given, xcn.middle, xcn.suffix, xcn.prefix, xcn.degree))
        return await self._unit.create(made | ({"name": [name]} if name else {}))


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
    return {"system": _ACT_CODE, "code": _CLASS[code]} if code in _CLASS else {"system": _TABLE_0004, "code": code}


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
