"""Whose time a booking takes: no scanner and no person is had twice, and the slots show it.

Every door's bookings are judged here, by the rule of Appointment. Two that want the same time meet at the lock of the scanner or
person: one commits, the other begins again and finds the time taken.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from fhir_server import clock
from fhir_server.elements import extension, has_code
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.search import dates
from fhir_server.unit_of_work import UnitOfWork
from resources.scheduling import schedules
from resources.scheduling.hours import Interval, overlap

HOLDS_TIME: Final = frozenset({"booked", "arrived", "checked-in", "pending"})
# No examination takes longer; it bounds the search for overlapping bookings and slots.
LONGEST: Final = timedelta(hours=24)
HOLD_UNTIL: Final = "urn:fhir-ris:hold-until"  # extension on Appointment (instant): when a hold ends
OVERBOOKED: Final = "urn:fhir-ris:overbooked"  # extension on Appointment (string): why it is one more than there is time for
GENERATED: Final = {"system": "urn:fhir-ris:slot", "code": "generated"}
PARTICIPANT: Final = "urn:fhir-ris:participant"
EQUIPMENT: Final = "equipment"  # Appointment.participant.type: a Device that is needed beside the scanner
_TAKEN: Final = schedules.BOOKABLE | {"PractitionerRole"}
_V3_PARTICIPATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"


def takes(appointment: Resource) -> list[str]:
    """The Devices, Practitioners and PractitionerRoles whose time it takes; not who has declined, or is only told."""
    found = []
    for participant in appointment.get("participant", ()):
        actor = target(participant.get("actor"))
        told = participant.get("required") == "information-only" or has_code(participant.get("type"), _V3_PARTICIPATION, "REF")
        if actor and actor.type in _TAKEN and not told and participant.get("status") != "declined":
            found.append(str(actor))
    return found


async def taken(unit: UnitOfWork, appointment: Resource) -> list[str]:
    """The same, with the person whom a PractitionerRole is of."""
    found = []
    for actor in takes(appointment):
        person = target((await unit.get(actor) or {}).get("practitioner")) if actor.startswith("PractitionerRole/") else None
        found.append(str(person) if person else actor)
    return list(dict.fromkeys(found))


def interval(element: Resource) -> Interval:
    """Start and end of a booking or a slot."""
    return dates.moment(element["start"]), dates.moment(element["end"])


def lock_of(actor: str) -> str:
    """The name of the lock that whoever books this scanner or person takes."""
    return f"station:{actor}"


async def holders(unit: UnitOfWork, actor: str, when: Interval, besides: str = "") -> list[Resource]:
    """The bookings and holds that take this time of a scanner or a person."""
    names = await schedules.names_of(unit, actor)
    parameters = [("actor", ",".join(names)), ("status", ",".join(sorted(HOLDS_TIME)))]
    parameters += [("date", f"ge{clock.instant(when[0] - LONGEST)}"), ("date", f"lt{clock.instant(when[1])}")]
    found = await unit.search_all("Appointment", parameters)
    return [a for a in found if a["id"] != besides and not set(names).isdisjoint(takes(a)) and overlap(interval(a), when)]


async def require_free(unit: UnitOfWork, own_id: str, appointment: Resource) -> None:
    """Refuse a booking whose scanner or person somebody else has at that time. FhirError `conflict`."""
    when = interval(appointment)
    actors = await taken(unit, appointment)
    for actor in actors:
        others = [other for other in await holders(unit, actor, when, own_id) if not await _ended(unit, other)]
        if others and not await _may_overbook(unit, actor, appointment, _most_at_once(others, when)):
            name = await unit.named("Appointment", others[0]["id"])
            raise fail("conflict", f"{actor} is taken at that time by {name}", "Appointment.start")
    # Whoever books meanwhile, meets us here; what they did before is seen above.
    await unit.lock(*(lock_of(actor) for actor in actors))


def _most_at_once(others: list[Resource], when: Interval) -> int:
    """How many of these there are at one time within this one."""
    spans = [interval(other) for other in others]
    begins = [max(start, when[0]) for start, _ in spans]
    return max(sum(start <= moment < end for start, end in spans) for moment in begins)


async def _ended(unit: UnitOfWork, other: Resource) -> bool:
    """Whether it is a hold whose time is over; it is then ended."""
    if not hold_is_over(other, unit.now):
        return False
    await unit.update(let_go(other))
    return True


def hold_is_over(appointment: Resource, now: datetime) -> bool:
    until = (extension(appointment, HOLD_UNTIL) or {}).get("valueInstant")
    return appointment["status"] == "pending" and until is not None and dates.moment(until) <= now


def let_go(hold: Resource) -> Resource:
    """The hold, ended."""
    return hold | {"status": "cancelled", "cancelationReason": {"text": "The hold was not booked in its time"}}


async def _may_overbook(unit: UnitOfWork, actor: str, appointment: Resource, others: int) -> bool:
    """Whether one of its Schedules allows so many others, and a reason is given. FhirError `forbidden` for roles that may not."""
    if extension(appointment, OVERBOOKED) is None:
        return False
    allowed = [rule for s in await schedules.of_actor(unit, actor) if (rule := schedules.overbooking(s)) and rule.count >= others]
    if not allowed:
        return False
    role = unit.access.role if unit.access.person else schedules.SYSTEM
    if not any(role in rule.roles for rule in allowed):
        raise fail("forbidden", f"{actor} may be overbooked by: {', '.join(sorted({r for a in allowed for r in a.roles}))}")
    return True


# Slots


async def mark_slots(unit: UnitOfWork, before: Resource | None, appointment: Resource) -> None:
    """The slots of what it takes become busy, those that it leaves free again. What has taken place keeps its slots."""
    if appointment["status"] == "fulfilled" or _takes_the_same(before, appointment):
        return
    had = await _slots(unit, before) if before and before.get("status") in HOLDS_TIME else {}
    has = await _slots(unit, appointment) if appointment.get("status") in HOLDS_TIME else {}
    becomes = "busy-tentative" if appointment["status"] == "pending" else "busy"
    for id_, slot in sorted(has.items()):
        if id_ not in had:
            await _require_open(unit, appointment, slot)
        if slot["status"] in {"free", "busy", "busy-tentative"} and slot["status"] != becomes:
            await unit.update(slot | {"status": becomes})
    left = {id_: slot for id_, slot in had.items() if id_ not in has and slot["status"] in {"busy", "busy-tentative"}}
    if left and before:
        others = await _others(unit, before, appointment["id"], left)
        for slot in left.values():
            if not any(overlap(other, interval(slot)) for other in others):
                await unit.update(slot | {"status": "free"})


def _takes_the_same(before: Resource | None, appointment: Resource) -> bool:
    """Whether nothing about what it takes has changed, as when its patient arrives."""
    if before is None or not {before["status"], appointment["status"]} <= HOLDS_TIME:
        return False
    held = (before["status"] == "pending") == (appointment["status"] == "pending")
    return held and all(before.get(e) == appointment.get(e) for e in ("start", "end", "participant", "slot"))


async def _slots(unit: UnitOfWork, appointment: Resource) -> dict[str, Resource]:
    """By id: those that it names, and those of the Schedules of what it takes, at its time."""
    named = [to for r in appointment.get("slot", ()) if (to := target(r)) and to.type == "Slot"]
    found = {to.id: slot for to in named if (slot := await unit.read("Slot", to.id))}
    if actors := await taken(unit, appointment):
        whose = [s["id"] for actor in actors for s in await schedules.of_actor(unit, actor)]
        found |= {slot["id"]: slot for slot in await slots_between(unit, whose, interval(appointment))}
    return found


async def slots_between(unit: UnitOfWork, schedule_ids: Iterable[str], when: Interval) -> list[Resource]:
    """The slots of these Schedules that this time touches, whatever their status, as this transaction sees them."""
    of = [f"Schedule/{id_}" for id_ in schedule_ids]
    if not of:
        return []
    await unit.flush()
    where = {
        "resource.schedule.reference": {"$in": of},
        "resource.status": {"$in": ["free", "busy", "busy-tentative", "busy-unavailable"]},
        "search.d.start.s": {"$gt": clock.naive(when[0] - LONGEST), "$lt": clock.naive(when[1])},
    }
    ids = [d["_id"] async for d in unit.db["Slot"].find(where, {"_id": 1}, session=unit.session)]
    found = [slot for id_ in ids if (slot := await unit.read("Slot", id_))]
    return [slot for slot in found if overlap(interval(slot), when)]


def is_generated(slot: Resource) -> bool:
    return GENERATED in slot.get("meta", {}).get("tag", ())


async def _require_open(unit: UnitOfWork, appointment: Resource, slot: Resource) -> None:
    """A slot that it comes to take is not closed or had by somebody else. FhirError `conflict`."""
    named = any(r.get("reference") == f"Slot/{slot['id']}" for r in appointment.get("slot", ()))
    status = slot["status"]
    # By whom a scanner is had is judged by its bookings, which need not keep to the hours; what a person has closed, is closed.
    closed = status == "busy-unavailable" and not is_generated(slot)
    if status == "free" or not (named or closed) or (extension(appointment, OVERBOOKED) and not closed):
        return
    if status == "busy-tentative" and not await _others(unit, appointment, appointment["id"], {slot["id"]: slot}):
        return
    raise fail("conflict", f"Slot/{slot['id']} is {status}", "Appointment.slot")


async def _others(unit: UnitOfWork, appointment: Resource, own_id: str, slots: dict[str, Resource]) -> list[Interval]:
    """When others have what this booking has: its scanner and people, or one of these slots."""
    found = [o for actor in await taken(unit, appointment) for o in await holders(unit, actor, interval(appointment), own_id)]
    wanted = ",".join(f"Slot/{id_}" for id_ in sorted(slots))
    found += [a for a in await unit.search("Appointment", slot=wanted, status=",".join(sorted(HOLDS_TIME))) if a["id"] != own_id]
    return [interval(a) for a in found]
