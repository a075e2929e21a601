"""Which order of ours a message from outside means, when it isn't the placer's: a result, or another scheduler's appointment.

By accession number, filler order number, placer order number and Study Instance UID; each that we know must mean the same
order, and the order must be the patient's of PID. A number that we don't know contradicts nothing: readers and schedulers have
numbers of their own.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from bridges.v2 import parked_messages
from bridges.v2.concerned import about
from bridges.v2.datatypes import EI
from bridges.v2.message import Field, Segment, readable
from bridges.v2.patient_in import named, patient_identifiers
from bridges.v2.reception import Reception, Reply
from bridges.v2.refused import Refused, Shown, no_segment, wrong
from bridges.v2.systems import OWN, entity_identifier
from fhir_server.elements import has_code, identifier_value
from fhir_server.registry import Resource
from resources import identifiers, imaging_study, order_numbers, service_request, terms


@dataclass(frozen=True, slots=True)
class Said:
    """One value that names an order, and where it stands in the message."""

    segment: Segment
    number: int
    field: Field


@dataclass(frozen=True, slots=True)
class OrderNames:
    """What a message says of which order it is about; of each kind, all places where it may say so.

    several: it may be about more than one order of its patient, as an appointment is
    """

    accessions: tuple[Said, ...] = ()
    fillers: tuple[Said, ...] = ()
    placers: tuple[Said, ...] = ()
    studies: tuple[Said, ...] = ()
    procedures: tuple[Said, ...] = ()
    several: bool = False

    @property
    def all(self) -> tuple[Said, ...]:
        return (*self.accessions, *self.fillers, *self.placers, *self.studies)


@dataclass(frozen=True, slots=True)
class Found:
    """The orders that a message is about (several where they share an accession number), their patient and procedures.

    procedures: those that the message names, else all; studies: of these procedures
    """

    orders: list[Resource]
    patient: Resource
    procedures: list[Resource]
    studies: list[Resource]


def said(*places: tuple[Segment | None, int]) -> tuple[Said, ...]:
    """The values of these fields, all repetitions, without the empty ones."""
    return tuple(
        Said(segment, number, repetition)
        for segment, number in places
        if segment is not None
        for repetition in segment.repetitions(number)
        if repetition.get(1).strip()
    )


async def find_orders(reception: Reception, names: OrderNames, pid: Segment | None) -> Found | None:
    """The orders that `names` mean for the patient of PID; None when none is known.

    Refused (205) where two numbers mean different orders, or the order is another patient's; then people are shown the order.
    """
    if pid is None:
        raise no_segment("PID", "the patient (PID)")
    orders = await _agreed(reception, names, patient_identifiers(pid, reception.sender))
    return await of_patient(reception, names, orders, pid) if orders else None


async def of_patient(reception: Reception, names: OrderNames, orders: list[Resource], pid: Segment | None) -> Found:
    """The same for orders that are known. Refused (205) where they are not the patient's of PID."""
    if pid is None:
        raise no_segment("PID", "the patient (PID)")
    whose = patient_identifiers(pid, reception.sender)
    mine = [o for o in orders if await _is_of(reception, o, whose)]
    if not mine:
        refusal = wrong(pid, 3, "the order that this message names is for a different patient", code=205)
        raise Refused(*refusal.errors, mixed_up=orders[0])
    patient = await named(reception.unit, pid, reception.sender)
    mine = [o for o in mine if o["subject"].get("reference") == f"Patient/{patient['id']}"]
    if not mine:
        raise wrong(pid, 3, "the identifiers name another patient than the order is for", code=205)
    about(reception.unit, *mine)
    return await _planned(reception, names, mine, patient)


async def _agreed(reception: Reception, names: OrderNames, whose: list[Resource]) -> list[Resource]:
    kinds: tuple[tuple[tuple[Said, ...], Callable[[Said], Awaitable[list[Resource]]]], ...] = (
        (names.accessions, lambda s: _by_accession(reception, s)),
        (names.fillers, lambda s: _by_number(reception, s, "FILL", whose)),
        (names.placers, lambda s: _by_number(reception, s, "PLAC", whose)),
        (names.studies, lambda s: _by_study(reception, s)),
    )
    agreed: list[Resource] = []
    for values, look in kinds:
        for together in [values] if names.several and values else [(value,) for value in values]:
            found = _once([order for value in together for order in await look(value)])
            common = [o for o in agreed if any(o["id"] == f["id"] for f in found)]
            if found and agreed and not common:
                _refuse(together[0], "this number and another one of the message mean different orders", [*agreed, *found])
            if len(together) > 1 and len(_patients(found)) > 1:
                _refuse(together[0], "these numbers mean orders of different patients", found)
            agreed = common or agreed or found
    return agreed


def _refuse(at: Said, text: str, orders: list[Resource]) -> NoReturn:
    """Refused (205). People are shown an order where it might be another patient's."""
    errors = wrong(at.segment, at.number, text, code=205).errors
    raise Refused(*errors, mixed_up=orders[0] if len(_patients(orders)) > 1 else None)


def _patients(orders: list[Resource]) -> set[Any]:
    return {o["subject"].get("reference") for o in orders}


