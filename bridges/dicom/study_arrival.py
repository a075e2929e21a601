"""What a PACS says has arrived: it reaches the ImagingStudy, and ends examinations of scanners without MPPS.

What doesn't fit is shown to people. Both sources end here: instance availability notifications (`availability.py`) and what a
PACS answers (`pacs_worker.py`).
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from bridges.dicom import dicom_endpoints, mpps_data, mpps_records, mpps_steps, values
from bridges.dicom.dicom_json import Attributes, text
from fhir_server import clock
from fhir_server.elements import concept, identifier_of_type
from fhir_server.references import ref, target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import (
    candidates,
    imaging_study,
    order_numbers,
    procedure,
    reconciliation,
    scanner_preferences,
    service_request,
    task,
    terms,
    work_items,
)
from resources.imaging_series import ArrivedSeries, is_available, with_arrived

WITHOUT_ORDER: Final = "study-without-order"
MISMATCH: Final = "patient-mismatch"
LOST: Final = "images-unavailable"
UNEXPECTED: Final = "unexpected-study"


@dataclass(slots=True)
class Arrived:
    """A study as it has arrived. `tags`: what the PACS says of patient and order; empty where it may not say (IAN).

    performed: the MPPS SOP Instance UIDs that the notification names
    stable_for: how long the PACS has had the same number of images, seconds; None: it wasn't watched
    """

    study_uid: str
    series: list[ArrivedSeries]
    tags: Attributes = field(default_factory=dict)
    performed: list[str] = field(default_factory=list)
    notified: bool = False
    stable_for: float | None = None


async def settle(unit: UnitOfWork, arrived: Arrived, zone: ZoneInfo) -> Resource:
    """Bring the study, its examination and the work items to where the PACS is. The study as it is now."""
    await unit.lock(f"study-arrival:{arrived.study_uid}")
    study = await imaging_study.by_uid(unit, arrived.study_uid)
    if study is None:
        study = await _unknown_study(unit, arrived, zone)
    elif "basedOn" not in study:
        study = await _assign_if_certain(unit, study, arrived, zone)
    is_void = study["status"] in {"cancelled", "entered-in-error"}
    retrieve_from = next((s.retrieve_ae_title for s in arrived.series if s.retrieve_ae_title), "")
    was_available = study["status"] == "available"
    study = with_arrived(study, arrived.series, await dicom_endpoints.wado(unit, retrieve_from))
    if is_available(study) and is_void:
        await _ask_about_void(unit, study)
        study = await imaging_study.reopened(unit, study)
    if is_available(study) and study["status"] != "entered-in-error":
        study["status"] = "available"
        if "started" not in study and (began := _began(arrived.tags, zone)):
            study["started"] = values.fhir_time(began)
    elif was_available:
        study["status"] = "registered"
        text_ = "The PACS says that the images of this study can't be had any more."
        await _ask(unit, LOST, text_, study)
    study = await unit.update(study)
    if "basedOn" not in study:
        await _ask_for_order(unit, study, arrived, zone)
        return study
    for reference in study["basedOn"]:
        if study["status"] == "available" and (to := target(reference)) is not None:
            await imaging_study.drop_planned(unit, to.id, study)
    differs = await contradictions(unit, study, arrived.tags)
    if differs:
        text_ = f"The patient of these images in the PACS differs from the order's: {', '.join(differs)}. Whose are they?"
        await _ask(unit, MISMATCH, text_, study)
    elif study["status"] == "available":
        await _end_examination(unit, study, arrived)
    return study


# Whose study it is


async def _unknown_study(unit: UnitOfWork, arrived: Arrived, zone: ZoneInfo) -> Resource:
    """A study that nobody has told us of: of the performed step that the notification names, else of whom its tags name."""
    study: dict[str, Any] = {
        "resourceType": "ImagingStudy",
        "identifier": [{"system": terms.DICOM_UID, "value": f"urn:oid:{arrived.study_uid}"}],
        "status": "registered",
    }
    for uid in arrived.performed:
        performed = await mpps_records.by_uid(unit, uid)
        if performed is not None and not procedure.is_in_doubt(performed) and not procedure.is_wrong_entry(performed):
            taken = {e: performed[e] for e in ("subject", "basedOn", "encounter") if e in performed}
            return await unit.create(study | taken)
    patient = await mpps_steps.patient(unit, arrived.tags)
    shown = mpps_data.readable_name(text(arrived.tags, "PatientName"))
    study["subject"] = ref(patient) if patient else mpps_steps.logical_patient(arrived.tags, shown)
    if described := text(arrived.tags, "StudyDescription"):
        study["description"] = described
    if accession := text(arrived.tags, "AccessionNumber"):
        study["identifier"].append({"type": concept(terms.V2_0203, "ACSN"), "value": accession})
    return await _assign_if_certain(unit, await unit.create(study), arrived, zone)


async def _assign_if_certain(unit: UnitOfWork, study: Resource, arrived: Arrived, zone: ZoneInfo) -> Resource:
    """The study with its order, where accession number and patient say so both."""
    found = candidates.certain(await candidates.find(unit, _facts(study, arrived, zone)))
    if found is None:
        return study
    more: dict[str, Any] = {"basedOn": [ref(found.procedure)]}
    if "encounter" in found.procedure:
        more["encounter"] = found.procedure["encounter"]
    return await unit.update(study | more)


def _facts(study: Resource, arrived: Arrived, zone: ZoneInfo) -> candidates.Facts:
    of_series = next((s.modality for s in arrived.series if s.modality), "")
    accession = text(arrived.tags, "AccessionNumber") or (identifier_of_type(study, terms.V2_0203, "ACSN") or {}).get("value", "")
    return candidates.Facts(
        accession=accession,
        patient=study["subject"].get("reference", ""),
        modality=of_series,
        began=_began(arrived.tags, zone),
    )


async def _ask_for_order(unit: UnitOfWork, study: Resource, arrived: Arrived, zone: ZoneInfo) -> None:
    """Images without an order: which one is it? Once, unless the performed step is asked about already."""
    for performed in await mpps_records.of_study(unit, arrived.study_uid):
        if await work_items.open_items(unit, f"Procedure/{performed['id']}", "unscheduled-procedure-step"):
            return
    found = await candidates.find(unit, _facts(study, arrived, zone))
    await _ask(unit, WITHOUT_ORDER, "There are images without an order. Which order is it?", study, candidates.as_inputs(found))


async def _ask_about_void(unit: UnitOfWork, study: Resource) -> None:
    """Images of a study that was not to be. The performed step is asked about already, where a scanner has told of it."""
    for performed in await mpps_records.of_study(unit, imaging_study.study_uid(study) or ""):
        if await work_items.open_items(unit, f"Procedure/{performed['id']}", "unexpected-procedure-step"):
            return
    state = "was cancelled" if study["status"] == "cancelled" else "was entered in error"
    text_ = f"The PACS has images of a study that {state}. Whose are they, and what is to become of them?"
    await _ask(unit, UNEXPECTED, text_, study)


async def _ask(unit: UnitOfWork, code: str, text_: str, study: Resource, inputs: list[dict[str, Any]] | None = None) -> None:
    about = f"ImagingStudy/{study['id']}"
    if not await work_items.open_items(unit, about, code):
        await work_items.open_work_item(unit, code, text_, about, study["subject"].get("reference"), inputs)


async def contradictions(unit: UnitOfWork, study: Resource, tags: Attributes) -> list[str]:
    """What the PACS says differently: `patient id`, `name`, `birth date`, `sex`, `accession number`. Nothing without tags."""
    patient = await unit.get(study.get("subject"))
    if not tags or patient is None:
        return []
    found = mpps_steps.contradictions(tags, patient)
    numbers = set()
    for reference in study.get("basedOn", ()):
        request = await unit.get(reference)
        order = await service_request.order_of(unit, request)
        numbers |= {n for r in (request, order) if r and (n := order_numbers.accession_number(r))}
    said = text(tags, "AccessionNumber")
    if said and numbers and said not in numbers:
        found.append("accession number")
    return found


def _began(tags: Attributes, zone: ZoneInfo) -> datetime | None:
    offset = text(tags, "TimezoneOffsetFromUTC")
    try:
        return values.moment(text(tags, "StudyDate"), text(tags, "StudyTime"), zone, offset)
    except (ValueError, OverflowError):
        return None


# Scanners without MPPS


async def _end_examination(unit: UnitOfWork, study: Resource, arrived: Arrived) -> None:
    """The images are there: that ends the examination of a scanner that is set so, and that has told nothing by MPPS."""
    for reference in study["basedOn"]:
        to = target(reference)
        if to is None:
            continue
        for step in await task.steps_of(unit, to.id):
            if step["status"] in {"accepted", "ready", "in-progress"} and not procedure.performances(step):
                station = await unit.get(step.get("owner"))
                if _is_over(scanner_preferences.of(station), arrived):
                    await unit.create(reconciliation.from_images(study, step, clock.instant(unit.now)))


def _is_over(preferences: scanner_preferences.Preferences, arrived: Arrived) -> bool:
    if preferences.examination_end == "availability":
        return True
    enough = preferences.stable_minutes * 60
    return preferences.examination_end == "study-stable" and (arrived.stable_for or 0) >= enough


async def is_awaited(unit: UnitOfWork, study: Resource) -> bool:
    """Whether the images of a study are to end an examination that goes on."""
    for reference in study.get("basedOn", ()):
        to = target(reference)
        for step in await task.steps_of(unit, to.id) if to else ():
            station = await unit.get(step.get("owner"))
            waits = step["status"] in {"accepted", "ready", "in-progress"} and not procedure.performances(step)
            if waits and scanner_preferences.of(station).examination_end != "mpps":
                return True
    return False
