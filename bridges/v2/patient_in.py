"""PID -> Patient, PV1 -> Encounter, XCN -> Practitioner (HL7 v2-to-FHIR guide, segments PID, PV1; datatype XCN)."""

from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from bridges.v2 import times
from bridges.v2.ack import AckError
from bridges.v2.datatypes import CX, XCN, XPN
from bridges.v2.message import Field, Message, Segment, is_null
from bridges.v2.refused import Refused, missing
from bridges.v2.systems import authority_system, identifier
from fhir_server.elements import concept as coded
from fhir_server.elements import duplicate
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import patient as patients
from resources import task
from resources.terms import V2_0203

_GENDER = {"M": "male", "F": "female", "O": "other", "A": "other", "N": "other", "U": "unknown"}
_NAME_USE = {"L": "official", "D": "usual", "M": "maiden", "A": "anonymous", "N": "nickname"}
_ADDRESS_USE = {"H": "home", "B": "work", "O": "work", "C": "temp", "BA": "old", "L": "home"}
_CLASS = {"E": "EMER", "I": "IMP", "O": "AMB", "P": "PRENC"}
_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
# A Patient.element that PID gives, and the field it comes from: what `""` deletes.
_DELETABLE = {"birthDate": 7, "address": 11, "maritalStatus": 16, "communication": 15}


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose dialect a message is in: the names of MSH-3 and MSH-4, and the zone of times without an offset."""

    application: str
    facility: str
    zone: tzinfo

    @classmethod
    def of(cls, message: Message, zone: tzinfo) -> "Sender":
        return cls(message.msh.field(3), message.msh.field(4), zone)

    @property
    def authority(self) -> str:
        """Who assigned an identifier that doesn't say so."""
        return self.facility or self.application


def date_time(sender: Sender, segment: Segment, field: int, text: str) -> str:
    """A v2 TS as FHIR dateTime; a malformed one is refused with its place."""
    try:
        return times.to_datetime(text, sender.zone)
    except ValueError as error:
        raise Refused(AckError(segment.name, 1, field, code=102, text=str(error))) from None


def map_patient(pid: Segment, sender: Sender) -> Resource:
    """The Patient that a PID describes. Refused without PID-3."""
    identifiers = [identifier(CX.from_field(f), sender.authority) for f in pid.repetitions(3) if f.get(1).strip()]
    if not identifiers:
        raise missing("PID", 3, "the patient identifier")
    resource: Resource = {"resourceType": "Patient", "identifier": identifiers, "active": True}
    elements: dict[str, Any] = {
        "name": [n for f in pid.repetitions(5) if (n := _name(XPN.from_field(f)))],
        "telecom": [t for n in (13, 14) for f in pid.repetitions(n) if (t := _telecom(f, "home" if n == 13 else "work"))],
        "gender": _GENDER.get(pid.field(8).strip().upper()),
        "birthDate": _birth_date(pid),
        "address": [a for f in pid.repetitions(11) if (a := _address(f))],
        "maritalStatus": _marital_status(pid),
        "communication": [{"language": {"coding": [{"code": pid.field(15)}]}}] if pid.field(15) else None,
    }
    if pid.field(8).strip() and elements["gender"] is None:
        raise Refused(AckError("PID", 1, 8, code=103, text="the sex is none of table 0001"))
    deceased = {"Y": True, "N": False}.get(pid.field(30))
    if pid.field(29):
        elements["deceasedDateTime"] = date_time(sender, pid, 29, pid.field(29))
    elif deceased is not None:
        elements["deceasedBoolean"] = deceased
    return resource | {k: v for k, v in elements.items() if v not in (None, [])}


def _name(xpn: XPN) -> dict[str, Any] | None:
    parts: dict[str, Any] = {
        "use": _NAME_USE.get(xpn.type),
        "family": xpn.family,
        "given": [g for g in (xpn.given, xpn.middle) if g],
        "prefix": [xpn.prefix] if xpn.prefix else None,
        "suffix": [s for s in (xpn.suffix, xpn.degree) if s],
    }
    found = {k: v for k, v in parts.items() if v}
    return found if found.keys() - {"use"} else None


def _birth_date(pid: Segment) -> str | None:
    text = pid.field(7).strip()
    if not text or is_null(pid, 7):
        return None
    try:
        return times.to_date(text)
    except ValueError as error:
        raise Refused(AckError("PID", 1, 7, code=102, text=f"date of birth: {error}")) from None


def _address(field: Field) -> dict[str, Any] | None:
    lines = [x for x in (field.get(1), field.get(2)) if x]
    parts: dict[str, Any] = {
        "use": _ADDRESS_USE.get(field.get(7)),
        "line": lines,
        "city": field.get(3),
        "state": field.get(4),
        "postalCode": field.get(5),
        "country": field.get(6),
    }
    found = {k: v for k, v in parts.items() if v}
    return found if found.keys() - {"use"} else None


def _telecom(field: Field, use: str) -> dict[str, Any] | None:
    number = field.get(1) or "".join(x for x in ("+" + field.get(5) if field.get(5) else "", field.get(6), field.get(7)) if x)
    if field.get(4) and not number:
        return {"system": "email", "value": field.get(4), "use": use}
    return {"system": "phone", "value": number, "use": use} if number else None


