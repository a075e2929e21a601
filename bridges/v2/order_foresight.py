"""What an order message will make the rules look for: all of it is looked for at once, before the first rule asks.

It need not be exact: what is asked for beyond it is found as ever, only later.
"""

from collections.abc import Iterator, Sequence

from bridges.v2.datatypes import CWE, CX, EI, XCN
from bridges.v2.message import Message
from bridges.v2.order_groups import Order
from bridges.v2.pid_in import identifiers_in
from bridges.v2.reception import Sender
from bridges.v2.systems import concept, entity_identifier, identifier
from fhir_server.foresight import Asked
from fhir_server.registry import Resource
from resources import activity_definition, identifiers, numbering, order_numbers, order_verdict

_PEOPLE = (("PV1", 7), ("PV1", 8), ("PV1", 9), ("PV1", 17), ("ORC", 10), ("ORC", 11), ("ORC", 12), ("OBR", 16))
_NEW = frozenset({"NW", "RO", "CH"})


def of_message(message: Message, sender: Sender, orders: Sequence[Order]) -> list[Asked]:
    """The patient, the people and the orders that it names; for new orders the catalogue, and how numbers are assigned."""
    pid = message.first("PID")
    asked = [identifiers.asked("Patient", whose)] if pid and (whose := identifiers_in(pid, 3, sender)) else []
    asked += [identifiers.asked("Practitioner", [person]) for person in _people(message, sender)]
    for order in orders:
        if (placer := next((s for s in order.numbered if s.field(2).strip()), None)) is not None:
            number = entity_identifier(EI.from_field(placer.repetitions(2)[0]), "PLAC", sender.authority)
            asked.append(order_numbers.asked(number))
        if order.orc.field(1).strip().upper() in _NEW:
            asked += [a for code in _codes(order) for a in activity_definition.asked({"code": code})]
            asked += [*order_verdict.ASKED, numbering.ASKED]
    return asked


def _people(message: Message, sender: Sender) -> Iterator[Resource]:
    for name, field in _PEOPLE:
        for segment in message.all(name):
            for person in segment.repetitions(field):
                if (xcn := XCN.from_field(person)).id.strip():
                    yield identifier(CX(xcn.id, xcn.authority), sender.authority)


def _codes(order: Order) -> Iterator[Resource]:
    for obr in order.obrs:
        if obr.raw(4) and (code := concept(CWE.from_field(obr.repetitions(4)[0]), order.sender.authority)):
            yield code
