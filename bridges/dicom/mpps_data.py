"""MPPS data sets (PS3.4 F.7.2): what they say in FHIR. What must be in them: `mpps_checks.py`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from bridges.dicom import dimse, values
from bridges.dicom.dicom_json import Attributes, is_uid, items, text, texts
from fhir_server.elements import concept
from fhir_server.registry import Resource
from resources import terms

IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"


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
    """Procedure.performedPeriod, and what is wrong with it. What isn't known, or can't be, is left out."""
    begin, finish = start(data, zone), end(data, zone)
    found = {"start": values.fhir_time(begin)} if begin else {}
    doubts = [] if begin else ["it has no start time that can be"]
    if status(data) == "in-progress":
        return found, doubts
    if finish is None:
        return found, [*doubts, "it has no end time"]
    if begin and finish < begin:
        return found, [*doubts, "its end is before its start"]
    return found | {"end": values.fhir_time(finish)}, doubts


# What was scheduled, and for whom


@dataclass(frozen=True, slots=True)
class ScheduledItem:
    """One item of the Scheduled Step Attributes Sequence: which step the scanner says it performs.

    In the group case `study_uid` is that of all, and `planned_studies` are those that were scheduled.
    """

    study_uid: str
    step_id: str
    procedure_id: str
    accession: str
    planned_studies: tuple[str, ...] = ()


def scheduled(data: Attributes) -> list[ScheduledItem]:
    return [
        ScheduledItem(
            _uid(item, "StudyInstanceUID"),
            text(item, "ScheduledProcedureStepID"),
            text(item, "RequestedProcedureID"),
            text(item, "AccessionNumber"),
            tuple(uid for study in items(item, "ReferencedStudySequence") if (uid := _uid(study, "ReferencedSOPInstanceUID"))),
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


def protocols(data: Attributes) -> list[dict[str, Any]]:
    """The protocols that were performed, as CodeableConcepts: by code, else the protocol names of the series."""
    coded: list[dict[str, Any]] = _protocol_codes(data)
    named = dict.fromkeys(name for item in items(data, "PerformedSeriesSequence") if (name := text(item, "ProtocolName")))
    return coded or [{"text": name} for name in named]


def _protocol_codes(data: Attributes) -> list[dict[str, Any]]:
    return [{"coding": [c]} for item in items(data, "PerformedProtocolCodeSequence") if (c := values.coding_of(item))]


def series(data: Attributes, device: Resource | None) -> list[dict[str, Any]]:
    """ImagingStudy.series of the performed series, as the scanner announces them."""
    coded = _protocol_codes(data)
    modality = values.code_text(text(data, "Modality")) or "OT"
    found = []
    for item in items(data, "PerformedSeriesSequence"):
        if not (uid := _uid(item, "SeriesInstanceUID")):
            continue
        referenced = items(item, "ReferencedImageSequence") + items(item, "ReferencedNonImageCompositeSOPInstanceSequence")
        one: dict[str, Any] = {"uid": uid, "modality": {"system": terms.DCM, "code": modality}}
        extensions: list[dict[str, Any]] = [{"url": terms.AVAILABILITY, "valueCode": "ANNOUNCED"}]
        if title := text(item, "RetrieveAETitle"):
            extensions.append({"url": terms.RETRIEVE_AE_TITLE, "valueString": title})
        named: list[dict[str, Any]] = [{"text": name}] if (name := text(item, "ProtocolName")) else []
        extensions += [{"url": terms.PERFORMED_PROTOCOL, "valueCodeableConcept": c} for c in named + coded]
        one |= {"extension": extensions, "numberOfInstances": len(referenced)}
        if described := text(item, "SeriesDescription") or text(item, "ProtocolName"):
            one["description"] = described
        if performers := performers_of(item, device):
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


def performers_of(item: Attributes, device: Resource | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for keyword, function in (("PerformingPhysicianName", "PPRF"), ("OperatorsName", "SPRF")):
        names = [shown for name in texts(item, keyword) if (shown := readable_name(name))]
        found += [{"function": concept(_PARTICIPATION, function), "actor": {"display": name}} for name in names]
    if device is not None:
        found.append({"actor": {"reference": f"Device/{device['id']}"}})
    return found


def people(data: Attributes) -> list[dict[str, Any]]:
    """Procedure.performer of the physicians and operators that the series name, each once."""
    named = (p for item in items(data, "PerformedSeriesSequence") for p in performers_of(item, None))
    found = {(p["actor"]["display"], p["function"]["coding"][0]["code"]): p for p in named}
    return list(found.values())


def readable_name(name: str) -> str:
    """A PN as people write it: prefix, given, middle, family, suffix."""
    family, given, middle, prefix, suffix = (name.split("=")[0].split("^") + [""] * 5)[:5]
    return " ".join(filter(None, (prefix, given, middle, family, suffix)))
