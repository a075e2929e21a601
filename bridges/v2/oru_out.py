"""DiagnosticReport -> ORU^R01 (IHE RAD-28, RAD-128)."""

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

from bridges.v2.datatypes import CWE
from bridges.v2.destination import Destination
from bridges.v2.message import Comp, Seg, Sub, Value
from bridges.v2.segments_out import OrderFacts, cwe, msh, obr, orc, pid, present, pv1, xcn
from bridges.v2.systems import name
from fhir_server.registry import Resource
from resources import imaging_study

Render = Callable[[Destination, str], list[Seg]]
Reader = tuple[dict[str, Any], Resource | None]
# DiagnosticReport.status -> table 0123 (OBR-25).
_RESULT_STATUS = {
    "registered": "I",
    "partial": "R",
    "preliminary": "P",
    "final": "F",
    "amended": "C",
    "corrected": "C",
    "appended": "C",
    "cancelled": "X",
    "entered-in-error": "X",
}
# The same -> table 0085 (OBX-11), for the parts of the report, and table 0038 (ORC-5).
_PART_STATUS = {"R": "P", "P": "P", "F": "F", "C": "C", "X": "X", "I": "I"}
_ORDER_STATUS = {"R": "A", "P": "A", "F": "CM", "C": "CM", "X": "CA", "I": "IP"}
# MIME main type -> table 0191 (ED.2).
_DATA_TYPE = {"text": "TEXT", "image": "IM", "audio": "AU"}
FINDINGS = CWE("59776-5", "Procedure findings", "LN")
IMPRESSION = CWE("19005-8", "Radiology Imaging study [Impression]", "LN")
DICOM_STUDY = CWE("113014", "DICOM Study", "DCM")
REPORT = CWE("18748-4", "Diagnostic imaging study", "LN")


@dataclass(frozen=True, slots=True)
class Part:
    """One OBX: its type, what it is, and its value with unit, reference range and flags."""

    kind: str
    code: CWE
    value: Value
    unit: Value = None
    range: str = ""
    flags: tuple[str, ...] = ()


def oru_r01(
    report: Resource, results: list[Resource], studies: list[Resource], readers: list[Reader], facts: OrderFacts, now: datetime
) -> Render:
    """The whole report as it stands: OBR-25 its status, an OBX for the study, each result, each form and the impression."""

    def render(to: Destination, control_id: str) -> list[Seg]:
        status = _RESULT_STATUS[report["status"]]
        requester = xcn(facts.order.get("requester"), facts.requester)
        examined = report.get("effectiveDateTime") or report.get("effectivePeriod", {}).get("start")
        fields: dict[int, Any] = {
            7: to.time(examined or next((s["started"] for s in studies if "started" in s), None)),
            22: to.time(report.get("issued") or report["meta"]["lastUpdated"]),
            24: "RAD",
            25: status,
            32: _reader(readers),
        }
        segments = [
            msh(to, "ORU^R01", "ORU_R01", control_id, now),
            pid(facts.patient, to),
            pv1(facts.encounter),
            orc(facts.order, to, control="RE", status=_ORDER_STATUS[status], requester=requester),
            obr(facts.order, fields, requester=requester, procedure=facts.procedure),
        ]
        for i, part in enumerate(_parts(report, results, studies, to), 1):
            values: dict[int, Any] = {
                1: i,
                2: part.kind,
                3: part.code,
                4: i,
                5: part.value,
                6: part.unit,
                7: part.range,
                8: part.flags,
            }
            segments.append(Seg("OBX", values | {11: _PART_STATUS[status]}))
        return list(present(segments))

    return render


def _reader(readers: list[Reader]) -> Comp | None:
    """OBR-32, an NDL: the name as a CNN in its first component."""
    for reference, person in readers:
        who = xcn(reference, person)
        if who is not None:
            return Comp(Sub(who.id, who.family, who.given, who.middle, who.suffix, who.prefix))
    return None


def _parts(report: Resource, results: list[Resource], studies: list[Resource], to: Destination) -> Iterator[Part]:
    for study in studies:
        if uid := imaging_study.study_uid(study):
            yield Part("HD", DICOM_STUDY, Comp(uid))
    told = False
    for part in (*_results(results, to), *_forms(report), *_impression(report, to)):
        told = True
        yield part
    if not told and (narrative := _plain(report.get("text", {}).get("div", ""))):
        yield Part("TX", FINDINGS, narrative)


# Results


def _results(results: list[Resource], to: Destination) -> Iterator[Part]:
    for result in results:
        for element in (result, *result.get("component", ())):
            part = _result(element, to)
            if part is not None:
                yield part
        for note in result.get("note", ()):
            yield Part("TX", cwe(result.get("code")), note.get("text", ""))


def _result(element: Resource, to: Destination) -> Part | None:
    """OBX of an Observation or of one of its components; None when it has no value."""
    found = next(((k, v) for k, v in element.items() if k.startswith("value")), None)
    if found is None:
        absent = element.get("dataAbsentReason")
        return Part("TX", cwe(element.get("code")), f"no value: {cwe(absent).text or cwe(absent).code}") if absent else None
    kind, value, unit = _value(*found, to)
    ranges = [r["text"] for r in element.get("referenceRange", ()) if "text" in r]
    flags = tuple(c["code"] for i in element.get("interpretation", ()) for c in i.get("coding", ()) if "code" in c)
    return Part(kind, cwe(element.get("code")), value, unit, "; ".join(ranges), flags)


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
            return to.coded, cwe(value), None
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


# Texts and documents


def _forms(report: Resource) -> Iterator[Part]:
    """Plain text as findings; other documents as encapsulated data (ED), or as a pointer (RP) where we only have that."""
    for form in report.get("presentedForm", ()):
        mime, _, parameters = form.get("contentType", "").partition(";")
        main, _, subtype = mime.strip().lower().partition("/")
        kind, code = _DATA_TYPE.get(main, "AP"), subtype.upper() or "OCTET-STREAM"
        if "data" in form and (main, subtype) == ("text", "plain"):
            yield Part("TX", FINDINGS, _text(form["data"], parameters))
        elif "data" in form:
            yield Part("ED", REPORT, Comp(None, kind, code, "Base64", re.sub(r"\s", "", form["data"])))
        elif "url" in form:
            yield Part("RP", REPORT, Comp(form["url"], None, kind, code))


def _text(data: str, parameters: str) -> str:
    charset = re.search(r'charset="?([\w.:-]+)', parameters)
    try:
        return base64.b64decode(data).decode(charset[1] if charset else "utf-8", "replace")
    except LookupError:
        return base64.b64decode(data).decode("utf-8", "replace")


def _impression(report: Resource, to: Destination) -> Iterator[Part]:
    if report.get("conclusion"):
        yield Part("TX", IMPRESSION, report["conclusion"])
    for concept in report.get("conclusionCode", ()):
        yield Part(to.coded, IMPRESSION, cwe(concept))


class _Narrative(HTMLParser):
    """The text of an XHTML narrative; blocks begin on a line of their own."""

    _BLOCKS = frozenset("p div br tr li h1 h2 h3 h4 h5 h6 table ul ol".split())

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_starttag(self, tag: str, _attrs: Any) -> None:
        self.text += "\n" if tag in self._BLOCKS else " " if tag in {"td", "th"} else ""

    def handle_data(self, data: str) -> None:
        self.text += re.sub(r"\s+", " ", data)


def _plain(xhtml: str) -> str:
    parser = _Narrative()
    parser.feed(xhtml)
    parser.close()
    return "\n".join(line.strip() for line in parser.text.split("\n") if line.strip())
