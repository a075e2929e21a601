"""Critical results: somebody must be told in time. The obligation is a CommunicationRequest, each telling a Communication.

    CommunicationRequest  category `critical-result` and the ACR category of actionable findings (RadLex), `about` the report,
                          `occurrenceDateTime` until when it must be told, `recipient` whom; active until it is acknowledged
    Communication         by IHE Radiology's Imaging Diagnostic Report (idr-communication, draft, brought to R4): `basedOn` the
                          request, `partOf` the report, `subject`, `sent`, `received`, `sender`, `recipient`, `medium`, and `text`
                          as the sentence for people. Completed when a named person has acknowledged; not-done for an attempt
A report whose conclusionCode is such a category is critical, whichever way it came.
"""

from datetime import datetime, timedelta
from typing import Final

from fhir_server import clock
from fhir_server.elements import codes, concept, has_code
from fhir_server.outcome import fail
from fhir_server.references import ref, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import diagnostic_report, service_request, terms, work_items, zones
from resources.identifiers import token
from resources.lifecycle import check_status, check_unchanged, lifecycle
from resources.reading import readers, time_limits
from resources.security_labels import labelled

# RadLex: the actionable findings of categories 1 to 3 (ACR, IHE Results Distribution): within minutes, hours, days.
ACTIONABLE: Final = {"RID49480": "category 1", "RID49481": "category 2", "RID49482": "category 3"}
KIND: Final = "urn:fhir-ris:communication"
CRITICAL, OVERDUE = "critical-result", "overdue"
ON_REPORT: Final = terms.CRITICAL_RESULT  # extension of DiagnosticReport: its CommunicationRequest
# Where the department has no rule of its own (`time_limits.py`).
_LIMITS: Final = {"RID49480": timedelta(hours=1), "RID49481": timedelta(hours=12), "RID49482": timedelta(days=3)}
_PRIORITY: Final = {"RID49480": "stat", "RID49481": "asap", "RID49482": "urgent"}
_TOLD: Final = frozenset({"preliminary", "final", "amended", "corrected", "appended"})
_OPEN: Final = frozenset({"draft", "active", "on-hold"})
_TELLERS: Final = frozenset({"radiologist", "referrer"})  # a referrer for itself alone (`$acknowledge`)
_NAMED: Final = ("Practitioner/", "PractitionerRole/", "Patient/", "RelatedPerson/")


def is_critical(request: Resource | None) -> bool:
    """Whether a CommunicationRequest is about a critical result."""
    return request is not None and has_code(request.get("category"), KIND, CRITICAL)


def category(request: Resource) -> str:
    """The RadLex code of its category."""
    return next((c for c in codes(request.get("category"), terms.RADLEX) if c in ACTIONABLE), "")


async def open_request(
    unit: UnitOfWork, report: Resource, grade: str, finding: str, recipient: Resource | None, found: datetime
) -> Resource:
    """The obligation to tell of a report; `found`: from when on the time runs."""
    limit = await time_limits.critical_limit(unit, grade) or _LIMITS[grade]
    kinds = [concept(KIND, CRITICAL), concept(terms.RADLEX, grade, f"Actionable finding, {ACTIONABLE[grade]}")]
    request: Resource = {
        "resourceType": "CommunicationRequest",
        "status": "active",
        "category": kinds,
        "priority": _PRIORITY[grade],
        "subject": report["subject"],
        "about": [ref(report)],
        "payload": [{"contentString": finding}],
        "occurrenceDateTime": clock.instant(found + limit),
        "authoredOn": clock.instant(found),
    }
    recipient = recipient or await _orderer(unit, report)
    optional = {
        "basedOn": report.get("basedOn"),
        "encounter": report.get("encounter"),
        "recipient": [recipient] if recipient else None,
        "requester": {"reference": unit.access.user} if unit.access.user else None,
    }
    return await unit.create(labelled(request | {k: v for k, v in optional.items() if v}, report))


