"""DiagnosticReport -> ORU^R01 (IHE RAD-28, RAD-128), in the style that each receiver wants."""

import base64
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from bridges.v2.codes import REPORT_STATUS, REPORTED_ORDER_STATUS
from bridges.v2.datatypes import CWE
from bridges.v2.destination import Destination
from bridges.v2.mapping import Layout, Out, layout
from bridges.v2.message import Comp, Raw, Seg, Sub, Value
from bridges.v2.order_facts import OrderFacts, Render
from bridges.v2.order_segments_out import OBR_RESULT, OrderLine, accession, orc
from bridges.v2.report_pdf import heading, report_pdf
from bridges.v2.report_text import REPORT, Section, sections, whole_text
from bridges.v2.report_told import ToldResults
from bridges.v2.report_values import Part, result_parts
from bridges.v2.segments_out import msh, pid, present, pv1, xcn
from fhir_server.registry import Resource
from resources import imaging_study
from resources.report_section import is_generated

Reader = tuple[dict[str, Any], Resource | None]
DICOM_STUDY: Final = CWE("113014", "DICOM Study", "DCM")
# OBR-25 -> OBX-11 of what has no status of its own: parts of a partial report are preliminary.
_PART_STATUS: Final = {"R": "P"}
# OBX-11 of what an earlier version of the report told, and this one doesn't.
DROPPED: Final = "D"
# MIME main type -> table 0191 (ED.2).
_DATA_TYPE: Final = {"text": "TEXT", "image": "IM", "audio": "AU"}


@dataclass(frozen=True, slots=True)
class Observed:
    """One OBX: its number, sub-id and status, and what it says. `value` is that of the part, or one of its lines."""

    number: int
    part: Part
    sub_id: str
    status: str
    value: Value | Sequence[Value]


OBX: Final[Layout[Observed]] = layout(
    "Observation, DiagnosticReport -> OBX",
    "OBX",
    Out(1, "", lambda of, _: of.number, "counting"),
    Out(2, "Observation.value[x]", lambda of, _: of.part.kind, "HD, NM, SN, TX, TS, TM, CWE (CE below 2.5), ED, RP", "R"),
    Out(3, "Observation.code", lambda of, _: of.part.code, "LOINC section codes; 113014 of DCM for the Study Instance UID", "R"),
    Out(4, "", lambda of, _: of.sub_id, "which result (its parts: 2.1), of texts which with this OBX-3; it stays"),
    Out(5, "Observation.value[x]", lambda of, _: of.value, "the style is the Endpoint's"),
    Out(6, "Observation.valueQuantity", lambda of, _: of.part.unit, "unit"),
    Out(7, "Observation.referenceRange", lambda of, _: of.part.range, "low-high, and its text"),
    Out(8, "Observation.interpretation", lambda of, _: of.part.flags),
    Out(11, "Observation.status", lambda of, _: of.status, "table 0085; C if the report is corrected, D for what it drops", "R"),
    Out(14, "Observation.effective[x]", lambda of, _: of.part.when),
    Out(17, "Observation.method", lambda of, _: of.part.method),
)  # fmt: skip


@dataclass(slots=True)
class Report:
    """A report with all that its messages tell. The PDF that some want is made once.

    told: what it has said so far; pdf_is_old: whether its own PDF is older than its words
    leaves_open: whether other procedures of the order are still to be reported
    """

    report: Resource
    told: ToldResults
    studies: list[Resource]
    readers: list[Reader]
    facts: OrderFacts
    pdf_is_old: bool = False
    leaves_open: bool = False
    _pdf: bytes = field(default=b"", init=False)

    @property
    def results(self) -> list[Resource]:
        return self.told.present

    @property
    def status(self) -> str:
        return REPORT_STATUS.v2(self.report["status"])

    def pdf(self) -> bytes:
        if not self._pdf:
            people = (xcn(*reader) for reader in self.readers)
            reader = "; ".join(", ".join(x for x in (p.family, p.given) if x) for p in people if p)
            above = heading(self.report, self.facts.patient, accession(self.facts.order), reader)
            self._pdf = report_pdf(self.report, self.results, above)
        return self._pdf


