"""The report page of a reading: what is known beside the editor, and what a person writes there, saved as it is typed.

The page's script (`assets/editor.js`) sends what was changed to `.../write` and keeps it in the tab until it is saved; without
it, the button does. What is sent says of which version it is: where another browser was faster, both texts are shown.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from console.asking import reference
from console.forms import Form
from console.screens.reading import compared, critical, examination
from console.screens.reading.examination import Examination, Report, Section
from console.visit import Visit
from fhir_server.elements import codings
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.registry import Resource
from resources import terms
from resources.reading import templates, worklist
from resources.reading.report_parts import compared_with
from resources.report_section import ADDENDUM, FINDINGS, IMPRESSION, TITLES, WHOLE

_MOST_SECTIONS: Final = 60
_CODE: Final = re.compile(r"[A-Za-z0-9.-]{1,40}")
_LONGEST_TITLE: Final = 100
_NO_STORE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class Field:
    """A section in the editor. `text`: what stands in it; `stored`: what the server has; `theirs`: that, if both changed it."""

    code: str
    title: str
    text: str
    stored: str
    blocks: dict[str, str]
    theirs: str | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """A report template that can be chosen; `fits`: it is for this procedure."""

    id: str
    title: str
    fits: bool
    outline: Sequence[tuple[str, str, dict[str, str]]]


async def show(visit: Visit) -> Response:
    """The report page of the reading in the address."""
    return await _shown(visit, visit.id())


async def show_of_report(visit: Visit) -> Response:
    """The same, where the address has the report."""
    reading = await _reading_of(visit, await examination.of_report(visit, visit.id()))
    visit.here = visit.with_query(f"/reading/{reading}")
    return await _shown(visit, reading)


async def _reading_of(visit: Visit, about: Examination) -> str:
    based_on = f"ServiceRequest/{(about.procedure or {}).get('id', '-')}"
    tasks = await visit.desk.search("Task", based_on=based_on, code=examination.READING, _sort="-_lastUpdated", _count="20")
    return str(max(tasks, key=worklist.is_open, default={"id": "-"})["id"])


async def _shown(visit: Visit, id_: str, done: str = "") -> Response:
    about = await examination.of_reading(visit, id_)
    _, _, offered, people = await visit.desk.together(
        examination.add_reports(visit, about), examination.add_history(visit, about), _templates(visit, about), _readers(visit)
    )
    assert about.reading is not None
    report, owner = about.report, worklist.owner(about.reading)
    writable = report is not None and report.draft and visit.calls("write")
    free = owner in {None, visit.me} or (report is not None and report.status == "preliminary")
    values = {
        "about": about,
        "report": report,
        "open": worklist.is_open(about.reading),
        "mine": owner == visit.me,
        "free": owner is None,
        "due": worklist.due(about.reading),
        "templates": offered,
        "fields": _fields(visit, report, offered) if report is not None and writable and free else [],
        "titles": {code: visit.t.code("reading.section", code) for code in TITLES if code not in {ADDENDUM, WHOLE}},
        "typed": visit.form.named("section."),
        "unadded": list(visit.form.named("finding.").values()),
        "beside": _beside(report) if report is not None else "",
        "done": done or visit.asked("done"),
        "people": [p for p in people if p["id"] != (about.owner or {}).get("id")],
        "told": await critical.of_report(visit, report) if report is not None else [],
        "modality": examination.modality(about),
        "compared": compared_with(report.resource) if report is not None else [],
        "unlisted": await compared.unlisted(visit, about),
    }
    return visit.page("reading/reading.html", **values)


async def _templates(visit: Visit, about: Examination) -> list[Template]:
    """The templates of reports: those for this procedure first."""
    if not visit.calls("start-report"):
        return []
    wanted = {(c.get("system"), c.get("code")) for c in codings((about.procedure or {}).get("code"))}
    known = await visit.desk.search("Questionnaire", status="active", _sort="-_lastUpdated", _count="300")
    made = [
        Template(q["id"], q.get("title") or q.get("name") or q["id"], _fits(q, wanted), templates.outline(q))
        for q in known
        if templates.is_template(q)
    ]
    return sorted(made, key=lambda t: not t.fits)


def _fits(template: Resource, wanted: set[tuple[Any, Any]]) -> bool:
    contexts = template.get("useContext", ())
    return any((c.get("system"), c.get("code")) in wanted for u in contexts for c in codings(u.get("valueCodeableConcept")))


async def _readers(visit: Visit) -> list[Resource]:
    """The radiologists who have a login, for a reading to be given to."""
    if not visit.calls("reassign"):
        return []
    users = [u for u in await visit.console.people.users.list() if u.role == "radiologist" and not u.disabled and u.fhir_user]
    ids = ",".join(u.fhir_user.removeprefix("Practitioner/") for u in users)
    return (await visit.desk.search("Practitioner", _id=ids, _sort="family", _count="300")).matches if ids else []


def _fields(visit: Visit, report: Report, offered: Sequence[Template]) -> list[Field]:
    """The sections of the editor: those that are written, those of the template, and what no report lacks."""
    chosen = visit.asked("template")
    template = next((t for t in offered if t.id == chosen), next((t for t in offered if t.fits), None))
    outline = {code: (title, blocks) for code, title, blocks in (template.outline if template else ())}
    stored = _stored(report)
    typed = {code: visit.form.text(f"section.{code}") for code in _codes(visit)}
    known = dict.fromkeys([*TITLES, *stored, *outline, *typed])
    shown = {*stored, *outline, *typed, FINDINGS, IMPRESSION}
    made = []
    for code in (c for c in known if c in shown):
        had = stored.get(code)
        title = had or Section(code, outline.get(code, ("", {}))[0] or visit.form.text(f"title.{code}"), "")
        now = had.text.strip() if had else ""
        stale = visit.form.text("version") not in {"", report.version}
        # A page of before doesn't know what stands in a field that is empty there.
        text = typed.get(code, now) or (now if stale else "")
        crossed = stale and text != now
        made.append(Field(code, title.shown(visit.t), text, now, outline.get(code, ("", {}))[1], now if crossed else None))
    return made


def _stored(report: Report) -> dict[str, Section]:
    """The sections that can be written in, by their codes; a report that came as one text has it as its findings."""
    outside = examination.outside_text(report)
    return examination.by_code(report) or ({FINDINGS: Section(FINDINGS, TITLES[FINDINGS], outside)} if outside else {})


def _codes(visit: Visit) -> list[str]:
    """The codes of the sections that a form sends."""
    return [c for c in dict.fromkeys(visit.form.all("code")) if _CODE.fullmatch(c)][:_MOST_SECTIONS]


# Writing


async def start(visit: Visit) -> Response:
    """Begin the report, from a template if one was chosen."""
    chosen = visit.form.get("template")
    template = reference(f"Questionnaire/{chosen}") if chosen else None
    await visit.desk.operation(f"Task/{visit.id()}/$start-report", template=template)
    return visit.to(f"/reading/{visit.id()}", **({"template": chosen} if chosen else {}))


async def write(visit: Visit) -> Response:
    """Save what was changed. To the script: as JSON, with what is stored where it is refused."""
    by_script = visit.request.headers.get("accept") == "application/json"
    try:
        version = await save(visit)
    except FhirError as error:
        if not by_script:
            raise
        said = {"refused": str(error), "present": await _present(visit)}
        return JSONResponse(said, error.status, _NO_STORE)
    if by_script:
        return JSONResponse({"version": version}, headers=_NO_STORE)
    return await back(visit, "reading-saved")


async def text(visit: Visit) -> Response:
    """What the report says now, as JSON: for a page that learns that another has written."""
    return JSONResponse(await _present(visit), headers=_NO_STORE)


async def _present(visit: Visit) -> dict[str, Any]:
    about = await examination.of_report(visit, visit.id())
    assert about.report is not None
    report = about.report
    last = max(report.sections, key=lambda s: s.issued, default=None)
    sections = [{"code": s.code, "title": s.shown(visit.t), "text": s.text} for s in _stored(report).values()]
    said = {"version": report.version, "draft": report.draft, "beside": _beside(report), "sections": sections}
    return said | {"by": last.author if last else ""}


def _beside(report: Report) -> str:
    """A mark of the structured findings and comparisons of a report: it is another one where they are others."""
    told = [*report.findings, sorted(compared_with(report.resource))]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


async def save(visit: Visit) -> str:
    """Write the sections of the form that are other than what is stored; the version of the report then."""
    about = await examination.of_report(visit, visit.id())
    assert about.report is not None
    stored = _stored(about.report)
    given = {code: visit.form.text(f"section.{code}") for code in _codes(visit)}
    changed = {code: text for code, text in given.items() if text != (stored[code].text.strip() if code in stored else "")}
    version = visit.form.get("version")
    if not changed:
        return version or about.report.version
    sections = [section(code, text, visit.form.text(f"title.{code}")) for code, text in changed.items()]
    written = await visit.desk.operation(f"DiagnosticReport/{visit.id()}/$write", if_match=version, section=sections)
    return str(written["meta"]["versionId"])


def section(code: str, text: str, title: str = "") -> Resource:
    """What `$write` is told of a section; without text it goes."""
    coding = {"system": terms.LOINC, "code": code} | ({"display": title[:_LONGEST_TITLE]} if title else {})
    return {"part": [{"name": "code", "valueCoding": coding}, *([{"name": "text", "valueString": text}] if text else [])]}


async def sign(visit: Visit) -> Response:
    """Save, then sign; without a fresh second factor where one is asked for, by way of the login. `preliminary`: save as such."""
    version = await save(visit)
    about = await examination.of_report(visit, visit.id())
    assert about.report is not None
    _check_beside(visit, about.report)
    here, report = f"/reading/{await _reading_of(visit, about)}", f"DiagnosticReport/{visit.id()}"
    if visit.form.get("as") == "preliminary":
        await visit.desk.patch(report, {"op": "replace", "path": "/status", "value": "preliminary"}, if_match=version)
        await visit.desk.operation(f"{report}/$write")  # which makes its documents anew
        return visit.to(here, "reading-preliminary")
    try:
        signed = await visit.desk.operation(f"{report}/$sign", if_match=version)
    except FhirError as error:
        return proof(visit, error, here)
    return visit.to(here, "reading-signed" if signed["status"] == "final" else "reading-preliminary")


def _check_beside(visit: Visit, report: Report) -> None:
    """FhirError where a finding is typed and not in the report, or one is in it that the page didn't show."""
    if visit.form.named("finding."):
        raise fail("required", visit.t("reading.unadded"), status=422)
    if visit.form.get("beside") not in {None, _beside(report)}:
        raise fail("conflict", visit.t("reading.beside-changed"), status=412)


def proof(visit: Visit, error: FhirError, page: str) -> Response:
    """To the login for a fresh proof, and back to this page; FhirError as it was, where that is not what is missing."""
    if error.code != "login":
        raise error
    if not visit.session.user.second_factor:
        raise FhirError(*error.issues, Issue("login", visit.t("reading.no-second-factor")), status=422)
    return visit.to("/login", again="yes", next=f"{page}?done=reading-proven")


async def back(visit: Visit, done: str, *, added: bool = False) -> Response:
    """To the editor, with the template that was chosen; a finding that is typed and was not `added` still stands there."""
    reading = await _reading_of(visit, await examination.of_report(visit, visit.id()))
    if visit.form.named("finding.") and not added:
        visit.form = Form({name: texts for name, texts in visit.form.fields.items() if name.startswith("finding.")})
        visit.here = visit.with_query(f"/reading/{reading}")
        return await _shown(visit, reading, done)
    chosen = visit.asked("template")
    return visit.to(f"/reading/{reading}", done, **({"template": chosen} if chosen else {}))
