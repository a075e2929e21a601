"""Observation values -> OBX-2, OBX-5 and OBX-6 (HL7 v2-to-FHIR guide, segment OBX, the other way round)."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bridges.v2.codes import RESULT_STATUS
from bridges.v2.datatypes import CWE
from bridges.v2.destination import Destination
from bridges.v2.message import Comp, Value
from bridges.v2.systems import name
from fhir_server.registry import Resource


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a report says: its type (OBX-2), what it is, and its value with unit, reference range and flags.

    status: OBX-11 of its own, empty for the report's; when: OBX-14
    """

    kind: str
    code: CWE
    value: Value
    unit: Value = None
    range: str = ""
    flags: tuple[str, ...] = ()
    status: str = ""
    when: str = ""


def result_parts(result: Resource, to: Destination) -> list[Part]:
    """The Observation, its components and its notes, each with a value; what v2 has no type for is told as text."""
    status = RESULT_STATUS.v2(result.get("status"))
    when = to.time(result.get("effectiveDateTime") or result.get("effectivePeriod", {}).get("start"))
    found = [_part(element, status, when, to) for element in (result, *result.get("component", ()))]
    texts = [n.get("text", "") for n in result.get("note", ())]
    return [*(p for p in found if p), *(Part("TX", to.code(result.get("code")), t, status=status) for t in texts)]


def flags_of(element: Resource) -> tuple[str, ...]:
    """OBX-8: abnormal and critical flags."""
    return tuple(c["code"] for i in element.get("interpretation", ()) for c in i.get("coding", ()) if "code" in c)


def _part(element: Resource, status: str, when: str, to: Destination) -> Part | None:
    """None for an element that has no value."""
    found = next(((k, v) for k, v in element.items() if k.startswith("value")), None)
    code = to.code(element.get("code"))
    if found is None:
        absent = element.get("dataAbsentReason")
        why = to.code(absent)
        return Part("TX", code, f"no value: {why.text or why.code}", status=status, when=when) if absent else None
    kind, value, unit = _value(*found, to)
    ranges = "; ".join(r["text"] for r in element.get("referenceRange", ()) if "text" in r)
    return Part(kind, code, value, unit, ranges, flags_of(element), status, when)


def _value(element: str, value: Any, to: Destination) -> tuple[str, Value, Value]:
    """(OBX-2, OBX-5, OBX-6) of an Observation's value. A type that v2 has no word for is told as text, not left out."""
    match element:
        case "valueQuantity" if "comparator" in value:
            return "SN", Comp(value["comparator"], _number(value)), _unit(value)
        case "valueQuantity":
            return "NM", _number(value), _unit(value)
        case "valueInteger":
            return "NM", str(value), None
        case "valueRange":
            low, high = value.get("low", {}), value.get("high", {})
            return "SN", Comp(None, _number(low), "-", _number(high)), _unit(low or high)
        case "valueRatio":
            top, bottom = value.get("numerator", {}), value.get("denominator", {})
            return "SN", Comp(top.get("comparator"), _number(top), ":", _number(bottom)), _unit(top)
        case "valueCodeableConcept":
            return to.coded, to.code(value), None
        case "valueBoolean":
            return to.coded, CWE("Y" if value else "N", "Yes" if value else "No", "HL70136"), None
        case "valueDateTime":
            return "TS", to.time(value), None
        case "valueTime":
            return "TM", value.replace(":", ""), None
        case "valueString":
            return "TX", value, None
        case _:
            return "TX", f"a {element.removeprefix('value')}, which is in the electronic report only", None


def _number(quantity: Resource) -> str:
    value = quantity.get("value", "")
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _unit(quantity: Resource) -> Comp | None:
    code, text = quantity.get("code", ""), quantity.get("unit", "")
    return Comp(code, text, name(quantity.get("system", ""))) if code else Comp(None, text) if text else None
