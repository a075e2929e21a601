"""The order groups of a message: segments grouped by the last ORC, OBR and OBX seen, whatever the grammar says."""

from dataclasses import dataclass, field

from bridges.v2.message import Message, Segment
from bridges.v2.people_in import People
from bridges.v2.reception import Sender
from bridges.v2.refused import no_segment
from fhir_server.unit_of_work import UnitOfWork


@dataclass(slots=True)
class Details:
    """What stands between an ORC or OBR and the next: timings, notes, diagnoses, observations, steps, the study's UID."""

    timings: list[Segment] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)
    diagnoses: list[Segment] = field(default_factory=list)
    observations: list[tuple[Segment, list[Segment]]] = field(default_factory=list)  # an OBX with its own notes
    steps: list[Segment] = field(default_factory=list)
    studies: list[Segment] = field(default_factory=list)

    def add(self, segment: Segment, last: str) -> None:
        """`last` is the name of the segment before, notes left out: a note behind an OBX is about that."""
        if segment.name == "NTE" and last == "OBX" and self.observations:
            self.observations[-1][1].append(segment)
        elif segment.name == "OBX":
            self.observations.append((segment, []))
        elif kept := self._kept().get(segment.name):
            self.__getattribute__(kept).append(segment)

    def take(self, other: "Details") -> None:
        """Put what came early before what there is."""
        for name in (*self._kept().values(), "observations"):
            setattr(self, name, [*getattr(other, name), *getattr(self, name)])

    @staticmethod
    def _kept() -> dict[str, str]:
        return {"TQ1": "timings", "NTE": "notes", "DG1": "diagnoses", "IPC": "steps", "ZDS": "studies"}


@dataclass(slots=True)
class ObrGroup:
    """An OBR with what belongs to it: one ordered procedure."""

    obr: Segment
    details: Details = field(default_factory=Details)


@dataclass(slots=True)
class OrderGroup:
    """An ORC with its OBRs: one order.

    loose: what belongs to an ORC that has no OBR
    own_numbers: the order is one of several under one ORC; its own OBR-2 and OBR-3 count before ORC-2 and ORC-3
    number: which one of the message it is, from 0
    """

    orc: Segment
    procedures: list[ObrGroup] = field(default_factory=list)
    loose: Details = field(default_factory=Details)
    own_numbers: bool = False
    number: int = 0

    @property
    def obrs(self) -> list[Segment]:
        return [p.obr for p in self.procedures]

    @property
    def numbered(self) -> list[Segment]:
        """The segments that may hold the order numbers (field 2 and 3), the one that counts first."""
        found = [self.orc, *self.obrs[:1]]
        return found[::-1] if self.own_numbers else found

    @property
    def details(self) -> list[Details]:
        """Of all its OBRs, in their order."""
        return [p.details for p in self.procedures] or [self.loose]


def order_groups(message: Message) -> list[OrderGroup]:
    """The orders of a message. Refused without an ORC.

    An OBR takes what follows it, and what stands between it and its ORC. IPC and ZDS that come before the first ORC belong to the
    first OBR. Several OBRs of one ORC are requested procedures of one order (DICOM PS3.3 C.4.15), unless they have different
    placer order numbers: then each is an order (HL7 v2.5.1 4.4.1: an order is an ORC with its order detail).
    """
    groups: list[OrderGroup] = []
    early = Details()
    last = ""
    for segment in message.segments:
        if segment.name == "ORC":
            groups.append(OrderGroup(segment))
        elif segment.name == "OBR" and groups:
            opened = ObrGroup(segment)
            opened.details.take(groups[-1].loose)
            groups[-1].loose = Details()
            groups[-1].procedures.append(opened)
        elif groups:
            groups[-1].details[-1].add(segment, last)
        elif segment.name in {"IPC", "ZDS"}:
            early.add(segment, last)
        last = segment.name if segment.name != "NTE" else last
    if not groups:
        raise no_segment("ORC", "the order (ORC)")
    (groups[0].procedures[0].details if groups[0].procedures else groups[0].loose).take(early)
    orders = [order for group in groups for order in _orders(group)]
    for number, order in enumerate(orders):
        order.number = number
    return orders


def _orders(group: OrderGroup) -> list[OrderGroup]:
    """The orders of one ORC: as many as its OBRs have placer order numbers."""
    numbers = [p.obr.raw(2) for p in group.procedures]
    if len({n for n in numbers if n}) < 2:
        return [group]
    found: list[OrderGroup] = []
    for number, procedure in zip(numbers, group.procedures, strict=True):
        known = next((g for g in found if g.procedures[0].obr.raw(2) == number), None)
        if known is None and (number or not found):
            found.append(OrderGroup(group.orc, [procedure], own_numbers=True))
        else:
            (known or found[-1]).procedures.append(procedure)
    return found


@dataclass(frozen=True, slots=True)
class Order:
    """What is being done: one order of a message, and the transaction for it."""

    unit: UnitOfWork
    sender: Sender
    message: Message
    people: People
    group: OrderGroup

    @property
    def orc(self) -> Segment:
        return self.group.orc

    @property
    def obr(self) -> Segment:
        """The first. Refused when there is none: what is ordered?"""
        if not self.group.procedures:
            raise no_segment("OBR", "the procedure ordered (OBR)", self.orc.number)
        return self.group.procedures[0].obr

    @property
    def obrs(self) -> list[Segment]:
        return self.group.obrs

    @property
    def numbered(self) -> list[Segment]:
        """The segments that may hold the order numbers (field 2 and 3), the one that counts first."""
        return self.group.numbered

    @property
    def numbers(self) -> list[tuple[Segment, int]]:
        """Where its numbers are: the placer's (field 2), then the filler's (3); of those that are written alike the first.

        An ORC that several orders share has a number of at most one of them.
        """
        segments = self.obrs[:1] if self.group.own_numbers and self.obrs[0].raw(2) else [self.orc, *self.obrs]
        found: dict[tuple[int, str], tuple[Segment, int]] = {}
        for field_ in (2, 3):
            for segment in segments:
                if segment.field(field_).strip():
                    found.setdefault((field_, segment.raw(field_)), (segment, field_))
        return list(found.values())

    @property
    def timings(self) -> list[Segment]:
        """TQ1 of the first OBR: those of the order."""
        return self.group.details[0].timings

    @property
    def steps(self) -> list[Segment]:
        """All IPC."""
        return [s for d in self.group.details for s in d.steps]
