"""FHIR data types as DICOM values, and back: names, codes, times, identifiers."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from bridges.dicom.dicom_json import Attributes, put, text
from resources import terms

FhirElement = dict[str, Any]

# Coding scheme designators of PS3.16 8, in both directions.
_DESIGNATORS = {
    "http://snomed.info/sct": "SCT",
    "http://loinc.org": "LN",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "http://www.ama-assn.org/go/cpt": "C4",
    "http://radlex.org": "RADLEX",
    "http://www.radlex.org": "RADLEX",
    "http://hl7.org/fhir/sid/icd-10": "I10",
    "http://hl7.org/fhir/sid/icd-10-cm": "I10C",
    "http://unitsofmeasure.org": "UCUM",
}
_SYSTEMS = {designator: system for system, designator in reversed(_DESIGNATORS.items())} | {"SRT": "http://snomed.info/srt"}
LOCAL_SCHEME = "99LOCAL"
_GROUP_OF = {"ABC": "Alphabetic", "IDE": "Ideographic", "SYL": "Phonetic"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")  # of both ranges: no data set may have them (PS3.5 6.1.3)
_NAME_LENGTH = 64  # PN, for each component group
LO, SH, LT = 64, 16, 10240  # characters, PS3.5 6.2


def line(value: str | None, limit: int) -> str:
    """A description for LO or SH: one line, no backslash, cut to its length."""
    return _CONTROL.sub(" ", (value or "").replace("\\", "/")).strip()[:limit].rstrip()


def paragraph(value: str | None, limit: int = LT) -> str:
    """A text for LT: line ends as CR LF."""
    return "\r\n".join(_CONTROL.sub(" ", one) for one in (value or "").splitlines())[:limit].rstrip()


def whole(value: str | None, limit: int) -> str:
    """An identifier as it is, or nothing: a cut or changed identifier would be somebody else's."""
    given = (value or "").strip(" ")
    return "" if len(given) > limit or "\\" in given or _CONTROL.search(given) else given


# Names


def person_name(names: Iterable[FhirElement]) -> dict[str, str]:
    """The PN (in the JSON model) of a person's names: the official one, else the usual one, else the first.

    Component order is family^given^middle^prefix^suffix (PS3.5 6.2.1.1). Ideographic and phonetic groups come from names that
    carry the iso21090-EN-representation extension.
    """
    groups: dict[str, list[FhirElement]] = {}
    for name in names:
        if name.get("use") != "old":
            groups.setdefault(_group(name), []).append(name)
    found = {}
    for group in ("Alphabetic", "Ideographic", "Phonetic"):
        candidates = sorted(groups.get(group, ()), key=lambda n: {"official": 0, "usual": 1}.get(n.get("use", ""), 2))
        if candidates and (formatted := _components(candidates[0])):
            found[group] = formatted
    return found


def unknown_name(id_: str) -> dict[str, str]:
    """What stands for the name of a patient who has none: scanners reject entries without one (PS3.4 K.6-1, type 1)."""
    return {"Alphabetic": f"Unknown^{_component(id_)}".rstrip("^")[:_NAME_LENGTH]}


def _group(name: FhirElement) -> str:
    for extension in name.get("extension", ()):
        if extension.get("url") == terms.NAME_REPRESENTATION:
            return _GROUP_OF.get(extension.get("valueCode", ""), "Alphabetic")
    return "Alphabetic"


def _components(name: FhirElement) -> str:
    given = name.get("given", [])
    parts = [name.get("family", ""), given[0] if given else "", *(" ".join(p) for p in _rest(name, given))]
    if not any(parts):
        parts = [part.strip() for part in name.get("text", "").split(",", 1)]
    formatted = "^".join(_component(p) for p in parts).rstrip("^")
    return formatted[:_NAME_LENGTH].rstrip("^ ")


def _rest(name: FhirElement, given: list[str]) -> tuple[list[str], list[str], list[str]]:
    return given[1:], name.get("prefix", []), name.get("suffix", [])


def _component(value: str) -> str:
    """A name component without what PN gives a meaning."""
    return " ".join(re.sub(r"[\\^=]", " ", _CONTROL.sub(" ", value)).split())


