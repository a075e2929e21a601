"""From resources to the attributes of a worklist answer (PS3.4 table K.6-1; HL7 imaging-service-request guide's MWL mapping)."""

from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from bridges.dicom import values
from bridges.dicom.dicom_json import Attributes, put
from bridges.dicom.values import LO, SH, line, whole
from bridges.dicom.worklist_clinical import put_clinical
from fhir_server import clock
from fhir_server.elements import codes, codings, has_code, identifier_of_type, identifier_value
from fhir_server.registry import Resource
from resources import device, imaging_study, protocol, task, terms
from resources.safety import findings

_SEX = {"male": "M", "female": "F", "other": "O"}
# Extensions of a ServiceRequest for what R4 has no element for.
_TRANSPORT = "urn:fhir-ris:transport"
_PRE_MEDICATION, _CONTRAST_AGENT = "urn:fhir-ris:pre-medication", "urn:fhir-ris:contrast-agent"
_PRIORITY = {"stat": "STAT", "asap": "HIGH", "urgent": "HIGH", "routine": "ROUTINE"}


@dataclass(slots=True)
class ScheduledStep:
    """A step with everything that its worklist answer is made of."""

    task: Resource
    procedure: Resource
    order: Resource | None
    patient: Resource
    study: Resource
    station: Resource | None = None
    location: Resource | None = None
    encounter: Resource | None = None
    appointment: Resource | None = None
    # The patient's Observations, AllergyIntolerances and Flags that a scanner is told of.
    clinical: list[Resource] = field(default_factory=list)
    # Practitioner, PractitionerRole, Organization and Location by reference, as far as the others name them.
    others: dict[str, Resource] = field(default_factory=dict)


def attributes(step: ScheduledStep, zone: ZoneInfo) -> Attributes:
    """All attributes of the step's answer, in the DICOM JSON model. What isn't known is left out."""
    found: Attributes = {}
    _patient(found, step.patient)
    _confidentiality(found, step)
    put_clinical(found, step.clinical, step.encounter, clock.now())
    _visit(found, step)
    _request(found, step, zone)
    _procedure(found, step, zone)
    item = _step(step, zone)
    put(found, "ScheduledProcedureStepSequence", item)
    start = values.local(_period(step.task).get("start"), zone)
    if start is not None:
        put(found, "TimezoneOffsetFromUTC", values.offset_of(start))
    return {name: one for name, one in found.items() if "Value" in one}


# Patient


def _patient(found: Attributes, patient: Resource) -> None:
    first, others = patient_identifiers(patient)
    id_ = first["value"] if first else patient["id"]
    put(found, "PatientName", values.person_name(patient.get("name", ())) or values.unknown_name(id_))
    if first is not None:
        for name, one in patient_id(first).items():
            found[name] = one
    put(found, "OtherPatientIDsSequence", *(patient_id(i) | _type_of_id() for i in others))
    birth_date = patient.get("birthDate", "")
    put(found, "PatientBirthDate", birth_date.replace("-", "") if len(birth_date) == 10 else "")
    put(found, "PatientSex", _SEX.get(patient.get("gender", "")))
    put(found, "PatientPrimaryLanguageCodeSequence", _language(patient))


def _language(patient: Resource) -> Attributes | None:
    """The preferred language, by its tag (IETF BCP 47; PS3.16 8: RFC5646)."""
    spoken = sorted(patient.get("communication", ()), key=lambda c: not c.get("preferred", False))
    for language in spoken:
        for coding in codings(language.get("language")):
            if item := values.code_item(coding, values.display(language.get("language"))):
                put(item, "CodingSchemeDesignator", "RFC5646")
                return item
    return None


def _confidentiality(found: Attributes, step: ScheduledStep) -> None:
    labelled = (step.patient, step.order or {}, step.procedure)
    labels = {label.get("code") for r in labelled for label in r.get("meta", {}).get("security", ())}
    said = "VERY RESTRICTED" if "V" in labels else "RESTRICTED" if "R" in labels else ""
    put(found, "ConfidentialityConstraintOnPatientDataDescription", said)


