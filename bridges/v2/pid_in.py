"""PID -> Patient (HL7 v2-to-FHIR guide, segment PID): the mapping table, and what it reads with."""

import re
from dataclasses import dataclass
from typing import Any, Final

from bridges.v2 import times
from bridges.v2.codes import ADDRESS_USE, GENDER, MARITAL_STATUS, TELECOM_SYSTEM, TELECOM_USE
from bridges.v2.datatypes import CWE, CX, XPN
from bridges.v2.mapping import Row, table
from bridges.v2.message import Field, Segment
from bridges.v2.person_names import human_name
from bridges.v2.reception import Sender, date_time
from bridges.v2.refused import missing, wrong
from bridges.v2.systems import concept, identifier, typed
from fhir_server.elements import concept as coded
from fhir_server.registry import Resource
from resources.patient_identity import IDENTITY, UNKNOWN

RELIABILITY: Final = "http://terminology.hl7.org/CodeSystem/v2-0445"  # PID-32, as meta.tag
_FHIR: Final = "http://hl7.org/fhir/StructureDefinition/"
_US_CORE: Final = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_CDC: Final = "urn:oid:2.16.840.1.113883.6.238"
# The categories of the Office of Management and Budget; other codes of the CDC's are details of them.
_OMB: Final = frozenset({"1002-5", "2028-9", "2054-5", "2076-8", "2106-3", "2135-2", "2186-5"})
# Identifier types of a registration without a name: such an id is somebody's for the time being.
_TEMPORARY: Final = frozenset({"TEMP", "ANON"})


@dataclass(frozen=True, slots=True)
class Pid:
    """A PID of a sender."""

    segment: Segment
    sender: Sender


async def map_patient(pid: Segment, sender: Sender) -> Resource:
    """The Patient that a PID describes. Refused without PID-3."""
    return await PID.build(Pid(pid, sender))


# Identifiers


def patient_identifiers(pid: Segment, sender: Sender) -> list[Resource]:
    """PID-3, all repetitions: their order means nothing. Refused when there is none."""
    found = identifiers_in(pid, 3, sender)
    if not found:
        raise missing(pid, 3, "the patient identifier")
    return found


def identifiers_in(segment: Segment, field: int, sender: Sender) -> list[Resource]:
    """The identifiers of a field of type CX: PID-3, MRG-1."""
    return [_identifier(f, sender) for f in segment.repetitions(field) if f.get(1).strip()]


def _identifier(field: Field, sender: Sender) -> Resource:
    cx = sender.known(CX.from_field(field))
    found = identifier(cx, sender.authority)
    period = {k: d for k, text in (("start", cx.effective), ("end", cx.expiration)) if (d := _valid_date(text))}
    temporary = {"use": "temp"} if cx.type.strip().upper() in _TEMPORARY else {}
    return found | temporary | ({"period": period} if period else {})


def _valid_date(text: str) -> str | None:
    try:
        return times.to_date(text.strip()) if text.strip() else None
    except ValueError:
        return None  # an identifier is one whatever is said of its validity


def _secondary(of: Pid) -> list[Resource]:
    """PID-2, PID-4 and PID-19, where PID-3 doesn't have them. Without an authority of their own they identify nobody."""
    main = [(i.get("system"), i["value"]) for i in identifiers_in(of.segment, 3, of.sender)]
    found = []
    for number in (2, 4, 19):
        for field in of.segment.repetitions(number):
            value = field.get(1).strip()
            if not value or value in {v for _, v in main}:
                continue
            made = _identifier(field, of.sender)
            if not field.get(4).strip():
                made = {k: v for k, v in made.items() if k not in {"system", "assigner"}}
            found.append(made | ({"type": typed("SS")} if number == 19 else {}) | {"use": "secondary"})
    return found


# Addresses, numbers


def postal_address(field: Field) -> dict[str, Any] | None:
    """XAD -> Address."""
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


