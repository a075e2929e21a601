"""What can be done at an exam: move it to the right patient, and open or close a record in an emergency."""

import re
from typing import Final

from starlette.responses import Response

from console.asking import reference
from console.screens.exam import record
from console.screens.exam.record import Exam
from console.visit import Visit
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from smart_auth.roles import role

_MOST: Final = 10  # patients to choose from
_SIGNED: Final = frozenset({"final", "amended", "corrected", "appended"})


# The wrong patient


async def show_move(visit: Visit) -> Response:
    """Who is the right patient? What was typed is looked for; one of those found is chosen."""
    exam = await record.load(visit.desk, visit.id())
    typed = visit.form.text("q")[:200]
    found = [p for p in await _people(visit, typed) if p["id"] != (exam.patient or {}).get("id")] if typed else []
    signed = any(r["status"] in _SIGNED for r in exam.of("DiagnosticReport"))
    return visit.page("exam/move.html", exam=exam, q=typed, found=found, signed=signed, most=_MOST)


async def _people(visit: Visit, typed: str) -> list[Resource]:
    """Patients with this number, or with all of these names, or of this id."""
    desk, names = visit.desk, [("name", _escaped(word)) for word in typed.replace(",", " ").split()[:5]]
    asked = [desk.search("Patient", identifier=_escaped(typed), _count=str(_MOST))]
    asked += [desk.search("Patient", *names, _count=str(_MOST), _sort="family")] if names else []
    if typed.replace("-", "").replace(".", "").isalnum() and typed.isascii() and len(typed) <= 64:
        asked.append(desk.search("Patient", _id=typed))
    found = {p["id"]: p for answers in await desk.together(*asked) for p in answers}
    return list(found.values())[:_MOST]


def _escaped(text: str) -> str:
    """A text as the value of a search parameter (FHIR R4 3.1.1.5.7)."""
    return re.sub(r"([\\,$|])", r"\\\1", text)


async def move(visit: Visit) -> Response:
    """Move the order with all that hangs on it; refused when somebody has changed it since the page was shown."""
    form = visit.form
    chosen = form.get("patient")
    await visit.desk.operation(
        f"ServiceRequest/{visit.id()}/$move",
        if_match=form.get("version"),
        patient=reference(f"Patient/{chosen}") if chosen else None,
        reason=form.get("reason"),
        correctReports=True if form.get("correct-reports") else None,
    )
    return visit.to(f"/exams/{visit.id()}", "exam-moved")


# A record that is closed


def breaks_glass(visit: Visit) -> bool:
    """Whether the reader's role opens records in an emergency."""
    known = role(visit.role)
    return known is not None and known.breaks_glass


def is_open(visit: Visit, exam: Exam) -> bool:
    """Whether the reader has opened this patient's record in an emergency."""
    about = visit.access.circumstances
    return about is not None and exam.patient is not None and exam.patient["id"] in about.opened


async def show_closed(visit: Visit) -> Response:
    """Nothing that may be seen is here: perhaps as the record is closed. Who may, can open it, by the patient's number."""
    visit.status = max(visit.status, 404)
    issuers = await _issuers(visit)
    return visit.page("exam/closed.html", id=visit.id(), issuers=issuers, stale=_is_stale(visit))


async def _issuers(visit: Visit) -> list[str]:
    """Who gives numbers to patients here: the systems of those of the newest records that the reader sees."""
    found = await visit.desk.search("Patient", _count="50", _sort="-_lastUpdated", _elements="identifier")
    systems = [str(i["system"]) for p in found for i in p.get("identifier", ()) if "system" in i]
    return sorted(dict.fromkeys(systems), key=lambda s: -systems.count(s))[:8]


def _is_stale(visit: Visit) -> bool:
    """Whether it was refused for a login that is too long ago."""
    return any(issue.code == "login" for issue in visit.errors)


async def open_closed(visit: Visit) -> Response:
    """Break the glass of the record of whom the number is."""
    form = visit.form
    identifier = f"{form.text('issuer')}|{form.text('number')}"
    await visit.desk.operation("Patient/$break-glass", identifier=identifier, reason=form.text("reason"), minutes=_minutes(visit))
    return visit.to(f"/exams/{visit.id()}", "exam-opened")


async def open_record(visit: Visit) -> Response:
    """Break the glass for what is hidden of a patient whose exam is seen."""
    exam = await record.load(visit.desk, visit.id())
    whose = (exam.patient or {}).get("id", "-")
    await visit.desk.operation(f"Patient/{whose}/$break-glass", reason=visit.form.text("reason"), minutes=_minutes(visit))
    return visit.to(f"/exams/{visit.id()}", "exam-opened")


def _minutes(visit: Visit) -> int | str:
    text = visit.form.text("minutes") or "60"
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else text


async def close_record(visit: Visit) -> Response:
    """End it. What was hidden before is hidden again, perhaps the whole exam."""
    exam = await record.load(visit.desk, visit.id())
    await visit.desk.operation(f"Patient/{(exam.patient or {}).get('id', '-')}/$mend-glass")
    try:
        await record.load(visit.desk, visit.id())
    except FhirError:
        return visit.to("/", "exam-closed")
    return visit.to(f"/exams/{visit.id()}", "exam-closed")
