"""Observation values -> OBX-2, OBX-5 and OBX-6 (HL7 v2-to-FHIR guide, segment OBX, the other way round)."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from bridges.v2.codes import RESULT_STATUS
from bridges.v2.datatypes import CWE
from bridges.v2.destination import Destination
from bridges.v2.message import Comp, Value
from bridges.v2.systems import name
from fhir_server.registry import Resource

FINDING_SITE: Final = CWE("363698007", "Finding Site", "SCT")


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a report says: its type (OBX-2), what it is, and its value with unit, reference range and flags.

    status: OBX-11 of its own, empty for the report's; when: OBX-14; sub_id: OBX-4, empty where the one with this OBX-3 counts
    """

    kind: str
    code: CWE
    value: Value
    unit: Value = None
    range: str = ""
    flags: tuple[str, ...] = ()
    status: str = ""
    when: str = ""
    method: CWE | None = None
    sub_id: str = ""


def result_parts(result: Resource, to: Destination, number: str, members: Mapping[str, Resource]) -> list[Part]:
    """The Observation under its number, and below it (1.1, 1.2) its components, members, site and notes, each with a value.

    What v2 has no type for is told as text, and so is the name of what has no value but parts. members: Observations by reference
    """
    status = RESULT_STATUS.v2(result.get("status"))
    when = to.time(result.get("effectiveDateTime") or result.get("effectivePeriod", {}).get("start"))
    code = to.code(result.get("code"))
    below = [[_part(component, status, when, to, f"{number}.{i}")] for i, component in enumerate(result.get("component", ()), 1)]
    for reference in result.get("hasMember", ()):
        key = str(reference.get("reference"))
        if key in members:
            others = {k: v for k, v in members.items() if k != key}  # a circle ends
            below.append(list(result_parts(members[key], to, f"{number}.{len(below) + 1}", others)))
    if "bodySite" in result:
        site = Part(to.coded, FINDING_SITE, to.code(result["bodySite"]), status=status, sub_id=f"{number}.{len(below) + 1}")
        below.append([site])
    for note in result.get("note", ()):
        below.append([Part("TX", code, note.get("text", ""), status=status, sub_id=f"{number}.{len(below) + 1}")])
    parts = [p for each in below for p in each if p]
    own = _part(result, status, when, to, number)
    named = Part("TX", code, code.text or code.code, None, "", flags_of(result), status, when, sub_id=number)
    return [own or named, *parts]


def flags_of(element: Resource) -> tuple[str, ...]:
    """OBX-8: abnormal and critical flags."""
    return tuple(c["code"] for i in element.get("interpretation", ()) for c in i.get("coding", ()) if "code" in c)


def _part(element: Resource, status: str, when: str, to: Destination, sub_id: str) -> Part | None:
    """None for an element that has no value."""
    found = next(((k, v) for k, v in element.items() if k.startswith("value")), None)
    code = to.code(element.get("code"))
    if found is None:
        absent = element.get("dataAbsentReason")
        why = to.code(absent)
        text = f"no value: {why.text or why.code}"
        return Part("TX", code, text, status=status, when=when, sub_id=sub_id) if absent else None
    kind, value, unit = _value(*found, to)
    ranges = "; ".join(t for r in element.get("referenceRange", ()) if (t := _range(r, element.get("valueQuantity", {}))))
    method = to.code(element["method"]) if "method" in element else None
    return Part(kind, code, value, unit, ranges, flags_of(element), status, when, method, sub_id)


def _range(of: Resource, measured: Resource) -> str:
    """OBX-7: its own words, and `low-high` (HL7 v2.5.1 7.4.2.7), or one limit, which is inside; the unit where it is another."""
    low, high = (_number(of[e]) if "value" in of.get(e, {}) else "" for e in ("low", "high"))
    numbers = f"{low}-{high}" if low and high else f">={low}" if low else f"<={high}" if high else ""
    limit: Resource = of.get("low") or of.get("high") or {}
    unit = {e: limit.get(e) for e in ("code", "unit")}
    if numbers and any(v and measured and v != measured.get(e) for e, v in unit.items()):
        numbers += f" {unit['unit'] or unit['code']}"
    text = str(of.get("text", ""))
    return f"{text} ({numbers})" if text and numbers and numbers not in text else text or numbers


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