def _number(report: Resource, grade: str) -> str:
    return f"{report['id']} {grade}"


async def of_grade(unit: UnitOfWork, report: Resource, grade: str) -> Resource | None:
    """The obligation of this category that a report has led to: one that is open before one that is done with."""
    found = await unit.search("CommunicationRequest", identifier=token(ON_REPORT, _number(report, grade)))
    stands = [r for r in found if r["status"] not in {"revoked", "entered-in-error"}]
    return min(stands, key=lambda r: r["status"] == "completed", default=None)


async def _orderer(unit: UnitOfWork, report: Resource) -> Resource | None:
    for procedure in await diagnostic_report.procedures(unit, report):
        order = await service_request.order_of(unit, procedure)
        if order is not None and "requester" in order:
            requester: Resource = {k: v for k, v in order["requester"].items() if k in {"reference", "display"}}
            return requester
    return None


def requests_of(report: Resource) -> list[Resource]:
    """References to the obligations that a report has led to."""
    return [e["valueReference"] for e in report.get("extension", ()) if e.get("url") == ON_REPORT]


def on_report(report: Resource, request: Resource) -> Resource:
    """The report that shows its obligation."""
    return report | {"extension": [*report.get("extension", ()), {"url": ON_REPORT, "valueReference": ref(request)}]}


async def lines(unit: UnitOfWork, report: Resource) -> list[tuple[str, str]]:
    """What the document of a report says of its critical results: what, until when, who was told."""
    found = []
    for reference in requests_of(report):
        request = await unit.get(reference)
        if request is None or request["status"] in {"entered-in-error", "revoked"}:
            continue
        told = await unit.search("Communication", based_on=f"CommunicationRequest/{request['id']}", status="completed")
        for one in told:
            who = "; ".join([n for r in one.get("recipient", ()) if (n := await readers.name(unit, r))])
            found.append(
                ("Critical result", f"{ACTIONABLE[category(request)]}, acknowledged by {who} at {zones.told(one['received'])}")
            )
        if not told:
            until = zones.told(request.get("occurrenceDateTime", ""))
            found.append(("Critical result", f"{ACTIONABLE[category(request)]}, to be told until {until}"))
    return found


# Rules and reactions


async def _is_acknowledged(unit: UnitOfWork, change: Change) -> None:
    told = await unit.search("Communication", based_on=f"CommunicationRequest/{change.id}", status="completed")
    if not told:
        text = "a critical result is completed by its acknowledgement: a completed Communication based on it"
        raise fail("business-rule", text, "CommunicationRequest.status")


REQUEST: Final = lifecycle(
    "CommunicationRequest",
    "critical result",
    """
    from          | to               | who              | needs              | then
    new           | draft active     | radiologist; RIS | category and time  | a work item; shown on the report
                  |                  |                  | limit              |
    draft on-hold | active           | radiologist      |                    |
    draft active  | on-hold          | radiologist      |                    | isn't escalated meanwhile
    draft active  | completed        | radiologist; RIS | an acknowledgement | its work items are settled
    on-hold       |                  |                  |                    |
    draft active  | revoked          | radiologist      |                    | its work items are settled
    on-hold       |                  |                  |                    |
    *             | entered-in-error | radiologist; RIS |                    | its work items are settled
    """,
    of=is_critical,
    needs={"an acknowledgement": _is_acknowledged},
)


