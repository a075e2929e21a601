"""PID -> Patient (HL7 v2-to-FHIR guide, segment PID): who it is, as a message says, and whom of ours that names."""

from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from bridges.v2 import times
from bridges.v2.datatypes import CWE, CX, XPN
from bridges.v2.message import Field, Message, Segment, is_null
from bridges.v2.refused import missing, no_segment, wrong
from bridges.v2.systems import concept, identifier
from fhir_server.elements import concept as coded
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import identifiers, task
from resources import patient as patients

_GENDER = {"M": "male", "F": "female", "O": "other", "A": "other", "N": "other", "U": "unknown"}
_NAME_USE = {"L": "official", "D": "usual", "M": "maiden", "A": "anonymous", "S": "anonymous", "N": "nickname"}
_ADDRESS_USE = {"H": "home", "B": "work", "O": "work", "C": "temp", "BA": "old", "L": "home"}
# Table 0201 (XTN-2) and 0202 (XTN-3).
_TELECOM_USE = {"PRN": "home", "ORN": "home", "VHN": "home", "WPN": "work"}
_TELECOM_SYSTEM = {"FX": "fax", "BP": "pager", "INTERNET": "email", "X.400": "email"}
_MARITAL = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
_TABLE_0002 = "http://terminology.hl7.org/CodeSystem/v2-0002"
# Table 0002 where v3 has the same meaning, though not always the same letter; the others keep their v2 code.
_MARITAL_STATUS = {"D": "D", "M": "M", "S": "S", "W": "W", "C": "C", "I": "I", "E": "L", "P": "T", "N": "A", "B": "U"}


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose dialect a message is in: the names of MSH-3 and MSH-4, and the zone of times without an offset."""

    application: str
    facility: str
    zone: tzinfo

    @classmethod
    def of(cls, message: Message, zone: tzinfo) -> "Sender":
        return cls(message.msh.field(3).strip(), message.msh.field(4).strip(), zone)

    @property
    def authority(self) -> str:
        """Who assigned an identifier that doesn't say so."""
        return self.facility or self.application or "unknown"


def date_time(sender: Sender, segment: Segment, field: int, component: int = 1) -> str | None:
    """A v2 TS as FHIR dateTime, None when it is empty; a malformed one is refused with its place."""
    text = segment.get(field, component).strip()
    try:
        return times.to_datetime(text, sender.zone) if text else None
    except ValueError as error:
        raise wrong(segment, field, str(error), code=102, component=component if component > 1 else None) from None


# PID


def patient_identifiers(pid: Segment, sender: Sender) -> list[Resource]:
    """PID-3, all repetitions: their order means nothing. Refused when there is none."""
    found = [identifier(CX.from_field(f), sender.authority) for f in pid.repetitions(3) if f.get(1).strip()]
    if not found:
        raise missing(pid, 3, "the patient identifier")
    return found


def map_patient(pid: Segment, sender: Sender) -> Resource:
    """The Patient that a PID describes. Refused without PID-3."""
    said: dict[str, Any] = {
        "resourceType": "Patient",
        "identifier": patient_identifiers(pid, sender),
        "active": True,
        "name": [n for f in pid.repetitions(5) if (n := human_name(XPN.from_field(f)))],
        "telecom": [t for field in (13, 14, 40) for t in _telecoms(pid, field)],
        "gender": _gender(pid),
        "birthDate": _birth_date(pid),
        "address": [a for f in pid.repetitions(11) if (a := _address(f))],
        "maritalStatus": _marital_status(pid),
        "communication": _communication(pid, sender),
        "deceasedDateTime": date_time(sender, pid, 29),
    }
    if not said["deceasedDateTime"]:
        said["deceasedBoolean"] = {"Y": True, "N": False}.get(pid.field(30).strip().upper())
    return {k: v for k, v in said.items() if v not in (None, [])}


def human_name(xpn: XPN) -> dict[str, Any] | None:
    """XPN -> HumanName; None when it names nobody."""
    parts: dict[str, Any] = {
        "use": _NAME_USE.get(xpn.type),
        "family": xpn.family,
        "given": [g for g in (xpn.given, xpn.middle) if g],
        "prefix": [xpn.prefix] if xpn.prefix else None,
        "suffix": [s for s in (xpn.suffix, xpn.degree) if s],
    }
    found = {k: v for k, v in parts.items() if v}
    return found if found.keys() - {"use"} else None


def _gender(pid: Segment) -> str | None:
    sex = pid.field(8).strip().upper()
    if sex and sex not in _GENDER:
        raise wrong(pid, 8, "the sex is none of table 0001", code=103)
    return _GENDER.get(sex)


def _birth_date(pid: Segment) -> str | None:
    text = pid.field(7).strip()
    try:
        return times.to_date(text) if text else None
    except ValueError as error:
        raise wrong(pid, 7, f"date of birth: {error}", code=102) from None


def _address(field: Field) -> dict[str, Any] | None:
    parts: dict[str, Any] = {
        "use": _ADDRESS_USE.get(field.get(7)),
        "line": [x for x in (field.get(1), field.get(2)) if x],
        "city": field.get(3),
        "state": field.get(4),
        "postalCode": field.get(5),
        "country": field.get(6),
    }
    found = {k: v for k, v in parts.items() if v}
    return found if found.keys() - {"use"} else None


