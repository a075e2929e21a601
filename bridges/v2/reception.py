"""What every mapping of a received message works with: the transaction, the message, its sender, and what to answer."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo

from bridges.v2 import times
from bridges.v2.datatypes import CX, HD
from bridges.v2.message import Message, Seg, Segment, readable
from bridges.v2.partner import Partner
from bridges.v2.refused import wrong
from fhir_server.interactions import Interactions
from fhir_server.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose dialect a message is in: the names of MSH-3 and MSH-4, and the zone of times without an offset."""

    application: str
    facility: str
    zone: tzinfo
    partner: Partner = field(default_factory=Partner)

    @classmethod
    def of(cls, message: Message, zone: tzinfo, partner: Partner | None = None) -> "Sender":
        """`zone` is the department's, for partners that don't name theirs."""
        known = partner or Partner()
        application, facility = (readable(message.msh.field(number).strip()) for number in (3, 4))
        return cls(application, facility, known.zone or zone, known)

    @property
    def authority(self) -> str:
        """Who assigned an identifier that doesn't say so."""
        return self.facility or self.application or "unknown"

    def known(self, cx: CX) -> CX:
        """An identifier with its authority as all senders know it, where the partner's name for it was agreed."""
        agreed = self.partner.authorities
        if not agreed or cx.authority.universal_id:
            return cx
        universal = agreed.get(cx.authority.namespace or self.authority)
        if universal is None:
            return cx
        kind = "ISO" if re.fullmatch(r"[0-9.]+", universal) else "URI" if ":" in universal else ""
        authority = HD(cx.authority.namespace, universal, kind) if kind else HD(universal)
        return replace(cx, authority=authority)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that says more than an acknowledgement: `("ORR", "O02", "ORR_O02")` with the segments after MSA.

    message_type: None for a plain acknowledgement
    text: MSA-3
    state: what the message store says of the message beside its outcome, such as `parked`
    """

    message_type: tuple[str, str, str] | None = None
    segments: Sequence[Seg] = ()
    text: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Reception:
    """A message being received, in the transaction of what it does.

    afterwards: what is to be done when that is committed, before the sender is answered. It is on record by then: should it
        fail, or the process end, it is done later
    """

    unit: UnitOfWork
    message: Message
    sender: Sender
    afterwards: list[Callable[[Interactions], Awaitable[None]]] = field(default_factory=list)


Receive = Callable[[Reception], Awaitable[Reply | None]]


def date_time(sender: Sender, segment: Segment, field: int, component: int = 1, repetition: int = 0) -> str | None:
    """A v2 TS as FHIR dateTime, None when it is empty; a malformed one is refused with its place."""
    text = segment.get(field, component, repetition=repetition).strip()
    try:
        return times.to_datetime(text, sender.zone) if text else None
    except ValueError as error:
        raise wrong(segment, field, str(error), code=102, component=component if component > 1 else None) from None
