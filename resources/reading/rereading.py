"""A report that is withdrawn leaves its study unread: it is on the reading worklist again, and nobody's."""

from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import diagnostic_report, scheduled_step
from resources.reading import worklist
from resources.reading.readers import SIGNED

_OVER = frozenset({"cancelled", "entered-in-error", "completed"})
_WITHDRAWN = frozenset({"cancelled", "entered-in-error"})


async def follow(unit: UnitOfWork, change: Change) -> None:
    """Unless another signed report stands, or the requested procedure was taken back itself."""
    report, before = change.after, change.before
    if report is None or before is None or report["status"] in SIGNED:
        return
    if before.get("status") not in SIGNED:
        if change.became("status", *_WITHDRAWN):
            await _release(unit, report)
        return
    for procedure in await diagnostic_report.signed_for(unit, report):
        if procedure["status"] not in {"revoked", "entered-in-error"} and not await diagnostic_report.is_signed(unit, procedure):
            await scheduled_step.read_again(unit, procedure, _OVER)


async def _release(unit: UnitOfWork, withdrawn: Resource) -> None:
    """What was being read of a draft is to be begun anew, by whoever claims it."""
    for procedure in await diagnostic_report.signed_for(unit, withdrawn):
        reports = await unit.search("DiagnosticReport", based_on=f"ServiceRequest/{procedure['id']}")
        if any(r["status"] not in _WITHDRAWN for r in reports):
            continue
        for reading in await worklist.of_procedure(unit, procedure["id"]):
            if reading["status"] == "in-progress":
                with worklist.moving(unit):
                    await unit.update({k: v for k, v in reading.items() if k != "owner"} | {"status": "requested"})


def register(registry: Registry) -> None:
    registry.reaction("DiagnosticReport", follow)
