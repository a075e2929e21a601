"""N-CREATE: a scanner begins. The Procedure, its study, and what people are asked about it."""

from typing import Any
from zoneinfo import ZoneInfo

from bridges.dicom import mpps_data, mpps_records, mpps_steps
from bridges.dicom.dicom_json import Attributes, text
from bridges.dicom.mpps_checks import Checked
from fhir_server.elements import concept
from fhir_server.foresight import Asked, Lookup
from fhir_server.references import Target, ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from fhir_server.view import View
from resources import candidates, device, imaging_study, service_request, task, terms, work_items
from resources.numbers import exam_projection
from resources.safety import findings

CAN_BE_PERFORMED = frozenset({"requested", "accepted", "ready", "in-progress", "completed"})


async def begin(unit: UnitOfWork, uid: str, checked: Checked, zone: ZoneInfo) -> Resource:
    """The Procedure of a performed step that begins, with its Binary, its study and its work items."""
    data = checked.data
    steps = await mpps_steps.steps(unit, data)
    await unit.foresee(*[asked for step in steps for asked in await _expected(unit, step)])
    station = await device.by_ae_title(unit, text(data, "PerformedStationAETitle"))
    patient = await unit.get(steps[0].get("for")) if steps else await mpps_steps.patient(unit, data)
    proposed = [] if steps else await _proposed(unit, data, patient, station, zone)
    # In the group case one order that fits is not all of it.
    if len(mpps_steps.named(data)) <= 1 and (certain := candidates.certain(proposed)) is not None:
        steps = [certain.step]
    differs = mpps_steps.contradictions(data, patient) if steps and patient is not None else []
    performed = _performed(uid, data, steps, station, patient, zone)
    performed["extension"].append(
        {"url": mpps_records.DATA_SET, "valueReference": ref(await unit.create(mpps_records.binary(data)))}
    )
    if differs:
        performed["extension"].append({"url": terms.IDENTITY_IN_DOUBT, "valueBoolean": True})
    if (location := _location(data, station)) is not None:
        performed["location"] = location
    performed = await unit.create(performed)
    await study_of(unit, performed, data)
    about, whose = f"Procedure/{performed['id']}", f"Patient/{patient['id']}" if patient else None
    if not steps:
        text_ = "A scanner performs an examination that isn't on the worklist. Which order is it?"
        inputs = candidates.as_inputs(proposed)
        await work_items.open_work_item(unit, "unscheduled-procedure-step", text_, about, whose, inputs)
    if differs:
        text_ = f"The scanner's patient differs from the order's: {', '.join(differs)}. Who was examined?"
        await work_items.open_work_item(unit, "patient-mismatch", text_, about, whose)
    await _ask_about_state(unit, steps, about, whose)
    if doubts := [*checked.doubts, *mpps_data.period(data, zone)[1]]:
        text_ = f"The scanner's record of an examination is incomplete: {'; '.join(doubts)}."
        await work_items.open_work_item(unit, "performed-step-incomplete", text_, about, whose)
    return performed


async def _expected(unit: UnitOfWork, step: Resource) -> list[Asked | Target | Lookup]:
    """What follows from a step that begins will look at: its examination, and whether it is the last of its order."""
    procedure = await unit.get(step.get("focus"))
    if procedure is None or procedure["resourceType"] != "ServiceRequest":
        return []
    rows = exam_projection.asked([f"Task/{step['id']}"])
    found: list[Asked | Target | Lookup] = [*findings.asked_of(procedure), View.before(step), rows]
    for order in [one for one in found if isinstance(one, Target)]:
        found += [service_request.asked_procedures(order.id), task.asked(order.id, procedure["id"])]
    return found


async def _ask_about_state(unit: UnitOfWork, steps: list[Resource], about: str, whose: str | None) -> None:
    for step in steps:
        if step["status"] not in CAN_BE_PERFORMED:
            text_ = f"A scanner performs a step that is {step['status']}."
            await work_items.open_work_item(unit, "unexpected-procedure-step", text_, about, whose)


