"""Modality Performed Procedure Step, N-CREATE and N-SET (PS3.4 Annex F): what a scanner did becomes a Procedure.

The Procedure keeps the scanner's data set in a Binary (as it stands; its history has each earlier state). That the step, its
appointment and the reading worklist follow is the business of `resources/procedure.py`. An examination is never turned away
because we don't know its step or doubt its patient: it is kept, and a person is asked to look (a work item Task).
"""

import base64
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import structlog

from bridges.dicom import dimse, mpps_data, mpps_steps, values
from bridges.dicom.callers import Caller
from bridges.dicom.dicom_json import Attributes, is_uid, text
from fhir_server.audit import Act
from fhir_server.elements import codings, concept, extension
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import device, imaging_study, task, terms

log = structlog.get_logger()

DATA_SET = "urn:fhir-ris:mpps-data-set"  # extension on Procedure: the Binary with the scanner's data set
MAX_DATA_SET = 6 * 1024 * 1024  # bytes of its JSON form; a resource must fit into a MongoDB document
_FINAL = frozenset({"completed", "stopped", "not-done", "entered-in-error"})
_CAN_BE_PERFORMED = frozenset({"requested", "accepted", "ready", "in-progress", "completed"})


class PerformedSteps:
    """The MPPS service. `zone` is the department's, for times without an offset."""

    def __init__(self, interactions: Interactions, zone: ZoneInfo) -> None:
        self._interactions = interactions
        self._zone = zone

    async def create(self, uid: str, data: Attributes, caller: Caller) -> None:
        """N-CREATE. Returns when it is committed; Refused otherwise, and then nothing of it is stored."""
        _check_uid(uid)
        mpps_data.check_new(data, self._zone)

        async def work(unit: UnitOfWork) -> None:
            await unit.lock(f"mpps:{uid}")
            if await _by_uid(unit, uid) is not None:
                raise dimse.Refused(dimse.DUPLICATE_SOP_INSTANCE, "this performed procedure step exists already")
            await self._begin(unit, uid, data)

        await self._transact("mpps-create", uid, caller, work)

    async def update(self, uid: str, change: Attributes, caller: Caller) -> None:
        """N-SET. Refused with 0112 when there is no such step, with 0110 and Error ID A710 when it has ended."""
        _check_uid(uid)

        async def work(unit: UnitOfWork) -> None:
            await unit.lock(f"mpps:{uid}")
            performed = await _by_uid(unit, uid)
            if performed is None:
                raise dimse.Refused(dimse.NO_SUCH_SOP_INSTANCE, "there is no such performed procedure step")
            if performed["status"] in _FINAL:
                comment = "Performed Procedure Step Object may no longer be updated"
                raise dimse.Refused(dimse.PROCESSING_FAILURE, comment, dimse.MAY_NO_LONGER_BE_UPDATED)
            await self._continue(unit, performed, change)

        await self._transact("mpps-set", uid, caller, work)

    async def _transact(self, event: str, uid: str, caller: Caller, work: Any) -> None:
        act = Act(event, "dicom", f"SOP instance {uid}", peer=caller.address)
        try:
            await self._interactions.transact(caller.access, act, work)
        except FhirError as error:
            log.warning("mpps.refused", operation=event, sop_instance=uid, code=error.code)
            raise dimse.Refused(dimse.PROCESSING_FAILURE, f"{error.code}: {error.issues[0].diagnostics}") from error

    # N-CREATE

    async def _begin(self, unit: UnitOfWork, uid: str, data: Attributes) -> None:
        steps = await mpps_steps.steps(unit, data)
        station = await device.by_ae_title(unit, text(data, "PerformedStationAETitle"))
        patient = await unit.get(steps[0].get("for")) if steps else await mpps_steps.patient(unit, data)
        shown = mpps_data.readable_name(text(data, "PatientName"))
        binary = await unit.create(_binary(data))
        procedure: Resource = {
            "resourceType": "Procedure",
            "identifier": [{"system": terms.DICOM_UID, "value": f"urn:oid:{uid}"}],
            "extension": [{"url": DATA_SET, "valueReference": ref(binary)}],
            "status": "in-progress",
            "category": concept(terms.SNOMED, terms.IMAGING, "Imaging"),
            "subject": ref(patient) if patient else mpps_steps.logical_patient(data, shown),
            "performer": [{"actor": ref(station) if station else _unknown_station(data)}],
        }
        if code := mpps_data.procedure_code(data) or (steps[0].get("code") if steps else None):
            procedure["code"] = code
        procedure["performedPeriod"], _ = mpps_data.period(data, self._zone)
        if steps:
            procedure["basedOn"] = [{"reference": r} for r in mpps_steps.procedures_of(steps)]
            if "encounter" in steps[0]:
                procedure["encounter"] = steps[0]["encounter"]
        if len(steps) == 1:
            # Several steps (the group case) are those of the requested procedures that are open: resources/procedure.py.
            procedure["extension"].append({"url": terms.SCHEDULED_STEP, "valueReference": ref(steps[0])})
        procedure = await unit.create(procedure)
        await self._study(unit, procedure, data)
        await self._ask_about(unit, procedure, steps, patient, data)

    async def _study(self, unit: UnitOfWork, procedure: Resource, data: Attributes) -> Resource | None:
        """The study that the images go to; made when the scanner chose its UID, and we know whose it is."""
        uid = mpps_data.study_uid(data)
        if not uid:
            return None
        study = await imaging_study.by_uid(unit, uid)
        if study is None and "reference" in procedure["subject"] and imaging_study.is_uid(uid):
            study = {
                "resourceType": "ImagingStudy",
                "identifier": [{"system": terms.DICOM_UID, "value": f"urn:oid:{uid}"}],
                "status": "registered",
                "subject": procedure["subject"],
            }
            if "basedOn" in procedure:
                study["basedOn"] = procedure["basedOn"]
            study = await unit.create(study)
        return study

    async def _ask_about(
        self, unit: UnitOfWork, procedure: Resource, steps: list[Resource], patient: Resource | None, data: Attributes
    ) -> None:
        about = f"Procedure/{procedure['id']}"
        whose = f"Patient/{patient['id']}" if patient else None
        if not steps:
            text_ = "A scanner performs an examination that isn't on the worklist. Which order is it?"
            await task.open_work_item(unit, "unscheduled-procedure-step", text_, about, whose)
        elif patient is not None and (differs := mpps_steps.contradictions(data, patient)):
            text_ = f"The scanner's patient differs from the order's: {', '.join(differs)}. Who was examined?"
            await task.open_work_item(unit, "patient-mismatch", text_, about, whose)
        for step in steps:
            if step["status"] not in _CAN_BE_PERFORMED:
                text_ = f"A scanner performs a step that is {step['status']}."
                await task.open_work_item(unit, "unexpected-procedure-step", text_, about, whose)

    # N-SET

    async def _continue(self, unit: UnitOfWork, performed: Resource, change: Attributes) -> None:
        reference = (extension(performed, DATA_SET) or {}).get("valueReference")
        binary = await unit.get(reference)
        stored: Attributes = orjson.loads(base64.b64decode(binary["data"])) if binary else {}
        data = mpps_data.updated(stored, change, self._zone)
        kept = _binary(data)
        if binary:
            await unit.update(binary | {"data": kept["data"]})
        if code := mpps_data.procedure_code(data):
            performed["code"] = code
        performed["status"] = mpps_data.status(data)
        performed["performedPeriod"], doubts = mpps_data.period(data, self._zone)
        if performed["status"] in _FINAL:
            reason = mpps_data.status_reason(data)
            if performed["status"] == "stopped" and reason:
                performed["statusReason"] = reason
            await self._finish(unit, performed, data, doubts)
        await unit.update(performed)

    async def _finish(self, unit: UnitOfWork, performed: Resource, data: Attributes, doubts: list[str]) -> None:
        series = mpps_data.series(data, await device.by_ae_title(unit, text(data, "PerformedStationAETitle")))
        study = await self._study(unit, performed, data)
        if study is not None and study.get("subject", {}).get("reference") != performed["subject"].get("reference"):
            doubts = [*doubts, "its study is not known to be this patient's"]
        elif study is not None and series:
            await unit.update(self._with_series(study, series, data))
        if not series and performed["status"] == "completed":
            doubts = [*doubts, "it names no series"]
        about, whose = f"Procedure/{performed['id']}", performed["subject"].get("reference")
        if doubts:
            text_ = f"The scanner's record of an examination is incomplete: {'; '.join(doubts)}."
            await task.open_work_item(unit, "performed-step-incomplete", text_, about, whose)
        if any(c.get("code") == mpps_data.WRONG_ENTRY for c in codings(performed.get("statusReason"))):
            text_ = (
                "The wrong worklist entry was selected at the scanner: schedule the step again, and look whose the images are."
            )
            await task.open_work_item(unit, "wrong-worklist-entry", text_, about, whose)

    def _with_series(self, study: Resource, series: list[dict[str, Any]], data: Attributes) -> Resource:
        """The study with these series: those that it has already are replaced (a second step may add to a study, PS3.4 F.7)."""
        new = {s["uid"] for s in series}
        merged = [s for s in study.get("series", ()) if s["uid"] not in new] + series
        modalities = {s["modality"]["code"]: s["modality"] for s in merged}
        study = study | {
            "series": merged,
            "modality": list(modalities.values()),
            "numberOfSeries": len(merged),
            "numberOfInstances": sum(s.get("numberOfInstances", 0) for s in merged),
        }
        begin = mpps_data.start(data, self._zone)
        if begin is not None and "started" not in study:
            study["started"] = values.fhir_time(begin.astimezone(UTC))
        return study


async def _by_uid(unit: UnitOfWork, uid: str) -> Resource | None:
    found = await unit.search("Procedure", identifier=f"{terms.DICOM_UID}|urn:oid:{uid}")
    return found[0] if found else None


def _check_uid(uid: str) -> None:
    if not is_uid(uid):
        raise dimse.Refused(dimse.INVALID_SOP_INSTANCE, "the SOP Instance UID is no UID")


def _binary(data: Attributes) -> Resource:
    encoded = orjson.dumps(data)
    if len(encoded) > MAX_DATA_SET:
        raise dimse.Refused(dimse.RESOURCE_LIMITATION, "the data set is too large")
    return {"resourceType": "Binary", "contentType": "application/dicom+json", "data": base64.b64encode(encoded).decode()}


def _unknown_station(data: Attributes) -> Resource:
    title = text(data, "PerformedStationAETitle")
    return {"identifier": {"system": terms.AE_TITLE, "value": title}, "display": title}
