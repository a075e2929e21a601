"""The worklist: one row for each step that scanners shall see, written in the transaction that schedules or changes it.

A row is there exactly while its step's Task is accepted or ready and nothing keeps it from being started, its order and requested
procedure are active, its patient is active, and it has a time and a Study Instance UID:

    {_id: Task id,
     version: ObjectId,            new with each write: what was made of the row before counts no longer
     start: "20260907081500",      the start in the department's zone, as DICOM queries ask for it
     starts: date,                 the same in UTC
     stations: ["CT1"], modality: ["CT"], patient_ids: [...], accession, procedure_id, step_id, study_uid,
     names: ["sørensen^jane"],     the groups of the patient's name, without case and accents
     name_keys: ["sørensen^jane", "sorensen^jane"],  the same, and romanised: what queries by name look for
     patient: "Patient/1", location: "Location/ct" of the station,
     of: ["Task/1", "Patient/1"],  what the row is made of: when one of them changes, so does the row
     attributes: {...}}            the whole answer, in the DICOM JSON model
"""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from bson import ObjectId
from pymongo import DeleteOne, IndexModel, ReplaceOne
from pymongo.asynchronous.database import AsyncDatabase

from bridges.dicom import dicom_json, values
from bridges.dicom.dicom_json import Attributes
from bridges.dicom.romanisation import folded
from bridges.dicom.worklist_attributes import ScheduledStep, attributes, performers
from bridges.dicom.worklist_clinical import OBSERVATIONS
from fhir_server import clock
from fhir_server.elements import codes, has_code
from fhir_server.references import ref, target
from fhir_server.registry import Change, Resource
from fhir_server.search.keys import caseless
from fhir_server.unit_of_work import UnitOfWork
from resources import service_request, task, terms

COLLECTION = "worklist"
_ON_THE_LIST = frozenset({"accepted", "ready"})
# Facts about a patient that a row takes without referring to them.
_CLINICAL = frozenset({"AllergyIntolerance", "Flag", "Observation"})
# What a row takes from each resource. A change of anything else leaves the worklist alone.
_ELEMENTS: dict[str, tuple[str, ...]] = {
    "AllergyIntolerance": ("clinicalStatus", "verificationStatus", "code", "patient"),
    "Appointment": ("participant",),
    "Device": ("identifier", "deviceName", "location", "type"),
    "Encounter": ("identifier", "participant", "location", "hospitalization"),
    "Flag": ("status", "category", "code", "subject"),
    "ImagingStudy": ("identifier", "status", "basedOn", "started"),
    "Location": ("name",),
    "Observation": ("status", "code", "subject", "valueQuantity", "valueCodeableConcept", "effectiveDateTime", "effectivePeriod"),
    "Organization": ("name",),
    "Patient": ("active", "name", "identifier", "birthDate", "gender", "communication", "meta"),
    "Practitioner": ("name", "identifier"),
    "PractitionerRole": ("practitioner", "organization"),
    "ServiceRequest": (
        "identifier", "status", "basedOn", "code", "priority", "requester", "performer", "reasonCode", "note", "authoredOn",
        "encounter", "extension", "meta",
    ),
}  # fmt: skip


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """Make the collection's indexes: each key of `matching.prefilter`, and `of` for changes."""
    keys = ("patient_ids", "accession", "procedure_id", "step_id", "study_uid", "name_keys", "of")
    indexes = [
        IndexModel([("stations", 1), ("start", 1)]),
        IndexModel([("modality", 1), ("start", 1)]),
        IndexModel([("start", 1)]),
    ]
    await db[COLLECTION].create_indexes([*indexes, *(IndexModel([(k, 1)]) for k in keys)])


class _Found(NamedTuple):
    """The rows that are made of one of these, and those that were put since: id -> what it is made of."""

    names: set[str]
    rows: dict[str, list[str]]


