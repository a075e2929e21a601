"""MPPS data sets (PS3.4 F.7.2): what must be in them, and what they say in FHIR."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from bridges.dicom import dimse, values
from bridges.dicom.dicom_json import Attributes, is_uid, items, tag, text, texts
from fhir_server.elements import concept
from fhir_server.registry import Resource
from resources import terms

IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"
WRONG_ENTRY = "110514"  # DCM: incorrect worklist entry selected
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"

# Type 1 at N-CREATE (PS3.4 table F.7.2-1), without the items of the Scheduled Step Attributes Sequence: scanners send it empty.
_REQUIRED = (
    "PerformedProcedureStepID",
    "PerformedStationAETitle",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProcedureStepStatus",
    "Modality",
)
# What N-SET may not change (the same table). Some scanners send it again; it is left as it was.
_CREATE_ONLY = (
    "ScheduledStepAttributesSequence PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex "
    "ReferencedPatientSequence PerformedProcedureStepID PerformedStationAETitle PerformedStationName PerformedLocation "
    "PerformedProcedureStepStartDate PerformedProcedureStepStartTime Modality StudyID SOPClassUID SOPInstanceUID"
).split()


def check_new(data: Attributes, zone: ZoneInfo) -> None:
    """Refused unless this can begin a performed procedure step."""
    for keyword in ("ScheduledStepAttributesSequence", *_REQUIRED):
        if tag(keyword) not in data:
            raise dimse.Refused(dimse.MISSING_ATTRIBUTE, f"{keyword} is missing")
    for keyword in _REQUIRED:
        if not text(data, keyword):
            raise dimse.Refused(dimse.MISSING_ATTRIBUTE_VALUE, f"{keyword} has no value")
    if text(data, "PerformedProcedureStepStatus") != IN_PROGRESS:
        raise dimse.Refused(dimse.INVALID_ATTRIBUTE_VALUE, "a performed procedure step begins IN PROGRESS")
    start(data, zone)


def updated(stored: Attributes, change: Attributes, zone: ZoneInfo) -> Attributes:
    """The data set after an N-SET. A new sequence replaces the stored one whole. Refused when it may not be so."""
    kept = {tag(k) for k in _CREATE_ONLY}
    data = stored | {name: one for name, one in change.items() if name not in kept}
    if text(data, "PerformedProcedureStepStatus") not in {IN_PROGRESS, COMPLETED, DISCONTINUED}:
        raise dimse.Refused(dimse.INVALID_ATTRIBUTE_VALUE, "PerformedProcedureStepStatus is none that MPPS knows")
    if status(data) != "in-progress" and tag("PerformedSeriesSequence") not in data:
        raise dimse.Refused(dimse.MISSING_ATTRIBUTE_VALUE, "a step ends with its PerformedSeriesSequence")
    end(data, zone)
    return data


def status(data: Attributes) -> str:
    """Procedure.status"""
    return {COMPLETED: "completed", DISCONTINUED: "stopped"}.get(text(data, "PerformedProcedureStepStatus"), "in-progress")


# Times


def start(data: Attributes, zone: ZoneInfo) -> datetime | None:
    return _moment(data, "PerformedProcedureStepStart", zone)


def end(data: Attributes, zone: ZoneInfo) -> datetime | None:
    return _moment(data, "PerformedProcedureStepEnd", zone)


def _moment(data: Attributes, prefix: str, zone: ZoneInfo) -> datetime | None:
    offset = text(data, "TimezoneOffsetFromUTC")
    try:
        return values.moment(text(data, f"{prefix}Date"), text(data, f"{prefix}Time"), zone, offset)
    except (ValueError, OverflowError):
        raise dimse.Refused(dimse.INVALID_ATTRIBUTE_VALUE, f"{prefix} Date and Time are no date and time") from None


def period(data: Attributes, zone: ZoneInfo) -> tuple[dict[str, str], list[str]]:
    """Procedure.performedPeriod, and what is wrong with its end. An end that isn't known, or can't be, is left out."""
    begin, finish = start(data, zone), end(data, zone)
    found = {"start": values.fhir_time(begin)} if begin else {}
    if status(data) == "in-progress":
        return found, []
    if finish is None:
        return found, ["it has no end time"]
    if begin and finish < begin:
        return found, ["its end is before its start"]
    return found | {"end": values.fhir_time(finish)}, []


# What was scheduled, and for whom


@dataclass(frozen=True, slots=True)
class ScheduledItem:
    """One item of the Scheduled Step Attributes Sequence: which step the scanner says it performs."""

    study_uid: str
    step_id: str
    procedure_id: str
    accession: str


def scheduled(data: Attributes) -> list[ScheduledItem]:
    return [
        ScheduledItem(
            _uid(item, "StudyInstanceUID"),
            text(item, "ScheduledProcedureStepID"),
            text(item, "RequestedProcedureID"),
            text(item, "AccessionNumber"),
        )
        for item in items(data, "ScheduledStepAttributesSequence")
    ]


def study_uid(data: Attributes) -> str:
    """The study that the images are in: the same in all items, also in the group case (PS3.4 F.7.2.1.1)."""
    return next((i.study_uid for i in scheduled(data) if i.study_uid), "")


def _uid(item: Attributes, keyword: str) -> str:
    found = text(item, keyword)
    return found if is_uid(found) else ""


# To FHIR


def procedure_code(data: Attributes) -> dict[str, Any] | None:
    """Procedure.code, from Procedure Code Sequence and Performed Procedure Step Description."""
    found: dict[str, Any] = {}
    if coded := [c for item in items(data, "ProcedureCodeSequence") if (c := values.coding_of(item))]:
        found["coding"] = coded
    if described := text(data, "PerformedProcedureStepDescription"):
        found["text"] = described
    return found or None


def status_reason(data: Attributes) -> dict[str, Any] | None:
    """Procedure.statusReason, from the discontinuation reason (CID 9300, 9301)."""
    for item in items(data, "PerformedProcedureStepDiscontinuationReasonCodeSequence"):
        if coding := values.coding_of(item):
            return {"coding": [coding]}
    return None


def series(data: Attributes, device: Resource | None) -> list[dict[str, Any]]:
    """ImagingStudy.series of the performed series."""
    modality = {"system": terms.DCM, "code": text(data, "Modality")}
    found = []
    for item in items(data, "PerformedSeriesSequence"):
        if not (uid := _uid(item, "SeriesInstanceUID")):
            continue
        referenced = items(item, "ReferencedImageSequence") + items(item, "ReferencedNonImageCompositeSOPInstanceSequence")
        one: dict[str, Any] = {"uid": uid, "modality": modality, "numberOfInstances": len(referenced)}
        if described := text(item, "SeriesDescription") or text(item, "ProtocolName"):
            one["description"] = described
        if performers := _performers(item, device):
            one["performer"] = performers
        if instances := [i for r in referenced if (i := _instance(r))]:
            one["instance"] = instances
        found.append(one)
    return found


def _instance(reference: Attributes) -> dict[str, Any] | None:
    uid, sop_class = _uid(reference, "ReferencedSOPInstanceUID"), _uid(reference, "ReferencedSOPClassUID")
    if not uid or not sop_class:
        return None
    return {"uid": uid, "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{sop_class}"}}


def _performers(item: Attributes, device: Resource | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for keyword, function in (("PerformingPhysicianName", "PPRF"), ("OperatorsName", "SPRF")):
        names = [shown for name in texts(item, keyword) if (shown := readable_name(name))]
        found += [{"function": concept(_PARTICIPATION, function), "actor": {"display": name}} for name in names]
    if device is not None:
        found.append({"actor": {"reference": f"Device/{device['id']}"}})
    return found


def readable_name(name: str) -> str:
    """A PN as people write it: prefix, given, middle, family, suffix."""
    family, given, middle, prefix, suffix = (name.split("=")[0].split("^") + [""] * 5)[:5]
    return " ".join(filter(None, (prefix, given, middle, family, suffix)))