def _telecoms(pid: Segment, field: int) -> list[dict[str, Any]]:
    """XTN: a number as text (1, 12) or in parts (5 to 8), or an address of e-mail (4). PID-13 is home, PID-14 work."""
    found = []
    for xtn in pid.repetitions(field):
        country, area, local, extension = (xtn.get(n).strip() for n in (5, 6, 7, 8))
        parts = ("+" + country.lstrip("+") if country else "") + area + local + (f"x{extension}" if extension else "")
        value = xtn.get(1) or (parts if local else "") or xtn.get(12) or xtn.get(4)
        if not value.strip():
            continue
        mobile = xtn.get(3) == "CP"
        by_field = {13: "home", 14: "work"}.get(field)
        use = "mobile" if mobile else _TELECOM_USE.get(xtn.get(2), by_field)
        email = value == xtn.get(4) or (xtn.get(2) == "NET" and "@" in value)
        system = "email" if email else _TELECOM_SYSTEM.get(xtn.get(3).upper(), "phone")
        found.append({"system": system, "value": value.strip()} | ({"use": use} if use else {}))
    return found


def _marital_status(pid: Segment) -> dict[str, Any] | None:
    code = pid.field(16).strip().upper()
    if not code:
        return None
    return coded(_MARITAL, _MARITAL_STATUS[code]) if code in _MARITAL_STATUS else coded(_TABLE_0002, code)


def _communication(pid: Segment, sender: Sender) -> list[dict[str, Any]] | None:
    language = concept(CWE.from_field(pid.repetitions(15)[0]), sender.authority) if pid.raw(15) else None
    return [{"language": language}] if language else None


# Finding and storing


async def master(unit: UnitOfWork, pid: Segment, sender: Sender) -> Resource:
    """Store what the master of patient identity says (ADT): a new Patient, or the known one brought up to date."""
    said = map_patient(pid, sender)
    known = await patients.match(unit, said["identifier"])
    if known is None:
        await patients.claim(unit, said["identifier"])
        return await unit.create(said)
    await patients.claim(unit, [i for i in said["identifier"] if not identifiers.carries(known, [i])])
    all_of_them = identifiers.learned(known.get("identifier", ()), said["identifier"])
    return await unit.update(_updated(known, said, pid) | {"identifier": all_of_them})


# The Patient's elements, and the fields of PID that they come from: what `""` deletes.
_FIELDS: dict[str, tuple[int, ...]] = {
    "name": (5,),
    "gender": (8,),
    "birthDate": (7,),
    "address": (11,),
    "maritalStatus": (16,),
    "communication": (15,),
    "deceasedDateTime": (29,),
    "deceasedBoolean": (30,),
}


def _updated(known: Resource, said: Resource, pid: Segment) -> Resource:
    """The known Patient with what the message says. An empty field changes nothing; `""` deletes (HL7 v2 2.5.3)."""
    updated = known | said
    for element, fields in _FIELDS.items():
        if any(is_null(pid, f) for f in fields):
            updated.pop(element, None)
    if "deceasedDateTime" in said:
        updated.pop("deceasedBoolean", None)
    elif "deceasedBoolean" in said:
        updated.pop("deceasedDateTime", None)
    updated["telecom"] = _updated_telecoms(known.get("telecom", []), said.get("telecom", []), pid)
    return updated if updated["telecom"] else {k: v for k, v in updated.items() if k != "telecom"}


def _updated_telecoms(known: list[Any], said: list[Any], pid: Segment) -> list[Any]:
    """PID-13 (home) and PID-14 (work) change one without the other; PID-40 is all of them."""
    if pid.raw(40):
        return said
    spoken = {at_work for field, at_work in ((13, False), (14, True)) if pid.raw(field)}
    kept = [t for t in known if (t.get("use") == "work") not in spoken]
    return [*kept, *(t for t in said if t not in kept)]


async def named(unit: UnitOfWork, pid: Segment | None, sender: Sender) -> Resource:
    """The Patient that an order names. Made when unknown; never overwritten: a contradiction becomes a work item."""
    if pid is None:
        raise no_segment("PID", "the patient (PID)")
    said = map_patient(pid, sender)
    known = await patients.match(unit, said["identifier"])
    if known is None:
        await patients.claim(unit, said["identifier"])
        return await unit.create(said)
    if not known.get("active", True):
        raise wrong(pid, 3, "the record of this patient is not active", code=204)
    told_apart_by = (("birthDate", "date of birth"), ("gender", "sex"))
    differ = [word for element, word in told_apart_by if _differ(said.get(element, ""), known.get(element, ""))]
    if differ:
        patient = f"Patient/{known['id']}"
        text = f"A message from {sender.application} names this patient with another {' and '.join(differ)}"
        await task.open_work_item(unit, "patient-mismatch", text, about=patient, patient=patient)
    return known


def _differ(said: str, known: str) -> bool:
    """Empty and unknown values contradict nothing, nor does a partial date what it is part of."""
    return "unknown" not in {said, known} and not said.startswith(known) and not known.startswith(said)
