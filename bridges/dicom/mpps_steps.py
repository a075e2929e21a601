"""Which scheduled steps and which patient a performed step belongs to."""

from bridges.dicom import patient_names, values
from bridges.dicom.dicom_json import Attributes, text
from bridges.dicom.mpps_data import ScheduledItem, scheduled
from bridges.dicom.worklist_attributes import patient_id
from fhir_server import foresight
from fhir_server.elements import identifier_value
from fhir_server.foresight import Asked
from fhir_server.references import Target, target
from fhir_server.registry import Resource
from fhir_server.search.values import escaped
from fhir_server.unit_of_work import UnitOfWork
from resources import device, imaging_study, order_numbers, service_request, task, terms

_FORESEEN = 8  # scheduled steps and studies that are looked for ahead: who sends more waits for each
_TELLING = 8  # an id that so many have tells nothing (what `foresight` looks for at once)
_SEX = {"M": "male", "F": "female"}


async def steps(unit: UnitOfWork, data: Attributes) -> list[Resource]:
    """The steps that the data set names, each once; none when even one of its items can't be told."""
    found: dict[str, Resource] = {}
    for item in named(data):
        step = await _step(unit, item, data)
        if step is None:
            return []
        found[step["id"]] = step
    patients = {s.get("for", {}).get("reference") for s in found.values()}
    return list(found.values()) if len(patients) == 1 else []


def named(data: Attributes) -> list[ScheduledItem]:
    """The items of the data set that say which step they are."""
    return [i for i in scheduled(data) if i.step_id or i.procedure_id or i.study_uid or i.accession]


async def _step(unit: UnitOfWork, item: ScheduledItem, data: Attributes) -> Resource | None:
    """By study; by accession number with the other ids; by these alone; by the number alone. None where a doubt is left.

    The study alone is global: the ids of requested procedure and step may be no more than unique within their order (PS3.3
    C.4.11), so that other orders, of other patients too, have the same.
    """
    for procedure in await _by_study(unit, item, grouped=len(named(data)) > 1):
        if chosen := await _choose(unit, await _own_steps(unit, item, procedure), data):
            return chosen
    numbered = await _with_accession(unit, item.accession) if item.accession else []
    if item.step_id or item.procedure_id:
        of_number = [p for p in numbered if item.procedure_id in {"", identifier_value(p, terms.REQUESTED_PROCEDURE_ID)}]
        found = [s for p in of_number for s in await _own_steps(unit, item, p)] or await _by_step_id(unit, item, data)
        if chosen := await _sole(unit, found or await _by_procedure_id(unit, item, data), data):
            return chosen
    by_accession = [s for p in numbered for s in await task.steps_of(unit, p["id"])]
    modality = text(data, "Modality")
    waiting = [
        s for s in by_accession if s["status"] in {"requested", "accepted", "ready"} and task.modality(s) in {None, modality}
    ]
    return waiting[0] if len(waiting) == 1 else None


def asked(data: Attributes) -> list[Asked]:
    """What will be asked for first, for `View.foresee`."""
    items = scheduled(data)[:_FORESEEN]
    found = [_asked_by_step_id(item) for item in items if item.step_id]
    uids = {uid for item in items for uid in (*item.planned_studies, item.study_uid) if uid}
    return [*found, *(imaging_study.asked(uid) for uid in sorted(uids)[:_FORESEEN])]


def _asked_by_step_id(item: ScheduledItem) -> Asked:
    return foresight.asked("Task", {"identifier": _token(terms.SCHEDULED_STEP_ID, item.step_id)}, _TELLING)


def _around(step: Resource) -> list[Target]:
    """What is read of a step that begins: its requested procedure, patient and appointment."""
    references = step.get("focus"), step.get("for"), task.appointment_of(step)
    return [to for reference in references if (to := target(reference))]


async def _own_steps(unit: UnitOfWork, item: ScheduledItem, procedure: Resource) -> list[Resource]:
    """The steps of a requested procedure that have the item's step id, if it says one."""
    found = await task.steps_of(unit, procedure["id"])
    return [s for s in found if item.step_id in {"", identifier_value(s, terms.SCHEDULED_STEP_ID)}]


