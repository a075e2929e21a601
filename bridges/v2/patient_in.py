"""PID -> Patient (HL7 v2-to-FHIR guide, segment PID): who it is, as a message says, and whom of ours that names."""

from dataclasses import dataclass
from typing import Any

from bridges.v2 import times
from bridges.v2.codes import ADDRESS_USE, GENDER, MARITAL_STATUS, NAME_USE, TELECOM_SYSTEM, TELECOM_USE
from bridges.v2.datatypes import CWE, CX, XPN
from bridges.v2.mapping import Row, table
from bridges.v2.message import Field, Segment, is_null
from bridges.v2.reception import Sender, date_time
from bridges.v2.refused import missing, no_segment, wrong
from bridges.v2.systems import concept, identifier
from fhir_server.elements import concept as coded
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import identifiers, task
from resources import patient as patients


@dataclass(frozen=True, slots=True)
class Pid:
    """A PID of a sender."""

    segment: Segment
    sender: Sender


# PID


def patient_identifiers(pid: Segment, sender: Sender) -> list[Resource]:
    """PID-3, all repetitions: their order means nothing. Refused when there is none."""
    found = [identifier(CX.from_field(f), sender.authority) for f in pid.repetitions(3) if f.get(1).strip()]
    if not found:
        raise missing(pid, 3, "the patient identifier")
    return found


async def map_patient(pid: Segment, sender: Sender) -> Resource:
    """The Patient that a PID describes. Refused without PID-3."""
    return await PID.build(Pid(pid, sender))


def human_name(xpn: XPN) -> dict[str, Any] | None:
    """XPN -> HumanName; None when it names nobody."""
    parts: dict[str, Any] = {
        "use": NAME_USE.fhir(xpn.type),
        "family": xpn.family,
        "given": [g for g in (xpn.given, xpn.middle) if g],
        "prefix": [xpn.prefix] if xpn.prefix else None,
        "suffix": [s for s in (xpn.suffix, xpn.degree) if s],
    }
    found = {k: v for k, v in parts.items() if v}
    return found if found.keys() - {"use"} else None


def _gender(pid: Segment) -> str | None:
    sex = pid.field(8).strip().upper()
    if sex and GENDER.fhir(sex) is None:
        raise wrong(pid, 8, "the sex is none of table 0001", code=103)
    return GENDER.fhir(sex)


def _birth_date(pid: Segment) -> str | None:
    text = pid.field(7).strip()
    try:
        return times.to_date(text) if text else None
    except ValueError as error:
        raise wrong(pid, 7, f"date of birth: {error}", code=102) from None


def address(field: Field) -> dict[str, Any] | None:
    parts: dict[str, Any] = {
        "use": ADDRESS_USE.fhir(field.get(7)),
        "line": [x for x in (field.get(1), field.get(2)) if x],
        "city": field.get(3),
        "state": field.get(4),
        "postalCode": field.get(5),
        "country": field.get(6),
    }
    found = {k: v for k, v in parts.items() if v}
    return found if found.keys() - {"use"} else None


def telecoms(pid: Segment, field: int) -> list[dict[str, Any]]:
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
        use = "mobile" if mobile else TELECOM_USE.fhir(xtn.get(2)) or by_field
        email = value == xtn.get(4) or (xtn.get(2) == "NET" and "@" in value)
        system = "email" if email else TELECOM_SYSTEM.fhir(xtn.get(3)) or "phone"
        found.append({"system": system, "value": value.strip()} | ({"use": use} if use else {}))
    return found


def _marital_status(pid: Segment) -> dict[str, Any] | None:
    code = pid.field(16).strip().upper()
    if not code:
        return None
    status = MARITAL_STATUS.fhir(code)
    return coded(MARITAL_STATUS.target, status) if status else coded(MARITAL_STATUS.source, code)


def _communication(pid: Segment, sender: Sender) -> list[dict[str, Any]] | None:
    language = concept(CWE.from_field(pid.repetitions(15)[0]), sender.authority) if pid.raw(15) else None
    return [{"language": language}] if language else None


def _deceased(pid: Segment) -> bool | None:
    return None if pid.field(29).strip() else {"Y": True, "N": False}.get(pid.field(30).strip().upper())


def _each(field: int, read: Any) -> Any:
    return lambda of: [x for f in of.segment.repetitions(field) if (x := read(f))]


PID = table(
    "PID -> Patient",
    "Patient",
    Row("PID-3", "identifier", lambda of: patient_identifiers(of.segment, of.sender),
        "all repetitions; their order means nothing. The system is the OID or URI of CX.4, else the namespace's", "R"),
    Row("PID-5", "name", _each(5, lambda f: human_name(XPN.from_field(f)))),
    Row("PID-13, PID-14, PID-40", "telecom", lambda of: [t for n in (13, 14, 40) for t in telecoms(of.segment, n)],
        "phone, fax, pager or e-mail by XTN.3; home or work by XTN.2, else by the field"),
    Row("PID-8", "gender", lambda of: _gender(of.segment), "a code outside of table 0001 is refused"),
    Row("PID-7", "birthDate", lambda of: _birth_date(of.segment), "as precise as sent, to the day"),
    Row("PID-11", "address", _each(11, address)),
    Row("PID-16", "maritalStatus", lambda of: _marital_status(of.segment)),
    Row("PID-15", "communication", lambda of: _communication(of.segment, of.sender)),
    Row("PID-29", "deceasedDateTime", lambda of: date_time(of.sender, of.segment, 29)),
    Row("PID-30", "deceasedBoolean", lambda of: _deceased(of.segment), "not read where PID-29 has a time"),
    active=True,
)  # fmt: skip


# Finding and storing


async def master(unit: UnitOfWork, pid: Segment, sender: Sender) -> Resource:
    """Store what the master of patient identity says (ADT): a new Patient, or the known one brought up to date."""
    said = await map_patient(pid, sender)
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
    said = await map_patient(pid, sender)
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
