"""DiagnosticReport: the radiologist's report. Its status moves the reading worklist and ends the order."""

from fhir_server import clock
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import report_section, service_request, task, terms
from resources.lifecycle import check_status, check_unchanged, lifecycle

_SIGNED = frozenset({"final", "amended", "corrected", "appended"})
REPORT = lifecycle(
    "DiagnosticReport",
    "report",
    """
    from                     | to                             | who             | needs        | then
    new                      | registered partial preliminary | examiners; v2   |              | the reading is in progress
    new registered partial   | final                          | radiologist; v2 | content;     | reading, requested procedure and
    preliminary              |                                |                 | an attending | order completed; professional
                             |                                |                 |              | charge; critical results are to
                             |                                |                 |              | be told
    new                      | amended corrected appended     | radiologist; v2 | content      | as for final
    registered               | partial preliminary            | examiners; v2   |              | preliminary: an attending is due;
                             |                                |                 |              | critical results are to be told
    partial                  | preliminary                    | examiners; v2   |              | as from registered
    preliminary              | partial                        | examiners; v2   |              |
    registered partial       | cancelled                      | radiologist; v2 |              | its critical results are void
    preliminary              |                                |                 |              |
    final corrected appended | amended                        | radiologist; v2 | content;     |
                             |                                |                 | an attending |
    final amended appended   | corrected                      | radiologist; v2 | content;     |
                             |                                |                 | an attending |
    final amended corrected  | appended                       | radiologist; v2 | content;     |
                             |                                |                 | an attending |
    final amended corrected  | cancelled                      | radiologist; v2 |              | the professional charge is
    appended                 |                                |                 |              | credited; the study is to be read
                             |                                |                 |              | again; critical results are void
    unknown                  | registered partial preliminary | radiologist; v2 |              |
                             | final cancelled                |                 |              |
    *                        | entered-in-error               | radiologist; v2 |              | as for cancelled
    """,
)
_CONTENT = ("conclusion", "conclusionCode", "presentedForm", "result", "text")
# What a reader's signature stands for: it changes only with a status that says so.
SIGNED_FOR = (*_CONTENT, "code", "basedOn", "imagingStudy", "resultsInterpreter", "issued")
# On a report of an order of several procedures that doesn't say which of them it is of: it ends none of them.
UNNAMED = {"url": "urn:fhir-ris:unnamed-procedure", "valueBoolean": True}
_WAITING = frozenset({"requested", "received", "accepted", "ready"})


async def check(unit: UnitOfWork, change: Change) -> None:
    """A report is of the order's patient; a signed one says something, when it was issued, and never changes silently."""
    before, report = change.before, change.after
    if report is None:
        if before and before.get("status") in _SIGNED:
            raise fail(
                "business-rule", "a signed report can't be deleted; it can be amended or entered-in-error", "DiagnosticReport"
            )
        return
    await check_status(unit, change, REPORT)
    check_unchanged(change, "subject")
    if report.get("status") in _SIGNED:
        if not _says_something(report):
            raise fail("business-rule", "a signed report needs content", "DiagnosticReport.conclusion")
        report.setdefault("issued", before["issued"] if before and "issued" in before else clock.instant(unit.now))
    if before and before.get("status") == report.get("status"):
        by_hand = unit.is_callers and unit.access.person  # a system issues a corrected report again
        fixed = _SIGNED if by_hand else frozenset({"final"})
        if report["status"] in fixed and any(before.get(element) != report.get(element) for element in SIGNED_FOR):
            text = f"a {report['status']} report is changed by making it amended, corrected or appended: $correct, $addend"
            raise fail("business-rule", text, "DiagnosticReport.status")
    await _check_patient(unit, report)


def _says_something(report: Resource) -> bool:
    """Whether a report has content; what was generated from its content is none."""
    narrative = report.get("text", {}).get("status", "generated") != "generated"
    forms = not all(map(report_section.is_generated, report.get("presentedForm", ())))
    return narrative or forms or any(report.get(element) for element in ("conclusion", "conclusionCode", "result"))


