"""The code systems and codes of the department, named once."""

V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"  # identifier types
SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
RADLEX = "http://radlex.org"
DCM = "http://dicom.nema.org/resources/ontology/DCM"

IMAGING = "363679005"  # SNOMED CT: Imaging
DICOM_UID = "urn:dicom:uid"

AE_TITLE = "urn:fhir-ris:ae-title"
FILLER_ORDER_NUMBER = "urn:fhir-ris:filler-order-number"
ACCESSION_NUMBER = "urn:fhir-ris:accession-number"
REQUESTED_PROCEDURE_ID = "urn:fhir-ris:requested-procedure-id"
SCHEDULED_STEP_ID = "urn:fhir-ris:scheduled-procedure-step-id"

SPS_STATUS = "urn:fhir-ris:sps-status"  # DICOM Scheduled Procedure Step Status, PS3.3 C.4.10
TASK_CODE = "urn:fhir-ris:task"  # kinds of work: interpretation, and the work items for people
TASK_DETAIL = "urn:fhir-ris:task-detail"  # Task.input and Task.output: modality, appointment, performed-procedure-step
INTERPRETATION = "interpretation"
READING_STATUS = "urn:fhir-ris:reading-status"  # Task.businessStatus of an interpretation
PROTOCOL = "protocol"  # a Task of this kind, and the Task.input and output that say which
ORDER_HOLD = "order-hold"  # an order that waits for a person before it goes on
READING = f"{TASK_CODE}|{INTERPRETATION}"  # the reading worklist, as a search parameter

# extension on HumanName: the script that it is written in (ABC, IDE, SYL)
NAME_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
SCHEDULED_STEP = "urn:fhir-ris:scheduled-procedure-step"  # extension on Procedure: a Task that it performs
STUDY_OF = "urn:fhir-ris:study-instance-uid"  # identifier of a Procedure: the study that its images go to
# Extension on Procedure: whose it is, is in doubt; its steps don't follow it until somebody has looked.
IDENTITY_IN_DOUBT = "urn:fhir-ris:identity-in-doubt"
# Extension on Procedure and ImagingStudy.series: the protocol that was performed (code, or its name).
PERFORMED_PROTOCOL = "urn:fhir-ris:performed-protocol"
# Extensions on ImagingStudy.series: ANNOUNCED by the scanner, or ONLINE, NEARLINE, OFFLINE, UNAVAILABLE (PS3.3 C.4.23.1.1);
# the AE title that it is retrieved from.
AVAILABILITY = "urn:fhir-ris:instance-availability"
RETRIEVE_AE_TITLE = "urn:fhir-ris:retrieve-ae-title"
WRONG_ENTRY = "110514"  # DCM: incorrect worklist entry selected

# Extension of a DiagnosticReport: the CommunicationRequest that somebody must be told of it; also the system of its identifier.
CRITICAL_RESULT = "urn:fhir-ris:critical-result"

# Extensions on ServiceRequest: what the placer says of an order that R4 has no element for.
CALLBACK = "urn:fhir-ris:order-callback"
TRANSPORT = "urn:fhir-ris:transport"
STATUS_MODIFIER = "urn:fhir-ris:order-status-modifier"
STATUS_REASON = "http://hl7.org/fhir/StructureDefinition/request-statusReason"

# Accession number, requested procedure id and scheduled step id are DICOM SH (PS3.5 6.2): 16 characters, no backslash.
SHORT_STRING = 16
# Placer and filler order number of an imaging service request are DICOM LO (PS3.3 C.4.15, PS3.5 6.2).
LONG_STRING = 64

# FHIR R4 request-priority, the most urgent first.
PRIORITIES = ("stat", "asap", "urgent", "routine")