async def check_request(unit: UnitOfWork, change: Change) -> None:
    """A critical result is done with when somebody has acknowledged it, not before."""
    request = change.after
    if change.before is not None and is_critical(change.before) and (request is None or not is_critical(request)):
        raise fail("business-rule", "a critical result stays one; it can be entered-in-error", "CommunicationRequest.category")
    if request is None or not is_critical(request):
        return
    await check_status(unit, change, REQUEST)
    if request["status"] == "entered-in-error":  # whatever was wrong about it
        return
    if not category(request):
        text = f"a critical result has its category: a RadLex code of {', '.join(ACTIONABLE)}"
        raise fail("business-rule", text, "CommunicationRequest.category")
    if "T" not in request.get("occurrenceDateTime", ""):
        text = "a critical result has a time limit: a moment with its time zone"
        raise fail("business-rule", text, "CommunicationRequest.occurrenceDateTime")
    check_unchanged(change, "subject", "about", "authoredOn", "requester")
    if unit.is_callers and not unit.access.internal:
        check_unchanged(change, "occurrenceDateTime")  # which the category sets, and escalation goes by
        if unit.access.role != "radiologist":
            check_unchanged(change, "category", "priority", "payload", "recipient")
    if change.before is None:
        request.setdefault("authoredOn", clock.instant(unit.now))
    report = await _check_about(unit, request)
    own = {"system": ON_REPORT, "value": _number(report, category(request))}
    if change.before is None and own not in request.get("identifier", ()):
        request["identifier"] = [*request.get("identifier", ()), own]


async def _check_about(unit: UnitOfWork, request: Resource) -> Resource:
    """It is about one report, and of its patient."""
    about = request.get("about", [])
    report = await unit.get(about[0]) if len(about) == 1 else None
    if report is None or report["resourceType"] != "DiagnosticReport":
        raise fail("business-rule", "a critical result is about one DiagnosticReport", "CommunicationRequest.about")
    if target(request.get("subject")) is None or target(request["subject"]) != target(report.get("subject")):
        text = "a critical result is of the patient of its report"
        raise fail("business-rule", text, "CommunicationRequest.subject")
    return report


async def _of_communication(unit: UnitOfWork, communication: Resource) -> list[Resource]:
    found = [await unit.get(r) for r in communication.get("basedOn", ())]
    return [r for r in found if r is not None and r["resourceType"] == "CommunicationRequest" and is_critical(r)]


async def check_communication(unit: UnitOfWork, change: Change) -> None:
    """An acknowledgement names who was told, when, of which report; it stays as it was."""
    told = change.after or {}
    of = await _of_communication(unit, change.before or told)
    if of and change.before is not None and change.before["status"] == "completed" and told.get("status") != "entered-in-error":
        check_unchanged(change, "status", "basedOn", "partOf", "subject", "recipient", "sent", "received", "sender", "payload")
    if not of or told.get("status") != "completed":
        return
    if not any(str(r.get("reference", "")).startswith(_NAMED) for r in told.get("recipient", ())):
        raise fail("business-rule", "a critical result is acknowledged by a named person", "Communication.recipient")
    for element in ("sent", "received"):
        if "T" not in told.get(element, ""):
            raise fail("business-rule", "an acknowledgement says when it was told and understood", f"Communication.{element}")
    if told.get("subject", {}).get("reference") != of[0]["subject"]["reference"]:
        raise fail("business-rule", "the acknowledgement is of another patient than the result", "Communication.subject")
    if change.became("status", "completed"):
        _check_telling(unit, told, of)
    about = {r.get("reference") for request in of for r in request.get("about", ())}
    if not about & {r.get("reference") for r in told.get("partOf", ())}:
        raise fail("business-rule", "an acknowledgement is part of the report that it is about", "Communication.partOf")


def _check_telling(unit: UnitOfWork, told: Resource, of: list[Resource]) -> None:
    """Who tells, whom, when: a reader another person, after it was found and before now."""
    person = unit.access.user if unit.access.person else None
    if person and unit.access.role not in _TELLERS:
        raise fail(
            "forbidden", "a critical result is told by a radiologist, or understood by its referrer", "Communication.status"
        )
    tellers = {r.get("reference") for r in (told.get("sender", {}), *(o.get("requester", {}) for o in of))}
    if unit.access.role != "referrer":
        tellers.add(person)
    if any(r.get("reference") in tellers - {None} for r in told["recipient"]):
        raise fail("business-rule", "nobody acknowledges a critical result to oneself", "Communication.recipient")
    found = [r["authoredOn"] for r in of if "T" in r.get("authoredOn", "")]
    moments = [datetime.fromisoformat(m) for m in (*found[:1], told["sent"], told["received"])]
    if moments != sorted(moments) or moments[-1] > unit.now:
        text = "a critical result is told after it was found, then understood, and neither is to come"
        raise fail("business-rule", text, "Communication.received")


