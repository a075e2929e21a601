"""What is picked, and is shown beside the board: orders, or a booking."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from console.asking import Found
from console.formats import concept, human_name
from console.screens.schedule.asked import Asked
from console.screens.schedule.board import what
from console.screens.schedule.waiting import wish
from console.visit import Visit
from fhir_server.elements import extension
from fhir_server.outcome import FhirError
from fhir_server.references import target
from fhir_server.registry import Resource
from resources import appointment, task
from resources.device import name as device_name
from resources.scheduling import bookings, occupancy
from resources.scheduling.finding import VISIT

_OPEN: Final = "pending,booked,arrived,checked-in,waitlist"


@dataclass(slots=True)
class Order:
    """An order that is to be booked, and what it has been booked as already."""

    id: str
    what: str
    status: str
    priority: str
    reason: str
    instruction: str
    wish: str | None
    patient: str
    modalities: list[str] = field(default_factory=list)
    booked: list[Resource] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders of a patient, and `others` of the same that wait: (id, what)."""

    patient: Resource
    rows: list[Order]
    others: list[tuple[str, str]]

    @property
    def modalities(self) -> list[str]:
        return sorted({m for row in self.rows for m in row.modalities})

    @property
    def listed(self) -> bool:
        """Whether one of them is on the waiting list."""
        return any(b["status"] == "waitlist" for row in self.rows for b in row.booked)


@dataclass(frozen=True, slots=True)
class Booked:
    """A booking with what people want to know of it."""

    resource: Resource
    patient: Resource
    orders: list[Resource]
    what: str
    modalities: list[str]
    where: str
    people: str
    by: str
    held_until: str | None
    overbooked: str
    visit: bool
    device: str

    @property
    def status(self) -> str:
        return str(self.resource["status"])


async def orders(visit: Visit, asked: Asked) -> Orders | None:
    """The orders that are picked; None for none. Those that this person can't see are left out."""
    if not asked.orders:
        return None
    desk, of = visit.desk, ",".join(f"ServiceRequest/{id_}" for id_ in asked.orders)
    found, procedures, booked = await desk.together(
        desk.search("ServiceRequest", _id=",".join(asked.orders), _include="ServiceRequest:patient"),
        desk.search("ServiceRequest", based_on=of, intent="filler-order", _revinclude="Task:focus"),
        desk.search("Appointment", based_on=of, status=_OPEN),
    )
    by_id = {o["id"]: o for o in found}
    rows = [_order(by_id[id_], procedures, booked) for id_ in asked.orders if id_ in by_id]
    if not rows:
        return None
    whose = rows[0].patient
    return Orders(found.of(whose) or {}, rows, await _others(visit, whose, asked))


def _order(one: Resource, procedures: Found, booked: Found) -> Order:
    own = {f"ServiceRequest/{p['id']}" for p in procedures if f"ServiceRequest/{one['id']}" in _based_on(p)}
    steps = [s for s in procedures.included("Task") if task.is_step(s) and s.get("focus", {}).get("reference") in own]
    row = Order(
        one["id"],
        concept(one.get("code")),
        one["status"],
        one.get("priority", "routine"),
        ", ".join(concept(r) for r in one.get("reasonCode", ())),
        one.get("patientInstruction", ""),
        wish(one),
        one["subject"]["reference"],
    )
    row.modalities = sorted({m for s in steps if (m := task.modality(s))})
    row.booked = [b for b in booked if f"ServiceRequest/{one['id']}" in _based_on(b)]
    return row


def _based_on(one: Resource) -> list[str]:
    return [r.get("reference", "") for r in one.get("basedOn", ())]


async def _others(visit: Visit, whose: str, asked: Asked) -> list[tuple[str, str]]:
    """Other orders of the patient with a step that waits: they may be done in the same visit."""
    steps = await visit.desk.search("Task", patient=whose, intent="plan", status="requested", _include="Task:focus", _count="20")
    found: dict[str, str] = {}
    for step in steps:
        order = next((to.id for r in _based_on(steps.of(step.get("focus")) or {}) if (to := target(r))), "")
        if order and order not in asked.orders:
            found.setdefault(order, concept(step.get("code")))
    return list(found.items())


async def booking(visit: Visit, asked: Asked) -> Booked | None:
    """The booking that is picked; None for none, or for one that this person can't see."""
    if not asked.booking:
        return None
    found = await visit.desk.search("Appointment", _id=asked.booking, _include=["Appointment:actor", "Appointment:based-on"])
    if not found.matches:
        return None
    (one,) = found.matches
    of = [o for r in one.get("basedOn", ()) if (o := found.of(r))]
    stations = appointment.stations(one)
    others = [a for a in occupancy.takes(one) if a not in stations] + appointment.participants(one, "Location")
    patient = next((found.of(p) for p in appointment.participants(one, "Patient")), None)
    return Booked(
        one,
        patient or {},
        of,
        what(one, of),
        sorted({c["code"] for s in stations for c in (found.of(s) or {}).get("type", {}).get("coding", ()) if "code" in c}),
        ", ".join(_named(found.of(s), s) for s in stations),
        ", ".join(_named(found.of(a), a) for a in others),
        await _by(visit, one),
        (extension(one, occupancy.HOLD_UNTIL) or {}).get("valueInstant"),
        (extension(one, occupancy.OVERBOOKED) or {}).get("valueString", ""),
        any(i.get("system") == VISIT for i in one.get("identifier", ())),
        next((to.id for s in stations if (to := target(s))), ""),
    )


def _named(found: Resource | None, otherwise: str) -> str:
    if found is None:
        return otherwise
    if found["resourceType"] == "Device":
        return device_name(found)
    name = found.get("name")
    return name if isinstance(name, str) else human_name(found) if name else otherwise


async def _by(visit: Visit, one: Resource) -> str:
    """Who booked it, by name."""
    said = (extension(one, bookings.BOOKED_BY) or {}).get("valueReference")
    if not said:
        return ""
    try:
        return human_name(await visit.desk.read(said["reference"])) if "reference" in said else str(said.get("display", ""))
    except FhirError:
        return str(said.get("display", ""))


async def holder(visit: Visit) -> Booked | None:
    """Who has the time that somebody came too late for: the booking that the refusal names, as far as this person sees it."""
    if visit.status != HTTPStatus.CONFLICT:
        return None
    words = (word.strip(".,;:()") for issue in visit.errors for word in issue.diagnostics.split())
    named = next((to for word in words if (to := target(word)) and to.type == "Appointment"), None)
    return await booking(visit, Asked(visit.today, booking=named.id)) if named else None
