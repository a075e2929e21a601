"""What a RIS knows about each resource: one module a resource, with its rules, lifecycle and reactions."""

from zoneinfo import ZoneInfo

from fhir_server.registry import Registry
from resources import (
    appointment,
    audit_event,
    charging,
    device,
    diagnostic_report,
    imaging_study,
    moving,
    observation,
    patient_merge,
    patient_operations,
    procedure,
    scanner_preferences,
    scheduled_step,
    service_request,
    task,
    worklist_preferences,
)

CORE_TYPES = (
    "Account ActivityDefinition AllergyIntolerance Appointment AuditEvent Binary ChargeItem ClaimResponse Communication "
    "CommunicationRequest Condition Coverage CoverageEligibilityRequest CoverageEligibilityResponse Device DiagnosticReport "
    "Encounter Endpoint Flag HealthcareService ImagingStudy Location Observation Organization Patient Practitioner "
    "PractitionerRole Procedure Provenance RelatedPerson Schedule ServiceRequest Slot Task"
).split()

_UTC = ZoneInfo("UTC")


def register(registry: Registry, *, uid_root: str, zone: ZoneInfo = _UTC) -> None:
    """Put the department's rules and reactions into the registry."""
    registry.core(CORE_TYPES)
    appointment.register(registry)
    audit_event.register(registry)
    charging.register(registry, zone)
    device.register(registry)
    diagnostic_report.register(registry)
    imaging_study.register(registry, uid_root)
    moving.register(registry)
    observation.register(registry)
    patient_merge.register(registry)
    patient_operations.register(registry)
    procedure.register(registry)
    scanner_preferences.register(registry)
    scheduled_step.register(registry)
    service_request.register(registry)
    task.register(registry)
    worklist_preferences.register(registry)