async def _by_step_id(unit: UnitOfWork, item: ScheduledItem, data: Attributes) -> list[Resource]:
    """The steps of the item's step id that requested procedure id or study speak for, and the accession number not against."""
    if not item.step_id:
        return []
    found = []
    for step in await _telling(unit, _asked_by_step_id(item), data):
        await unit.foresee(*_around(step))
        if task.is_step(step) and await _agrees(unit, step, item):
            found.append(step)
    return found


async def _agrees(unit: UnitOfWork, step: Resource, item: ScheduledItem) -> bool:
    """Whether requested procedure id or Study Instance UID say the same as the step id; a step id alone is taken at its word."""
    procedure = await unit.get(step.get("focus"))
    if procedure is None or await _has_another_number(unit, item, procedure):
        return False
    if not item.procedure_id and not item.study_uid:
        return True
    if item.procedure_id and identifier_value(procedure, terms.REQUESTED_PROCEDURE_ID) == item.procedure_id:
        return True
    studies = await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}")
    return any(imaging_study.study_uid(s) in {item.study_uid, *item.planned_studies} - {""} for s in studies)


async def _by_procedure_id(unit: UnitOfWork, item: ScheduledItem, data: Attributes) -> list[Resource]:
    """The steps of the item's Requested Procedure ID, but for those of another accession number."""
    if not item.procedure_id:
        return []
    token = _token(terms.REQUESTED_PROCEDURE_ID, item.procedure_id)
    found = await _telling(unit, foresight.asked("ServiceRequest", {"identifier": token}, _TELLING), data)
    procedures = [r for r in found if service_request.is_procedure(r) and not await _has_another_number(unit, item, r)]
    return [s for p in procedures for s in await task.steps_of(unit, p["id"])]


async def _telling(unit: UnitOfWork, by_id: Asked, data: Attributes) -> list[Resource]:
    """What has an id: the patient's, when many have it; nothing, when even the patient has many."""
    found = await unit.ask(by_id)
    if len(found) >= _TELLING:
        who = await patient(unit, data)
        of_patient = by_id._replace(parameters=(*by_id.parameters, ("patient", f"Patient/{who['id']}"))) if who else None
        found = await unit.ask(of_patient) if of_patient else []
    return found if len(found) < _TELLING else []


async def _sole(unit: UnitOfWork, found: list[Resource], data: Attributes) -> Resource | None:
    """The step of one requested procedure; of several, of the patient's; of these, the one that waits."""
    of_patient = [s for s in found if (who := await unit.get(s.get("for"))) and not contradictions(data, who)]
    for some in (found, of_patient, [s for s in of_patient if s["status"] in task.BEFORE_START]):
        if len(procedures_of(some)) == 1:
            return await _choose(unit, some, data)
    return None


async def _by_study(unit: UnitOfWork, item: ScheduledItem, *, grouped: bool) -> list[Resource]:
    """The requested procedures of the item's studies, but for those that another id of the item contradicts.

    In the group case several procedures go into one study: what was planned for this item tells more, and an item that names
    something else is not to vanish in the study of the others.
    """
    found: list[Resource] = []
    for uid in (*item.planned_studies, item.study_uid):
        study = await imaging_study.by_uid(unit, uid) if uid else None
        # Where step and procedure are named as well, the item's own study is to be believed before an accession number.
        outweighs = bool(item.step_id and item.procedure_id) and (uid in item.planned_studies or not grouped)
        for reference in (study or {}).get("basedOn", ()):
            procedure = await unit.get(reference)
            if procedure is None or not service_request.is_procedure(procedure) or await _contradicts(unit, item, procedure):
                continue
            if outweighs or not await _has_another_number(unit, item, procedure):
                found.append(procedure)
    return found


async def _contradicts(unit: UnitOfWork, item: ScheduledItem, procedure: Resource) -> bool:
    """Whether procedure or step id of the item say that it is another requested procedure than this."""
    if item.procedure_id and identifier_value(procedure, terms.REQUESTED_PROCEDURE_ID) != item.procedure_id:
        return True
    return bool(item.step_id) and not await _own_steps(unit, item, procedure)


