"""A report as people read it: text, HTML and PDF in DiagnosticReport.presentedForm, and its narrative, made of the same parts.

IHE's report profiles (IMR, IDR) want the HTML with size and hash; that the forms were made of the report's words, their
Attachments say (`report_section.generated`). Documents that came with the report stay beside them.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import diagnostic_report, order_numbers, service_request, zones
from resources.reading import critical_request, readers, report_parts
from resources.reading.pdf import pdf
from resources.reading.values import Manner, called, in_words
from resources.report_section import (
    ADDENDUM,
    IMPRESSION,
    attachment,
    generated,
    is_generated,
    loinc,
    plain_text,
    title,
)

_STATUS: Final = {
    "registered": "Draft", "partial": "Draft", "preliminary": "Preliminary report, not yet confirmed by an attending",
    "final": "Final report", "amended": "Final report, amended", "corrected": "Final report, corrected",
    "appended": "Final report with addendum", "cancelled": "Withdrawn", "entered-in-error": "Withdrawn: it was an error",
}  # fmt: skip
_SAID: Final = ("status", "result", "conclusion", "conclusionCode", "code", "issued", "resultsInterpreter")


@dataclass(frozen=True, slots=True)
class Document:
    """A report as people read it: heading, lines of (name, value), sections of (title, text)."""

    title: str
    status: str
    lines: Sequence[tuple[str, str]]
    sections: Sequence[tuple[str, str]]

    def text(self) -> str:
        """The sections, each under its title: what the report says, without who and when."""
        return "\n\n".join(f"{name}\n{text}".strip("\n") for name, text in self.sections)

    def pdf(self) -> bytes:
        return pdf(self.title, self._printed())

    def _printed(self) -> Iterator[tuple[bool, str]]:
        yield True, self.title
        yield True, self.status
        for name, value in self.lines:
            yield False, f"{name}: {value}"
        for name, text in self.sections:
            yield False, ""
            yield True, name
            for line in text.splitlines():
                yield False, line

    def body(self) -> str:
        """XHTML as a narrative may have it (FHIR R4 2.4.0): every word of it is escaped."""
        rows = "".join(f"<tr><th>{_html(n)}</th><td>{_html(v)}</td></tr>" for n, v in self.lines)
        parts = "".join(f"<h3>{_html(name)}</h3><p>{_html(text)}</p>" for name, text in self.sections)
        table = f"<table><tbody>{rows}</tbody></table>" if rows else ""
        return f"<h2>{_html(self.title)}</h2><p><b>{_html(self.status)}</b></p>{table}{parts}"

    def html(self) -> bytes:
        head = f'<head><meta charset="utf-8"/><title>{_html(self.title)}</title></head>'
        return f"<!DOCTYPE html>\n<html>{head}<body>{self.body()}</body></html>\n".encode()


def _html(text: str) -> str:
    clean = "".join(c for c in text if c in "\n\t" or (c.isprintable() or c.isspace()))
    return escape(clean, quote=True).replace("\n", "<br/>")


async def of_report(unit: UnitOfWork, report: Resource) -> Document:
    """The document of a report as it is in this transaction."""
    patient = await unit.get(report.get("subject")) or {}
    observations = [o for o in await report_parts.results_of(unit, report) if o["status"] != "entered-in-error"]
    names = [n for r in report.get("resultsInterpreter", ()) if (n := await readers.name(unit, r))]
    said = (
        ("Patient", _name(patient)),
        (
            "Patient number",
            ", ".join(i["value"] for i in patient.get("identifier", ()) if i.get("use") != "old" and "value" in i),
        ),
        ("Date of birth", patient.get("birthDate", "")),
        ("Accession number", await _accession(unit, report)),
        ("Issued", zones.told(report.get("issued", ""))),
        ("Read by", "; ".join(names)),
        *await critical_request.lines(unit, report),
    )
    lines = [(n, v) for n, v in said if v]
    return Document(
        called(report.get("code")) or "Report", _STATUS.get(report["status"], ""), lines, _sections(report, observations)
    )


def _sections(report: Resource, observations: list[Resource]) -> list[tuple[str, str]]:
    texts = [o for o in observations if report_parts.is_text(o)]
    found = [(title(o["code"]), _text(o)) for o in texts]
    said = [(called(o["code"]), in_words(o, Manner())) for o in observations if not report_parts.is_text(o)]
    measured = [": ".join(filter(None, one)) for one in said]
    if measured:
        last = next((i for i, o in enumerate(texts) if loinc(o["code"]) in {IMPRESSION, ADDENDUM}), len(found))
        found.insert(last, ("Structured findings", "\n".join(measured)))
    conclusion = report.get("conclusion", "")
    if conclusion and all(loinc(o["code"]) != IMPRESSION for o in texts):
        found.append(("Impression", conclusion))
    return found


def _text(section: Resource) -> str:
    """Of an addendum, also when it was added: it is later than the rest."""
    text = str(section["valueString"])
    return f"({zones.told(section['issued'])}) {text}" if loinc(section["code"]) == ADDENDUM and "issued" in section else text


def _name(patient: Resource) -> str:
    human: Resource = next(iter(patient.get("name", ())), {})
    return str(human.get("text") or ", ".join(x for x in (human.get("family", ""), " ".join(human.get("given", []))) if x))


async def _accession(unit: UnitOfWork, report: Resource) -> str:
    for procedure in await diagnostic_report.procedures(unit, report):
        order = await service_request.order_of(unit, procedure)
        if order is not None and (number := order_numbers.accession_number(order)):
            return number
    return ""


async def composed(unit: UnitOfWork, report: Resource) -> Resource:
    """The report with its forms and its narrative made anew."""
    status = report["status"] if report["status"] in {"registered", "preliminary"} else "final"
    return await formed(unit, await report_parts.sectioned(unit, report, status))


async def formed(unit: UnitOfWork, report: Resource) -> Resource:
    """The same of a report whose text is in its sections already."""
    document = await of_report(unit, report)
    kept = [f for f in report.get("presentedForm", ()) if not is_generated(f)]
    text = document.text()
    forms = [
        *([generated(plain_text(text))] if text else []),
        generated(attachment("text/html; charset=utf-8", document.html(), document.title)),
        generated(attachment("application/pdf", await asyncio.to_thread(document.pdf), document.title)),
    ]
    narrative = {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{document.body()}</div>'}
    return report | {"presentedForm": [*forms, *kept], "text": narrative}


async def check(_unit: UnitOfWork, change: Change) -> None:
    """What was made of a report's words goes when these change and it doesn't: nobody is to read what isn't said any more."""
    before, report = change.before, change.after
    if before is None or report is None or all(before.get(e) == report.get(e) for e in _SAID):
        return
    had, has = ([f for f in r.get("presentedForm", ()) if is_generated(f)] for r in (before, report))
    if not had or had != has:
        return
    report["presentedForm"] = [f for f in report["presentedForm"] if not is_generated(f)]
    if not report["presentedForm"]:
        del report["presentedForm"]
    if report.get("text") == before.get("text"):
        report.pop("text", None)


def register(registry: Registry) -> None:
    registry.rule("DiagnosticReport", check)
