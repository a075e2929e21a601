"""Critical results: which are open, who was told of one, when, and that it was read back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.responses import Response

from console.asking import Found, reference
from console.formats import concept, moment
from console.screens.reading import examination
from console.screens.reading.examination import Report, person
from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Resource
from resources.reading import critical_request
from resources.reading.critical_request import CRITICAL, KIND

MEDIA: Final = ("PHONE", "FACE", "WRITTEN", "ELECTRONIC", "VIDEOCONF")
_PEOPLE: Final = "300"
_INCLUDED: Final = [f"CommunicationRequest:{name}" for name in ("recipient", "requester", "patient")]
_FURTHER: Final = ["Communication:recipient", "Communication:sender", "PractitionerRole:practitioner"]


@dataclass(frozen=True, slots=True)
class Told:
    """That somebody was told (Communication)."""

    whom: Sequence[Resource]
    by: Resource | None
    how: str
    at: str
    done: bool


@dataclass(frozen=True, slots=True)
class Critical:
    """Somebody must be told (CommunicationRequest). `grade`: RadLex; `due`: until when; `to`: references and people."""

    id: str
    status: str
    grade: str
    finding: str
    found: str
    due: datetime | None
    patient: Resource | None
    report: str
    to: Sequence[tuple[str, Resource | None]]
    by: Resource | None
    told: Sequence[Told]
    late: bool


async def show_list(visit: Visit) -> Response:
    """Those that are open, the most pressing first."""
    found = await _search(visit, category=f"{KIND}|{CRITICAL}", status="active", _sort="occurrence", _count="200")
    return visit.page("reading/critical_list.html", rows=[_critical(visit, found, r) for r in found])


async def show(visit: Visit) -> Response:
    """One of them, with its report."""
    found = await _search(visit, _id=visit.id())
    request = next((r for r in found if critical_request.is_critical(r)), None)
    if request is None:
        raise fail("not-found", f"there is no critical result {visit.id()}")
    one = _critical(visit, found, request)
    about = await examination.of_report(visit, one.report)
    known = [(ref, who) for ref, who in one.to if who is not None]
    others = [] if visit.role == "referrer" else [(f"Practitioner/{p['id']}", p) for p in await people(visit)]
    listed = dict([*known, *([(_reference(about.requester), about.requester)] if about.requester else []), *others])
    return visit.page(
        "reading/critical.html",
        one=one,
        about=about,
        report=about.report,
        own=visit.role == "referrer",
        people=[(to, who) for to, who in listed.items() if to and to != visit.me],
        media=MEDIA,
        typed=visit.form,
    )


def _reference(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}" if "id" in resource else ""


async def acknowledge(visit: Visit) -> Response:
    """It was understood: a referrer says so itself, a radiologist of whom it told."""
    address = f"CommunicationRequest/{visit.id()}/$acknowledge"
    if visit.role == "referrer":
        await visit.desk.operation(address)
    else:
        by, medium, at = (visit.form.get(name) for name in ("by", "medium", "at"))
        await visit.desk.operation(
            address,
            by=reference(by) if by else None,
            medium={"valueCode": medium} if medium else None,
            read_back=True if visit.form.get("read-back") else None,
            at={"valueInstant": visit.moment(at).isoformat()} if at else None,
        )
    return visit.to(f"/reading/critical/{visit.id()}", "reading-acknowledged")


async def of_report(visit: Visit, report: Report) -> list[Critical]:
    """Those of a report, as far as this person sees them."""
    ids = [to.id for r in critical_request.requests_of(report.resource) if (to := target(r)) is not None]
    if not ids or not visit.allows("CommunicationRequest", "s"):
        return []
    found = await _search(visit, _id=",".join(ids))
    return [_critical(visit, found, r) for r in found if r["status"] not in {"entered-in-error", "revoked"}]


async def people(visit: Visit) -> list[Resource]:
    """Who can be told: the people that the department knows."""
    found = await visit.desk.search("Practitioner", _sort="family", _count=_PEOPLE, _elements="name,identifier")
    return [p for p in found if p.get("name")]


async def _search(visit: Visit, **asked: Any) -> Found:
    further = {"_revinclude": ["Communication:based-on"]} if visit.allows("Communication", "s") else {}
    return await visit.desk.search("CommunicationRequest", _include=_INCLUDED, _include__iterate=_FURTHER, **asked, **further)


def _critical(visit: Visit, found: Found, request: Resource) -> Critical:
    me, due = f"CommunicationRequest/{request['id']}", moment(request.get("occurrenceDateTime"))
    told = [c for c in found.included("Communication") if any(r.get("reference") == me for r in c.get("basedOn", ()))]
    return Critical(
        id=request["id"],
        status=request["status"],
        grade=critical_request.category(request),
        finding="\n".join(p["contentString"] for p in request.get("payload", ()) if "contentString" in p),
        found=request.get("authoredOn", ""),
        due=due,
        patient=found.of(request.get("subject")),
        report=next((to.id for r in request.get("about", ()) if (to := target(r)) is not None), "-"),
        to=[(str(r.get("reference", "")), person(found, r)) for r in request.get("recipient", ())],
        by=person(found, request.get("requester")),
        told=[_told(found, c) for c in told if c["status"] in {"completed", "not-done"}],
        late=request["status"] == "active" and due is not None and due < visit.now,
    )


def _told(found: Found, told: Resource) -> Told:
    whom = [p for r in told.get("recipient", ()) if (p := person(found, r)) is not None]
    how = next((concept(m) for m in told.get("medium", ())), "")
    return Told(whom, person(found, told.get("sender")), how, told.get("received", ""), told["status"] == "completed")
