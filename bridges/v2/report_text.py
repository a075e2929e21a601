"""What a DiagnosticReport says in words: its sections, and the whole of it as one text."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any, Final

from bridges.v2.codes import RESULT_STATUS
from bridges.v2.report_values import flags_of
from fhir_server.elements import codings
from fhir_server.registry import Resource
from resources import report_section
from resources.report_section import FINDINGS as FINDINGS_CODE
from resources.report_section import IMPRESSION as IMPRESSION_CODE
from resources.report_section import TITLES, decoded, is_generated, is_plain_text, is_section, loinc
from resources.terms import LOINC

FINDINGS: Final = {"coding": [{"system": LOINC, "code": FINDINGS_CODE, "display": "Procedure findings"}]}
IMPRESSION: Final = {"coding": [{"system": LOINC, "code": IMPRESSION_CODE, "display": "Radiology Imaging study [Impression]"}]}
REPORT: Final = {"coding": [{"system": LOINC, "code": report_section.WHOLE, "display": "Diagnostic imaging study"}]}


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


def sections(report: Resource, results: Sequence[Resource]) -> list[Section]:
    """The sections in their order, the impression last. A text that says more goes before them, as the findings."""
    found = [_section(r) for r in results if is_told_as_text(r)]
    text = "\n\n".join(_texts(report))
    conclusion = report.get("conclusion", "")
    if text and not _without(text, [*found, Section(IMPRESSION, conclusion)]).is_empty:
        named = any(loinc(s.code) == FINDINGS_CODE for s in found)
        found.insert(0, Section(REPORT if named else FINDINGS, text))
    if conclusion:
        found = _concluded(found, conclusion)
    if not found and not results and (narrative := _plain(report.get("text", {}).get("div", ""))):
        found.append(Section(FINDINGS, narrative))
    return sorted(found, key=lambda s: loinc(s.code) == IMPRESSION_CODE)


def whole_text(report: Resource, results: Sequence[Resource]) -> str:
    """The report as one text: as it was written, with the sections that are not in it; else its sections with their titles."""
    written = "\n\n".join(_texts(report))
    if written:
        own = [_section(r) for r in results if is_told_as_text(r)]
        conclusion = report.get("conclusion", "")
        if conclusion and not any(_says(s.text, conclusion) for s in own):
            own.append(Section(IMPRESSION, conclusion))
        added = _without(written, own).missing
        return "\n\n".join([written, *(_titled(s) for s in added)])
    parts = sections(report, results)
    return parts[0].text if len(parts) == 1 else "\n\n".join(map(_titled, parts))


def is_told_as_text(result: Resource) -> bool:
    """Whether an Observation of a report is one of its sections."""
    return is_section(result) and "valueString" in result


def _section(result: Resource) -> Section:
    return Section(result["code"], result["valueString"], flags_of(result), RESULT_STATUS.v2(result.get("status")))


def _titled(section: Section) -> str:
    title = section.title or TITLES.get(loinc(section.code), "")
    return f"{title}:\n{section.text}" if title else section.text


def _concluded(found: list[Section], conclusion: str) -> list[Section]:
    """The sections with the conclusion: it is the impression, or goes on with the last one where that says something else."""
    impressions = [i for i, s in enumerate(found) if loinc(s.code) == IMPRESSION_CODE]
    if any(_says(found[i].text, conclusion) for i in impressions):
        return found
    if not impressions:
        return [*found, Section(IMPRESSION, conclusion)]
    last = impressions[-1]
    longer = replace(found[last], text=f"{found[last].text}\n\n{conclusion}")
    return [*found[:last], longer, *found[last + 1 :]]


# What a text says already


@dataclass(frozen=True, slots=True)
class _Rest:
    """What of a text is in none of some sections, and which sections are not in the text."""

    is_empty: bool
    missing: list[Section]


def _without(text: str, of: Sequence[Section]) -> _Rest:
    """Each section takes its own words out of the text, the longest first, so that a text said once counts once."""
    missing: list[Section] = []
    for section in sorted(of, key=lambda s: len(s.text), reverse=True):
        taken, found = _said(section.text).subn("\n", text, count=1)
        if found:
            text = taken
        else:
            missing.append(section)
    titles = {t.casefold() for s in of for t in (s.title, TITLES.get(loinc(s.code), ""))} | {
        t.casefold() for t in TITLES.values()
    }
    left = [line for line in text.splitlines() if line.strip().rstrip(":").rstrip().casefold() not in titles]
    return _Rest(not re.search(r"[^\W_]", "".join(left)), [s for s in of if s in missing])


def _says(text: str, part: str) -> bool:
    return bool(_said(part).search(text))


def _said(part: str) -> re.Pattern[str]:
    """Whole lines or sentences that say this, however they are broken into lines: "Mass." is not said by "No mass."."""
    words = r"\s+".join(map(re.escape, part.split()))
    return re.compile(rf"(?:^|(?<=[.:;!?]\s))[ \t]*{words}(?:[.;]?[ \t]*$|[.;](?=\s)|(?<=[.;!?])(?=\s))", re.MULTILINE)


def _texts(report: Resource) -> Iterator[str]:
    """The forms of the report that are plain text, as it was written."""
    for form in report.get("presentedForm", ()):
        if is_plain_text(form) and not is_generated(form):  # one that was made of the sections says nothing else than they
            yield decoded(form)


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
