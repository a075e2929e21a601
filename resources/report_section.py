"""The sections of a radiology report: one Observation each in DiagnosticReport.result, its text as valueString.

What makes an Observation a section is its category of `urn:fhir-ris:report-section`; which one it is, says its LOINC code
(DICOM PS3.16 CID 7001). DiagnosticReport.presentedForm holds the whole as plain text, and the impression is the conclusion
as well. A report of one text without sections is the plain text alone.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

from fhir_server.elements import codes, codings, concept
from fhir_server.registry import Resource
from resources import terms

SECTION: Final = "urn:fhir-ris:report-section"
GENERATED: Final = "urn:fhir-ris:generated"  # extension of an Attachment
FINDINGS: Final = "59776-5"
COMPARISON: Final = "18834-2"
IMPRESSION: Final = "19005-8"
RECOMMENDATION: Final = "18783-1"
ADDENDUM: Final = "55107-7"
COMMENT: Final = "48767-8"
WHOLE: Final = "18748-4"
# LOINC code -> what the section is called.
TITLES: Final = {
    "55115-0": "Requested procedure",
    "11329-0": "History",
    COMPARISON: "Comparison",
    "55111-9": "Procedure description",
    FINDINGS: "Findings",
    IMPRESSION: "Impression",
    RECOMMENDATION: "Recommendation",
    ADDENDUM: "Addendum",
    COMMENT: "Comment",
    WHOLE: "Report",
}
_EXAM: Final = concept("http://terminology.hl7.org/CodeSystem/observation-category", "exam")
_PLAIN: Final = "text/plain"


def section(code: Resource, text: str) -> Resource:
    """The parts of an Observation that make it the section of this code."""
    return {
        "resourceType": "Observation",
        "category": [_EXAM, concept(SECTION, "section")],
        "code": code,
        "valueString": text,
    }


def is_section(observation: Resource) -> bool:
    """Whether an Observation is a section of a report."""
    return bool(codes(observation.get("category"), SECTION))


def loinc(code: Resource | None) -> str:
    """The LOINC code of a section, empty where it has none."""
    return next(iter(codes(code, terms.LOINC)), "")


def title(code: Resource | None) -> str:
    """How the section is called: as its sender does, else by its LOINC code."""
    said = (code or {}).get("text") or next((c["display"] for c in codings(code) if "display" in c), "")
    return str(said or TITLES.get(loinc(code), ""))


def whole(sections: Iterable[Resource]) -> str:
    """The sections as one text, each under its title."""
    return "\n\n".join(f"{title(s['code'])}\n{s['valueString']}".strip("\n") for s in sections)


def plain_text(text: str) -> dict[str, Any]:
    """The Attachment of a text."""
    data = text.encode()
    return attachment(f"{_PLAIN}; charset=utf-8", data)


def generated(form: dict[str, Any]) -> dict[str, Any]:
    """The Attachment marked as one that we made of the report's words."""
    return form | {"extension": [{"url": GENERATED, "valueBoolean": True}]}


def is_generated(form: dict[str, Any]) -> bool:
    """Whether a presentedForm was made of the report's words."""
    return any(e.get("url") == GENERATED for e in form.get("extension", ()))


def attachment(content_type: str, data: bytes, title: str = "") -> dict[str, Any]:
    """An Attachment with its size and SHA-1, as IHE's report profile (IMR) wants them."""
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    found: dict[str, Any] = {
        "contentType": content_type,
        "data": base64.b64encode(data).decode(),
        "size": len(data),
        "hash": base64.b64encode(digest).decode(),
    }
    return found | ({"title": title} if title else {})


def is_plain_text(form: dict[str, Any]) -> bool:
    """Whether a presentedForm is plain text that we hold."""
    return "data" in form and str(form.get("contentType", "")).partition(";")[0].strip().lower() == _PLAIN


def decoded(form: dict[str, Any]) -> str:
    """The text of a presentedForm that is plain text."""
    charset = re.search(r'charset="?([\w.:-]+)', str(form["contentType"]))
    data = base64.b64decode(form["data"])
    try:
        return data.decode(charset[1] if charset else "utf-8", "replace")
    except LookupError:
        return data.decode("utf-8", "replace")
