"""Patient -> ADT^A08 and ADT^A40 (IHE RAD-12, ITI-30): who holds copies hears of other demographics, and of merges.

A08 when what identifies or describes a Patient has changed, by whatever door; A40 when a record was merged into another. Written
into the outbox for each Endpoint that wants it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bridges.v2.destination import Destination
from bridges.v2.due import Context, Due
from bridges.v2.mapping import Layout, Out, layout
from bridges.v2.message import Seg
from bridges.v2.segments_out import evn, msh, pid
from bridges.v2.systems import cx_of
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.patient import merged_into

Render = Callable[[Destination, str], list[Seg]]
_TOLD: Final = (
    "identifier", "name", "birthDate", "gender", "address", "telecom", "maritalStatus", "communication", "deceasedBoolean",
    "deceasedDateTime", "multipleBirthBoolean", "multipleBirthInteger",
)  # fmt: skip
# The survivor of a merge gets these by the merge, which the A40 tells.
_MERGED: Final = frozenset({"identifier", "link"})


@dataclass(frozen=True, slots=True)
class Told:
    """What a message tells: the Patient, the record that was merged into it (A40), the event, and when it was recorded."""

    event: str
    patient: Resource
    prior: Resource | None
    now: datetime


def _code(concept: Resource | None) -> str:
    return next((str(c["code"]) for c in (concept or {}).get("coding", ()) if "code" in c), "")


def _language(told: Told) -> str:
    spoken: list[Resource] = told.patient.get("communication", [])
    return _code(spoken[0].get("language")) if spoken else ""


def _deceased(told: Told) -> str:
    if "deceasedDateTime" in told.patient:
        return "Y"
    dead = told.patient.get("deceasedBoolean")
    return "" if dead is None else "Y" if dead else "N"


# What an ADT adds to the PID that every message has.
PID_MORE: Layout[Told] = layout(
    "Patient -> PID (in ADT, beside the fields of every message)", "PID",
    Out(15, "communication.language", lambda told, _: _language(told)),
    Out(16, "maritalStatus", lambda told, _: _code(told.patient.get("maritalStatus"))),
    Out(29, "deceasedDateTime", lambda told, to: to.time(told.patient.get("deceasedDateTime"))),
    Out(30, "deceasedBoolean", lambda told, _: _deceased(told)),
)  # fmt: skip
MRG: Layout[Told] = layout(
    "Patient -> MRG", "MRG",
    Out(1, "identifier", lambda told, _: _prior_identifiers(told), "those that the prior record had, not its old ones", "R"),
    Out(7, "name", lambda told, to: pid(told.prior, to).fields.get(5) if told.prior else None),
)  # fmt: skip


def _prior_identifiers(told: Told) -> list[Any]:
    """Those that went with the prior record: what the survivor has as its own identifier now, is merged into nothing."""
    kept = {(i.get("system"), i.get("value")) for i in told.patient.get("identifier", ()) if i.get("use") != "old"}
    usable = [i for i in (told.prior or {}).get("identifier", ()) if "value" in i and i.get("use") != "old"]
    return [cx_of(i) for i in usable if (i.get("system"), i["value"]) not in kept] or [cx_of(i) for i in usable]


def render(told: Told) -> Render:
    """ADT^A08 (MSH EVN PID PV1) or ADT^A40 (MSH EVN PID MRG)."""

    def write(to: Destination, control_id: str) -> list[Seg]:
        structure = "ADT_A39" if told.event == "A40" else "ADT_A01"
        whole = Seg("PID", {**pid(told.patient, to).fields, **PID_MORE.seg(told, to).fields})
        last = MRG.seg(told, to) if told.event == "A40" else Seg("PV1", {1: 1, 2: "N"})
        return [
            msh(to, f"ADT^{told.event}", structure, control_id, told.now),
            evn(to, f"ADT^{told.event}", told.now),
            whole,
            last,
        ]

    return write


async def of_patients(context: Context) -> list[Due]:
    """The messages that the changes of Patients make due."""
    if not context.wanted("ADT^A08", "ADT^A40"):
        return []
    changes = [c for c in context.changes if c.type == "Patient" and c.before is not None and c.after is not None]
    told = await _told(context.unit, changes)
    patients = [f"Patient/{t.patient['id']}" for t in told]
    others = context.unless_told_by()
    return [Due(f"ADT^{t.event}", render(t), (patient,), patient, others) for t, patient in zip(told, patients, strict=True)]


async def _told(unit: UnitOfWork, changes: list[Change]) -> list[Told]:
    """The merges, then the other changes: who hears of both gets them in an order that makes sense."""
    merges: list[Told] = []
    updates: list[Told] = []
    survivors: set[str] = set()
    for change in changes:
        before, after = change.before or {}, change.after or {}
        into = merged_into(after)
        if into and into != merged_into(before) and (survivor := await unit.get(into)) is not None:
            merges.append(Told("A40", survivor, before, unit.now))
            survivors.add(change.id)
            survivors.add(survivor["id"])
    for change in changes:
        told = [e for e in _TOLD if change.id not in survivors or e not in _MERGED]
        before, after = change.before or {}, change.after or {}
        if not merged_into(after) and any(before.get(e) != after.get(e) for e in told):
            updates.append(Told("A08", after, None, unit.now))
    return [*merges, *updates]
