"""The attributes of a worklist answer (PS3.4 table K.6-1): how each is matched, and what it is made of.

The table is run (`matching.py`), and printed in the docs and in the conformance statement.
"""

from dataclasses import dataclass
from typing import Final, Literal

from bridges.dicom.dicom_json import tag

How = Literal["single value", "wild card", "range", "sequence", "universal"]


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute.

    required: whether its matching is (R), or optional (O)
    returned: its return key type
    how: how it is matched. `wild card` takes single values too, as does `range`; `universal` ignores any other key
    source: the FHIR elements that it is made of
    in_step: whether it stands in the item of the Scheduled Procedure Step Sequence
    """

    keyword: str
    required: bool
    returned: str
    how: How
    source: str
    in_step: bool = False


def _step(keyword: str, required: bool, returned: str, how: How, source: str) -> Key:
    return Key(keyword, required, returned, how, source, in_step=True)


KEYS: Final[tuple[Key, ...]] = (
    Key("ScheduledProcedureStepSequence", True, "1", "sequence", "Task, of intent plan"),
    _step("ScheduledStationAETitle", True, "1", "single value", "Task.owner, Task.input station: Device.identifier"),
    _step("ScheduledProcedureStepStartDate", True, "1", "range", "Task.restriction.period.start"),
    _step("ScheduledProcedureStepStartTime", True, "1", "range", "Task.restriction.period.start"),
    _step("ScheduledProcedureStepEndDate", False, "3", "range", "Task.restriction.period.end"),
    _step("ScheduledProcedureStepEndTime", False, "3", "range", "Task.restriction.period.end"),
    _step("Modality", True, "1", "single value", "Task.input modality, else Device.type"),
    _step("ScheduledPerformingPhysicianName", True, "2", "wild card",
          "ServiceRequest.performer of the requested procedure, else a Practitioner of the Appointment"),
    _step("ScheduledProcedureStepDescription", False, "1C", "wild card", "Task.code"),
    _step("ScheduledProtocolCodeSequence", False, "1C", "sequence", "Task.input protocol, else Task.code.coding"),
    _step("ScheduledStationName", False, "2", "single value", "Device.deviceName"),
    _step("ScheduledProcedureStepLocation", False, "2", "single value", "Task.location, else Device.location"),
    _step("PreMedication", False, "2C", "single value",
          "extension urn:fhir-ris:pre-medication of requested procedure or order"),
    _step("ScheduledProcedureStepID", False, "1", "single value", "Task.identifier"),
    _step("RequestedContrastAgent", False, "2C", "single value", "extension urn:fhir-ris:contrast-agent of the same"),
    _step("ScheduledProcedureStepStatus", False, "3", "single value", "Task.businessStatus"),
    Key("RequestedProcedureID", False, "1", "single value", "ServiceRequest.identifier of the requested procedure"),
    Key("RequestedProcedureDescription", False, "1C", "wild card", "ServiceRequest.code"),
    Key("RequestedProcedureCodeSequence", False, "1C", "sequence", "ServiceRequest.code.coding"),
    Key("StudyInstanceUID", False, "1", "single value", "ImagingStudy.identifier"),
    Key("StudyDate", False, "3", "range", "ImagingStudy.started"),
    Key("StudyTime", False, "3", "range", "ImagingStudy.started"),
    Key("ReferencedStudySequence", False, "2", "universal", ""),
    Key("RequestedProcedurePriority", False, "2", "single value", "Task.priority, else ServiceRequest.priority"),
    Key("PatientTransportArrangements", False, "2", "single value", "extension urn:fhir-ris:transport of the order"),
    Key("ReasonForTheRequestedProcedure", False, "3", "wild card", "ServiceRequest.reasonCode"),
    Key("ReasonForRequestedProcedureCodeSequence", False, "3", "sequence", "ServiceRequest.reasonCode.coding"),
    Key("RequestedProcedureComments", False, "3", "single value", "ServiceRequest.note of the requested procedure"),
    Key("AccessionNumber", False, "2", "single value", "identifier of type ACSN of the requested procedure, else of the order"),
    Key("IssuerOfAccessionNumberSequence", False, "3", "sequence", "its assigner, else its system"),
    Key("RequestingPhysician", False, "2", "wild card", "ServiceRequest.requester"),
    Key("RequestingPhysicianIdentificationSequence", False, "3", "sequence", "Practitioner.identifier of the requester"),
    Key("RequestingService", False, "3", "single value", "the requester's Organization"),
    Key("ReferringPhysicianName", False, "2", "wild card", "Encounter.participant REF, else ServiceRequest.requester"),
    Key("PlacerOrderNumberImagingServiceRequest", False, "3", "single value", "identifier of type PLAC"),
    Key("OrderPlacerIdentifierSequence", False, "3", "sequence", "its assigner, else its system"),
    Key("FillerOrderNumberImagingServiceRequest", False, "3", "single value", "identifier of type FILL"),
    Key("OrderFillerIdentifierSequence", False, "3", "sequence", "its assigner, else its system"),
    Key("IssueDateOfImagingServiceRequest", False, "3", "range", "ServiceRequest.authoredOn"),
    Key("IssueTimeOfImagingServiceRequest", False, "3", "range", "ServiceRequest.authoredOn"),
    Key("ImagingServiceRequestComments", False, "3", "single value", "ServiceRequest.note of the order"),
    Key("AdmissionID", False, "2", "single value", "Encounter.identifier of type VN, else the first"),
    Key("IssuerOfAdmissionIDSequence", False, "3", "sequence", "its assigner, else its system"),
    Key("CurrentPatientLocation", False, "2", "single value", "Encounter.location"),
    Key("ReferencedPatientSequence", False, "2", "universal", ""),
    Key("PatientName", True, "1", "wild card", "Patient.name; without one `Unknown^` and the Patient ID"),
    Key("PatientID", True, "1", "single value", "Patient.identifier of type MR, else the first"),
    Key("IssuerOfPatientID", False, "3", "single value", "its assigner, else its system"),
    Key("IssuerOfPatientIDQualifiersSequence", False, "3", "sequence", "its system, where it is an OID"),
    Key("OtherPatientIDsSequence", False, "3", "sequence", "the other identifiers"),
    Key("PatientBirthDate", False, "2", "range", "Patient.birthDate, where it is a day"),
    Key("PatientSex", False, "2", "single value", "Patient.gender: male M, female F, other O"),
    Key("PatientPrimaryLanguageCodeSequence", False, "3", "sequence", "Patient.communication, the preferred one"),
    Key("PatientWeight", False, "2", "single value", "the last Observation with LOINC 29463-7, in kg"),
    Key("PatientSize", False, "3", "single value", "the last Observation with LOINC 8302-2, in m"),
    Key("ConfidentialityConstraintOnPatientDataDescription", False, "2", "single value",
        "meta.security (R, V) of patient or order"),
    Key("PatientState", False, "2", "single value", "Flags of category contact (isolation)"),
    Key("PregnancyStatus", False, "2", "single value", "the last Observation with LOINC 82810-3, of the last 300 days"),
    Key("MedicalAlerts", False, "2", "single value", "active Flags of other categories than contact, behavioral and admin"),
    Key("Allergies", False, "2", "single value", "active AllergyIntolerances"),
    Key("SpecialNeeds", False, "2", "single value", "Encounter.hospitalization.specialArrangement, Flags of category behavioral"),
    Key("PatientComments", False, "3", "universal", ""),
    Key("PertinentDocumentsSequence", False, "3", "universal", ""),
)  # fmt: skip

# By tag: the attributes of the step item, and those beside it.
STEP: Final = {tag(k.keyword): k for k in KEYS if k.in_step}
ROOT: Final = {tag(k.keyword): k for k in KEYS if not k.in_step}
# A query with one of these is for a certain patient or order (IHE RAD TF-2 4.5.4.1.2.2, the patient based query): its answer
# isn't limited to the days around today.
IDENTIFYING: Final = frozenset(
    tag(k)
    for k in (
        "PatientName PatientID AccessionNumber RequestedProcedureID StudyInstanceUID AdmissionID OtherPatientIDsSequence "
        "PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest ScheduledProcedureStepID"
    ).split()
)
