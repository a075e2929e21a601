"""DiagnosticReport: the radiologist's report. Its status moves the reading worklist and ends the order."""

from fhir_server import clock
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import service_request, terms
from resources.lifecycle import check_transition, check_unchanged

_SIGNED = frozenset({"final", "amended", "corrected", "appended"})
_AFTER_SIGNING = frozenset({"amended", "corrected", "appended", "cancelled"})
_TRANSITIONS = {
    "registered": frozenset({"partial", "preliminary", "final", "cancelled"}),
    "partial": frozenset({"preliminary", "final", "cancelled"}),
    "preliminary": frozenset({"partial", "final", "cancelled"}),
    **dict.fromkeys(_SIGNED, _AFTER_SIGNING),
    "unknown": frozenset({"registered", "partial", "preliminary", "final", "cancelled"}),
}
_CONTENT = ("conclusion", "conclusionCode", "presentedForm", "result", "text")


async def check(unit: UnitOfWork, change: Change) -> None:
    """A report is of the order's patient; a signed one says something, and when it was issued."""
    report = change.after
    if report is None:
        if change.before and change.before.get("status") in _SIGNED:
            raise fail(
                "business-rule", "a signed report can't be deleted; it can be amended or entered-in-error", "DiagnosticReport"
            )
        return
    check_transition(change, _TRANSITIONS)
    check_unchanged(change, "subject")
    if report.get("status") in _SIGNED:
        if not any(element in report for element in _CONTENT):
            raise fail("business-rule", "a signed report needs content", "DiagnosticReport.conclusion")
        report.setdefault("issued", clock.instant(unit.now))
    for procedure in await procedures(unit, report):
        if procedure.get("subject", {}).get("reference") != report.get("subject", {}).get("reference"):
            raise fail("business-rule", "the report is of another patient than its order", "DiagnosticReport.subject")


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


async def follow(unit: UnitOfWork, change: Change) -> None:
    """A begun report begins the reading; a signed one ends it, the requested procedure and, with the last, the order."""
    report = change.after
    if report is None:
        return
    if change.became("status", "registered", "partial", "preliminary"):
        for procedure in await procedures(unit, report):
            for reading in await _readings(unit, procedure):
                if reading["status"] in {"requested", "accepted", "ready", "received"}:
                    await unit.update(reading | {"status": "in-progress"})
    elif change.became("status", *_SIGNED):
        for procedure in await procedures(unit, report):
            for reading in await _readings(unit, procedure):
                if reading["status"] in {"requested", "accepted", "ready", "received", "in-progress"}:
                    await unit.update(reading | {"status": "completed"})
            if await _examined(unit, procedure):
                await service_request.complete_if_reported(unit, procedure)


async def _readings(unit: UnitOfWork, procedure: Resource) -> list[Resource]:
    code = f"{terms.TASK_CODE}|{terms.INTERPRETATION}"
    return await unit.search("Task", based_on=f"ServiceRequest/{procedure['id']}", code=code)


async def _examined(unit: UnitOfWork, procedure: Resource) -> bool:
    """Whether no step of the procedure is still to be done."""
    found = await unit.search("Task", based_on=f"ServiceRequest/{procedure['id']}", intent="plan")
    return all(s["status"] in {"completed", "failed", "cancelled", "entered-in-error"} for s in found)


def register(registry: Registry) -> None:
    registry.rule("DiagnosticReport", check)
    registry.reaction("DiagnosticReport", follow)
