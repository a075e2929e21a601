"""Puts into the registry what a RIS knows about each resource."""

from datetime import UTC, tzinfo

from fhir_server.registry import Registry
from resources import (
    add_procedure,
    appointment,
    audit_event,
    belonging,
    charging,
    contrast,
    coverage,
    device,
    diagnostic_report,
    imaging_study,
    merged_records,
    moving,
    numbering,
    observation,
    order_bundle,
    order_groups,
    order_operations,
    order_verdict,
    patient_operations,
    procedure,
    protocol,
    protocol_operations,
    readiness,
    reading,
    requested_procedure,
    scanner_preferences,
    scheduled_step,
    screening_operation,
    service_request,
    step_operations,
    task,
    worklist_preferences,
    zones,
)
from resources.scheduling import rules as scheduling_rules

CORE_TYPES = (
    "Account ActivityDefinition AllergyIntolerance Appointment AuditEvent Binary ChargeItem ClaimResponse Communication "
    "CommunicationRequest Condition Coverage CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue Device "
    "DiagnosticReport Encounter Endpoint Flag HealthcareService ImagingStudy Location MedicationAdministration NamingSystem "
    "Observation Organization Patient Practitioner PractitionerRole Procedure Provenance Questionnaire QuestionnaireResponse "
    "RelatedPerson Schedule ServiceRequest Slot Task"
).split()


def register(registry: Registry, *, uid_root: str, zone: tzinfo = UTC) -> None:
    """Put the department's rules and reactions into the registry. `zone` is the department's."""
    zones.use(zone)
    registry.core(CORE_TYPES)
    add_procedure.register(registry)
    appointment.register(registry)
    audit_event.register(registry)
    charging.register(registry)
    contrast.register(registry)
    coverage.register(registry, zone)
    device.register(registry)
    diagnostic_report.register(registry)
    imaging_study.register(registry, uid_root)
    merged_records.register(registry)
    moving.register(registry)
    numbering.register(registry, zone)
    observation.register(registry)
    order_bundle.register(registry)
    order_groups.register(registry)
    order_operations.register(registry)
    order_verdict.register(registry)
    patient_operations.register(registry)
    procedure.register(registry)
    protocol.register(registry)
    protocol_operations.register(registry)
    reading.register(registry)
    requested_procedure.register(registry)
    scanner_preferences.register(registry)
    scheduled_step.register(registry)
    scheduling_rules.register(registry)
    screening_operation.register(registry)
    service_request.register(registry)
    step_operations.register(registry)
    task.register(registry)
    worklist_preferences.register(registry)
    belonging.register(registry)
    readiness.register(registry)  # the last: it looks at what the others have planned
