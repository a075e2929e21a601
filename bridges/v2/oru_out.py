"""DiagnosticReport -> ORU^R01 (IHE RAD-28, RAD-128)."""

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bridges.v2.datatypes import CWE
from bridges.v2.message import Comp, Seg, Sub, Value
from bridges.v2.segments_out import Destination, cwe, msh, obr, orc, pid, present, pv1, xcn
from fhir_server.registry import Resource
from resources import imaging_study

if TYPE_CHECKING:
    from bridges.v2.outbound import OrderFacts

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
# The same -> table 0085 (OBX-11), for the parts of the report.
_PART_STATUS = {"R": "P", "P": "P", "F": "F", "C": "C", "X": "X", "I": "I"}
_ORDER_STATUS = {"R": "A", "P": "A", "F": "CM", "C": "CM", "X": "CA", "I": "IP"}
FINDINGS = CWE("59776-5", "Procedure findings", "LN")
IMPRESSION = CWE("19005-8", "Radiology Imaging study [Impression]", "LN")
DICOM_STUDY = CWE("113014", "DICOM Study", "DCM")
REPORT = CWE("18748-4", "Diagnostic imaging study", "LN")


def oru_r01(
    report: Resource, results: list[Resource], studies: list[Resource], readers: list[Reader], facts: "OrderFacts", now: datetime
) -> Render:
    """The whole report as it stands: OBR-25 its status, an OBX for the study, each result, each form and the impression."""

    def render(to: Destination, control_id: str) -> list[Seg]:
        status = _RESULT_STATUS[report["status"]]
        requester = xcn(facts.order.get("requester"), facts.requester)
        fields: dict[int, Any] = {
            7: to.time(report.get("effectiveDateTime") or report.get("effectivePeriod", {}).get("start")),
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
        parts = [*_studies(studies), *_results(results, to), *_forms(report), *_impression(report)]
        for i, (kind, code, value, unit) in enumerate(parts, 1):
            segments.append(Seg("OBX", {1: i, 2: kind, 3: code, 4: i, 5: value, 6: unit, 11: _PART_STATUS[status]}))
        return list(present(segments))

    return render


Part = tuple[str, CWE, Value, Value]


def _reader(readers: list[Reader]) -> Comp | None:
    """OBR-32, an NDL: the name as a CNN in its first component."""
    for reference, person in readers:
        who = xcn(reference, person)
        if who is not None:
            return Comp(Sub(who.id, who.family, who.given, who.middle, who.suffix, who.prefix))
    return None


def _studies(studies: list[Resource]) -> list[Part]:
    found = [(uid, s) for s in studies if (uid := imaging_study.study_uid(s))]
    return [("HD", DICOM_STUDY, Comp(uid), None) for uid, _ in found]


def _results(results: list[Resource], to: Destination) -> list[Part]:
    parts: list[Part] = []
    for result in results:
        code = cwe(result.get("code"))
        if "valueQuantity" in result:
            quantity = result["valueQuantity"]
            unit = Comp(quantity.get("code") or quantity.get("unit", ""), quantity.get("unit", ""), "UCUM")
            parts.append(("NM", code, str(quantity.get("value", "")), unit))
        elif "valueCodeableConcept" in result:
            parts.append(("CWE" if to.version >= "2.5" else "CE", code, cwe(result["valueCodeableConcept"]), None))
        elif "valueString" in result:
            parts.append(("TX", code, result["valueString"], None))
        elif "valueDateTime" in result:
            parts.append(("TS", code, to.time(result["valueDateTime"]), None))
    return parts


def _forms(report: Resource) -> list[Part]:
    """Text forms as findings, a PDF as encapsulated data (ED)."""
    parts: list[Part] = []
    for form in report.get("presentedForm", ()):
        kind, data = form.get("contentType", ""), form.get("data")
        if not data:
            continue
        if kind.startswith("text/plain"):
            parts.append(("TX", FINDINGS, _text(data), None))
        elif kind == "application/pdf":
            parts.append(("ED", REPORT, Comp(None, "AP", "PDF", "Base64", data), None))
    return parts


def _text(data: str) -> str:
    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except binascii.Error:
        return ""


def _impression(report: Resource) -> list[Part]:
    return [("TX", IMPRESSION, report["conclusion"], None)] if report.get("conclusion") else []