def telecoms(segment: Segment, field: int, use: str | None = None) -> list[dict[str, Any]]:
    """XTN: a number as text (1, 12) or in parts (5 to 8), or an address of e-mail (4). `use` where XTN-2 says nothing."""
    found = []
    for xtn in segment.repetitions(field):
        country, area, local, extension = (xtn.get(n).strip() for n in (5, 6, 7, 8))
        parts = ("+" + country.lstrip("+") if country else "") + area + local + (f"x{extension}" if extension else "")
        value = xtn.get(1) or (parts if local else "") or xtn.get(12) or xtn.get(4)
        if not value.strip():
            continue
        of = "mobile" if xtn.get(3) == "CP" else TELECOM_USE.fhir(xtn.get(2)) or use
        email = value == xtn.get(4) or (xtn.get(2) == "NET" and "@" in value)
        system = "email" if email else TELECOM_SYSTEM.fhir(xtn.get(3)) or "phone"
        found.append({"system": system, "value": value.strip()} | ({"use": of} if of else {}))
    return found


# Single fields


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


def _birth_time(of: Pid) -> list[Resource]:
    text = of.segment.field(7).strip()
    if len(text) <= 8:
        return []
    when = date_time(of.sender, of.segment, 7)
    return [{"url": _FHIR + "patient-birthTime", "valueDateTime": when}] if when and "T" in when else []


def _marital_status(pid: Segment) -> dict[str, Any] | None:
    code = pid.field(16).strip().upper()
    if not code:
        return None
    status = MARITAL_STATUS.fhir(code)
    return coded(MARITAL_STATUS.target, status) if status else coded(MARITAL_STATUS.source, code)


def _communication(pid: Segment, sender: Sender) -> list[dict[str, Any]] | None:
    language = _concept(pid, 15, sender)
    return [{"language": language}] if language else None


def _deceased(pid: Segment) -> bool | None:
    return None if pid.field(29).strip() else {"Y": True, "N": False}.get(pid.field(30).strip().upper())


def _twin(pid: Segment) -> bool | None:
    return None if _birth_order(pid) else {"Y": True, "N": False}.get(pid.field(24).strip().upper())


def _birth_order(pid: Segment) -> int | None:
    text = pid.field(25).strip()
    return int(text) if re.fullmatch(r"[1-9][0-9]?", text) else None


def _tags(pid: Segment) -> list[Resource]:
    unknown = [{"system": IDENTITY, "code": UNKNOWN}] if pid.field(31).strip().upper() == "Y" else []
    return unknown + [{"system": RELIABILITY, "code": code} for f in pid.repetitions(32) if (code := f.get(1).strip())]


def _concept(segment: Segment, field: int, sender: Sender) -> dict[str, Any] | None:
    return concept(CWE.from_field(segment.repetitions(field)[0]), sender.authority) if segment.raw(field) else None


# Extensions


def _extension(url: str, type_: str, value: Any) -> list[Resource]:
    return [{"url": url, f"value{type_}": value}] if value else []


def _us_core(of: Pid, field: int, name: str) -> list[Resource]:
    """Race and ethnicity as US Core has them: each repetition a category or a detail, and all as text."""
    parts, texts = [], []
    for repetition in of.segment.repetitions(field):
        code, text = repetition.get(1).strip(), repetition.get(2).strip() or repetition.get(1).strip()
        if not text:
            continue
        texts.append(text)
        if re.fullmatch(r"[0-9]{4}-[0-9]", code):
            kind = "ombCategory" if code in _OMB else "detailed"
            parts.append({"url": kind, "valueCoding": {"system": _CDC, "code": code, "display": text}})
    whole = [*parts, {"url": "text", "valueString": ", ".join(texts)}]
    return [{"url": _US_CORE + name, "extension": whole}] if texts else []


def _animal(of: Pid) -> list[Resource]:
    species = _concept(of.segment, 35, of.sender)
    breed = _concept(of.segment, 36, of.sender)
    if species is None:
        return []
    parts = [{"url": "species", "valueCodeableConcept": species}]
    parts += [{"url": "breed", "valueCodeableConcept": breed}] if breed else []
    return [{"url": _FHIR + "patient-animal", "extension": parts}]


