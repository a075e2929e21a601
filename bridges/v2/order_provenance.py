"""ORC -> Provenance: who entered, verified and carried an order message, where that is more than its orderer."""

from bridges.v2.datatypes import XCN
from bridges.v2.mapping import Row, table
from bridges.v2.order_groups import Order
from bridges.v2.order_map import first_concept
from bridges.v2.pid_in import postal_address, telecoms
from bridges.v2.reception import date_time
from fhir_server import clock
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource

_ROLE = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_ACTIVITY = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_FACILITY = "ordering-facility"


async def _people(order: Order, field: int, role: str) -> list[Resource]:
    people = [await order.people.reference(XCN.from_field(person)) for person in order.orc.repetitions(field)]
    return [{"type": coded(_ROLE, role), "who": who} for who in people if who]


async def _enterers(order: Order) -> list[Resource]:
    """With the organisation that they entered it for (ORC-17)."""
    found = await _people(order, 10, "enterer")
    organisation = first_concept(order.orc, 17, order.sender)
    if organisation is None:
        return found
    display = _shown(organisation)
    if not found:
        return [{"type": coded(_ROLE, "enterer"), "who": {"display": display}}]
    return [agent | {"onBehalfOf": {"display": display}} for agent in found]


def _device(order: Order) -> list[Resource]:
    said = None if order.sender.partner.station_field else first_concept(order.orc, 18, order.sender)
    return [{"type": coded(_ROLE, "transmitter"), "who": {"display": _shown(said)}}] if said else []


def _shown(concept: Resource) -> str:
    return str(concept.get("text") or concept["coding"][0]["code"])


def _facility(order: Order) -> list[Resource]:
    """ORC-21 to ORC-24: the organisation that orders, kept within."""
    name = next((f.get(1) for f in order.orc.repetitions(21)), "")
    places = [a for field in (22, 24) for f in order.orc.repetitions(field) if (a := postal_address(f))]
    phones = telecoms(order.orc, 23)
    if not (name or places or phones):
        return []
    found: Resource = {"resourceType": "Organization", "id": _FACILITY, "name": name or "the ordering facility"}
    return [found | ({"telecom": phones} if phones else {}) | ({"address": places} if places else {})]


def _facility_agent(order: Order) -> list[Resource]:
    return [{"type": coded(_ROLE, "author"), "who": {"reference": f"#{_FACILITY}"}}] if _facility(order) else []


PROVENANCE = table(
    "ORC -> Provenance of an order",
    "Provenance",
    Row("ORC-21, ORC-22, ORC-23, ORC-24", "contained", _facility, "the organisation that orders"),
    Row("ORC-9", "occurredDateTime", lambda of: date_time(of.sender, of.orc, 9)),
    Row("ORC-10, ORC-17", "agent", _enterers, "ORC-17 is whom they entered it for"),
    Row("ORC-11", "agent", lambda of: _people(of, 11, "verifier")),
    Row("ORC-19", "agent", lambda of: _people(of, 19, "performer")),
    Row("ORC-18", "agent", _device, "the device that it was entered at; not with `accept-station-field`"),
    Row("ORC-21, ORC-22, ORC-23, ORC-24", "agent", _facility_agent),
)  # fmt: skip


async def record(order: Order, stored: Resource, activity: str) -> None:
    """Keep who had a hand in it, where the message says so; `activity` is CREATE or UPDATE."""
    made = await PROVENANCE.build(order)
    if "agent" not in made:
        return
    said = {"target": [ref(stored)], "recorded": clock.instant(order.unit.now), "activity": coded(_ACTIVITY, activity)}
    await order.unit.create(made | said)