def patient_identifiers(patient: Resource) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The identifier that the department knows the patient by (medical record number, else the first), and the others."""
    usable = [i for i in patient.get("identifier", ()) if i.get("use") != "old" and whole(i.get("value"), LO)]
    if not usable:
        return None, []
    first = next((i for i in usable if has_code(i.get("type"), terms.V2_0203, "MR")), usable[0])
    return first, [i for i in usable if i is not first]


def patient_id(identifier: dict[str, Any]) -> Attributes:
    """Patient ID with its issuer (PS3.3 10.14): the assigner's name, and the OID in the qualifiers."""
    found: Attributes = {}
    put(found, "PatientID", whole(identifier.get("value"), LO))
    system = identifier.get("system", "")
    oid = system.removeprefix("urn:oid:") if system.startswith("urn:oid:") else ""
    put(found, "IssuerOfPatientID", whole(identifier.get("assigner", {}).get("display"), LO) or whole(oid or system, LO))
    if oid:
        qualifiers: Attributes = {}
        put(qualifiers, "UniversalEntityID", oid)
        put(qualifiers, "UniversalEntityIDType", "ISO")
        put(found, "IssuerOfPatientIDQualifiersSequence", qualifiers)
    return {name: one for name, one in found.items() if "Value" in one}


def _type_of_id() -> Attributes:
    found: Attributes = {}
    put(found, "TypeOfPatientID", "TEXT")
    return found


# Visit, order, requested procedure


def _visit(found: Attributes, step: ScheduledStep) -> None:
    encounter = step.encounter or {}
    identifier = identifier_of_type(encounter, terms.V2_0203, "VN") or next(iter(encounter.get("identifier", ())), {})
    put(found, "AdmissionID", whole(identifier.get("value"), LO))
    put(found, "IssuerOfAdmissionIDSequence", _issuer(identifier))
    places = [p for p in encounter.get("location", ()) if p.get("status", "active") == "active"]
    if places:
        put(found, "CurrentPatientLocation", line(_name_of(step, places[0].get("location", {})), LO))


def _request(found: Attributes, step: ScheduledStep, zone: ZoneInfo) -> None:
    order = step.order or step.procedure
    accessions = (identifier_of_type(r, terms.V2_0203, "ACSN") for r in (step.procedure, order))
    accession = next((i for i in accessions if i and i.get("value")), {})
    put(found, "AccessionNumber", whole(accession.get("value"), SH))
    put(found, "IssuerOfAccessionNumberSequence", _issuer(accession))
    placer, filler = (identifier_of_type(order, terms.V2_0203, c) or {} for c in ("PLAC", "FILL"))
    put(found, "PlacerOrderNumberImagingServiceRequest", whole(placer.get("value"), LO))
    put(found, "OrderPlacerIdentifierSequence", _issuer(placer))
    put(found, "FillerOrderNumberImagingServiceRequest", whole(filler.get("value"), LO))
    put(found, "OrderFillerIdentifierSequence", _issuer(filler))
    put(found, "PatientTransportArrangements", _extra(step, _TRANSPORT, LO))
    put(found, "ImagingServiceRequestComments", _notes(order))
    requester = order.get("requester") or step.procedure.get("requester") or {}
    put(found, "RequestingPhysician", _person(step, requester))
    put(found, "RequestingPhysicianIdentificationSequence", _identification(step, requester))
    put(found, "RequestingService", line(_organization(step, requester), LO))
    put(found, "ReferringPhysicianName", _person(step, _referrer(step)) or _person(step, requester))
    issued = values.local(order.get("authoredOn"), zone)
    put(found, "IssueDateOfImagingServiceRequest", values.date_of(issued))
    put(found, "IssueTimeOfImagingServiceRequest", values.time_of(issued) if "T" in order.get("authoredOn", "") else "")


