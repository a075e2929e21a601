"""The numbers of an order (placer, filler, accession): finding orders by them, keeping them apart, assigning them."""

from typing import Final

from fhir_server.elements import concept, identifier_of_type
from fhir_server.foresight import Asked
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import identifiers, numbering, terms
from resources.identifiers import carriers, escaped, keep, of_system, of_type, same

_ORDERS: Final = "order,original-order"


class PlacerNumberTaken(FhirError):
    """Another order, `order`, has the placer order number; `name` is what the caller may know it by."""

    def __init__(self, order: Resource, name: str, *, same_patient: bool) -> None:
        whose = "exists already" if same_patient or name.startswith("another") else "exists already, for a different patient"
        text = f"an order with this placer order number {whose}: {name}"
        super().__init__(Issue("duplicate", text, "ServiceRequest.identifier"))
        self.order = order
        self.same_patient = same_patient


def replaces(order: Resource, other: Resource) -> bool:
    """Whether an order takes the place of another one, which then is done with."""
    takes = any(r.get("reference") == f"ServiceRequest/{other['id']}" for r in order.get("replaces", ()))
    return takes and other.get("status") in {"revoked", "entered-in-error"}


def placer_number(order: Resource) -> Resource | None:
    return identifier_of_type(order, terms.V2_0203, "PLAC")


def asked(placer: Resource) -> Asked:
    """What `by_placer_number` will ask for, for `View.foresee`."""
    return identifiers.asked("ServiceRequest", [placer], intent=_ORDERS)


async def by_placer_number(unit: UnitOfWork, placer: Resource) -> Resource | None:
    """The order with this placer order number; of one that was replaced under its own number, the order that replaced it."""
    found = [
        order
        for order in await carriers(unit, "ServiceRequest", [placer], intent=_ORDERS)
        if order.get("status") != "entered-in-error" and same(placer_number(order) or {}, placer)
    ]
    return next(iter(in_force(found)), None)


async def with_placer_value(unit: UnitOfWork, value: str) -> list[Resource]:
    """The orders whose placer order number has this value, whoever assigned it; without those that were replaced under it."""
    found = [
        order
        for order in await unit.search("ServiceRequest", identifier=escaped(value), intent=_ORDERS)
        if order.get("status") != "entered-in-error" and (placer_number(order) or {}).get("value") == value
    ]
    return in_force(found)


def in_force(orders: list[Resource]) -> list[Resource]:
    """Of orders that share a number, those that no other of them has replaced."""
    replaced = {r.get("reference") for order in orders for r in order.get("replaces", ())}
    return [order for order in orders if f"ServiceRequest/{order['id']}" not in replaced]


async def by_filler_number(unit: UnitOfWork, filler: Resource, *, own: bool) -> Resource | None:
    """The order with this filler order number; `own`: the number may be one that we assigned, whatever its system says."""
    for order in await unit.search("ServiceRequest", identifier=escaped(str(filler.get("value", ""))), intent="order"):
        number = identifier_of_type(order, terms.V2_0203, "FILL") or {}
        ours = own and number.get("system") == terms.FILLER_ORDER_NUMBER and number.get("value") == filler.get("value")
        if order.get("status") != "entered-in-error" and (ours or same(number, filler)):
            return order
    return None


def accession_number(order: Resource) -> str | None:
    found = identifier_of_type(order, terms.V2_0203, "ACSN")
    return found.get("value") if found else None


# Rules


def check_lengths(request: Resource) -> None:
    """What other systems have room for. FhirError `value`."""
    for i, identifier in enumerate(request.get("identifier", ())):
        value = str(identifier.get("value", ""))
        if (of_type("PLAC")(identifier) or of_type("FILL")(identifier)) and len(value) > terms.LONG_STRING:
            where = f"ServiceRequest.identifier[{i}].value"
            raise fail("value", "placer and filler order numbers have at most 64 characters", where)
        if (of_type("ACSN")(identifier) or of_system(terms.REQUESTED_PROCEDURE_ID)(identifier)) and (
            len(value) > terms.SHORT_STRING or "\\" in value
        ):
            where = f"ServiceRequest.identifier[{i}].value"
            raise fail("value", "accession numbers and requested procedure ids have at most 16 characters, no backslash", where)


async def check_order(unit: UnitOfWork, change: Change, order: Resource) -> None:
    """An order keeps its numbers, and those that it gets are nobody else's."""
    for code, name in (("PLAC", "placer order number"), ("FILL", "filler order number"), ("ACSN", "accession number")):
        keep(change, of_type(code), name)
    placer = placer_number(order)
    if placer is not None and not (change.before and placer_number(change.before)):
        await _check_placer_number(unit, change.id, order, placer)
    filler = identifier_of_type(order, terms.V2_0203, "FILL")
    if filler is not None and not (change.before and identifier_of_type(change.before, terms.V2_0203, "FILL")):
        await _check_filler_number(unit, change.id, order, filler)
    await check_accession_number(unit, change, order)


async def _check_placer_number(unit: UnitOfWork, own_id: str, order: Resource, placer: Resource) -> None:
    """One placer order number, one order: a second order under it is refused, whoever sends it."""
    await unit.lock(f"placer:{placer.get('value')}")
    other = await by_placer_number(unit, placer)
    if other is not None and other["id"] != own_id and not replaces(order, other):
        same_patient = other["subject"].get("reference") == order["subject"]["reference"]
        raise PlacerNumberTaken(other, await unit.named("ServiceRequest", other["id"]), same_patient=same_patient)


async def _check_filler_number(unit: UnitOfWork, own_id: str, order: Resource, filler: Resource) -> None:
    """One filler order number, one order, as for the placer's."""
    await unit.lock(f"filler:{filler.get('value')}")
    other = await by_filler_number(unit, filler, own=False)
    if other is not None and other["id"] != own_id and not replaces(order, other):
        raise fail("duplicate", "another order has this filler order number", "ServiceRequest.identifier")


async def check_accession_number(unit: UnitOfWork, change: Change, order: Resource) -> None:
    """Orders of one patient may share an accession number; with another patient's it would mix up their images."""
    accession = accession_number(order)
    if accession is None or (change.before and accession_number(change.before)):
        return
    await unit.lock(f"accession:{accession}")
    for other in await unit.search("ServiceRequest", identifier=escaped(accession), intent="order,filler-order"):
        if accession_number(other) == accession and other["subject"].get("reference") != order["subject"]["reference"]:
            raise fail("duplicate", "the accession number belongs to another patient's order", "ServiceRequest.identifier")


async def assign(unit: UnitOfWork, order: Resource) -> None:
    """An accepted order gets the numbers that it lacks."""
    numbers = order.setdefault("identifier", [])
    missing = [c for c in ("FILL", "ACSN") if identifier_of_type(order, terms.V2_0203, c) is None]
    if not missing:
        return
    systems = {"FILL": terms.FILLER_ORDER_NUMBER, "ACSN": terms.ACCESSION_NUMBER}
    described = await numbering.numberings(unit)
    digits = "" if all(systems[code] in described for code in missing) else await numbering.order_digits(unit)
    for code in missing:
        value = await numbering.fresh(unit, systems[code], order, digits)
        numbers.append({"type": concept(terms.V2_0203, code), "system": systems[code], "value": value})
