"""Whom and what a message is about: the patient and the orders that the message store finds it by.

The mappings say whom they have matched and which order they mean (`about`); what a message has changed tells the rest. Of a
message that was refused, or waits, its numbers do (`named_in`). They say, too, which messages wait for one another
(`touched`).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from bridges.v2.datatypes import EI
from bridges.v2.message import Message
from bridges.v2.pid_in import identifiers_in
from bridges.v2.reception import Sender
from bridges.v2.systems import OWN, entity_identifier
from fhir_server.elements import has_code
from fhir_server.outcome import FhirError
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import identifiers, service_request, terms
from resources import patient as patients

_PATIENTS: Final = (("PID", 3), ("MRG", 1))
# Where orders are named, and by which number (v2-0203).
_ORDERS: Final = (
    ("ORC", 2, "PLAC"), ("OBR", 2, "PLAC"), ("SCH", 26, "PLAC"), ("ORC", 3, "FILL"), ("OBR", 3, "FILL"), ("SCH", 27, "FILL"),
    ("OBR", 18, "ACSN"),
)  # fmt: skip
# Where messages name patients, visits and orders: those that name the same are processed one after the other.
_NUMBERS: Final = (*_PATIENTS, ("PV1", 19), ("ORC", 2), ("ORC", 3), ("OBR", 2), ("OBR", 3), ("SCH", 1), ("SCH", 2))
_MOST: Final = 100  # numbers of one message that are looked up
_HOLDERS: Final = ("subject", "patient", "for", "beneficiary")  # the elements that say whose a resource is


def about(unit: UnitOfWork, *resources: Resource) -> None:
    """The message that is being received is about these: its AuditEvent names them, and the store finds it by them."""
    unit.shown.extend(f"{r['resourceType']}/{r['id']}" for r in resources)


def touched(message: Message) -> set[str]:
    """The numbers that a message is about."""
    found = (f for name, field in _NUMBERS for segment in message.all(name) for f in segment.repetitions(field))
    return {f.get(1).strip() for f in found} - {""}


async def concerned(unit: UnitOfWork, changes: list[Change], message: Message, sender: Sender) -> list[str]:
    """References of what a processed message is about, patients first: what was said, what it changed, and the orders of that."""
    owners = [o for c in changes for o in _owners(c.after or c.before or {})]
    found = [*unit.shown, *owners]
    if not any(r.startswith("Patient/") for r in found):
        found += await named_in(unit, message, sender)
    return _sorted([*found, *(f"{c.type}/{c.id}" for c in changes), *await _orders_of(unit, changes)])


async def named_in(unit: UnitOfWork, message: Message, sender: Sender) -> list[str]:
    """References of the patients and orders that have the numbers of a message: for one that nothing was done with (yet)."""
    try:
        people = await _patients_named(unit, message, sender)
        whose = {f"Patient/{p['id']}" for p in people}
        orders = await _orders_named(unit, message, sender, whose)
    except FhirError:  # what it says can't be looked for, or is too much
        return []
    return [*(f"Patient/{p['id']}" for p in people), *(f"ServiceRequest/{o['id']}" for o in orders)]


def _sorted(references: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(references), key=lambda r: not r.startswith("Patient/"))


def _owners(resource: Resource) -> Iterator[str]:
    """The patients whose a resource is."""
    actors = [p.get("actor") for p in resource.get("participant", ())]
    for element in (*(resource.get(name) for name in _HOLDERS), *actors):
        reference = str(element.get("reference")) if isinstance(element, dict) else ""
        if reference.startswith("Patient/"):
            yield reference


def _requests(resource: Resource) -> list[str]:
    """The orders or requested procedures that it belongs to: what a work item looks at, not what it is compared with."""
    elements = [resource.get("focus"), *resource.get("basedOn", ())]
    found = [str(e.get("reference")) if isinstance(e, dict) else "" for e in elements]
    if found[0].startswith("ServiceRequest/"):
        return found[:1]
    return [r for r in found if r.startswith("ServiceRequest/")]


async def _orders_of(unit: UnitOfWork, changes: list[Change]) -> list[str]:
    """The orders to which what was changed belongs: steps, studies, appointments, reports."""
    named: dict[str, None] = {}
    for change in changes:
        resource = change.after or {}
        named |= dict.fromkeys(() if change.redirected else _requests(resource))
    orders = [await service_request.order_of(unit, await unit.get(r)) for r in named]
    return [f"ServiceRequest/{o['id']}" for o in orders if o is not None]


# By their numbers


async def _patients_named(unit: UnitOfWork, message: Message, sender: Sender) -> list[Resource]:
    """Those who have a number of PID-3 or MRG-1, who has it now first."""
    said = [i for name, field in _PATIENTS for segment in message.all(name) for i in identifiers_in(segment, field, sender)]
    said = said[:_MOST]
    found = await identifiers.carriers(unit, "Patient", said) if said else []
    return sorted(found, key=lambda p: (not p.get("active", True), not patients.names_now(p, said)))


async def _orders_named(unit: UnitOfWork, message: Message, sender: Sender, whose: set[str]) -> list[Resource]:
    said = [
        (kind, EI.from_field(repetition))
        for name, field, kind in _ORDERS
        for segment in message.all(name)
        for repetition in segment.repetitions(field)
        if repetition.get(1).strip()
    ][:_MOST]
    if not said:
        return []
    values = ",".join(sorted({identifiers.escaped(ei.id.strip()) for _, ei in said}))
    found = await unit.search("ServiceRequest", identifier=values, intent="order,original-order")
    return [o for o in found if any(_is_named(o, kind, ei, sender, whose) for kind, ei in said)]


def _is_named(order: Resource, kind: str, ei: EI, sender: Sender, whose: set[str]) -> bool:
    """Whether this number is the order's. One without an authority may be anybody's: then the patient decides."""
    wanted = entity_identifier(ei, kind, sender.authority)
    bare = not (ei.namespace or ei.universal_id)
    is_whose = order.get("subject", {}).get("reference") in whose
    for own in order.get("identifier", ()):
        if has_code(own.get("type"), terms.V2_0203, kind) and own.get("value") == wanted["value"]:
            ours = own.get("system") == terms.FILLER_ORDER_NUMBER and (bare or ei.namespace == OWN)
            if kind == "ACSN" or ours or (bare and is_whose) or identifiers.same(own, wanted):
                return True
    return False