class WorklistRows:
    """The projection of the scheduled steps. `zone` is the department's: DICOM's dates and times are local (PS3.4 K)."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._found: WeakKeyDictionary[UnitOfWork, _Found] = WeakKeyDictionary()

    async def project(self, unit: UnitOfWork, changes: list[Change]) -> None:
        """Bring the rows in line with these changes. Changes that no row depends on cost no access to the database."""
        gone = {c.id for c in changes if c.type == "Task" and _listed(c.before) and not _listed(c.after)}
        steps = {c.id for c in changes if c.type == "Task" and _listed(c.after)}
        parts = [c for c in changes if _matters(c)] + _late_studies(changes)
        if parts:
            # A row written by another transaction meanwhile would hold the old state of these: both take the same locks.
            await unit.lock(*(key for c in parts for key in _locks(c.after or c.before or {})))
            steps |= await self._rows_of(unit, parts) - gone
            for change in parts:
                steps |= await _newly_eligible(unit, change)
        await self._write(unit, steps, gone)

    async def _rows_of(self, unit: UnitOfWork, parts: list[Change]) -> set[str]:
        """The rows that are made of one of these. All that the transaction has changed is looked for at once."""
        names = _names(parts)
        found = self._found.get(unit)
        if found is None or not names <= found.names:
            await unit.flush_rows(COLLECTION)
            everything = names | _names([c for c in unit.changes() if _matters(c)])
            cursor = unit.db[COLLECTION].find({"of": {"$in": sorted(everything)}}, {"of": 1}, session=unit.session)
            found = self._found[unit] = _Found(everything, {row["_id"]: row["of"] async for row in cursor})
        return {id_ for id_, of in found.rows.items() if not names.isdisjoint(of)}

    async def _write(self, unit: UnitOfWork, steps: set[str], gone: set[str]) -> None:
        rows: dict[str, dict[str, Any] | None] = dict.fromkeys(sorted(gone))
        for id_ in sorted(steps):
            step = await _gather(unit, await unit.read("Task", id_))
            rows[id_] = row = self._row(step) if step else None
            if step is not None and row is not None:
                await unit.lock(*_locks(step.task))
        if not rows:
            return
        unit.put_rows(
            COLLECTION,
            [ReplaceOne({"_id": i}, row, upsert=True) if row else DeleteOne({"_id": i}) for i, row in rows.items()],
        )
        if found := self._found.get(unit):
            found.rows.update({id_: row["of"] if row else [] for id_, row in rows.items()})

    def _row(self, step: ScheduledStep) -> dict[str, Any] | None:
        start = values.local(step.task.get("restriction", {}).get("period", {}).get("start"), self._zone)
        found = attributes(step, self._zone)
        if start is None or not dicom_json.text(found, "StudyInstanceUID"):
            return None
        item = dicom_json.items(found, "ScheduledProcedureStepSequence")[0]
        made_of = (
            step.task, step.procedure, step.order, step.patient, step.study, step.station, step.location, step.encounter,
            step.appointment, *step.others.values(),
        )  # fmt: skip
        return {
            "_id": step.task["id"],
            "version": ObjectId(),
            "start": values.date_of(start) + values.time_of(start),
            "starts": clock.naive(start),
            "stations": dicom_json.texts(item, "ScheduledStationAETitle"),
            "modality": dicom_json.texts(item, "Modality"),
            "patient_ids": dicom_json.texts(found, "PatientID"),
            "accession": dicom_json.text(found, "AccessionNumber"),
            "procedure_id": dicom_json.text(found, "RequestedProcedureID"),
            "step_id": dicom_json.text(item, "ScheduledProcedureStepID"),
            "study_uid": dicom_json.text(found, "StudyInstanceUID"),
            "names": [caseless(group) for group in _name_groups(found)],
            "name_keys": list(dict.fromkeys(form for group in _name_groups(found) for form in folded(group))),
            "patient": ref(step.patient)["reference"],
            "location": (step.station or {}).get("location", {}).get("reference", ""),
            "of": sorted({ref(r)["reference"] for r in made_of if r}),
            "attributes": found,
        }


def _listed(resource: Resource | None) -> bool:
    return resource is not None and task.is_step(resource) and resource.get("status") in _ON_THE_LIST and task.may_start(resource)


def _matters(change: Change) -> bool:
    """Whether a row can depend on this change. What is new can only be part of a step that is in the changes itself."""
    elements = _ELEMENTS.get(change.type)
    if elements is None:
        return False
    if change.before is None:
        return change.type in _CLINICAL and _concerns(change.after)
    if change.type == "Observation" and not (_concerns(change.before) or _concerns(change.after)):
        return False
    before, after = change.before, change.after or {}
    if "meta" in elements and _labels(before) != _labels(after):
        return True
    return any(before.get(e) != after.get(e) for e in elements if e != "meta")


def _concerns(resource: Resource | None) -> bool:
    """Whether this is one of the clinical facts that scanners are told; of Observations, few are."""
    if resource is None:
        return False
    return resource["resourceType"] != "Observation" or not OBSERVATIONS.isdisjoint(codes(resource.get("code"), terms.LOINC))


def _names(parts: list[Change]) -> set[str]:
    """What a row is made of, when it depends on one of these."""
    return {f"{c.type}/{c.id}" for c in parts} | {p for c in parts if c.type in _CLINICAL for p in _patients(c)}


def _patients(change: Change) -> list[str]:
    """The patients of a clinical fact, before and after its change."""
    states = [r for r in (change.before, change.after) if r is not None]
    found = (r.get(e, {}).get("reference") for r in states for e in ("subject", "patient"))
    return [str(p) for p in found if str(p).startswith("Patient/")]


def _late_studies(changes: list[Change]) -> list[Change]:
    """New studies of requested procedures that are there already: their steps may have waited for a Study Instance UID."""
    new = {f"ServiceRequest/{c.id}" for c in changes if c.type == "ServiceRequest" and c.before is None}
    return [
        c
        for c in changes
        if c.type == "ImagingStudy" and c.before is None and c.after
        if any(r.get("reference") not in new for r in c.after.get("basedOn", ()))
    ]


def _labels(resource: Resource) -> Any:
    return resource.get("meta", {}).get("security")


def _locks(resource: Resource) -> list[str]:
    """The lock of the patient that a resource belongs to, and the one of its station."""
    references = [resource.get(e, {}).get("reference") for e in ("subject", "for", "owner", "patient")]
    if resource.get("resourceType") in {"Patient", "Device"}:
        references.append(ref(resource)["reference"])
    return [f"worklist:{r}" for r in references if str(r).startswith(("Patient/", "Device/"))]


def _name_groups(found: Attributes) -> list[str]:
    return [group for name in dicom_json.values(found, "PatientName") for group in name.values()]


# What a step is made of


async def _newly_eligible(unit: UnitOfWork, change: Change) -> set[str]:
    """Steps that had no row because of what has changed: an inactive patient or request, a study that was missing."""
    before, after = change.before or {}, change.after
    if after is None:
        return set()
    if change.type == "Patient" and before.get("active") is False and after.get("active", True):
        found = await unit.search("Task", patient=f"Patient/{change.id}", status="accepted,ready")
        return {t["id"] for t in found if _listed(t)}
    procedures: list[str] = []
    if change.type == "ServiceRequest" and change.became("status", "active"):
        procedures = [change.id] if service_request.is_procedure(after) else []
        if service_request.is_order(after):
            procedures = [p["id"] for p in await service_request.procedures_of(unit, change.id)]
    elif change.type == "ImagingStudy":
        procedures = [to.id for r in after.get("basedOn", ()) if (to := target(r)) and to.type == "ServiceRequest"]
    return {t["id"] for id_ in procedures for t in await task.steps_of(unit, id_) if _listed(t)}


async def _gather(unit: UnitOfWork, step: Resource | None) -> ScheduledStep | None:
    """The step with all that it takes, or None when it doesn't belong on the list."""
    if step is None or not _listed(step):
        return None
    procedure = await unit.get(step.get("focus"))
    if procedure is None or procedure["resourceType"] != "ServiceRequest" or procedure.get("status") != "active":
        return None
    order = await service_request.order_of(unit, procedure)
    if order is not None and order.get("status") != "active":
        return None
    patient = await unit.get(step.get("for") or procedure.get("subject"))
    if patient is None or not patient.get("active", True):
        return None
    studies = await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}")
    study = next((s for s in studies if s.get("status") in {"registered", "available"}), None)
    if study is None:
        return None
    found = ScheduledStep(step, procedure, order, patient, study)
    found.station = await _get(unit, step.get("owner"), "Device")
    found.location = await _get(unit, (found.station or {}).get("location"), "Location")
    encounter = step.get("encounter") or procedure.get("encounter") or (order or {}).get("encounter")
    found.encounter = await _get(unit, encounter, "Encounter")
    found.appointment = await _get(unit, {"reference": task.appointment_of(step) or ""}, "Appointment")
    found.clinical = await _clinical(unit, patient)
    await _add_others(unit, found)
    return found


