"""A report as a plain PDF, for receivers that want one where nobody has made one. The same report gives the same bytes."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridges.v2.report_text import whole_text
from bridges.v2.transliteration import plain
from fhir_server.registry import Resource

_FONT: Final = "Helvetica"
_BOLD: Final = "Helvetica-Bold"
_CODEC: Final = "cp1252"  # what the standard fonts of PDF have (ISO 32000-1 annex D, WinAnsiEncoding)
_SIZE, _LEADING, _MARGIN = 10, 14, 56  # points


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above the text: lines of (name, value)."""

    title: str
    lines: Sequence[tuple[str, str]]


def heading(report: Resource, patient: Resource, accession: str, reader: str) -> Heading:
    """Patient, accession number, status, time and reader of a report."""
    human: dict[str, Any] = next(iter(patient.get("name", ())), {})
    name = ", ".join(x for x in (human.get("family", ""), " ".join(human.get("given", []))) if x)
    numbers = ", ".join(i["value"] for i in patient.get("identifier", ()) if "value" in i and i.get("use") != "old")
    code = report.get("code", {})
    title = code.get("text") or next((c["display"] for c in code.get("coding", ()) if "display" in c), "Report")
    said = (
        ("Patient", name),
        ("Patient number", numbers),
        ("Date of birth", patient.get("birthDate", "")),
        ("Accession number", accession),
        ("Status", report.get("status", "")),
        ("Issued", report.get("issued", "")),
        ("Read by", reader),
    )
    return Heading(title, [(n, v) for n, v in said if v])


def report_pdf(report: Resource, results: Sequence[Resource], above: Heading) -> bytes:
    """The PDF: the heading on the first page, then the text, on as many pages as it takes (A4)."""
    # It takes a tenth of a second, and few need it.
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.utils import simpleSplit
    from reportlab.pdfgen.canvas import Canvas

    width, height = A4
    into = io.BytesIO()
    canvas = Canvas(into, pagesize=A4, pageCompression=1, invariant=1)
    canvas.setTitle(plain(above.title, _CODEC))
    y, page = height - _MARGIN, 1
    for font, text in _lines(report, results, above):
        for line in simpleSplit(plain(text, _CODEC), font, _SIZE, width - 2 * _MARGIN) or [""]:
            if y < _MARGIN + _LEADING:
                _end_page(canvas, page)
                y, page = height - _MARGIN, page + 1
            canvas.setFont(font, _SIZE)
            canvas.drawString(_MARGIN, y, line)
            y -= _LEADING
    _end_page(canvas, page)
    canvas.save()
    return into.getvalue()


def _lines(report: Resource, results: Sequence[Resource], above: Heading) -> Iterator[tuple[str, str]]:
    yield _BOLD, above.title
    for name, value in above.lines:
        yield _FONT, f"{name}: {value}"
    yield _FONT, ""
    for line in whole_text(report, results).splitlines():
        yield _FONT, line.expandtabs(4)


def _end_page(canvas: Any, page: int) -> None:
    canvas.setFont(_FONT, 8)
    canvas.drawString(_MARGIN, _MARGIN / 2, f"page {page}")
    canvas.showPage()
