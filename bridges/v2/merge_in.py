"""ADT^A40 (merge patient) and A47 (change patient identifier list): PID with MRG (HL7 v2.5.1 3.3.40, 3.3.47; IHE RAD-12)."""

from dataclasses import dataclass

from bridges.v2.concerned import about
from bridges.v2.message import Message, Segment
from bridges.v2.patient_in import map_patient, patient_identifiers
from bridges.v2.pid_in import identifiers_in
from bridges.v2.reception import Reception, Reply
from bridges.v2.refused import Refused, missing, no_segment, wrong
from fhir_server.elements import concept
from fhir_server.references import ref
from fhir_server.registry import Resource
from resources import identifiers, patient_identity, patient_merge, terms, work_items
from resources import patient as patients

Group = tuple[Segment, Segment]


def groups(message: Message) -> list[Group]:
    """Each PID with its MRG. MRG comes after PID; a sender that turns them round is understood where there is one of each."""
    pids, mrgs = message.all("PID"), message.all("MRG")
    if not pids:
        raise no_segment("PID", "the patient who stays (PID)")
    if len(pids) == len(mrgs) == 1:
        return [(pids[0], mrgs[0])]
    found: list[Group] = []
    pid: Segment | None = None
    for segment in message.segments:
        if segment.name == "PID":
            if pid is not None:
                raise _no_mrg(pid)
            pid = segment
        elif segment.name == "MRG":
            if pid is None:
                raise no_segment("PID", "the patient who stays (PID), before its MRG", segment.number)
            found.append((pid, segment))
            pid = None
    if pid is not None:
        raise _no_mrg(pid)
    return found


def _no_mrg(pid: Segment) -> Refused:
    return no_segment("MRG", "the record that is merged (MRG)", pid.number)


async def receive_merge(reception: Reception) -> Reply | None:
    """A40: each prior record is merged into the one of its PID. All groups of the message or none."""
    for pid, mrg in groups(reception.message):
        if reception.sender.partner.is_master:
            if await _merge(reception, pid, mrg):
                reception.afterwards.append(patient_merge.finish)
        else:
            await _ask(reception, pid, mrg)
    return None


@dataclass(frozen=True, slots=True)
class _Prior:
    """What MRG-1 names: a record to be merged, one that was merged already, or the one that has its identifier as an old one."""

    active: Resource | None = None
    merged: Resource | None = None
    holder: Resource | None = None


async def _merge(reception: Reception, pid: Segment, mrg: Segment) -> bool:
    """Merge one prior record; whether there is more to be done than this transaction holds."""
    unit, sender = reception.unit, reception.sender
    retired = _prior_identifiers(reception, mrg)
    own = [i for i in patient_identifiers(pid, sender) if not identifiers.carries({"identifier": retired}, [i])]
    if not own:
        raise wrong(mrg, 1, "the record is to be merged into itself", code=205)
    prior = await _prior(reception, mrg, retired)
    if prior.merged is not None:
        return await _again(reception, pid, mrg, prior.merged, own)
    # What PID lists of the prior record's is the survivor's from now on; it doesn't say who that is.
    of_survivor = [i for i in own if prior.active is None or not identifiers.carries(prior.active, [i])]
    survivor = await patients.match(unit, of_survivor or own)
    if survivor is not None and not survivor.get("active", True):
        raise wrong(pid, 3, "the record of this patient is not active", code=204)
    if prior.holder is not None and (survivor is None or survivor["id"] != prior.holder["id"]):
        raise wrong(mrg, 1, "the record was merged already, into another", code=204)
    await patients.claim(unit, [*own, *retired])
    if survivor is None:
        survivor = await unit.create(await map_patient(pid, sender))
    about(unit, survivor)
    if prior.active is None or prior.active["id"] == survivor["id"]:
        # Nothing of ours is to be merged; the old identifier is known from now on.
        await unit.update(survivor | {"identifier": _retired(survivor, own, retired)})
        return False
    about(unit, prior.active)
    known = identifiers.learned(survivor.get("identifier", ()), own)
    more = await patient_merge.merge(unit, survivor | {"identifier": known}, prior.active, retired)
    await _show_doubt(reception, survivor, prior.active)
    return more


async def _show_doubt(reception: Reception, survivor: Resource, prior: Resource) -> None:
    """A work item where the two that were merged have nothing of a person in common."""
    differing = patient_identity.differences(survivor, prior)
    if patient_identity.wholly_other(differing) and not patient_identity.is_unknown(prior):
        note = f"{reception.sender.application} has merged two records that differ in name and date of birth"
        present = await reception.unit.read("Patient", survivor["id"]) or survivor
        await patient_identity.raise_mismatch(reception.unit, present, differing, "The merged record", note=note)