async def _by_accession(reception: Reception, value: Said) -> list[Resource]:
    """The orders with this accession number, and those of the requested procedures that have one of their own."""
    number = value.field.get(1).strip()
    found = await reception.unit.search("ServiceRequest", identifier=identifiers.escaped(number), intent="order,filler-order")
    carriers = [r for r in found if order_numbers.accession_number(r) == number]
    orders = [await service_request.order_of(reception.unit, r) for r in carriers]
    return _valid(_once(o for o in orders if o is not None))


async def _by_number(reception: Reception, value: Said, kind: str, whose: list[Resource]) -> list[Resource]:
    """Orders with this placer or filler order number. A number without namespace counts where it is the patient's order."""
    ei = EI.from_field(value.field)
    wanted = entity_identifier(ei, kind, reception.sender.authority)
    bare = not (ei.namespace or ei.universal_id)
    orders = []
    for order in _valid(
        await reception.unit.search("ServiceRequest", identifier=identifiers.escaped(ei.id.strip()), intent="order")
    ):
        for own in order.get("identifier", ()):
            if not has_code(own.get("type"), terms.V2_0203, kind) or own.get("value") != wanted["value"]:
                continue
            ours = own.get("system") == terms.FILLER_ORDER_NUMBER and (bare or ei.namespace == OWN)
            if ours or identifiers.same(own, wanted) or (bare and await _is_of(reception, order, whose)):
                orders.append(order)
                break
    return order_numbers.in_force(orders)


async def _by_study(reception: Reception, value: Said) -> list[Resource]:
    uid = value.field.get(1).strip()
    study = await imaging_study.by_uid(reception.unit, uid) if imaging_study.is_uid(uid) else None
    requests = [await reception.unit.get(r) for r in (study or {}).get("basedOn", ())]
    orders = [await service_request.order_of(reception.unit, r) for r in requests if r is not None]
    return _valid(o for o in orders if o is not None)


def _valid(orders: Iterable[Resource]) -> list[Resource]:
    return [o for o in orders if o.get("status") != "entered-in-error" and service_request.is_order(o)]


async def _is_of(reception: Reception, order: Resource, whose: list[Resource]) -> bool:
    patient = await reception.unit.get(order["subject"])
    return patient is not None and identifiers.carries(patient, whose)


async def _planned(reception: Reception, names: OrderNames, orders: list[Resource], patient: Resource) -> Found:
    """The requested procedures that the message names by id, study or accession number; all of the orders' when it names none."""
    unit = reception.unit
    procedures = [p for o in orders for p in await service_request.procedures_of(unit, o["id"])]
    studies = {p["id"]: await unit.search("ImagingStudy", basedon=f"ServiceRequest/{p['id']}") for p in procedures}
    ids = {s.field.get(1).strip() for s in names.procedures}
    uids = {s.field.get(1).strip() for s in names.studies}
    chosen = [
        p
        for p in procedures
        if identifier_value(p, terms.REQUESTED_PROCEDURE_ID) in ids
        or any(imaging_study.study_uid(s) in uids for s in studies[p["id"]])
    ]
    if not chosen and (accessions := {s.field.get(1).strip() for s in names.accessions}):
        own = {f"ServiceRequest/{o['id']}": order_numbers.accession_number(o) for o in orders}
        chosen = [
            p
            for p in procedures
            if accessions & {order_numbers.accession_number(p) or next((own.get(r["reference"]) for r in p["basedOn"]), None)}
        ]
    meant = chosen or procedures
    if chosen:
        based = {r.get("reference") for p in chosen for r in p.get("basedOn", ())}
        orders = [o for o in orders if f"ServiceRequest/{o['id']}" in based] or orders
    return Found(orders, patient, meant, [s for p in meant for s in studies[p["id"]]])


def all_of(found: list[Found]) -> Found | None:
    """What several parts of a message are about, each once; None where none is about anything."""
    if not found:
        return None
    return Found(
        _once(o for f in found for o in f.orders),
        found[0].patient,
        _once(p for f in found for p in f.procedures),
        _once(s for f in found for s in f.studies),
    )


def _once(resources: Iterable[Resource]) -> list[Resource]:
    return list({r["id"]: r for r in resources}.values())


async def refuse_or_park(reception: Reception, names: OrderNames, at: Segment, number: int, about: str = "") -> Reply:
    """An order that we don't have: refused (204), or by the partner's rule `accept-unknown-order` kept until it comes.

    about: the number of the appointment that waits for it
    """
    if not names.all:
        raise wrong(at, number, "the message names no order", code=101)
    place = names.all[0]
    kind = "^".join(reception.message.type[:2])
    message = f"{kind} {reception.message.control_id[:50]} of {reception.sender.application}"
    shown = readable(f"Message {message} is about an order that isn't here", 1000)
    if reception.sender.partner.unknown_order == "park":
        return await parked_messages.park(reception, (n.field.get(1).strip() for n in names.all), shown, about)
    refusal = wrong(place.segment, place.number, "no order here has one of these numbers", code=204)
    refusal.shown.append(Shown(parked_messages.UNKNOWN, shown))
    raise refusal
