"""What a patient's orders need: how long, which scanners, which people and equipment, as the catalogue says.

The catalogue entry (ActivityDefinition) of a procedure says it in R4's own elements:

    timingDuration                     how long it takes
    location                           where: the Device's location, or one that this is part of
    participant, type practitioner     somebody with this `role` (PractitionerRole.code)
    participant, type device           equipment beside the scanner: a Device whose `type` is this `role`
    extension preparation-time         how long before it the patient must know (not for stat orders)

What one scanner does in one go is one need: the waiting steps of an order with the same modalities. Steps of one requested
procedure with several modalities (PET and CT) are done at the same time, on one scanner that does all or on several.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from fhir_server.elements import codings
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, service_request, task

Code = tuple[str, str]  # system, code


@dataclass(frozen=True, slots=True)
class Need:
    """One examination to be placed."""

    length: timedelta
    modalities: frozenset[str]
    order: str | None = None  # ServiceRequest id
    code: dict[str, Any] = field(default_factory=dict, hash=False)
    location: str | None = None
    people: tuple[Code, ...] = ()  # somebody with each of these roles
    equipment: tuple[Code, ...] = ()
    notice: timedelta = timedelta(0)


async def of_orders(
    unit: UnitOfWork, orders: Iterable[Resource], *, moved: Resource | None = None, length: timedelta | None = None
) -> list[Need]:
    """What these orders need. FhirError `conflict` when nothing of one waits, `business-rule` when it isn't known how long.

    moved: a booking that is to be moved: what it has scheduled counts as waiting
    length: how long each takes, whatever the catalogue says
    """
    found: list[Need] = []
    for order in orders:
        found += await _of_order(unit, order, moved, length)
    return found


async def _of_order(unit: UnitOfWork, order: Resource, moved: Resource | None, length: timedelta | None) -> list[Need]:
    if order["status"] != "active":
        raise fail("business-rule", f"the order is {order['status']}: only an active one is booked", "ServiceRequest.status")
    by_modality: dict[frozenset[str], list[Need]] = {}
    itself = service_request.is_procedure(order)
    procedures = [order] if itself else await service_request.procedures_of(unit, order["id"])
    for procedure in procedures:
        steps = [s for s in await task.steps_of(unit, procedure["id"]) if _waits(s, moved)]
        if steps:
            modalities = frozenset(m for s in steps if (m := task.modality(s)))
            entry = await activity_definition.catalogue_entry(unit, procedure)
            need = of_catalogue(entry, procedure.get("code", {}), modalities, length, order)
            by_modality.setdefault(modalities, []).append(need)
    if not by_modality:
        raise fail("conflict", f"nothing of ServiceRequest/{order['id']} waits to be scheduled", "ServiceRequest.status")
    return [_together(needs, order) for needs in by_modality.values()]


def _waits(step: Resource, moved: Resource | None) -> bool:
    if moved is not None and step["status"] in task.BEFORE_START:
        return task.appointment_of(step) == f"Appointment/{moved['id']}"
    return bool(step["status"] == "requested")


def _together(needs: list[Need], order: Resource) -> Need:
    """Several procedures on one scanner, one after the other in one booking."""
    first = needs[0]
    return Need(
        sum((n.length for n in needs), timedelta(0)),
        first.modalities,
        order["id"],
        order.get("code", {}),
        next((n.location for n in needs if n.location), None),
        tuple(dict.fromkeys(p for n in needs for p in n.people)),
        tuple(dict.fromkeys(e for n in needs for e in n.equipment)),
        max(n.notice for n in needs),
    )


def of_catalogue(
    entry: Resource | None,
    code: dict[str, Any],
    modalities: frozenset[str],
    length: timedelta | None = None,
    order: Resource | None = None,
) -> Need:
    """What a procedure needs. FhirError `business-rule` when neither the catalogue nor the caller says how long it takes."""
    takes = length or activity_definition.duration(entry)
    if takes is None or takes <= timedelta(0):
        what = code.get("text") or next((c.get("display") or c.get("code") for c in codings(code)), "the procedure")
        text = f"the catalogue doesn't say how long {what} takes (ActivityDefinition.timingDuration); give `minutes`, or the end"
        raise fail("business-rule", text, "Parameters.parameter")
    told = (entry or {}).get("location", {}).get("reference")
    urgent = (order or {}).get("priority") == "stat"
    return Need(
        takes,
        modalities,
        (order or {}).get("id"),
        code,
        told,
        _roles(entry, "practitioner"),
        _roles(entry, "device"),
        timedelta(0) if urgent else activity_definition.preparation_time(entry),
    )


def _roles(entry: Resource | None, kind: str) -> tuple[Code, ...]:
    """Of each participant of this kind, the first coding of its role."""
    told = [next(codings(p.get("role")), None) for p in (entry or {}).get("participant", ()) if p.get("type") == kind]
    return tuple((c.get("system", ""), c["code"]) for c in told if c and "code" in c)