def _procedure(found: Attributes, step: ScheduledStep, zone: ZoneInfo) -> None:
    procedure, order = step.procedure, step.order or {}
    put(found, "RequestedProcedureID", whole(identifier_value(procedure, terms.REQUESTED_PROCEDURE_ID), SH))
    put(found, "RequestedProcedureDescription", line(values.display(procedure.get("code")), LO))
    put(found, "RequestedProcedureCodeSequence", _code(procedure.get("code")))
    put(found, "StudyInstanceUID", imaging_study.study_uid(step.study))
    started = values.local(step.study.get("started"), zone)
    put(found, "StudyDate", values.date_of(started))
    put(found, "StudyTime", values.time_of(started) if "T" in step.study.get("started", "") else "")
    priority = step.task.get("priority") or procedure.get("priority") or order.get("priority") or ""
    put(found, "RequestedProcedurePriority", _PRIORITY.get(priority))
    put(found, "RequestedProcedureComments", _notes(procedure) if step.order else "")
    reasons = procedure.get("reasonCode") or order.get("reasonCode") or []
    put(found, "ReasonForTheRequestedProcedure", line("; ".join(filter(None, map(values.display, reasons))), LO))
    put(found, "ReasonForRequestedProcedureCodeSequence", *(_code(r) for r in reasons))


def _code(concept: dict[str, Any] | None) -> Attributes | None:
    """The first coding that DICOM can carry: the code sequences of the worklist have one item."""
    items = [values.code_item(c, (concept or {}).get("text", "")) for c in codings(concept)]
    return next((i for i in items if i), None)


def _notes(request: Resource) -> str:
    return values.paragraph("\n".join(n.get("text", "") for n in request.get("note", ())))


# Scheduled procedure step


def _step(step: ScheduledStep, zone: ZoneInfo) -> Attributes:
    item: Attributes = {}
    station = step.station or {}
    period = _period(step.task)
    start, end = (values.local(period.get(which), zone) for which in ("start", "end"))
    others = (device.ae_title(d) for d in _further_stations(step))
    put(item, "ScheduledStationAETitle", *dict.fromkeys((device.ae_title(station), *others)))
    put(item, "ScheduledProcedureStepStartDate", values.date_of(start))
    put(item, "ScheduledProcedureStepStartTime", values.time_of(start))
    put(item, "ScheduledProcedureStepEndDate", values.date_of(end))
    put(item, "ScheduledProcedureStepEndTime", values.time_of(end))
    put(item, "Modality", modality(step))
    put(item, "ScheduledPerformingPhysicianName", _performer(step))
    put(item, "ScheduledProcedureStepDescription", line(values.display(step.task.get("code")), LO))
    put(item, "ScheduledProtocolCodeSequence", *_protocols(step.task))
    names = [n.get("name", "") for n in station.get("deviceName", ())]
    put(item, "ScheduledStationName", line(names[0] if names else "", SH))
    place = _name_of(step, step.task.get("location", {})) or (step.location or {}).get("name")
    put(item, "ScheduledProcedureStepLocation", line(place, SH))
    put(item, "PreMedication", _extra(step, _PRE_MEDICATION, LO))
    put(item, "RequestedContrastAgent", _extra(step, _CONTRAST_AGENT, LO))
    put(item, "ScheduledProcedureStepID", whole(identifier_value(step.task, terms.SCHEDULED_STEP_ID), SH))
    status = codes(step.task.get("businessStatus"), terms.SPS_STATUS)
    put(item, "ScheduledProcedureStepStatus", status[0] if status else "")
    return {name: one for name, one in item.items() if "Value" in one}


def _protocols(step: Resource) -> list[Attributes]:
    """The protocols that were chosen; as long as none was, what is to be done."""
    items = [item for chosen in protocol.of_step(step) if (item := _code(chosen))]
    return items or [item for item in (_code(step.get("code")),) if item]


def modality(step: ScheduledStep) -> str | None:
    """The step's modality; a station that does one only says it for a step that doesn't."""
    done = device.modalities(step.station or {})
    return task.modality(step.task) or (done[0] if len(done) == 1 else None)


def _further_stations(step: ScheduledStep) -> list[Resource]:
    """Stations besides the owner at which the step may be performed: Task.input `station`."""
    inputs = [i for i in step.task.get("input", ()) if has_code(i.get("type"), terms.TASK_DETAIL, "station")]
    found = (step.others.get(i.get("valueReference", {}).get("reference", "")) for i in inputs)
    return [d for d in found if d is not None and d["resourceType"] == "Device"]


