"""What each role may do, whatever the scopes of the token in its hands say: the smaller of both wins.

A row is written like a SMART scope without its level: `Type.actions`, with a condition where only part of a type is meant
(FHIR search parameters). For a change, the resource must meet the condition as it was and as it becomes.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from smart_auth.scopes import Action, Scope, parse_scope

Confidentiality = Literal["N", "R", "V"]

_UNSIGNED = "status=registered,partial,preliminary"
REVIEW = "urn:fhir-ris:task-code|break-glass-review"
# Work items about interfaces: what is not as usual, strangers, messages that were set aside, or refused after acceptance.
INTERFACE_WORK = ",".join(
    f"urn:fhir-ris:task|{kind}" for kind in ("interface-alert", "unknown-sender", "accepted-message-refused", "message-refused")
)

_DIRECTORY = """
    Practitioner.rs PractitionerRole.rs Organization.rs Location.rs HealthcareService.rs Device.rs Schedule.rs Slot.rs
    ActivityDefinition.rs ValueSet.rs CodeSystem.rs StructureDefinition.rs
"""

_ROWS = {
    "scheduler": f"""{_DIRECTORY}
        Patient.crus RelatedPerson.crus Encounter.rs Coverage.crus ClaimResponse.crus
        CoverageEligibilityRequest.crus CoverageEligibilityResponse.rs
        ServiceRequest.crus Appointment.cruds AppointmentResponse.crus Schedule.crus Slot.cruds Task.crus
        Communication.crs CommunicationRequest.crus Measure.rs
        Questionnaire.rs QuestionnaireResponse.crs DetectedIssue.rs
    """,
    "technologist": f"""{_DIRECTORY}
        Patient.rs Encounter.rs ServiceRequest.rus Appointment.rus Task.crus
        ImagingStudy.rus Procedure.crus Observation.crus Media.crus Binary.crs
        DiagnosticReport.rs DiagnosticReport.cu?{_UNSIGNED} DocumentReference.rs
        AllergyIntolerance.crs Condition.rs Medication.rs MedicationAdministration.crus MedicationRequest.rs
        ChargeItem.crus Communication.crs CommunicationRequest.rs
        Questionnaire.rs QuestionnaireResponse.crus DetectedIssue.rs Flag.rs
    """,
    "radiologist": f"""{_DIRECTORY}
        Patient.rs RelatedPerson.rs Encounter.rs EpisodeOfCare.rs ServiceRequest.crus Appointment.rus Task.crus
        ImagingStudy.rus Procedure.crus Observation.cruds Media.crus Binary.crs
        DiagnosticReport.cruds DocumentReference.crus Composition.crus List.crus Provenance.crs
        AllergyIntolerance.crs Condition.crus Flag.crus Medication.rs MedicationAdministration.crus MedicationRequest.rs
        MedicationStatement.rs Immunization.rs FamilyMemberHistory.rs CarePlan.rs Specimen.rs
        ChargeItem.rs Communication.crus CommunicationRequest.crus
        Questionnaire.crus QuestionnaireResponse.crus DetectedIssue.rs
    """,
    "referrer": """
        Practitioner.rs PractitionerRole.rs Organization.rs Location.rs HealthcareService.rs Device.rs
        ActivityDefinition.rs ValueSet.rs CodeSystem.rs
        Patient.rs Encounter.rs Coverage.rs ServiceRequest.crus Appointment.rs Task.rs
        ImagingStudy.rs Procedure.rs Observation.rs Media.rs DiagnosticReport.rs DocumentReference.rs Binary.rs
        AllergyIntolerance.rs Condition.rs Communication.rs CommunicationRequest.rs
    """,
    "interface-admin": f"""
        Task.rus?code={INTERFACE_WORK}
        Endpoint.cruds Device.cruds MessageDefinition.cruds MessageHeader.rs
        Organization.rs Location.rs Practitioner.rs PractitionerRole.rs HealthcareService.rs
        ValueSet.rs CodeSystem.rs ConceptMap.crus
    """,
    "admin": """
        Practitioner.cruds PractitionerRole.cruds Organization.cruds Location.cruds HealthcareService.cruds
        Endpoint.rs Device.cruds Schedule.cruds Slot.cruds ActivityDefinition.cruds
        ValueSet.cruds CodeSystem.cruds ConceptMap.cruds StructureDefinition.cruds SearchParameter.cruds Questionnaire.cruds
        NamingSystem.cruds
        Patient.crus Encounter.crus Coverage.crus ClaimResponse.rs
        CoverageEligibilityRequest.crus CoverageEligibilityResponse.rs ServiceRequest.crus Appointment.crus Task.rus ChargeItem.rs
        Procedure.rs ImagingStudy.rs Measure.rs
    """,
    "auditor": "AuditEvent.rs",
    "privacy-officer": f"""
        AuditEvent.rs Consent.crus Patient.rs Practitioner.rs PractitionerRole.rs Organization.rs
        Task.rus?code={REVIEW}
    """,
}


# The department's operations, and the roles that may call each (what it then reads and writes, it does as the department).
_OPERATIONS = {
    # Orders
    "order-accept": "scheduler radiologist admin",
    "order-reject": "scheduler radiologist admin",
    "order-hold": "scheduler technologist radiologist admin",
    "order-cancel": "scheduler technologist radiologist referrer admin",
    "order-add-procedure": "scheduler technologist radiologist admin",
    "create-order": "scheduler radiologist referrer admin",
    # Coverage and authorization
    "submit": "scheduler admin",
    "override-authorization": "radiologist admin",
    # Protocols and safety
    "protocol": "radiologist technologist",
    "screening": "scheduler technologist radiologist",
    "clear-safety": "radiologist",
    # Scheduling
    "appointment-find": "scheduler technologist radiologist admin",
    "appointment-hold": "scheduler admin",
    "appointment-book": "scheduler admin",
    "appointment-reschedule": "scheduler admin",
    "appointment-cancel": "scheduler admin",
    "appointment-no-show": "scheduler technologist admin",
    "appointment-check-in": "scheduler technologist admin",
    "generate-slots": "scheduler admin",
    # The examination
    "track": "technologist radiologist scheduler",
    "start": "technologist radiologist",
    "complete": "technologist radiologist",
    "stop": "technologist radiologist",
    "repeat": "technologist radiologist",
    "give-contrast": "technologist radiologist",
    "reconcile": "technologist admin",
    # Reading and reports
    "claim": "radiologist",
    "release": "radiologist",
    "reassign": "radiologist admin",
    "priors": "radiologist technologist",
    "start-report": "radiologist",
    "write": "radiologist",
    "sign": "radiologist",
    "addend": "radiologist",
    "correct": "radiologist",
    "withdraw": "radiologist",
    "verify": "radiologist technologist referrer",
    # Critical results
    "critical": "radiologist",
    "acknowledge": "radiologist referrer",
    # Charges
    "release-charge": "admin",
    "correct-charge": "admin",
    "void-charge": "admin",
    "charge": "admin",
    "reconciliation": "admin",
    # Identity
    "move": "technologist radiologist scheduler admin",
    # The HL7 v2 messages about an exam, as far as the role reads what they say (docs/security.md)
    "exam-messages": "scheduler technologist radiologist admin",
    # Numbers (figures of single persons and of small cells: the administrator alone)
    "evaluate-measure": "scheduler admin",
    "figures": "scheduler admin",
}


@dataclass(frozen=True, slots=True)
class Role:
    """A role: its rows, and how far it sees.

    `clearance`: the highest confidentiality (meta.security) that it sees without breaking the glass; what has no such label is N.
    `own_patients`: only those for whom an order names the person as requester, or who have it as general practitioner.
    `breaks_glass`: whether it may open a patient's record in an emergency. `heeds_consent`: whether patients' denials bind it.
    """

    name: str
    rows: tuple[Scope, ...]
    clearance: Confidentiality = "N"
    own_patients: bool = False
    breaks_glass: bool = False
    heeds_consent: bool = True

    def calls(self, operation: str) -> bool:
        """Whether it may call this operation of the department."""
        return self.name in _OPERATIONS.get(operation, "").split()

    def covering(self, resource_type: str, action: Action) -> list[str]:
        """The conditions (texts of a query, "" for none) under which it may do this; an empty list when it may not."""
        return [row.query for row in self.rows if row.covers(resource_type, action)]


def _rows(text: str) -> tuple[Scope, ...]:
    parsed = [parse_scope(f"user/{row}") for row in text.split()]
    assert all(parsed), text
    return tuple(row for row in parsed if row is not None)


ROLES: dict[str, Role] = {
    role.name: role
    for role in (
        Role("scheduler", _rows(_ROWS["scheduler"])),
        Role("technologist", _rows(_ROWS["technologist"]), clearance="R", breaks_glass=True),
        Role("radiologist", _rows(_ROWS["radiologist"]), clearance="R", breaks_glass=True),
        Role("referrer", _rows(_ROWS["referrer"]), clearance="R", own_patients=True),
        Role("interface-admin", _rows(_ROWS["interface-admin"])),
        Role("admin", _rows(_ROWS["admin"])),
        Role("auditor", _rows(_ROWS["auditor"]), clearance="V", heeds_consent=False),
        Role("privacy-officer", _rows(_ROWS["privacy-officer"]), clearance="V", heeds_consent=False),
    )
}


@cache
def role(name: str | None) -> Role | None:
    """The role of this name; None for no role, or one that isn't there: it may do nothing."""
    return ROLES.get(name or "")
