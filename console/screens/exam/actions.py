"""What can be done at an exam: move it to the right patient, and open or close a record in an emergency."""

from typing import Final

from starlette.responses import Response

from console import emergency, picking
from console.asking import reference
from console.screens.exam import record
from console.screens.exam.record import Exam
from console.visit import Visit
from fhir_server.outcome import FhirError

_SIGNED: Final = frozenset({"final", "amended", "corrected", "appended"})


# The wrong patient


async def show_move(visit: Visit) -> Response:
    """Who is the right patient? What was typed is looked for; one of those found is chosen."""
    exam = await record.load(visit.desk, visit.id())
    typed = visit.form.text("q")[:200]
    found = [p for p in await picking.patients(visit, typed) if p["id"] != (exam.patient or {}).get("id")] if typed else []
    signed = any(r["status"] in _SIGNED for r in exam.of("DiagnosticReport"))
    return visit.page("exam/move.html", exam=exam, q=typed, found=found, signed=signed, most=picking.MOST)


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


def is_open(visit: Visit, exam: Exam) -> bool:
    """Whether the reader has opened this patient's record in an emergency."""
    return exam.patient is not None and emergency.is_open(visit, exam.patient["id"])


async def opens_more(visit: Visit, exam: Exam) -> bool:
    """Whether more of this patient's record would open in an emergency."""
    return exam.patient is not None and await emergency.opens_more(visit, exam.patient["id"])


async def show_closed(visit: Visit) -> Response:
    """Nothing that may be seen is here: perhaps as the record is closed. Who may, can open it, by the patient's number."""
    visit.status = max(visit.status, 404)
    refused_as_stale = any(issue.code == "login" for issue in visit.errors)
    return visit.page("exam/closed.html", id=visit.id(), issuers=await emergency.issuers(visit), stale=refused_as_stale)


async def open_closed(visit: Visit) -> Response:
    """Break the glass of the record of whom the number is."""
    await emergency.open_by_number(visit)
    return visit.to(f"/exams/{visit.id()}", "exam-opened")


async def open_record(visit: Visit) -> Response:
    """Break the glass for what is hidden of a patient whose exam is seen."""
    exam = await record.load(visit.desk, visit.id())
    await emergency.open_record(visit, (exam.patient or {}).get("id", "-"))
    return visit.to(f"/exams/{visit.id()}", "exam-opened")


async def close_record(visit: Visit) -> Response:
    """End it. What was hidden before is hidden again, perhaps the whole exam."""
    exam = await record.load(visit.desk, visit.id())
    await emergency.close(visit, (exam.patient or {}).get("id", "-"))
    try:
        await record.load(visit.desk, visit.id())
    except FhirError:
        return visit.to("/", "exam-closed")
    return visit.to(f"/exams/{visit.id()}", "exam-closed")
