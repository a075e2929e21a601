"""N-SET: a scanner goes on, or ends. What it did reaches the Procedure and the study."""

from datetime import UTC
from zoneinfo import ZoneInfo

from bridges.dicom import mpps_data, mpps_records, values
from bridges.dicom.dicom_json import Attributes, text
from bridges.dicom.mpps_begin import CAN_BE_PERFORMED, study_of
from bridges.dicom.mpps_checks import Checked
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import device, imaging_series, imaging_study, procedure, terms, work_items


async def progress(unit: UnitOfWork, performed: Resource, checked: Checked, zone: ZoneInfo) -> Resource:
    """The Procedure as the data set now says, and what follows from it for the study."""
    data = checked.data
    stored = await mpps_records.binary_of(unit, performed)
    if stored is not None:
        await unit.update(stored | {"data": mpps_records.binary(data)["data"]})
    if code := mpps_data.procedure_code(data):
        performed["code"] = code
    performed["status"] = mpps_data.status(data)
    period, doubts = mpps_data.period(data, zone)
    performed.pop("performedPeriod", None)
    if period:
        performed["performedPeriod"] = period
    reason = mpps_data.status_reason(data)
    if performed["status"] == "stopped" and reason:
        performed["statusReason"] = reason
    performed["performer"] = [*(p for p in performed["performer"] if "function" not in p), *mpps_data.people(data)]
    others = [e for e in performed["extension"] if e["url"] != terms.PERFORMED_PROTOCOL]
    own = [{"url": terms.PERFORMED_PROTOCOL, "valueCodeableConcept": c} for c in mpps_data.protocols(data)]
    performed["extension"] = others + own
    wrong_entry = procedure.is_wrong_entry(performed)
    doubts = [*doubts, *checked.doubts, *await _announce(unit, performed, data, zone)]
    about, whose = f"Procedure/{performed['id']}", performed["subject"].get("reference")
    if doubts and performed["status"] in procedure.ENDED:
        text_ = f"The scanner's record of an examination is incomplete: {'; '.join(doubts)}."
        await work_items.open_work_item(unit, "performed-step-incomplete", text_, about, whose)
    if wrong_entry:
        text_ = "The wrong worklist entry was selected at the scanner. The step waits again. Whose are the images?"
        await work_items.open_work_item(unit, "wrong-worklist-entry", text_, about, whose)
    return await unit.update(performed)


async def _announce(unit: UnitOfWork, performed: Resource, data: Attributes, zone: ZoneInfo) -> list[str]:
    """Put the series into the study once the step has ended, and say what is doubtful about that."""
    if performed["status"] not in procedure.ENDED:
        return []
    series = mpps_data.series(data, await device.by_ae_title(unit, text(data, "PerformedStationAETitle")))
    doubts = ["it names no series"] if not series and performed["status"] == "completed" else []
    study = await study_of(unit, performed, data)
    if procedure.is_wrong_entry(performed):
        return doubts
    if series or performed["status"] == "completed":
        await _ask_about_state(unit, performed, study)
    if study is None:
        return doubts
    if study.get("subject", {}).get("reference") != performed["subject"].get("reference"):
        return [*doubts, "its study is not known to be this patient's"]
    if series:
        begin = mpps_data.start(data, zone)
        started = values.fhir_time(begin.astimezone(UTC)) if begin else None
        study = await imaging_study.reopened(unit, study)
        study = await unit.update(imaging_series.with_performed(study, series, started))
        for reference in performed.get("basedOn", ()):
            if (to := target(reference)) is not None:
                await imaging_study.drop_planned(unit, to.id, study)
    return doubts


async def _ask_about_state(unit: UnitOfWork, performed: Resource, study: Resource | None) -> None:
    """An order that was discontinued while the scanner went on: the images are nobody's work, until somebody has looked."""
    states = [s["status"] for s in await procedure.performed_steps(unit, performed) if s["status"] not in CAN_BE_PERFORMED]
    found = [f"step is {state}" for state in states]
    found += ["study was cancelled"] if study is not None and study["status"] == "cancelled" else []
    about = f"Procedure/{performed['id']}"
    if found and not await unit.search("Task", focus=about, code=f"{terms.TASK_CODE}|unexpected-procedure-step"):
        text_ = f"A scanner has performed what was ended meanwhile: its {', its '.join(found)}. What is to become of the images?"
        await work_items.open_work_item(unit, "unexpected-procedure-step", text_, about, performed["subject"].get("reference"))
