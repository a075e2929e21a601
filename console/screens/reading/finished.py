"""A report as it stands: for everyone who may read it, its documents as they go out, and its signatures."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from console.asking import Found
from console.screens.reading import after, critical, examination
from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources.reading import worklist
from resources.report_section import decoded, is_plain_text
from smart_auth.pages import security_headers

_PDF: Final = "application/pdf"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of the report; `version`: which one it stands for."""

    version: str
    who: Resource | None
    when: str
    valid: bool
    key: str


async def show(visit: Visit) -> Response:
    """The page of a report. `verify` in its address: with its signatures."""
    about = await examination.of_report(visit, visit.id())
    assert about.report is not None
    based_on = f"ServiceRequest/{(about.procedure or {}).get('id', '-')}"
    readings = Found([])
    if visit.calls("write") and about.report.draft:
        readings = await visit.desk.search("Task", based_on=based_on, code=examination.READING, _sort="-_lastUpdated")
    values: dict[str, Any] = {
        "about": about,
        "report": about.report,
        "told": await critical.of_report(visit, about.report),
        "settled": after.DONE,
        "signatures": await _signatures(visit) if visit.asked("verify") and visit.calls("verify") else None,
        "reading": next((r["id"] for r in readings if worklist.is_open(r)), ""),
    }
    return visit.page("reading/report.html", **values)


async def _signatures(visit: Visit) -> list[Signature]:
    answer = await visit.desk.question(f"DiagnosticReport/{visit.id()}/$verify")
    rows = [
        {p["name"]: next(v for k, v in p.items() if k != "name") for p in row["part"]}
        for row in answer.get("parameter", ())
        if row["name"] == "signature"
    ]
    ids = ",".join(dict.fromkeys(str(r["who"]["reference"]).partition("/")[2] for r in rows))
    people = await visit.desk.search("Practitioner", _id=ids) if ids and visit.allows("Practitioner", "s") else Found([])
    return [
        Signature(
            version=str(row["version"]["reference"]).partition("/_history/")[2],
            who=people.of(row["who"]),
            when=str(row["when"]),
            valid=row["valid"] is True,
            key=str(row["key"]),
        )
        for row in rows
    ]


async def document(visit: Visit) -> Response:
    """A document of the report as it goes out. Only text and PDF are shown; what is anything else is for saving."""
    report = await visit.desk.read(f"DiagnosticReport/{visit.id()}")
    number = visit.id("n")
    forms = report.get("presentedForm", [])
    form = forms[int(number)] if number.isdecimal() and len(number) < 4 and int(number) < len(forms) else {}
    if "data" not in form:
        raise fail("not-found", "the report has no such document")
    try:
        data = base64.b64decode(form["data"])
    except binascii.Error:
        raise fail("not-found", "the document can't be read") from None
    kind = str(form.get("contentType", "")).partition(";")[0].strip().lower()
    if is_plain_text(form):
        return _sent(decoded(form).encode(), "text/plain; charset=utf-8", "inline")
    return _sent(data, _PDF if kind == _PDF else "application/octet-stream", "inline" if kind == _PDF else "attachment")


def _sent(data: bytes, media_type: str, how: str) -> Response:
    return Response(data, media_type=media_type, headers=security_headers() | {"Content-Disposition": how})
