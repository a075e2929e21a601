"""A report as a plain PDF, for receivers that want one where nobody has made one. The same report gives the same bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bridges.v2.report_text import whole_text
from fhir_server.registry import Resource
from resources import zones
from resources.reading.pdf import pdf


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
        ("Issued", zones.told(report.get("issued", ""))),
        ("Read by", reader),
    )
    return Heading(title, [(n, v) for n, v in said if v])


def report_pdf(report: Resource, results: Sequence[Resource], above: Heading) -> bytes:
    """The PDF: the heading on the first page, then the text."""
    return pdf(above.title, _lines(report, results, above))


def _lines(report: Resource, results: Sequence[Resource], above: Heading) -> Iterator[tuple[bool, str]]:
    yield True, above.title
    for name, value in above.lines:
        yield False, f"{name}: {value}"
    yield False, ""
    for line in whole_text(report, results).splitlines():
        yield False, line