def performers(step: ScheduledStep) -> list[dict[str, Any]]:
    """References to those who shall perform it: by the requested procedure, else by the booking."""
    booked = [p.get("actor", {}) for p in (step.appointment or {}).get("participant", ())]
    people = ("Practitioner/", "PractitionerRole/")
    return [r for r in (*step.procedure.get("performer", ()), *booked) if str(r.get("reference", "")).startswith(people)]


def _performer(step: ScheduledStep) -> dict[str, str]:
    return next((name for reference in performers(step) if (name := _person(step, reference))), {})


def _extra(step: ScheduledStep, url: str, limit: int) -> str:
    """What an extension of the requested procedure, or of its order, says: concepts or texts."""
    decided = url in {_CONTRAST_AGENT, _PRE_MEDICATION} and findings.is_decided(step.procedure)
    ordered = {} if decided else step.order or {}
    for request in (step.procedure, ordered):
        said = [e for e in request.get("extension", ()) if e.get("url") == url]
        if said:
            return line("; ".join(e.get("valueString") or values.display(e.get("valueCodeableConcept")) for e in said), limit)
    return ""


def _issuer(identifier: dict[str, Any]) -> Attributes | None:
    """Who issued a number (HL7v2 Hierarchic Designator Macro, PS3.3 10.17): its assigner's name, its system."""
    found: Attributes = {}
    put(found, "LocalNamespaceEntityID", whole(identifier.get("assigner", {}).get("display"), LO))
    system = identifier.get("system", "")
    if oid := system.removeprefix("urn:oid:") if system.startswith("urn:oid:") else "":
        put(found, "UniversalEntityID", oid)
        put(found, "UniversalEntityIDType", "ISO")
    elif system and not system.startswith("urn:fhir-ris:"):
        put(found, "UniversalEntityID", whole(system, 1024))
        put(found, "UniversalEntityIDType", "URI")
    kept = {name: one for name, one in found.items() if "Value" in one}
    return kept or None


def _identification(step: ScheduledStep, reference: dict[str, Any]) -> Attributes | None:
    """The Person Identification Macro (PS3.3 10.1) of a practitioner with an identifier."""
    found = step.others.get(reference.get("reference", ""), {})
    if found.get("resourceType") == "PractitionerRole":
        return _identification(step, found.get("practitioner", {}))
    number = next((i["value"] for i in found.get("identifier", ()) if i.get("value")), "")
    name = values.person_name(found.get("name", ())).get("Alphabetic", "").replace("^", " ")
    code = values.code_item({"code": number, "display": " ".join(name.split())}) if number else None
    if code is None:
        return None
    item: Attributes = {}
    put(item, "PersonIdentificationCodeSequence", code)
    return item


def _period(step: Resource) -> dict[str, Any]:
    period: dict[str, Any] = step.get("restriction", {}).get("period", {})
    return period


# People and places


def _referrer(step: ScheduledStep) -> dict[str, Any]:
    """The Encounter's referring participant (v3-ParticipationType REF)."""
    for participant in (step.encounter or {}).get("participant", ()):
        if any(c.get("code") == "REF" for c in codings(participant.get("type"))):
            individual: dict[str, Any] = participant.get("individual", {})
            return individual
    return {}


def _person(step: ScheduledStep, reference: dict[str, Any]) -> dict[str, str]:
    """The name of the practitioner that is referred to; the reference's display when the resource isn't ours."""
    found = step.others.get(reference.get("reference", ""), {})
    if found.get("resourceType") == "PractitionerRole":
        return _person(step, found.get("practitioner", {}))
    if found.get("resourceType") == "Organization":
        return {}
    return values.person_name(found.get("name") or [{"text": reference.get("display", "")}])


def _organization(step: ScheduledStep, reference: dict[str, Any]) -> str:
    found = step.others.get(reference.get("reference", ""), {})
    if found.get("resourceType") == "PractitionerRole":
        return _organization(step, found.get("organization", {}))
    return found.get("name", "") if found.get("resourceType") == "Organization" else ""


def _name_of(step: ScheduledStep, reference: dict[str, Any]) -> str:
    found = step.others.get(reference.get("reference", ""), {})
    return str(found.get("name") or reference.get("display") or "")
