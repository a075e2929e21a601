"""ImagingStudy: the study to be, made with the requested procedure, filled by what the scanner performed."""

import re
import uuid

from fhir_server import foresight
from fhir_server.foresight import Asked
from fhir_server.outcome import fail
from fhir_server.references import ref
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import settling, task, terms
from resources.identifiers import token
from resources.lifecycle import check_status, check_unchanged, lifecycle
from resources.security_labels import labelled

STUDY = lifecycle(
    "ImagingStudy",
    "study",
    """
    from                         | to               | who                      | needs            | then
    new unknown                  | registered       | examiners; MPPS RIS      | a Study Instance |
                                 |                  |                          | UID of its own   |
    new registered unknown       | available        | examiners; PACS          | a Study Instance |
                                 |                  |                          | UID of its own   |
    available                    | registered       | examiners; PACS          |                  | the PACS has lost what it had
    registered available unknown | cancelled        | examiners; RIS           |                  |
    cancelled                    | registered       | examiners; MPPS PACS RIS |                  | it holds images after all
    *                            | entered-in-error | examiners                |                  |
    """,
)
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_root = ["2.25"]


def new_uid() -> str:
    """A Study Instance UID under RIS_UID_ROOT (PS3.5 B.2: a UUID as one decimal component)."""
    root = _root[0]
    number = str(uuid.uuid4().int)
    return f"{root}.{number}" if root == "2.25" else f"{root}.{number[: 63 - len(root)].lstrip('0') or '1'}"


def is_uid(text: str) -> bool:
    """Whether this is a DICOM UID: at most 64 digits and dots (PS3.5 9.1; leading zeros occur, though forbidden)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def study_uid(study: Resource) -> str | None:
    """The Study Instance UID, without `urn:oid:`."""
    for identifier in study.get("identifier", ()):
        if identifier.get("system") == terms.DICOM_UID:
            return str(identifier.get("value", "")).removeprefix("urn:oid:")
    return None


def registered(procedure: Resource, uid: str = "") -> Resource:
    """The study to be of a requested procedure; without a UID, it gets one when it is stored."""
    study: Resource = {
        "resourceType": "ImagingStudy",
        "status": "registered",
        "subject": procedure["subject"],
        "basedOn": [ref(procedure)],
    }
    if uid:
        study["identifier"] = [_identifier(uid)]
    if "encounter" in procedure:
        study["encounter"] = procedure["encounter"]
    if text := procedure.get("code", {}).get("text") or next(
        (c["display"] for c in procedure.get("code", {}).get("coding", ()) if "display" in c), None
    ):
        study["description"] = text
    return labelled(study, procedure)


async def by_uid(unit: UnitOfWork, uid: str) -> Resource | None:
    """The study with this Study Instance UID."""
    found = await unit.ask(asked(uid))
    return found[0] if found else None


def asked(uid: str) -> Asked:
    """What `by_uid` will ask for, for `View.foresee`."""
    return foresight.asked("ImagingStudy", {"identifier": token(terms.DICOM_UID, f"urn:oid:{uid}")})


async def of_procedure(unit: UnitOfWork, procedure_id: str) -> list[Resource]:
    """The studies of a requested procedure that aren't cancelled."""
    found = await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure_id}")
    return [s for s in found if s["status"] not in {"cancelled", "entered-in-error"}]


async def reopened(unit: UnitOfWork, study: Resource) -> Resource:
    """A study that was cancelled and holds images after all is to be again: what was planned doesn't undo what was done."""
    return await unit.update(study | {"status": "registered"}) if study["status"] == "cancelled" else study


async def drop_planned(unit: UnitOfWork, procedure_id: str, instead_of: Resource) -> None:
    """The images of a requested procedure went into another study than the planned: cancel that, unless a step waits for it."""
    if any(s["status"] in task.BEFORE_START for s in await task.steps_of(unit, procedure_id)):
        return
    for study in await of_procedure(unit, procedure_id):
        if study["id"] != instead_of["id"] and study["status"] == "registered" and "series" not in study:
            await unit.update(study | {"status": "cancelled"})


def _identifier(uid: str) -> Resource:
    return {"system": terms.DICOM_UID, "value": f"urn:oid:{uid}"}


async def check(unit: UnitOfWork, change: Change) -> None:
    """A Study Instance UID never changes and belongs to one study; the patient of a study never changes."""
    study = change.after
    if study is None:
        return
    await check_status(unit, change, STUDY)
    if not settling.under_way(unit):
        check_unchanged(change, "subject")
    uid = study_uid(study)
    had = study_uid(change.before) if change.before else None
    if had not in {None, uid}:
        raise fail("business-rule", "the Study Instance UID can't be changed", "ImagingStudy.identifier")
    if uid is None and study.get("status") == "registered" and "basedOn" in study:
        study["identifier"] = [_identifier(new_uid()), *study.get("identifier", ())]
    elif uid is not None and had is None:
        if not is_uid(uid):
            raise fail("value", "that is no DICOM UID", "ImagingStudy.identifier")
        await unit.lock(f"study:{uid}")
        other = await by_uid(unit, uid)
        if other is not None and other["id"] != change.id:
            raise fail(
                "duplicate",
                f"this Study Instance UID is that of {await unit.named('ImagingStudy', other['id'])}",
                "ImagingStudy.identifier",
            )


def register(registry: Registry, uid_root: str) -> None:
    _root[0] = uid_root
    registry.rule("ImagingStudy", check)