async def follow_communication(unit: UnitOfWork, change: Change) -> None:
    """What is acknowledged is done with: the obligation and the work items about it."""
    told = change.after
    if told is None or not change.became("status", "completed"):
        return
    for request in await _of_communication(unit, told):
        if request["status"] in _OPEN:
            await unit.update(request | {"status": "completed"})


async def follow_request(unit: UnitOfWork, change: Change) -> None:
    """An obligation shows on its report and has a work item; with the last one of a report these are settled."""
    request = change.after
    if request is None or not is_critical(request):
        return
    if change.became("status", "active"):
        await _announce(unit, request)
    if not change.became("status", "completed", "revoked", "entered-in-error"):
        return
    for reference in request.get("about", ()):
        report = await unit.get(reference)
        others = [await unit.get(r) for r in requests_of(report or {})]
        if any(o is not None and o["id"] != change.id and o["status"] in _OPEN for o in others):
            continue
        for item in await work_items.open_items(unit, str(reference.get("reference")), CRITICAL, f"{CRITICAL}-{OVERDUE}"):
            await unit.update(item | {"status": "completed", "statusReason": {"text": request["status"]}})


async def _announce(unit: UnitOfWork, request: Resource) -> None:
    report = await unit.get(request["about"][0])
    if report is not None and ref(request) not in requests_of(report):
        await unit.update(on_report(report, request))
    about = request["about"][0]["reference"]
    if not await work_items.open_items(unit, about, CRITICAL):
        text = f"A critical result ({ACTIONABLE[category(request)]}) is to be told"
        await work_items.open_work_item(unit, CRITICAL, text, about, request["subject"]["reference"])


async def raised(unit: UnitOfWork, report: Resource, before: Resource | None) -> Resource:
    """The report with an obligation for each category that its conclusion has; it isn't stored.

    A conclusion that is another than `before`, when that had been told already, is to be told anew.
    """
    anew = before is not None and before["status"] in _TOLD and before.get("conclusion") != report.get("conclusion")
    for grade in codes(report.get("conclusionCode"), terms.RADLEX):
        if grade not in ACTIONABLE:
            continue
        made = await of_grade(unit, report, grade)
        if made is None or (anew and made["status"] == "completed"):
            finding = report.get("conclusion") or f"Actionable finding, {ACTIONABLE[grade]}"
            made = await open_request(unit, report, grade, finding, None, unit.now)
        if ref(made) not in requests_of(report):
            report = on_report(report, made)
    return report


async def follow_report(unit: UnitOfWork, change: Change) -> None:
    """A report that says itself that it is critical leads to the obligation; one that is withdrawn takes it back."""
    report = change.after
    if report is None:
        return
    if report["status"] in {"entered-in-error", "cancelled"}:
        for reference in requests_of(report):
            request = await unit.get(reference)
            if request is not None and request["status"] in _OPEN:
                await unit.update(request | {"status": "entered-in-error"})
    elif report["status"] in _TOLD and (raised_ := await raised(unit, report, change.before)) is not report:
        await unit.update(raised_)


def register(registry: Registry) -> None:
    registry.rule("CommunicationRequest", check_request)
    registry.rule("Communication", check_communication)
    registry.reaction("Communication", follow_communication)
    registry.reaction("CommunicationRequest", follow_request)
    registry.reaction("DiagnosticReport", follow_report)