async def _has_another_number(unit: UnitOfWork, item: ScheduledItem, procedure: Resource) -> bool:
    """Whether the item's accession number is another than that of procedure and order."""
    requests = (procedure, await service_request.order_of(unit, procedure)) if item.accession else ()
    numbers = {n for r in requests if r and (n := order_numbers.accession_number(r))}
    return bool(numbers) and item.accession not in numbers


async def _with_accession(unit: UnitOfWork, accession: str) -> list[Resource]:
    found: dict[str, Resource] = {}
    for request in await unit.search("ServiceRequest", identifier=escaped(accession)):
        if order_numbers.accession_number(request) != accession:
            continue
        procedures = (
            [request] if service_request.is_procedure(request) else await service_request.procedures_of(unit, request["id"])
        )
        found |= {p["id"]: p for p in procedures}
    return list(found.values())


async def _choose(unit: UnitOfWork, steps_: list[Resource], data: Attributes) -> Resource | None:
    """Of several steps of one requested procedure: one that waits before one that doesn't, and the one on this station."""
    station, modality = await device.by_ae_title(unit, text(data, "PerformedStationAETitle")), text(data, "Modality")
    owner = f"Device/{station['id']}" if station else None

    def order(step: Resource) -> tuple[bool, bool, bool, str]:
        waits = step["status"] in {"accepted", "ready"}
        here = step.get("owner", {}).get("reference") == owner
        return not waits, not here, task.modality(step) not in {None, modality}, step["id"]

    return min(steps_, key=order, default=None)


# Patient


async def patient(unit: UnitOfWork, data: Attributes) -> Resource | None:
    """The one active patient with the data set's Patient ID (and issuer, if it has one) whom nothing else in it contradicts."""
    if not (id_ := text(data, "PatientID")):
        return None
    candidates = await unit.search("Patient", identifier=escaped(id_))
    found = [c for c in candidates if c.get("active", True) and not contradictions(data, c)]
    return found[0] if len(found) == 1 else None


def contradictions(data: Attributes, known: Resource) -> list[str]:
    """What the data set says differently of the patient: `patient id`, `name`, `birth date`, `sex`. What it lacks is none."""
    found = []
    if text(data, "PatientID") and not any(_same_id(data, i) for i in known.get("identifier", ())):
        found.append("patient id")
    if name := patient_names.difference(text(data, "PatientName"), known):
        found.append(name)
    birth_date = known.get("birthDate", "").replace("-", "")
    if (
        text(data, "PatientBirthDate")
        and birth_date
        and not text(data, "PatientBirthDate").replace(".", "").startswith(birth_date)
    ):
        found.append("birth date")
    sex = _SEX.get(text(data, "PatientSex"))
    if sex and known.get("gender") in {"male", "female"} and known["gender"] != sex:
        found.append("sex")
    return found


def _same_id(data: Attributes, identifier: Resource) -> bool:
    """The same id; of the same issuer where both sides name theirs as the worklist does."""
    own = patient_id(identifier)
    if text(own, "PatientID") != text(data, "PatientID"):
        return False
    issuers = {text(data, "IssuerOfPatientID"), text(own, "IssuerOfPatientID")} - {""}
    return len(issuers) < 2 or text(data, "IssuerOfPatientID") in {identifier.get("system"), _oid(identifier)}


def _oid(identifier: Resource) -> str:
    return str(identifier.get("system", "")).removeprefix("urn:oid:")


def logical_patient(data: Attributes, display: str) -> Resource:
    """A reference to a patient that we don't know: by identifier, as the scanner has it (FHIR R4 2.3.0.2)."""
    found: Resource = {}
    if id_ := text(data, "PatientID"):
        found["identifier"] = {"value": id_}
        if system := values.identifier_system(text(data, "IssuerOfPatientID")):
            found["identifier"] = {"system": system, "value": id_}
        elif issuer := text(data, "IssuerOfPatientID"):
            found["identifier"]["assigner"] = {"display": issuer}
    found["display"] = display or "unknown patient"
    return found


def procedures_of(steps_: list[Resource]) -> list[str]:
    """The references to the steps' requested procedures, each once."""
    found = (target(s.get("focus")) for s in steps_)
    return list(dict.fromkeys(str(to) for to in found if to))


def _token(system: str, value: str) -> str:
    return f"{system}|{escaped(value)}"