async def _clinical(unit: UnitOfWork, patient: Resource) -> list[Resource]:
    whose = f"Patient/{patient['id']}"
    measured = ",".join(f"{terms.LOINC}|{code}" for code in sorted(OBSERVATIONS))
    return [
        *await unit.search("AllergyIntolerance", patient=whose),
        *await unit.search("Flag", patient=whose),
        *await unit.search("Observation", patient=whose, code=measured),
    ]


async def _add_others(unit: UnitOfWork, step: ScheduledStep) -> None:
    encounter = step.encounter or {}
    wanted = [(step.order or {}).get("requester"), step.procedure.get("requester")]
    wanted += [p.get("individual") for p in encounter.get("participant", ())]
    wanted += [p.get("location") for p in encounter.get("location", ())]
    wanted += [*performers(step), step.task.get("location")]
    wanted += [
        i.get("valueReference") for i in step.task.get("input", ()) if has_code(i.get("type"), terms.TASK_DETAIL, "station")
    ]
    while wanted:
        reference = wanted.pop()
        found = await _get(unit, reference, "Practitioner", "PractitionerRole", "Organization", "Location", "Device")
        name = str((reference or {}).get("reference"))
        if found is None or name in step.others:
            continue
        step.others[name] = found
        if found["resourceType"] == "PractitionerRole":
            wanted += [found.get("practitioner"), found.get("organization")]


async def _get(unit: UnitOfWork, reference: Any, *types: str) -> Resource | None:
    """What is referred to, if it is of one of these types and still there."""
    to = target(reference)
    return await unit.read(to.type, to.id) if to and to.type in types else None