def _prior_identifiers(reception: Reception, mrg: Segment) -> list[Resource]:
    found = identifiers_in(mrg, 1, reception.sender)
    if not found:
        raise missing(mrg, 1, "the identifier of the record that is merged")
    return found


async def _prior(reception: Reception, mrg: Segment, retired: list[Resource]) -> _Prior:
    """What MRG-1 names. Refused where it is several, or a record that isn't active."""
    carriers = await identifiers.carriers(reception.unit, "Patient", retired)
    named = [p for p in carriers if patients.names_now(p, retired)]
    active = [p for p in named if p.get("active", True)]
    if len(active) > 1:
        raise wrong(mrg, 1, "these identifiers belong to different patients", code=205)
    merged = next((p for p in named if patients.merged_into(p)), None)
    if named and not active and merged is None:
        raise wrong(mrg, 1, "the record that is to be merged is not active", code=204)
    if active:
        return _Prior(active=active[0])
    return _Prior(merged=merged, holder=None if named else next((p for p in carriers if p.get("active", True)), None))


async def _again(reception: Reception, pid: Segment, mrg: Segment, merged: Resource, own: list[Resource]) -> bool:
    """The prior record was merged already: into this patient, and nothing changes, or into another, and that is refused."""
    if identifiers.carries({"identifier": _present(merged)}, own):
        raise wrong(pid, 3, "the record that is to stay was merged into the one that is to go", code=204)
    for following in await patients.successors(reception.unit, merged):
        if identifiers.carries({"identifier": _present(following)}, own):
            about(reception.unit, following, merged)
            return await patient_merge.sweep(reception.unit, merged)
    raise wrong(mrg, 1, "the record was merged already, into another", code=204)


def _present(patient: Resource) -> list[Resource]:
    return [i for i in patient.get("identifier", ()) if i.get("use") != "old"]


def _retired(survivor: Resource, own: list[Resource], retired: list[Resource]) -> list[Resource]:
    """The survivor's identifiers with its own as they are, and the retired ones as old."""
    known = identifiers.learned(survivor.get("identifier", ()), own)
    kept = [i | {"use": "old"} if identifiers.carries({"identifier": retired}, [i]) else i for i in known]
    return [*kept, *(i | {"use": "old"} for i in retired if not identifiers.carries({"identifier": kept}, [i]))]


async def _ask(reception: Reception, pid: Segment, mrg: Segment) -> None:
    """A merge by somebody who isn't the master of identity: a person decides."""
    unit, sender = reception.unit, reception.sender
    retired = _prior_identifiers(reception, mrg)
    prior = (await _prior(reception, mrg, retired)).active
    stays = await patients.match(unit, patient_identifiers(pid, sender))
    about(unit, *(p for p in (stays, prior) if p is not None))
    if prior is None or stays is None or prior["id"] == stays["id"]:
        return
    text = (
        f"{sender.application} says that this record and Patient/{prior['id']} are of one patient. It is not the master of "
        "identity, so nothing was merged"
    )
    reference = f"Patient/{stays['id']}"
    other = {"type": concept(terms.TASK_DETAIL, "candidate"), "valueReference": ref(prior)}
    await work_items.open_work_item(unit, patient_identity.MISMATCH, text, about=reference, patient=reference, details=[other])


async def receive_identifier_change(reception: Reception) -> Reply | None:
    """A47: the identifiers of MRG-1 are replaced by those of PID-3; it stays one record."""
    unit, sender = reception.unit, reception.sender
    for pid, mrg in groups(reception.message):
        retired = _prior_identifiers(reception, mrg)
        own = [i for i in patient_identifiers(pid, sender) if not identifiers.carries({"identifier": retired}, [i])]
        if not own:
            raise wrong(mrg, 1, "the identifier is to be replaced by itself", code=205)
        if not sender.partner.is_master:
            await _ask(reception, pid, mrg)
            continue
        prior = await _prior(reception, mrg, retired)
        new = await patients.match(unit, own)
        if prior.merged is not None:
            raise wrong(mrg, 1, "the record with this identifier was merged into another", code=204)
        record = prior.active or prior.holder
        if record is not None and new is not None and record["id"] != new["id"]:
            raise wrong(pid, 3, "the new identifier is another patient's: that would be a merge (A40)", code=205)
        await patients.claim(unit, [*own, *retired])
        record = record or new or await unit.create(await map_patient(pid, sender))
        about(unit, record)
        await unit.update(record | {"identifier": _retired(record, own, retired)})
    return None
