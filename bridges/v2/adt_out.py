"""Patient -> ADT^A08 and ADT^A40 (IHE RAD-12, ITI-30): who holds copies hears of other demographics, and of merges.

A08 when what identifies or describes a Patient has changed, by whatever door; A40 when a record was merged into another. Written
into the outbox for each Endpoint that wants it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final

from bridges.v2 import times
from bridges.v2.codes import ADDRESS_USE, TELECOM_USE
from bridges.v2.destination import Destination
from bridges.v2.mapping import Layout, Out, layout
from bridges.v2.message import Comp, Seg, encode
from bridges.v2.segments_out import msh, new_control_id, pid
from bridges.v2.systems import cx_of
from fhir_server import outbox
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


def _xad(address: dict[str, Any]) -> Comp:
    lines = address.get("line", [])
    return Comp(
        lines[0] if lines else "",
        " ".join(lines[1:]),
        address.get("city", ""),
        address.get("state", ""),
        address.get("postalCode", ""),
        address.get("country", ""),
        ADDRESS_USE.v2(address.get("use")),
    )


def _xtn(point: dict[str, Any]) -> Comp:
    value, system = point.get("value", ""), point.get("system")
    if system == "email":
        return Comp(None, "NET", "Internet", value)
    kind = "CP" if point.get("use") == "mobile" else {"fax": "FX", "pager": "BP"}.get(str(system), "PH")
    return Comp(value, "WPN" if point.get("use") == "work" else TELECOM_USE.v2(point.get("use"), "PRN"), kind)


def _telecoms(told: Told, *, work: bool) -> list[Comp]:
    return [_xtn(t) for t in told.patient.get("telecom", ()) if (t.get("use") == "work") == work and t.get("use") != "old"]


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


EVN: Layout[Told] = layout(
    "ADT -> EVN", "EVN",
    Out(1, "", lambda told, to: told.event if to.before("2.5") else "", "the trigger event, up to version 2.4"),
    Out(2, "meta.lastUpdated", lambda told, to: times.from_datetime(told.now.astimezone(to.zone))),
)  # fmt: skip
# What an ADT adds to the PID that every message has.
PID_MORE: Layout[Told] = layout(
    "Patient -> PID (in ADT, beside the fields of every message)", "PID",
    Out(11, "address", lambda told, _: [_xad(a) for a in told.patient.get("address", ()) if a.get("use") != "old"]),
    Out(13, "telecom", lambda told, _: _telecoms(told, work=False)),
    Out(14, "telecom", lambda told, _: _telecoms(told, work=True)),
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
        return [msh(to, f"ADT^{told.event}", structure, control_id, told.now), EVN.seg(told, to), whole, last]

    return write


async def forward(unit: UnitOfWork, changes: list[Change], zone: tzinfo) -> None:
    """Write the messages that these changes of Patients make due. `zone` is the department's."""
    due = await _due(unit, [c for c in changes if c.type == "Patient" and c.before is not None and c.after is not None])
    if not due:
        return
    endpoints = await unit.search("Endpoint", status="active", connection_type="hl7v2-mllp")
    for endpoint in sorted(endpoints, key=lambda e: str(e["id"])):
        to = Destination.of(endpoint, zone)
        for told in due:
            if (kind := f"ADT^{told.event}") in to.wants:
                control_id, patient = new_control_id(), f"Patient/{told.patient['id']}"
                message = encode(render(told)(to, control_id), to.charset)
                unit.send(outbox.Outbound(to.reference, kind, control_id, message, (patient,), patient))


async def _due(unit: UnitOfWork, changes: list[Change]) -> list[Told]:
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
