"""The audit trail: who has seen and done what, whether the trail is whole, and what was opened in an emergency."""

import asyncio
import csv
import io
from typing import Any

from starlette.responses import Response

from console.asking import Found
from console.screen import Door, Screen, does, shows
from console.screens.trail import events, reviews
from console.visit import Visit
from fhir_server import audit_verify, fhir_json
from fhir_server.audit import Act, audit_event
from fhir_server.audit_key import audit_key
from fhir_server.outcome import FhirError, fail
from smart_auth.pages import security_headers

SCREEN = Screen("trail", "/audit", "u", "AuditEvent.s")
_PAGE = "50"
_MOST_WRITTEN = 5000  # events in a file
NEWEST = 5000  # events that are checked at the press of a button
_CHECKS_SHOWN = 5
_checking = asyncio.Lock()


async def show(visit: Visit) -> Response:
    """The events that a filter finds, the newest first."""
    given = events.asked(visit)
    found = await _found(visit, given) if not visit.errors else Found([])
    checks = await audit_verify.last_checks(_db(visit), _key(visit), 1)
    return visit.page(
        "trail/index.html",
        given=given,
        kinds=list(events.KINDS),
        outcomes=events.OUTCOMES,
        rows=await events.rows(visit, found),
        next=found.next,
        first=not (visit.form.get("page") or visit.asked("page")),
        check=checks[0] if checks else None,
        reviews=await reviews.waiting(visit),
    )


async def find(visit: Visit) -> Response:
    """A filter with a patient in it stays out of the address; any other goes there."""
    given = events.asked(visit)
    if given["patient"]:
        return await show(visit)
    page = visit.form.get("page")
    return visit.to("/audit", **{n: v for n, v in {**given, "page": page or ""}.items() if v})


async def _found(visit: Visit, given: dict[str, str]) -> Found:
    try:
        if at := visit.form.get("page") or visit.asked("page"):
            return await visit.desk.page("AuditEvent", at)
        patients = await events.patients_of(visit, given["patient"])
        asked = await events.query(visit, given, patients)
        return await visit.desk.search("AuditEvent", *asked, _count=_PAGE, _total="none")
    except FhirError as error:
        if error.code == "forbidden":
            raise
        visit.failed(error)
        return Found([])


async def one(visit: Visit) -> Response:
    """One event, and whether it is as it was stored."""
    event = await visit.desk.read(f"AuditEvent/{visit.id()}")
    return visit.page(
        "trail/event.html",
        event=event,
        row=await events.row(visit, event),
        state=await audit_verify.state_of(_db(visit), _key(visit), event["id"]),
        text=fhir_json.dumps(event, pretty=True).decode(),
    )


async def written(visit: Visit) -> Response:
    """What a filter finds as CSV (RFC 4180)."""
    given = events.asked(visit)
    asked = await events.query(visit, given, await events.patients_of(visit, given["patient"]))
    found = await visit.desk.search("AuditEvent", *asked, _count="1000", _total="none")
    rows = await events.rows(visit, found)
    while found.next and len(rows) < _MOST_WRITTEN:
        found = await visit.desk.page("AuditEvent", found.next)
        rows += await events.rows(visit, found)
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([visit.t(f"trail.{n}") for n in ("at", "who", "role", "by", "event", "about", "outcome", "text", "peer")])
    for row in rows[:_MOST_WRITTEN]:
        about = " ".join([*(reference for reference, _ in row.about), *([f"+{row.more}"] if row.more else []), row.query])
        cells = (row.at, row.who, row.role, row.by, row.event, about.strip(), row.outcome, row.text, row.peer)
        writer.writerow([_cell(text) for text in cells])
    headers = security_headers() | {"Content-Disposition": 'attachment; filename="audit.csv"'}
    return Response(out.getvalue().encode("utf-8-sig"), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text


# Whether it is whole


async def checks(visit: Visit) -> Response:
    """What the last checks have found."""
    found = await audit_verify.last_checks(_db(visit), _key(visit), _CHECKS_SHOWN)
    return visit.page("trail/checks.html", checks=found, newest=NEWEST)


async def check(visit: Visit) -> Response:
    """Look at the newest events now. That it was done is an event itself."""
    if _checking.locked():
        raise fail("conflict", visit.t("trail.under-way"))
    async with _checking:
        act = Act("audit-verify", source="console", detail=f"the newest {NEWEST} events", peer=visit.desk.peer)
        await visit.console.interactions.reads.write(audit_event(act, visit.access, ()))
        await visit.console.interactions.store.trail.note_heads()
        await audit_verify.check(_db(visit), _key(visit), visit.session.user.name, NEWEST)
    return visit.to("/audit/checks", "audit-checked")


def _db(visit: Visit) -> Any:
    return visit.console.interactions.store.db


def _key(visit: Visit) -> bytes:
    return audit_key(visit.console.settings.data_dir)


DOORS: list[Door] = [
    shows("/audit", show),
    does("/audit", find, show),
    does("/audit/csv", written, show),
    shows("/audit/checks", checks),
    does("/audit/checks", check, checks),
    shows("/audit/events/{id}", one),
    *reviews.DOORS,
]