def oru_r01(of: Report, now: datetime) -> Render:
    """The whole report as it stands: OBR-25 its status; OBX for the study, each result, the text and the documents."""
    report, facts = of.report, of.facts

    def render(to: Destination, control_id: str) -> list[Seg]:
        status = REPORTED_ORDER_STATUS.v2(report["status"])
        if status == "CM" and of.leaves_open:
            status = "A"
        line = OrderLine(facts, "ORU^R01", "RE", status, now, report=_of_report(of, to))
        return list(
            present(
                [
                    msh(to, "ORU^R01", "ORU_R01", control_id, now),
                    pid(facts.patient, to),
                    pv1(facts.encounter, to, facts.people),
                    orc(line, to),
                    OBR_RESULT.seg(line, to),
                    *_observed(of, to),
                ]
            )
        )

    return render


def _of_report(of: Report, to: Destination) -> dict[int, Any]:
    """The fields of OBR that the report tells."""
    report = of.report
    examined = report.get("effectiveDateTime") or report.get("effectivePeriod", {}).get("start")
    readers = [_ndl(r) for r in of.readers]
    known = [r for r in readers if r is not None]
    return {
        7: to.time(examined or next((s["started"] for s in of.studies if "started" in s), None)),
        22: to.time(report.get("issued") or report["meta"]["lastUpdated"]),
        25: of.status,
        32: known[:1],
        33: known[1:],
    }


def _ndl(reader: Reader) -> Comp | None:
    """A person as an NDL: the name as a CNN in its first component."""
    who = xcn(*reader)
    if who is None:
        return None
    by = who.authority
    return Comp(
        Sub(who.id, who.family, who.given, who.middle, who.suffix, who.prefix, who.degree, None, by.namespace,
            by.universal_id, by.universal_id_type)
    )  # fmt: skip


# OBX


def _observed(of: Report, to: Destination) -> Iterator[Seg]:
    """Every part as one OBX or several. OBX-4 tells apart what has the same OBX-3, and is the same next time."""
    parts = list(_parts(of, to))
    taken = {(_key(p.code), p.sub_id) for p in parts if p.sub_id}
    seen: Counter[str] = Counter()
    number = 0
    for part in parts:
        sub_id, key = part.sub_id, _key(part.code)
        while not sub_id:
            seen[key] += 1
            sub_id = "" if (key, str(seen[key])) in taken else str(seen[key])
        for value in _values(part, to):
            number += 1
            yield OBX.seg(Observed(number, part, sub_id, _status(of.status, part), value), to)


def _key(code: CWE) -> str:
    return f"{code.code}|{code.system}|{code.text if not code.code else ''}"


def _status(report: str, part: Part) -> str:
    """A corrected report is corrected in all its parts, a cancelled one cancelled.

    What is dropped, wrong or withdrawn says so itself, and in a corrected report what isn't final yet, too.
    """
    if part.status == DROPPED:
        return part.status
    if report in {"C", "X"}:
        own = {"W", "X"} if report == "X" else {"W", "X", "P", "R", "I"}
        return part.status if part.status in own else report
    return part.status or _PART_STATUS.get(report, report)


def _values(part: Part, to: Destination) -> list[Value | Sequence[Value]]:
    """A text with its line ends as the receiver wants them."""
    if part.kind != "TX" or not isinstance(part.value, str):
        return [part.value]
    lines = part.value.replace("\r\n", "\n").split("\n")
    if to.says("report-style") == "b" or to.says("newline") == "obx":
        return list(lines)
    return [lines] if to.says("newline") == "repeat" else [part.value]


def _parts(of: Report, to: Destination) -> Iterator[Part]:
    for study in of.studies:
        if uid := imaging_study.study_uid(study):
            yield Part("HD", DICOM_STUDY, Comp(uid))
    yield from _result_parts(of, to)
    documents, as_pdf = _documents(of, to)
    style = to.says("report-style")
    if style != "d" or not as_pdf:
        yield from _text_parts(of, to, style)
    yield from documents
    for concept in of.report.get("conclusionCode", ()):
        yield Part(to.coded, CWE("19005-8", "Radiology Imaging study [Impression]", "LN"), to.code(concept))


