"""Whom of ours a PID names, and what becomes of what it says: the master of identity is believed, others are compared with it."""

from typing import Any

from bridges.v2.concerned import about
from bridges.v2.message import Segment, is_null
from bridges.v2.pid_in import EXTENSIONS, RELIABILITY, map_patient, patient_identifiers
from bridges.v2.reception import Sender
from bridges.v2.refused import no_segment, wrong
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import identifiers
from resources import patient as patients
from resources.patient_identity import (
    IDENTITY,
    IDENTITY_CHANGED,
    differences,
    is_unknown,
    raise_mismatch,
    wholly_other,
)

__all__ = ["map_patient", "master", "named", "patient_identifiers", "required_pid"]


def required_pid(pid: Segment | None) -> Segment:
    """The PID, refused where there is none."""
    if pid is None:
        raise no_segment("PID", "the patient (PID)")
    return pid


# ADT


async def master(unit: UnitOfWork, pid: Segment, sender: Sender) -> Resource | None:
    """Store what an ADT says of a patient: a new Patient, or the known one brought up to date.

    A sender that isn't the master (`accept-identity: follow`) changes nothing of a known one; what differs becomes a work item.
    None: the identifier is now said to be of somebody wholly different, so nothing of the message may be attached to that
    patient before a person has looked (work item).
    """
    said = await map_patient(pid, sender)
    own = patient_identifiers(pid, sender)
    known = await patients.match(unit, own)
    if known is None:
        await patients.claim(unit, own)
        made = await unit.create(said)
        about(unit, made)
        return made
    about(unit, known)
    if not sender.partner.is_master:
        await _compare(unit, known, said, sender)
        return known
    differing = differences(known, said)
    if wholly_other(differing) and not is_unknown(said):
        source = f"An ADT message from {sender.application}"
        note = f"{IDENTITY_CHANGED}: somebody of another name and birth has this patient's identifier. Nothing was changed"
        await raise_mismatch(unit, known, differing, source, note=note)
        return None
    await patients.claim(unit, [i for i in own if not identifiers.carries(known, [i])])
    return await unit.update(_updated(known, said, pid))


# The Patient's elements, and the fields of PID that they come from: what `""` deletes.
_FIELDS: dict[str, tuple[int, ...]] = {
    "name": (5,),
    "gender": (8,),
    "birthDate": (7,),
    "_birthDate": (7,),
    "address": (11,),
    "maritalStatus": (16,),
    "communication": (15,),
    "multipleBirthBoolean": (24,),
    "multipleBirthInteger": (25,),
    "deceasedDateTime": (29,),
    "deceasedBoolean": (30,),
}
# Of each pair there is one.
_EITHER = (("deceasedDateTime", "deceasedBoolean"), ("multipleBirthInteger", "multipleBirthBoolean"))


def _updated(known: Resource, said: Resource, pid: Segment) -> Resource:
    """The known Patient with what the message says. An empty field changes nothing; `""` deletes (HL7 v2 2.5.3)."""
    updated = known | said
    for element, fields in _FIELDS.items():
        if any(is_null(pid, f) for f in fields):
            updated.pop(element, None)
    for pair in _EITHER:
        for one, other in (pair, pair[::-1]):
            if one in said:
                updated.pop(other, None)
    if "birthDate" in said and "_birthDate" not in said and said["birthDate"] != known.get("birthDate"):
        updated.pop("_birthDate", None)  # the time was of the other day
    updated["identifier"] = identifiers.learned(known.get("identifier", ()), said["identifier"])
    updated["telecom"] = _updated_telecoms(known.get("telecom", []), said.get("telecom", []), pid)
    updated["extension"] = _updated_extensions(known.get("extension", []), said.get("extension", []), pid)
    updated["meta"] = _updated_meta(known, said, pid)
    return {k: v for k, v in updated.items() if v not in ([], {})}


def _updated_telecoms(known: list[Any], said: list[Any], pid: Segment) -> list[Any]:
    """PID-13 (home) and PID-14 (work) change one without the other; PID-40 is all of them."""
    if pid.raw(40):
        return said
    spoken = {at_work for field, at_work in ((13, False), (14, True)) if pid.raw(field)}
    kept = [t for t in known if (t.get("use") == "work") not in spoken]
    return [*kept, *(t for t in said if t not in kept)]


def _updated_extensions(known: list[Any], said: list[Any], pid: Segment) -> list[Any]:
    spoken = {e["url"] for e in said} | {url for url, field in EXTENSIONS.items() if is_null(pid, field)}
    return [*(e for e in known if e["url"] not in spoken), *said]


def _updated_meta(known: Resource, said: Resource, pid: Segment) -> dict[str, Any]:
    """Labels and tags stay, but for those that PID-31 and PID-32 speak of."""
    spoken = {system for system, field in ((IDENTITY, 31), (RELIABILITY, 32)) if pid.raw(field)}
    tags = [t for t in known.get("meta", {}).get("tag", ()) if t.get("system") not in spoken]
    tags += [t for t in said.get("meta", {}).get("tag", ()) if t not in tags]
    rest = {k: v for k, v in known.get("meta", {}).items() if k != "tag"}
    return rest | ({"tag": tags} if tags else {})


# Everybody else


async def named(unit: UnitOfWork, pid: Segment | None, sender: Sender) -> Resource:
    """The Patient that an order names. Made when unknown; never overwritten: a contradiction becomes a work item."""
    segment = required_pid(pid)
    said = await map_patient(segment, sender)
    own = patient_identifiers(segment, sender)
    known = await patients.match(unit, own)
    if known is None:
        await patients.claim(unit, own)
        made = await unit.create(said)
        about(unit, made)
        return made
    if not known.get("active", True):
        raise wrong(segment, 3, "the record of this patient is not active", code=204)
    about(unit, known)
    await _compare(unit, known, said, sender)
    return known


async def _compare(unit: UnitOfWork, known: Resource, said: Resource, sender: Sender) -> None:
    """A work item for what contradicts the record, with each element and both values."""
    if is_unknown(said):
        return
    if differing := differences(known, said):
        await raise_mismatch(unit, known, differing, f"A message from {sender.application}")
