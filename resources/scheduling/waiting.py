"""The waiting list: Appointments in status `waitlist`, each for an order that wants a time.

They are made by people (POST), when a booking is cancelled and the patient still wants one, and when an urgent one takes a
booking's place. Once the order is booked, its entries are over.
"""

from typing import Final

from fhir_server import clock
from fhir_server.elements import concept
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.search.index import RANK
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, work_items
from resources.scheduling import occupancy
from resources.security_labels import labelled

CANCELLATION: Final = "urn:fhir-ris:cancellation"  # code system of Appointment.cancelationReason
DISPLACED: Final = "displaced-booking"
OUTSIDE_HOURS: Final = "booked-outside-hours"
# What an entry takes over from the booking that it is for.
_KEPT: Final = (
    "resourceType serviceCategory serviceType specialty appointmentType reasonCode reasonReference priority description "
    "supportingInformation patientInstruction basedOn"
).split()


async def enlist(unit: UnitOfWork, booking: Resource, comment: str) -> Resource:
    """An entry of the list for what a booking was for."""
    kept = {element: booking[element] for element in _KEPT if element in booking}
    people = [
        p | {"status": "needs-action"}
        for p in booking["participant"]
        if appointment.participants({"participant": [p]}, "Patient")
    ]
    wish = {"requestedPeriod": [{"start": clock.instant(unit.now)}]} | kept
    entry = wish | {"status": "waitlist", "participant": people or booking["participant"], "created": clock.instant(unit.now)}
    return await unit.create(labelled(entry | {"comment": comment}, booking))


def cancelled(booking: Resource, code: str, reason: str) -> Resource:
    """The booking, cancelled for a reason (`patient`, `displaced`, `booked`, ...)."""
    return booking | {"status": "cancelled", "cancelationReason": concept(CANCELLATION, code) | {"text": reason}}


async def displace(unit: UnitOfWork, urgent: Resource, reason: str) -> list[Resource]:
    """Make room for an urgent booking: what has its time goes back to the list, with a work item; the entries of the list.

    FhirError `conflict` when something there isn't less urgent, or its patient has come.
    """
    rank = await _rank(unit, urgent)
    found: dict[str, Resource] = {}
    for actor in await occupancy.taken(unit, urgent):
        for other in await occupancy.holders(unit, actor, occupancy.interval(urgent), urgent.get("id", "")):
            if occupancy.hold_is_over(other, unit.now):
                continue  # whoever books the time, ends it
            if other["status"] not in {"booked", "pending"} or await _rank(unit, other) >= rank:
                name = await unit.named("Appointment", other["id"])
                raise fail("conflict", f"{name} has that time, and isn't less urgent or has begun", "Appointment.start")
            found[other["id"]] = other
    entries = []
    for other in found.values():
        await unit.update(cancelled(other, "displaced", reason))
        if other["status"] == "booked":
            entries.append(await _listed(unit, other))
    return entries


async def _listed(unit: UnitOfWork, other: Resource) -> Resource:
    entry = await enlist(unit, other, f"Was booked for {other['start']}, and gave way to an urgent examination")
    patient = next(iter(appointment.participants(other, "Patient")), None)
    about = f"Appointment/{entry['id']}"
    text = "A booking gave way to an urgent examination. The patient is to be told, and a new time to be found."
    await work_items.raise_once(unit, DISPLACED, about, text, about=about, patient=patient)
    return entry


async def _rank(unit: UnitOfWork, booking: Resource) -> int:
    """The urgency of the most urgent of its orders."""
    found = [await unit.read("ServiceRequest", id_) or {} for id_ in appointment.orders(booking)]
    return max((RANK[order.get("priority", "routine")] for order in found), default=0)


async def follow(unit: UnitOfWork, change: Change) -> None:
    """An order that is booked waits no longer; nor does anybody have to look after an entry that is over."""
    after = change.after
    if after is None:
        return
    if appointment.is_booked(after) and not appointment.is_booked(change.before):
        for order_id in appointment.orders(after):
            for entry in await unit.search("Appointment", based_on=f"ServiceRequest/{order_id}", status="waitlist"):
                if entry["id"] != change.id:
                    await unit.update(cancelled(entry, "booked", "The order is booked"))
    if change.before is not None and change.before.get("status") == "waitlist" != after.get("status"):
        await work_items.close(unit, DISPLACED, f"Appointment/{change.id}", "The order has a new time, or needs none")
    if change.before is not None and appointment.place(change.before) not in {None, appointment.place(after)}:
        await work_items.close(unit, OUTSIDE_HOURS, f"Appointment/{change.id}", "The booking was moved, or is over")


def register(registry: Registry) -> None:
    registry.reaction("Appointment", follow)