# The extensions that PID makes, and the fields that they come from.
EXTENSIONS: Final = {
    _FHIR + "patient-mothersMaidenName": 6,
    _US_CORE + "race": 10,
    _FHIR + "patient-religion": 17,
    _US_CORE + "ethnicity": 22,
    _FHIR + "patient-birthPlace": 23,
    _FHIR + "patient-animal": 35,
}


def _each(field: int, read: Any) -> Any:
    return lambda of: [x for f in of.segment.repetitions(field) if (x := read(f))]


PID = table(
    "PID -> Patient",
    "Patient",
    Row("PID-3", "identifier", lambda of: patient_identifiers(of.segment, of.sender),
        "all repetitions; their order means nothing. The system is the OID or URI of CX.4, else the namespace's; "
        "types TEMP and ANON have use `temp`; CX.7 and 8 are the period", "R"),
    Row("PID-2, PID-3, PID-4, PID-19", "identifier", _secondary,
        "kept with use `secondary` where PID-3 lacks them; nobody is found by them. PID-19 has type SS"),
    Row("PID-5", "name", _each(5, lambda f: human_name(XPN.from_field(f))),
        "XPN.8 as extension iso21090-EN-representation; the prefix of FN.2 stands before the surname, and FN.2 to FN.5 are "
        "extensions humanname-own-prefix, -own-name, -partner-prefix, -partner-name of `family`"),
    Row("PID-13", "telecom", lambda of: telecoms(of.segment, 13, "home"),
        "phone, fax, pager or e-mail by XTN.3; home or work by XTN.2, else by the field"),
    Row("PID-14", "telecom", lambda of: telecoms(of.segment, 14, "work")),
    Row("PID-40", "telecom", lambda of: telecoms(of.segment, 40)),
    Row("PID-8", "gender", lambda of: _gender(of.segment), "a code outside of table 0001 is refused"),
    Row("PID-7", "birthDate", lambda of: _birth_date(of.segment), "as precise as sent, to the day"),
    Row("PID-7", "_birthDate.extension", _birth_time, "patient-birthTime, where a time was sent"),
    Row("PID-11", "address", _each(11, postal_address)),
    Row("PID-16", "maritalStatus", lambda of: _marital_status(of.segment)),
    Row("PID-15", "communication", lambda of: _communication(of.segment, of.sender)),
    Row("PID-25", "multipleBirthInteger", lambda of: _birth_order(of.segment)),
    Row("PID-24, PID-25", "multipleBirthBoolean", lambda of: _twin(of.segment), "not read where PID-25 has a number"),
    Row("PID-29", "deceasedDateTime", lambda of: date_time(of.sender, of.segment, 29)),
    Row("PID-29, PID-30", "deceasedBoolean", lambda of: _deceased(of.segment), "not read where PID-29 has a time"),
    Row("PID-6", "extension", lambda of: _extension(_FHIR + "patient-mothersMaidenName", "String", of.segment.field(6).strip()),
        "patient-mothersMaidenName"),
    Row("PID-10", "extension", lambda of: _us_core(of, 10, "race"), "us-core-race"),
    Row("PID-22", "extension", lambda of: _us_core(of, 22, "ethnicity"), "us-core-ethnicity"),
    Row("PID-17", "extension", lambda of: _extension(
        _FHIR + "patient-religion", "CodeableConcept", _concept(of.segment, 17, of.sender)), "patient-religion"),
    Row("PID-23", "extension", lambda of: _extension(
        _FHIR + "patient-birthPlace", "Address", {"text": t} if (t := of.segment.field(23).strip()) else None),
        "patient-birthPlace, as text"),
    Row("PID-35, PID-36", "extension", _animal, "patient-animal: species and breed"),
    Row("PID-31, PID-32", "meta.tag", lambda of: _tags(of.segment),
        "Y in PID-31: `unknown` of urn:fhir-ris:identity; PID-32: codes of table 0445"),
    active=True,
)  # fmt: skip