async def _check_patient(unit: UnitOfWork, report: Resource) -> None:
    studies = [s for r in report.get("imagingStudy", ()) if (s := await unit.get(r))]
    for other in (*await procedures(unit, report), *studies):
        if other.get("subject", {}).get("reference") != report.get("subject", {}).get("reference"):
            raise fail("business-rule", "the report is of another patient than its order or study", "DiagnosticReport.subject")


async def procedures(unit: UnitOfWork, report: Resource) -> list[Resource]:
    """The requested procedures that a report is of: by `basedOn` (order or requested procedure), else by its studies."""
    found: dict[str, Resource] = {}
    for reference in report.get("basedOn", ()):
        request = await unit.get(reference) if (to := target(reference)) and to.type == "ServiceRequest" else None
        if request is not None:
            of = [request] if service_request.is_procedure(request) else await service_request.procedures_of(unit, request["id"])
            found.update({p["id"]: p for p in of})
    if not found:
        for reference in report.get("imagingStudy", ()):
            study = await unit.get(reference)
            for based in (study or {}).get("basedOn", ()):
                request = await unit.get(based)
                if request is not None and service_request.is_procedure(request):
                    found[request["id"]] = request
    return list(found.values())


def is_unnamed(report: Resource | None) -> bool:
    """Whether it can't be told of which procedures of its order a report is."""
    return report is not None and UNNAMED in report.get("extension", ())


async def signed_for(unit: UnitOfWork, report: Resource) -> list[Resource]:
    """The requested procedures that a report speaks for, as far as it says so."""
    return [] if is_unnamed(report) else await procedures(unit, report)


async def is_signed(unit: UnitOfWork, procedure: Resource) -> bool:
    """Whether a requested procedure has a signed report, of its own or as part of its order."""
    requests = [f"ServiceRequest/{procedure['id']}", *(r["reference"] for r in procedure.get("basedOn", ()) if "reference" in r)]
    found = await unit.search("DiagnosticReport", based_on=",".join(requests), status=",".join(sorted(_SIGNED)))
    return not all(map(is_unnamed, found))


async def follow(unit: UnitOfWork, change: Change) -> None:
    """A begun report begins the reading; a signed one ends it, the requested procedure and, with the last, the order."""
    report = change.after
    if report is None:
        return
    if not change.redirected:
        await _check_results(unit, change, report)
    if change.became("status", "registered", "partial", "preliminary"):
        for procedure in await signed_for(unit, report):
            await _move_reading(unit, procedure, _WAITING, "in-progress")
    elif change.became("status", *_SIGNED) or (report["status"] in _SIGNED and is_unnamed(change.before)):
        for procedure in await signed_for(unit, report):
            await _move_reading(unit, procedure, task.OPEN | _WAITING | {"draft"}, "completed")
            steps = await task.steps_of(unit, procedure["id"])
            if not any(s["status"] in task.OPEN for s in steps):
                await service_request.complete_if_reported(unit, procedure)


async def _check_results(unit: UnitOfWork, change: Change, report: Resource) -> None:
    """What the report of an examination says in parts is of its patient. They may come in the same transaction: at its end."""
    if not report.keys() & {"basedOn", "imagingStudy"}:
        return
    had = (change.before or {}).get("result", ()) if not change.became("status", *_SIGNED) else ()
    whose = target(report.get("subject"))
    for reference in report.get("result", ()):
        if whose is None or reference in had:
            continue
        of = target((await unit.get(reference) or {}).get("subject"))
        if of is not None and of != whose:
            text = f"{reference['reference']} is of another patient than the report"
            raise fail("business-rule", text, "DiagnosticReport.result")


async def _move_reading(unit: UnitOfWork, procedure: Resource, was: frozenset[str], becomes: str) -> None:
    for reading in await unit.search("Task", based_on=f"ServiceRequest/{procedure['id']}", code=terms.READING):
        if reading["status"] in was:
            await unit.update(reading | {"status": becomes})


def register(registry: Registry) -> None:
    registry.rule("DiagnosticReport", check)
    registry.reaction("DiagnosticReport", follow)
