"""What a message will make the rules look for: all of it is looked for at once, before the first rule asks.

It need not be exact: what is asked for beyond it is found as ever, only later.
"""

from collections.abc import Iterator

from bridges.v2.datatypes import CWE, CX, EI, XCN
from bridges.v2.message import Message
from bridges.v2.order_groups import OrderGroup, order_groups
from bridges.v2.pid_in import identifiers_in
from bridges.v2.reception import Sender
from bridges.v2.systems import concept, entity_identifier, identifier
from fhir_server.foresight import Asked
from fhir_server.registry import Resource
from resources import activity_definition, identifiers, numbering, order_numbers, order_verdict

_PATIENTS = (("PID", 3), ("MRG", 1))
_PEOPLE = (("PV1", 7), ("PV1", 8), ("PV1", 9), ("PV1", 17), ("ORC", 10), ("ORC", 11), ("ORC", 12), ("OBR", 16))
_ORDERS = frozenset({"ORM", "OMG", "OMI"})
_MOST = 48  # looks: three commands
_NEW = frozenset({"NW", "RO", "CH"})


def foreseen(message: Message, sender: Sender) -> list[Asked]:
    """The patients and people that it names; of orders, these, and for new ones the catalogue and how numbers are assigned."""
    with message.aside():
        asked = [identifiers.asked("Patient", whose) for whose in _patients(message, sender)]
        asked += [identifiers.asked("Practitioner", [person]) for person in _people(message, sender)]
        if message.type[0] in _ORDERS and message.first("ORC") is not None:
            asked += [one for group in order_groups(message) for one in _of_order(group, sender)]
    return asked[:_MOST]


def _patients(message: Message, sender: Sender) -> Iterator[list[Resource]]:
    for name, field in _PATIENTS:
        for segment in message.all(name):
            if whose := identifiers_in(segment, field, sender):
                yield whose


def _of_order(group: OrderGroup, sender: Sender) -> Iterator[Asked]:
    if (placer := next((s for s in group.numbered if s.field(2).strip()), None)) is not None:
        yield order_numbers.asked(entity_identifier(EI.from_field(placer.repetitions(2)[0]), "PLAC", sender.authority))
    if group.orc.field(1).strip().upper() in _NEW:
        for code in _codes(group, sender):
            yield from activity_definition.asked({"code": code})
        yield from order_verdict.ASKED
        yield numbering.ASKED


def _people(message: Message, sender: Sender) -> Iterator[Resource]:
    for name, field in _PEOPLE:
        for segment in message.all(name):
            for person in segment.repetitions(field):
                if (xcn := XCN.from_field(person)).id.strip():
                    yield identifier(CX(xcn.id, xcn.authority), sender.authority)


def _codes(group: OrderGroup, sender: Sender) -> Iterator[Resource]:
    for obr in group.obrs:
        if obr.raw(4) and (code := concept(CWE.from_field(obr.repetitions(4)[0]), sender.authority)):
            yield code
