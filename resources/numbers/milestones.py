"""What each resource says of an examination's milestones, read from all its versions.

A status says *that* something is so, its versions *since when*: where a resource has no time of its own for a milestone, it is
the moment since which the resource has been at or past it without interruption. What was taken back (an arrival, a booking, a
start) is not counted any more. Each function takes the versions, the oldest first, and gives a part of the examination's row.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from fhir_server.elements import codings, has_code
from fhir_server.registry import Resource
from fhir_server.search.dates import of_text
from resources import service_request, task, terms

Part = dict[str, Any]
Versions = Sequence[Resource]

# In the order in which they are usually reached.
MILESTONES: Final = (
    "ordered", "accepted", "scheduled", "arrived", "started", "ended", "images", "claimed", "preliminary", "final", "delivered",
    "charged",
)  # fmt: skip
_SIGNED: Final = frozenset({"final", "amended", "corrected", "appended"})
# Task.extension in which the tracking of the department keeps each state that a step has come to, with its time.
_TRACKED: Final = "urn:fhir-ris:tracked"
_NOT_BOOKED: Final = frozenset({"draft", "requested", "received", "rejected"})


def part(versions: Versions) -> Part | None:
    """What these versions of one resource, the last of which is current, say; None for what says nothing of an examination."""
    last = versions[-1]
    if last.get("status") == "entered-in-error" and last["resourceType"] != "ServiceRequest":
        return None
    read = _OF.get(last["resourceType"])
    found = read(versions) if read else None
    return {"of": f"{last['resourceType']}/{last['id']}"} | found if found else None


def is_ours(of: Resource) -> bool:
    """Whether a Task is a step or a reading."""
    return task.is_step(of) or has_code(of.get("code"), terms.TASK_CODE, terms.INTERPRETATION)


def _request(versions: Versions) -> Part | None:
    """An order or a requested procedure."""
    last = versions[-1]
    kind = "procedure" if service_request.is_procedure(last) else "order" if service_request.is_order(last) else ""
    if not kind:
        return None
    accepted = revoked = None
    for one in versions:
        status, at = one.get("status"), _stored(one)
        if status in {"draft", "unknown"}:
            accepted = None
        elif status in {"active", "completed"}:
            accepted = accepted or at
        revoked = (revoked or at) if status == "revoked" else None
    return _given(
        kind=kind,
        status=last.get("status"),
        ordered=_time(last.get("authoredOn")) or _stored(versions[0]),
        accepted=accepted,
        cancelled=revoked,
        priority=last.get("priority", "routine"),
        referrer=last.get("requester", {}).get("reference"),
        code=_code(last) if kind == "procedure" else None,
    )


def _task(versions: Versions) -> Part | None:
    last = versions[-1]
    if not is_ours(last):
        return None
    return _step(versions) if task.is_step(last) else _reading(versions)


def _step(versions: Versions) -> Part:
    scheduled = arrived = begun = over = None
    for one in versions:
        status, at = one.get("status", ""), _stored(one)
        if status in _NOT_BOOKED:
            scheduled = arrived = begun = over = None
        elif status in {"accepted", "ready"}:
            scheduled, begun, over = scheduled or at, None, None
            arrived = (arrived or at) if status == "ready" else None
        elif status == "in-progress":
            begun, over = begun or at, None
        elif status in {"completed", "failed"}:
            over = over or at
    last, period = versions[-1], versions[-1].get("executionPeriod", {})
    tracked = _tracked(last)
    if begun or over:
        begun = _time(period.get("start")) or begun
    if over:
        over = _time(period.get("end")) or over
    return _given(
        kind="step",
        status=last.get("status"),
        scheduled=scheduled,
        arrived=(tracked.get("arrived") or arrived) if arrived else None,
        started=begun,
        ended=over,
        modality=task.modality(last),
        scanner=_device(last.get("owner")),
    )


def _tracked(step: Resource) -> dict[str, datetime]:
    """State to the time when the step last came to it."""
    found: dict[str, datetime] = {}
    for row in (e for e in step.get("extension", ()) if e.get("url") == _TRACKED):
        said = {p.get("url"): p.get("valueCode") or p.get("valueInstant") for p in row.get("extension", ())}
        if (at := _time(said.get("at"))) is not None:
            found[str(said.get("state"))] = at
    return found


def _reading(versions: Versions) -> Part:
    claimed = None
    for one in versions:
        owned = "owner" in one and one.get("status") != "requested"
        claimed = (claimed or _stored(one)) if owned else None
    last = versions[-1]
    reader = last.get("owner", {}).get("reference")
    return _given(kind="reading", status=last.get("status"), claimed=claimed, reader=reader if claimed else None)


def _study(versions: Versions) -> Part | None:
    available = None
    for one in versions:
        available = (available or _stored(one)) if one.get("status") == "available" else None
    return _given(kind="study", images=available) if available else None


def _report(versions: Versions) -> Part | None:
    preliminary = final = signed = None
    for one in versions:
        status, issued = one.get("status"), _time(one.get("issued")) or _stored(one)
        if status in {"partial", "preliminary"}:
            preliminary, final, signed = preliminary or issued, None, None
        elif status in _SIGNED:
            final, signed = final or issued, signed or _stored(one)
        else:
            preliminary = final = signed = None
    if not (preliminary or final):
        return None
    reader = next((r["reference"] for r in versions[-1].get("resultsInterpreter", ()) if "reference" in r), None)
    return _given(kind="report", preliminary=preliminary, final=final, signed=signed, reader=reader)


def _performed(versions: Versions) -> Part | None:
    actors = (p.get("actor", {}).get("reference", "") for p in versions[-1].get("performer", ()))
    person = next((a for a in actors if a.startswith(("Practitioner/", "PractitionerRole/"))), None)
    return _given(kind="performed", technologist=person) if person else None


def _charge(versions: Versions) -> Part | None:
    billed = None
    for one in versions:
        billed = (billed or _stored(one)) if one.get("status") == "billed" else None
    return _given(kind="charge", charged=billed) if billed else None


_OF: Final[dict[str, Callable[[Versions], Part | None]]] = {
    "ServiceRequest": _request,
    "Task": _task,
    "ImagingStudy": _study,
    "DiagnosticReport": _report,
    "Procedure": _performed,
    "ChargeItem": _charge,
}
TYPES: Final = frozenset(_OF)


def _given(**elements: Any) -> Part:
    return {name: value for name, value in elements.items() if value is not None}


def _stored(version: Resource) -> datetime:
    """When a version was stored, in UTC without tzinfo."""
    return of_text(version["meta"]["lastUpdated"])[0]


def _time(text: object) -> datetime | None:
    """A dateTime or instant as UTC without tzinfo; None for nothing, and for a day without a time."""
    return of_text(text)[0] if isinstance(text, str) and "T" in text else None


def _device(reference: Resource | None) -> str | None:
    found = str((reference or {}).get("reference", ""))
    return found if found.startswith("Device/") else None


def _code(request: Resource) -> str | None:
    """The procedure's code, without its system. Free text is no code: nobody knows what is in it."""
    return next((c["code"] for c in codings(request.get("code")) if "code" in c), None)
