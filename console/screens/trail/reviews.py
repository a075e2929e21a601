"""Records that were opened in an emergency, for the privacy officer to look at."""

from dataclasses import dataclass

from starlette.responses import Response

from console.formats import human_name
from console.screen import Door, does, shows
from console.visit import Visit
from fhir_server import clock
from fhir_server.elements import Resource
from fhir_server.outcome import fail
from smart_auth.roles import REVIEW

_PATH = "/audit/reviews"
_OPEN = "requested,received,accepted,ready,in-progress,on-hold"
_PAGE = "100"


@dataclass(frozen=True, slots=True)
class Row:
    """A review: who opened whose record when and why; `event` is the AuditEvent of it."""

    id: str
    version: str
    at: str
    text: str
    reason: str
    patient: str
    patient_id: str
    event: str
    status: str
    notes: list[str]


async def waiting(visit: Visit) -> int | None:
    """How many wait; None for who doesn't review."""
    if not visit.can("Task.u"):
        return None
    return (await visit.desk.search("Task", code=REVIEW, status=_OPEN, _summary="count")).total


async def index(visit: Visit) -> Response:
    """Those that wait, or those that are done."""
    done = visit.asked("show") == "done"
    status = "completed,cancelled,rejected,failed" if done else _OPEN
    if at := visit.asked("page"):
        found = await visit.desk.page("Task", at)
    else:
        found = await visit.desk.search("Task", code=REVIEW, status=status, _sort="-_id", _count=_PAGE, _include="Task:focus")
    rows = [_row(task, found.of(task.get("focus"))) for task in found]
    return visit.page("trail/reviews.html", rows=rows, show_done=done, next=found.next)


def _row(task: Resource, patient: Resource | None) -> Row:
    about = task.get("focus", {}).get("reference", "")
    event = next((i["valueReference"]["reference"] for i in task.get("input", ()) if "valueReference" in i), "")
    return Row(
        id=task["id"],
        version=task["meta"]["versionId"],
        at=task.get("authoredOn", ""),
        text=task.get("description", ""),
        reason=task.get("reasonCode", {}).get("text", ""),
        patient=human_name(patient) if patient else about,
        patient_id=about.partition("/")[2] if patient else "",
        event=event.removeprefix("AuditEvent/"),
        status=task["status"],
        notes=[n.get("text", "") for n in task.get("note", ())],
    )


async def complete(visit: Visit) -> Response:
    """It was looked at; what was found is kept with it."""
    found = visit.form.get("finding")
    if not found:
        raise fail("required", visit.t("trail.finding-needed"), "Task.note", status=422)
    task = await visit.desk.read(f"Task/{visit.id()}")
    if task["meta"]["versionId"] != visit.form.text("version"):
        raise fail("conflict", visit.t("trail.reviewed-already", status=visit.t.code("state.step", task["status"])))
    by = {"authorReference": {"reference": visit.me}} if visit.me else {}
    note = {"text": found[:2000], "time": clock.instant(visit.now), **by}
    await visit.desk.update(task | {"status": "completed", "note": [*task.get("note", ()), note]})
    return visit.to(_PATH, "audit-reviewed")


DOORS: list[Door] = [
    shows(_PATH, index, "Task.u"),
    does(f"{_PATH}/{{id}}/complete", complete, index, "Task.u"),
]