def _result_parts(of: Report, to: Destination) -> Iterator[Part]:
    """The results under their numbers. One that an earlier version told and this one doesn't is taken back."""
    for result in of.told.roots:
        yield from result_parts(result, to, of.told.numbers[result["id"]], of.told.members)
    for result in of.told.dropped:
        for part in result_parts(result, to, of.told.numbers[result["id"]], {}):
            yield replace(part, value=None, unit=None, range="", flags=(), status=DROPPED)


def _text_parts(of: Report, to: Destination, style: str) -> Iterator[Part]:
    if style in {"a", "b"}:
        if text := whole_text(of.report, of.results):
            yield _text_part(Section(REPORT, text), to)
        return
    parts = [_text_part(section, to) for section in sections(of.report, of.results)]
    now = Counter(_key(p.code) for p in parts)
    for code, number in _most_sections(of, to):
        # Before the sections: some receivers take the last OBX with a code for the section.
        for gone in range(now[_key(code)] + 1, number + 1):
            yield Part("TX", code, None, status=DROPPED, sub_id=str(gone))
    yield from parts


def _most_sections(of: Report, to: Destination) -> list[tuple[CWE, int]]:
    """How many sections with the same code an earlier version had."""
    most: dict[str, tuple[CWE, int]] = {}
    for report, results in of.told.earlier:
        found = [to.code(s.code) for s in sections(report, results)]
        for key, number in Counter(map(_key, found)).items():
            code = next(c for c in found if _key(c) == key)
            most[key] = max(most.get(key, (code, 0)), (code, number), key=lambda m: m[1])
    return list(most.values())


def _text_part(section: Section, to: Destination) -> Part:
    return Part("TX", to.code(section.code), section.text, flags=section.flags, status=section.status)


def _documents(of: Report, to: Destination) -> tuple[list[Part], bool]:
    """Documents as encapsulated data (ED), or as a pointer (RP) where we only have that; and whether a PDF is among them.

    A PDF is made only where the report has none: beside the one that was signed it would be another document.
    Where the words have changed since that one, whoever gets no text gets both.
    """
    style = to.says("report-style")
    found: list[Part] = []
    has_pdf = as_pdf = False
    for form in of.report.get("presentedForm", ()):
        if is_generated(form):  # made of the same words, which are sent as this receiver wants them
            continue
        mime = form.get("contentType", "").partition(";")[0].strip().lower()
        is_pdf = mime == "application/pdf"
        has_pdf = has_pdf or is_pdf
        if ("data" in form and mime == "text/plain") or (is_pdf and style in {"a", "b", "c"} and to.says("pdf") == "no"):
            continue
        part = _document(form, mime, to)
        if part is not None:
            found.append(part)
            as_pdf = as_pdf or (is_pdf and part.kind != "TX")
    if (style in {"d", "e"} and not has_pdf) or (style == "d" and of.pdf_is_old):
        made = base64.b64encode(of.pdf()).decode()
        part = _document({"data": made}, "application/pdf", to)
        assert part is not None  # it has data
        found.append(part)
        as_pdf = part.kind == "ED"
    return found, as_pdf


def _document(form: Resource, mime: str, to: Destination) -> Part | None:
    """One form of the report. What is larger than agreed goes as a pointer, else a text says that it isn't here."""
    main, _, subtype = mime.partition("/")
    kind, code = _DATA_TYPE.get(main, "AP"), subtype.upper() or "OCTET-STREAM"
    data = re.sub(r"\s", "", form.get("data", ""))
    size = len(data) * 3 // 4
    if data and size <= int(to.says("pdf-max-kb")) * 1024:
        return Part("ED", to.code(REPORT), Comp(None, kind, code, "Base64", Raw(data)))
    if "url" in form:
        return Part("RP", to.code(REPORT), Comp(form["url"], None, kind, code))
    if data:
        text = f"A document ({code}, {size // 1024} kB) is in the electronic report only: it is larger than agreed"
        return Part("TX", to.code(REPORT), text)
    return None
