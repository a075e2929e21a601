"""OBX -> Observation (HL7 v2-to-FHIR guide, segment OBX): what is coded, measured or timed in a result."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from bridges.v2 import times
from bridges.v2.codes import INTERPRETATION, OBSERVATION_STATUS_IN
from bridges.v2.datatypes import CWE, XCN
from bridges.v2.mapping import Row, table
from bridges.v2.message import Field, Segment
from bridges.v2.people_in import People
from bridges.v2.reception import Sender, date_time
from bridges.v2.refused import wrong
from bridges.v2.systems import SYSTEMS, concept
from fhir_server.elements import concept as coded
from fhir_server.registry import Resource

CODED: Final = frozenset({"CE", "CWE", "CNE", "CF", "IS", "ID"})
TIMES: Final = frozenset({"DT", "TS", "DTM"})
_NUMBER: Final = re.compile(r"(?P<comparator>[<>]=?)?\s*(?P<value>[+-]?\d+(?:\.\d+)?)")
_COMPARATORS: Final = frozenset({"<", "<=", ">", ">="})
_ABSENT: Final = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
# Units that stand for themselves in UCUM, so that one without a system is that.
_UCUM: Final = frozenset(
    "% m cm mm um km m2 cm2 mm2 cm3 mm3 kg g mg ug L dL mL s ms min h d a Gy cGy mGy mSv uGy mGy.cm Gy.cm2 kBq MBq GBq "
    "/min mL/min mL/s cm/s m/s kg/m2 g/cm2 g/cm3 mg/dL umol/L mmol/L mm[Hg] [hnsf'U] deg Hz kHz MHz".split()
)


@dataclass(frozen=True, slots=True)
class Obx:
    """One value of an OBX, of a sender; `status` is the Observation's where OBX-11 says none, that of the report.

    value: the repetition of OBX-5
    """

    obx: Segment
    value: Field | None
    sender: Sender
    people: People
    status: str
    note: str = ""

    @property
    def type(self) -> str:
        """OBX-2."""
        return self.obx.field(2).strip().upper()

    @property
    def present(self) -> Field | None:
        """The value, None where it is empty."""
        return self.value if self.value is not None and self.value.raw.strip() and not self.value.is_null else None


def observation_status(obx: Segment, report: str) -> str:
    """OBX-11; where it is empty, or holds what isn't in table 0085 (its fields are shifted), the report's status."""
    return OBSERVATION_STATUS_IN.fhir(obx.field(11)) or status_of_part(report)


def status_of_part(report: str) -> str:
    """The Observation.status of a part of a report in this status."""
    return {"partial": "preliminary", "appended": "amended"}.get(report, report)


def interpretations(obx: Segment) -> list[Resource]:
    """OBX-8, all repetitions: as a code alone, or as a coded element. A code outside of table 0078 stays as it is."""
    found = []
    for flag in obx.repetitions(8):
        code, text = flag.get(1).strip(), flag.get(2).strip()
        if code:
            known = INTERPRETATION.fhir(code)
            system = INTERPRETATION.target if known else INTERPRETATION.source
            found.append(coded(system, known or " ".join(code.split()), text or None))
    return found


def _unit(of: Obx) -> dict[str, str]:
    """OBX-6: UCUM where it says so, or where a unit without system can be nothing else; else just its text."""
    code, text, system = (of.obx.get(6, n).strip() for n in (1, 2, 3))
    if not code:
        return {"unit": text} if text else {}
    if SYSTEMS.get(system.upper()) == SYSTEMS["UCUM"] or (not system and code in _UCUM):
        return {"unit": text or code, "system": SYSTEMS["UCUM"], "code": " ".join(code.split())}
    return {"unit": text or code}


def _number(of: Obx, text: str, component: int | None = None) -> dict[str, Any]:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or len(match["value"]) > 30:
        raise wrong(of.obx, 5, "that is no number", code=102, component=component)
    comparator = {"comparator": match["comparator"]} if match["comparator"] else {}
    return {"value": Decimal(match["value"].removeprefix("+"))} | comparator | _unit(of)


def _structured(of: Obx) -> tuple[str, Any]:
    """SN: comparator, number, separator, number (HL7 v2.5.1 2.A.71). What FHIR has no word for is text."""
    value = of.present
    assert value is not None
    comparator, low, separator, high = (value.get(n).strip() for n in range(1, 5))
    shown = f"{comparator}{low}{separator}{high}"
    if not low or comparator not in _COMPARATORS | {"", "="}:
        return "valueString", shown
    first = _number(of, low, 2) | ({"comparator": comparator} if comparator in _COMPARATORS else {})
    if not separator and not high:
        return "valueQuantity", first
    if separator == "-" and high and not comparator:
        return "valueRange", {"low": first, "high": _number(of, high, 4)}
    if separator in {":", "/"} and high:
        return "valueRatio", {"numerator": first, "denominator": {"value": _number(of, high, 4)["value"]}}
    return "valueString", shown


def _quantity(of: Obx) -> Any:
    if of.present is None:
        return None
    if of.type == "NM":
        return _number(of, of.present.get(1))
    return _of_structured(of, "valueQuantity")


def _of_structured(of: Obx, element: str) -> Any:
    if of.type != "SN" or of.present is None:
        return None
    name, value = _structured(of)
    return value if name == element else None


def _timed(of: Obx) -> str | None:
    return _checked_time(of, lambda text: times.to_datetime(text, of.sender.zone)) if of.type in TIMES else None


def _time_of_day(of: Obx) -> str | None:
    return _checked_time(of, times.to_time) if of.type == "TM" else None


def _checked_time(of: Obx, read: Callable[[str], str]) -> str | None:
    if of.present is None:
        return None
    try:
        return read(of.present.get(1).strip())
    except ValueError as error:
        raise wrong(of.obx, 5, str(error), code=102) from None


def _period(of: Obx) -> dict[str, str] | None:
    if of.type != "DR":
        return None
    said = {"start": date_time(of.sender, of.obx, 5, 1), "end": date_time(of.sender, of.obx, 5, 2)}
    return {k: v for k, v in said.items() if v} or None


def _concept(of: Obx) -> Resource | None:
    return concept(CWE.from_field(of.present), of.sender.authority) if of.type in CODED and of.present else None


def _text(of: Obx) -> str | None:
    """Everything else as people read it: texts, and types that FHIR has no value for (EI, XCN, CP, ...)."""
    if of.present is None or of.type in CODED | TIMES | {"NM", "TM", "DR"}:
        return None
    if of.type == "SN":
        name, value = _structured(of)
        return str(value) if name == "valueString" else None
    if of.type in {"ST", "TX", "FT", ""}:
        return of.present.text
    return " ".join(c for c in of.present.components() if c)


def _absent(of: Obx) -> Resource | None:
    """No value: it is not there yet, or nobody says why."""
    if of.present is not None:
        return None
    return coded(_ABSENT, "temp-unknown" if of.obx.field(11).strip().upper() in {"N", "I", "S", "O", "P"} else "unknown")


def _code(of: Obx) -> Resource:
    code = concept(CWE.from_field(of.obx.repetitions(3)[0]), of.sender.authority) if of.obx.raw(3) else None
    if code is None:
        raise wrong(of.obx, 3, "what is observed is missing", code=101)
    return code


async def _performer(of: Obx) -> list[Resource]:
    found = [await of.people.reference(XCN.from_field(f)) for f in of.obx.repetitions(16)]
    return [who for who in found if who]


def _concept_of(field: int) -> Callable[[Obx], Resource | None]:
    return lambda of: concept(CWE.from_field(of.obx.repetitions(field)[0]), of.sender.authority) if of.obx.raw(field) else None


OBX = table(
    "OBX -> Observation",
    "Observation",
    Row("OBX-11", "status", lambda of: observation_status(of.obx, of.status), "OBR-25's where it is empty"),
    Row("OBX-3", "code", _code, "both triplets", "R"),
    Row("OBX-5, OBX-6", "valueQuantity", _quantity, "NM and SN; UCUM where OBX-6 says so or can be nothing else"),
    Row("OBX-5, OBX-6", "valueRange", lambda of: _of_structured(of, "valueRange"), "SN with `-`"),
    Row("OBX-5, OBX-6", "valueRatio", lambda of: _of_structured(of, "valueRatio"), "SN with `:` or `/`"),
    Row("OBX-5", "valueCodeableConcept", _concept, "CE, CWE, CNE, CF, IS, ID; each repetition is an Observation"),
    Row("OBX-5", "valueDateTime", _timed, "DT, TS, DTM"),
    Row("OBX-5", "valueTime", _time_of_day, "TM"),
    Row("OBX-5", "valuePeriod", _period, "DR"),
    Row("OBX-5", "valueString", _text, "ST that is no part of the report's text, and all other types as people read them"),
    Row("OBX-5, OBX-11", "dataAbsentReason", _absent, "where there is no value"),
    Row("OBX-7", "referenceRange", lambda of: [{"text": t}] if (t := of.obx.text(7).strip()) else None),
    Row("OBX-8", "interpretation", lambda of: interpretations(of.obx), "AA, HH and LL open a work item `critical-result`"),
    Row("OBX-14", "effectiveDateTime", lambda of: date_time(of.sender, of.obx, 14), "else that of the report"),
    Row("OBX-16", "performer", _performer),
    Row("OBX-17", "method", _concept_of(17)),
    Row("OBX-20", "bodySite", _concept_of(20)),
    Row("NTE-3", "note", lambda of: [{"text": of.note}] if of.note else None),
)  # fmt: skip
