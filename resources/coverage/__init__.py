"""Coverage and authorization: who pays, what the payer has authorized, and that nothing which needs it is booked without."""

from datetime import tzinfo

from fhir_server.registry import Change, Registry
from fhir_server.unit_of_work import UnitOfWork
from resources.coverage import insurance, marks, override, submit_operation, watch
from resources.coverage.booking import Booking
from resources.coverage.lifecycles import AUTHORIZATION, REQUEST, RESPONSE
from resources.lifecycle import check_status


def register(registry: Registry, zone: tzinfo) -> None:
    """The rules, reactions, projection and operations. `zone` is the department's: an authorization's days are days there."""
    registry.rule("ServiceRequest", marks.check)
    for kind in ("ServiceRequest", "CoverageEligibilityRequest", "CoverageEligibilityResponse"):
        registry.rule(kind, insurance.check)
    for kind in ("CoverageEligibilityRequest", "CoverageEligibilityResponse", "ClaimResponse"):
        registry.rule(kind, _check_course)
    booking = Booking(zone)
    registry.reaction("Appointment", booking.follow_appointment)
    registry.reaction("Task", booking.follow_step)
    registry.projection(watch.project)
    override.register(registry)
    submit_operation.register(registry)


async def _check_course(unit: UnitOfWork, change: Change) -> None:
    tables = [t for t in (REQUEST, RESPONSE, AUTHORIZATION) if t.type == change.type]
    await check_status(unit, change, *tables)