def _marital_status(pid: Segment) -> dict[str, Any] | None:
    code = pid.field(16)
    return coded("http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", code) if code and not is_null(pid, 16) else None


# Finding and storing


async def master(unit: UnitOfWork, pid: Segment, sender: Sender) -> Resource:
    """Store what the master of patient identity says (ADT): a new Patient, or the known one brought up to date."""
    said = map_patient(pid, sender)
    known = await patients.match(unit, said["identifier"])
    if known is None:
        return await unit.create(said)
    merged = duplicate(known)
    for element, value in said.items():
        if element != "identifier":
            merged[element] = value
    if "deceasedDateTime" in said or "deceasedBoolean" in said:
        for element in ("deceasedDateTime", "deceasedBoolean"):
            if element not in said:
                merged.pop(element, None)
    for element, field in _DELETABLE.items():
        if is_null(pid, field):
            merged.pop(element, None)
    for new in said["identifier"]:
        if not any(patients.same_identifier(new, old) for old in merged.get("identifier", ())):
            merged.setdefault("identifier", []).append(new)
    return await unit.update(merged)


async def named(unit: UnitOfWork, pid: Segment | None, sender: Sender) -> Resource:
    """The Patient that an order names. Made when unknown; never overwritten: a contradiction becomes a work item."""
    if pid is None:
        raise missing("PID", None, "the patient (PID)")
    said = map_patient(pid, sender)
    known = await patients.match(unit, said["identifier"])
    if known is None:
        return await unit.create(said)
    differ = [e for e in ("birthDate", "gender") if said.get(e) and known.get(e) and not _agree(said[e], known[e])]
    if differ:
        patient = f"Patient/{known['id']}"
        text = f"A message from {sender.application} names this patient with another {' and '.join(differ)}"
        await task.open_work_item(unit, "patient-mismatch", text, about=patient, patient=patient)
    return known


def _agree(one: str, other: str) -> bool:
    """Partial dates agree with what they are part of; an unknown sex agrees with any."""
    return one.startswith(other) or other.startswith(one) or "unknown" in {one, other}


async def visit(unit: UnitOfWork, pv1: Segment | None, patient: Resource, sender: Sender) -> Resource | None:
    """The Encounter of PV1-19, found or made; None without a visit number."""
    number = CX.from_field(pv1.repetitions(19)[0]) if pv1 is not None and pv1.field(19).strip() else None
    if pv1 is None or number is None:
        return None
    found = identifier(number, sender.authority)
    found["type"] = coded(V2_0203, "VN")
    await unit.lock(f"visit:{number.id}")
    known = next(
        (
            e
            for e in await unit.search("Encounter", identifier=number.id, patient=f"Patient/{patient['id']}")
            if any(patients.same_identifier(found, i) for i in e.get("identifier", ()))
        ),
        None,
    )
    encounter: Resource = duplicate(known) if known else {"resourceType": "Encounter", "identifier": [found], "status": "arrived"}
    if "class" not in encounter or pv1.field(2) in _CLASS:
        code = _CLASS.get(pv1.field(2).strip().upper())
        if code is None:
            raise Refused(
                AckError("PV1", 1, 2, code=103 if pv1.field(2) else 101, text="the patient class is needed: E, I, O or P")
            )
        encounter["class"] = {"system": _ACT_CODE, "code": code}
    encounter["subject"] = ref(patient)
    if place := "/".join(c for c in pv1.repetitions(3)[0].components() if c) if pv1.field(3) or pv1.raw(3).strip("^") else "":
        encounter["location"] = [{"location": {"display": place}}]
    people = []
    for field, role in ((7, "ATND"), (8, "REF"), (9, "CON"), (17, "ADM")):
        for person in pv1.repetitions(field):
            who = await practitioner(unit, XCN.from_field(person), sender)
            if who:
                people.append({"type": [coded(_PARTICIPATION, role)], "individual": who})
    if people:
        encounter["participant"] = people
    if pv1.field(44):
        encounter["period"] = {"start": date_time(sender, pv1, 44, pv1.field(44))}
    return await unit.update(encounter) if known else await unit.create(encounter)


async def practitioner(unit: UnitOfWork, xcn: XCN, sender: Sender) -> dict[str, Any] | None:
    """A Reference to the Practitioner of an XCN, found by id and authority or made; without an id just the name."""
    name = _name(XPN(xcn.family, xcn.given, xcn.middle, xcn.suffix, xcn.prefix, xcn.degree))
    display = ", ".join(x for x in (xcn.family, xcn.given) if x)
    if not xcn.id.strip():
        return {"display": display} if display else None
    system = authority_system(xcn.authority, sender.authority)
    await unit.lock(f"practitioner:{system}|{xcn.id}")
    known = await unit.search("Practitioner", identifier=f"{system}|{xcn.id}")
    if known:
        return ref(known[0], display or None)
    made: Resource = {"resourceType": "Practitioner", "identifier": [{"system": system, "value": xcn.id}], "active": True}
    return ref(await unit.create(made | ({"name": [name]} if name else {})), display or None)