def _performed(
    uid: str, data: Attributes, steps: list[Resource], station: Resource | None, patient: Resource | None, zone: ZoneInfo
) -> Resource:
    shown = mpps_data.readable_name(text(data, "PatientName"))
    identifiers = [{"system": terms.DICOM_UID, "value": f"urn:oid:{uid}"}]
    if study_uid := mpps_data.study_uid(data):
        identifiers.append({"system": terms.STUDY_OF, "value": f"urn:oid:{study_uid}"})
    performed: dict[str, Any] = {
        "resourceType": "Procedure",
        "identifier": identifiers,
        "extension": [{"url": terms.SCHEDULED_STEP, "valueReference": ref(s)} for s in steps],
        "status": "in-progress",
        "category": concept(terms.SNOMED, terms.IMAGING, "Imaging"),
        "subject": ref(patient) if patient else mpps_steps.logical_patient(data, shown),
        "performer": [{"actor": _station(data, station)}],
    }
    if code := mpps_data.procedure_code(data) or (steps[0].get("code") if steps else None):
        performed["code"] = code
    if period := mpps_data.period(data, zone)[0]:
        performed["performedPeriod"] = period
    if steps:
        performed["basedOn"] = [{"reference": r} for r in mpps_steps.procedures_of(steps)]
        if "encounter" in steps[0]:
            performed["encounter"] = steps[0]["encounter"]
    return performed


def _station(data: Attributes, station: Resource | None) -> Resource:
    title, name = text(data, "PerformedStationAETitle"), text(data, "PerformedStationName")
    if station is not None:
        return ref(station, name or None)
    return {"identifier": {"system": terms.AE_TITLE, "value": title}, "display": name or title}


def _location(data: Attributes, station: Resource | None) -> Resource | None:
    """Where it was done: the room of the station, else as the scanner calls it."""
    if station is not None and "location" in station:
        location: Resource = station["location"]
        return location
    return {"display": said} if (said := text(data, "PerformedLocation")) else None


async def _proposed(
    unit: UnitOfWork, data: Attributes, patient: Resource | None, station: Resource | None, zone: ZoneInfo
) -> list[candidates.Candidate]:
    """The steps that it may be, of each accession number that its items name, the likeliest first."""
    numbers = dict.fromkeys(i.accession for i in mpps_data.scheduled(data) if i.accession) or {"": None}
    best: dict[str, candidates.Candidate] = {}
    for accession in numbers:
        facts = candidates.Facts(
            accession=accession,
            patient=f"Patient/{patient['id']}" if patient else "",
            modality=text(data, "Modality"),
            began=mpps_data.start(data, zone),
            station=f"Device/{station['id']}" if station else "",
        )
        for one in await candidates.find(unit, facts):
            known = best.get(one.step["id"])
            if known is None or known.score < one.score:
                best[one.step["id"]] = one
    return sorted(best.values(), key=lambda c: (-c.score, c.step["id"]))[: candidates.MOST]


async def study_of(unit: UnitOfWork, performed: Resource, data: Attributes) -> Resource | None:
    """The study that the images go to; made when the scanner chose its UID.

    In the group case it is that of all requested procedures.
    """
    uid = mpps_data.study_uid(data)
    if not uid:
        return None
    study = await imaging_study.by_uid(unit, uid)
    based_on = performed.get("basedOn", [])
    if study is None and imaging_study.is_uid(uid):
        study = {
            "resourceType": "ImagingStudy",
            "identifier": [{"system": terms.DICOM_UID, "value": f"urn:oid:{uid}"}],
            "status": "registered",
            "subject": performed["subject"],
        }
        return await unit.create(study | ({"basedOn": based_on} if based_on else {}))
    if study is None or study.get("subject") != performed["subject"]:
        return study
    missing = [r for r in based_on if r not in study.get("basedOn", [])]
    return await unit.update(study | {"basedOn": [*study.get("basedOn", ()), *missing]}) if missing else study
