"""What a DiagnosticReport says in words: its sections, and the whole of it as one text."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Final

from bridges.v2.codes import RESULT_STATUS
from bridges.v2.report_values import flags_of
from fhir_server.elements import codes, codings
from fhir_server.registry import Resource
from resources.terms import LOINC

# Category of an Observation that is a section of a report: its code is the section's, its valueString the text.
SECTION: Final = "urn:fhir-ris:report-section"
FINDINGS: Final = {"coding": [{"system": LOINC, "code": "59776-5", "display": "Procedure findings"}]}
IMPRESSION: Final = {"coding": [{"system": LOINC, "code": "19005-8", "display": "Radiology Imaging study [Impression]"}]}
REPORT: Final = {"coding": [{"system": LOINC, "code": "18748-4", "display": "Diagnostic imaging study"}]}


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its code (a CodeableConcept), its text, and its own flags and status (OBX-8, OBX-11)."""

    code: dict[str, Any]
    text: str
    flags: tuple[str, ...] = ()
    status: str = ""

    @property
    def title(self) -> str:
        shown = next((c["display"] for c in codings(self.code) if "display" in c), "")
        return str(self.code.get("text") or shown)


def is_section(result: Resource) -> bool:
    """Whether an Observation is a section of a report."""
    return any(c.get("system") == SECTION for c in codings(result.get("category")))


def sections(report: Resource, results: Sequence[Resource]) -> list[Section]:
    """The sections in their order, the impression last; a text without sections is the findings."""
    found = [
        Section(r["code"], r["valueString"], flags_of(r), RESULT_STATUS.v2(r.get("status")))
        for r in results
        if is_section(r) and "valueString" in r
    ]
    if not found:
        found = [Section(FINDINGS, text) for text in _texts(report)]
    conclusion = report.get("conclusion", "")
    if conclusion and not any("19005-8" in codes(s.code, LOINC) and s.text == conclusion for s in found):
        found.append(Section(IMPRESSION, conclusion))
    if not found and not results and (narrative := _plain(report.get("text", {}).get("div", ""))):
        found.append(Section(FINDINGS, narrative))
    return found


def whole_text(report: Resource, results: Sequence[Resource]) -> str:
    """The report as one text: as it was written, else its sections with their titles."""
    written = "\n\n".join(_texts(report))
    conclusion = report.get("conclusion", "")
    if written:
        return written if not conclusion or conclusion in written else f"{written}\n\nImpression:\n{conclusion}"
    parts = sections(report, results)
    return parts[0].text if len(parts) == 1 else "\n\n".join(f"{s.title}:\n{s.text}" if s.title else s.text for s in parts)


def _texts(report: Resource) -> Iterator[str]:
    """The forms of the report that are plain text."""
    for form in report.get("presentedForm", ()):
        mime, _, parameters = form.get("contentType", "").partition(";")
        if "data" in form and mime.strip().lower() == "text/plain":
            yield _decoded(form["data"], parameters)


def _decoded(data: str, parameters: str) -> str:
    charset = re.search(r'charset="?([\w.:-]+)', parameters)
    try:
        return base64.b64decode(data).decode(charset[1] if charset else "utf-8", "replace")
    except LookupError:
        return base64.b64decode(data).decode("utf-8", "replace")


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
