"""ORM^O01, OMG^O19 and OMI^O23: what a placer is told of its order (IHE RAD-3), an image manager of the steps (RAD-4, RAD-13)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bridges.v2.destination import Destination
from bridges.v2.message import Seg
from bridges.v2.order_facts import OrderFacts, Render
from bridges.v2.order_segments_out import OrderLine, Step, order_segments, zds
from bridges.v2.segments_out import msh, pid, present, pv1


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of an order: ORC-1 and ORC-5."""

    control: str
    status: str


# RAD-3: SC with the status; SN asks for a placer number; OC is our own cancellation.
NUMBER_WANTED = Told("SN", "SC")
CANCELLED_HERE = Told("OC", "CA")
DISCONTINUED_HERE = Told("OC", "DC")
HELD = Told("SC", "HD")
# Not held any more, or without its booking: table 0038 has no code for what waits to be scheduled but "in process, unspecified".
WAITS = Told("SC", "IP")
# RAD-4 and RAD-13, the only pairs that IHE knows.
SCHEDULED = Told("NW", "SC")
CHANGED = Told("XO", "SC")
DONE = Told("XO", "CM")
CANCELLED = Told("CA", "CA")
DISCONTINUED = Told("DC", "CA")


def to_placer(told: Told, steps: Sequence[Step], facts: OrderFacts, kind: str, now: datetime) -> Render:
    """The status of an order, or of some of its steps."""
    line = OrderLine(facts, kind, told.control, told.status, now, tuple(steps[:1]))

    def render(to: Destination, control_id: str) -> list[Seg]:
        return list(present([*_head(line, to, control_id), *order_segments(line, to)]))

    return render


def to_image_manager(told: Told, steps: Sequence[Step], facts: OrderFacts, kind: str, now: datetime) -> Render:
    """A requested procedure with its steps: an IPC each in OMI, an ORC and OBR each in ORM, then the Study UID (ZDS)."""
    line = OrderLine(facts, kind, told.control, told.status, now, tuple(steps))

    def render(to: Destination, control_id: str) -> list[Seg]:
        if kind == "OMI^O23":
            return list(present([*_head(line, to, control_id), *order_segments(line, to)]))
        each = [replace(line, steps=(step,), number=i) for i, step in enumerate(steps, 1)] or [line]
        orders = [segment for one in each for segment in order_segments(one, to)]
        return list(present([*_head(line, to, control_id), *orders, zds(facts.study_uid, to)]))

    return render


def _head(line: OrderLine, to: Destination, control_id: str) -> list[Seg | None]:
    facts = line.facts
    return [
        msh(to, line.kind, line.kind.replace("^", "_"), control_id, line.now),
        pid(facts.patient, to),
        pv1(facts.encounter, to, facts.people),
    ]
