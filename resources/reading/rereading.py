"""A report that is withdrawn after it was signed leaves its study unread: it is on the reading worklist again."""

from fhir_server.registry import Change, Registry
from fhir_server.unit_of_work import UnitOfWork
from resources import diagnostic_report, scheduled_step
from resources.reading.readers import SIGNED

_OVER = frozenset({"cancelled", "entered-in-error", "completed"})


async def follow(unit: UnitOfWork, change: Change) -> None:
    """Unless another signed report stands, or the requested procedure was taken back itself."""
    report, before = change.after, change.before
    if report is None or before is None or before.get("status") not in SIGNED or report["status"] in SIGNED:
        return
    for procedure in await diagnostic_report.signed_for(unit, report):
        if procedure["status"] not in {"revoked", "entered-in-error"} and not await diagnostic_report.is_signed(unit, procedure):
            await scheduled_step.read_again(unit, procedure, _OVER)


def register(registry: Registry) -> None:
    registry.reaction("DiagnosticReport", follow)