# Codes


def code_item(coding: FhirElement, text_: str = "") -> Attributes | None:
    """The Code Sequence Macro item (PS3.3 8.8) of a Coding; None without a code. A long code goes into Long Code Value."""
    code = (coding.get("code") or "").strip()
    if not code or "\\" in code or _CONTROL.search(code):
        return None
    item: Attributes = {}
    put(item, "CodeValue" if len(code) <= SH else "LongCodeValue", code)
    put(item, "CodingSchemeDesignator", _DESIGNATORS.get(coding.get("system", ""), LOCAL_SCHEME))
    put(item, "CodeMeaning", line(coding.get("display") or text_ or code, LO))
    return item


def code_text(value: str) -> str:
    """A code as FHIR takes it: no blanks around it, single ones within (R4 2.24.0.1)."""
    return " ".join(value.split())


def coding_of(item: Attributes) -> FhirElement | None:
    """The Coding of a code item. A private scheme (99...) has no system that we could name."""
    code = code_text(text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue"))
    if not code:
        return None
    coding: FhirElement = {"code": code}
    if system := _SYSTEMS.get(text(item, "CodingSchemeDesignator")):
        coding = {"system": system, "code": code}
    if meaning := text(item, "CodeMeaning"):
        coding["display"] = meaning
    return coding


def display(concept: FhirElement | None) -> str:
    """What a person reads of a CodeableConcept."""
    concept = concept or {}
    return concept.get("text") or next((c["display"] for c in concept.get("coding", ()) if c.get("display")), "")


# Times


def local(value: str | None, zone: ZoneInfo) -> datetime | None:
    """A FHIR dateTime in the department's zone; one without a time is its midnight. None when it names no day."""
    try:
        moment = datetime.fromisoformat(value or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)


def date_of(moment: datetime | None) -> str:
    """DA"""
    return f"{moment:%Y%m%d}" if moment else ""


def time_of(moment: datetime | None) -> str:
    """TM, to the second"""
    return f"{moment:%H%M%S}" if moment else ""


def offset_of(moment: datetime) -> str:
    """Timezone Offset From UTC: `+0200`"""
    return f"{moment:%z}"[:5]


_DATE = re.compile(r"^(\d{4})\.?(\d{2})\.?(\d{2})$")
_TIME = re.compile(r"^(\d{2}):?(?:(\d{2}):?(?:(\d{2})(?:\.(\d{1,6}))?)?)?$")
_PLAUSIBLE_YEARS = range(1900, 3000)
_OFFSET = re.compile(r"^([+-])(\d{2})(\d{2})$")


def moment(date: str, time: str, zone: ZoneInfo, offset: str = "") -> datetime | None:
    """The moment of a DA and a TM, in the data set's Timezone Offset if it has one, else in the department's zone.

    None without a date, or in a year in which nobody was examined. ValueError when they aren't date and time. A time without
    seconds or minutes is at their beginning.
    """
    if not date:
        return None
    day, hours = _DATE.match(date), _TIME.match(time or "000000")
    if day is None or hours is None:
        raise ValueError("not a date and time")
    year, month, number = (int(g) for g in day.groups())
    hour, minute, second = (int(g or "0") for g in hours.groups()[:3])
    microsecond = int((hours[4] or "0").ljust(6, "0"))
    shift = _OFFSET.match(offset)
    tz: tzinfo = zone
    if shift:
        east = timedelta(hours=int(shift[2]), minutes=int(shift[3]))
        tz = timezone(-east if shift[1] == "-" else east)
    # TM allows a leap second, Python doesn't know it.
    found = datetime(year, month, number, hour, minute, min(second, 59), microsecond, tzinfo=tz)
    return found if year in _PLAUSIBLE_YEARS else None


def fhir_time(value: datetime) -> str:
    """A FHIR dateTime with its offset: `2026-09-07T10:15:00+02:00`."""
    return value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")


def identifier_system(issuer: str) -> str | None:
    """The system of an issuer that is an OID."""
    return f"urn:oid:{issuer}" if re.fullmatch(r"[0-2](\.(0|[1-9][0-9]*))+", issuer) else None
