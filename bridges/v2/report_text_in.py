r"""OBX of type TX, FT and ST -> the text of a report, and its sections.

A line is an OBX, a repetition (`~`) of OBX-5, or what `\.br\` ends; an OBX without value is a blank line. Neighbours with the
same OBX-3, or with none, are one text. A section is known by its LOINC code (DICOM PS3.16 CID 7001), by the DICOM code for the
same (CID 7001, 7002), or by the suffix that older versions put behind the procedure code (HL7 v2.5.1 7.2.4: `71020&IMP`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from bridges.v2.datatypes import CWE
from bridges.v2.message import Segment
from bridges.v2.result_groups import Line
from bridges.v2.systems import concept
from fhir_server.elements import concept as coded
from fhir_server.registry import Resource
from resources import terms
from resources.report_section import ADDENDUM, COMMENT, FINDINGS, IMPRESSION, RECOMMENDATION, TITLES, WHOLE

TEXT_TYPES: Final = frozenset({"TX", "FT"})
# OBX-3.1.2, the suffix of an observation identifier -> LOINC.
_SUFFIXES: Final = {"GDT": FINDINGS, "IMP": IMPRESSION, "REC": RECOMMENDATION, "ADT": ADDENDUM}
# DICOM report elements and headings (PS3.16 CID 7001, 7002) -> LOINC.
_DICOM: Final = {
    "121060": "11329-0",
    "121062": "55115-0",
    "121064": "55111-9",
    "121065": "55111-9",
    "121068": "18834-2",
    "121070": FINDINGS,
    "121071": FINDINGS,
    "121072": IMPRESSION,
    "121073": IMPRESSION,
    "121074": RECOMMENDATION,
    "121075": RECOMMENDATION,
    "121076": IMPRESSION,
    "121077": IMPRESSION,
    "121078": ADDENDUM,
}
# The whole report, as LOINC has it: for radiology in general, and the older "study report".
_REPORT: Final = frozenset({WHOLE, "11528-7", "68604-8"})
_KNOWN: Final = {**_DICOM, **{code: code for code in TITLES}, **dict.fromkeys(_REPORT, WHOLE)}


@dataclass(slots=True)
class Text:
    """One text: what OBX-3 calls it, its lines, and the segments that they come from."""

    loinc: str
    code: CWE
    lines: list[str] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    @property
    def content(self) -> str:
        """The lines as one text, without blank ones at either end."""
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")

    @property
    def has_suffix(self) -> bool:
        """Whether the code is the procedure's, and only its suffix names the section."""
        return bool(self.segments) and self.segments[0].get(3, 1, 2).strip().upper() in _SUFFIXES

    @property
    def key(self) -> str:
        return self.loinc or self.code.code.strip() or self.code.text.strip()


def section_code(obx: Segment, partner_codes: dict[str, str] | None = None) -> str:
    """The LOINC code of the section that OBX-3 names, else empty. `partner_codes` are a sender's own names for them."""
    code, suffix = obx.field(3).strip(), obx.get(3, 1, 2).strip().upper()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    found = ((partner_codes or {}).get(said) or _KNOWN.get(said) for said in (code, obx.get(3, 4).strip()) if said)
    return next((loinc for loinc in found if loinc), "")


def texts(lines: Iterable[Line], procedure: str, partner_codes: dict[str, str] | None = None) -> list[Text]:
    """The texts of a result in their order; one that comes again goes on. `procedure` is OBR-4: under it stands the report."""
    found: list[Text] = []
    last: Text | None = None
    for line in lines:
        obx = line.obx
        loinc = section_code(obx, partner_codes)
        code = CWE.from_field(obx.repetitions(3)[0]) if obx.raw(3) else CWE()
        if not loinc and code.code.strip() and code.code.strip() == procedure:
            loinc = WHOLE
        key = loinc or code.code.strip() or code.text.strip()
        if last is None or (key and key != last.key):
            text = next((t for t in found if key and t.key == key), None)
            if text is None:
                text = Text(loinc, code)
                found.append(text)
            elif text is not last:
                text.lines.append("")
            last = text
        last.segments.append(obx)
        last.lines += [obx.text(5, i) for i in range(max(1, len(obx.repetitions(5))))]
        last.lines += [said.text for nte in line.notes for said in nte.repetitions(3)]
    return found


def comment(notes: Iterable[Segment]) -> list[Text]:
    """The notes below OBR, as a text of their own."""
    lines = [said.text for nte in notes for said in nte.repetitions(3)]
    return [Text(COMMENT, CWE(COMMENT, TITLES[COMMENT], "LN"), lines)] if any(line.strip() for line in lines) else []


def is_body(text: Text) -> bool:
    """Whether a text that is the only one is just the report: it has no section's name, or the findings'."""
    return text.loinc in {"", WHOLE, FINDINGS, COMMENT}


def code_of(text: Text, facility: str, unnamed: str) -> Resource:
    """The code of a section; `unnamed` is the LOINC code of one without any. A sender's own code for it comes second."""
    said = concept(text.code, facility) or {}
    loinc = text.loinc or ("" if said else unnamed)
    if not loinc:
        return said
    named = coded(terms.LOINC, loinc, TITLES[loinc])
    if text.has_suffix:
        return named | {"text": TITLES[loinc]}
    others = [c for c in said.get("coding", ()) if c.get("code") != loinc]
    return {"coding": [*named["coding"], *others], "text": said.get("text") or TITLES[loinc]}
