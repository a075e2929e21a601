"""What a RIS knows about each resource: one module a resource, with its rules, lifecycle and reactions."""

from fhir_server.registry import Registry
from resources import (
    appointment,
    audit_event,
    charge_item,
    contrast,
    device,
    diagnostic_report,
    imaging_study,
    observation,
    patient_merge,
    patient_operations,
    procedure,
    protocol,
    protocol_operations,
    readiness,
    scanner_preferences,
    scheduled_step,
    service_request,
    step_operations,
    task,
    worklist_preferences,
)

CORE_TYPES = (
    "Account ActivityDefinition AllergyIntolerance Appointment AuditEvent Binary ChargeItem ClaimResponse Communication "
    "CommunicationRequest Condition Coverage CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue Device "
    "DiagnosticReport Encounter Endpoint Flag HealthcareService ImagingStudy Location MedicationAdministration Observation "
    "Organization Patient Practitioner PractitionerRole Procedure Provenance Questionnaire QuestionnaireResponse RelatedPerson "
    "Schedule ServiceRequest Slot Task"
).split()


def register(registry: Registry, *, uid_root: str) -> None:
    """Put the department's rules and reactions into the registry."""
    registry.core(CORE_TYPES)
    appointment.register(registry)
    audit_event.register(registry)
    charge_item.register(registry)
    contrast.register(registry)
    device.register(registry)
    diagnostic_report.register(registry)
    imaging_study.register(registry, uid_root)
    observation.register(registry)
    patient_merge.register(registry)
    patient_operations.register(registry)
    procedure.register(registry)
    protocol.register(registry)
    protocol_operations.register(registry)
    scanner_preferences.register(registry)
    scheduled_step.register(registry)
    service_request.register(registry)
    step_operations.register(registry)
    task.register(registry)
    worklist_preferences.register(registry)
    readiness.register(registry)  # the last: it looks at what the others have planned
