"""What is asked of a message before anything is done: may this sender send it, in a form that we agreed on?"""

import re
from typing import Final

from bridges.v2.ack import AckError
from bridges.v2.message import Message
from bridges.v2.partner import Partner
from bridges.v2.refused import Refused
from bridges.v2.structure import faults

MAX_REPETITIONS: Final = 200
# Segments about one patient of which each is looked up and kept: so many of a kind in one message.
MAX_SEGMENTS: Final = 200
_COUNTED: Final = frozenset({"AL1", "DG1", "GT1", "IN1", "NK1"})
_MOST_FAULTS: Final = 20
# Versions that are read alike: 2.x, written in any way, and what senders that don't know theirs write.
_READABLE: Final = re.compile(r"(|(HL7)?\s*v?2(\.\d{1,2}){0,2}|3\.0)", re.ASCII | re.IGNORECASE)


def admit(message: Message, partner: Partner) -> list[str]:
    """What is odd about a message that is taken all the same (accept-validation `warn`). Refused for what isn't taken."""
    if (refusal := _too_much(message)) is not None:
        raise refusal
    kind, event, _ = message.type
    if not partner.may_send(kind, event):
        text = f"{kind[:10]}^{event[:10]} is not among the messages agreed with this sender"
        raise Refused(AckError("MSH", 1, 9, 2, code=201, text=text), code="AR")
    processing = message.msh.field(11).strip().upper()
    if processing and processing not in partner.processing:
        allowed = ", ".join(sorted(partner.processing))
        raise Refused(AckError("MSH", 1, 11, code=202, text=f"processing ids taken from this sender: {allowed}"), code="AR")
    if not _READABLE.fullmatch(message.version.strip()):
        raise Refused(AckError("MSH", 1, 12, code=203, text="versions taken: 2.1 to 2.8.2"), code="AR")
    return _structure(message, partner)


def _structure(message: Message, partner: Partner) -> list[str]:
    found = faults(message) if partner.validation != "none" else []
    if found and partner.validation == "strict":
        raise Refused(*found[:_MOST_FAULTS])
    return [f"{e.segment}{f'-{e.field}' if e.field else ''}: {e.text}" for e in found[:_MOST_FAULTS]]


def _too_much(message: Message) -> Refused | None:
    """What repeats without end would keep everybody else waiting. Text (OBX, NTE) may have many lines."""
    for segment in message.segments:
        if segment.name in _COUNTED and segment.number > MAX_SEGMENTS:
            text = f"a message has at most {MAX_SEGMENTS} {segment.name}"
            return Refused(AckError(segment.name, segment.number, code=102, text=text))
        field, count = segment.most_repeated() if segment.name not in {"OBX", "NTE"} else (0, 0)
        if count > MAX_REPETITIONS:
            text = f"a field repeats at most {MAX_REPETITIONS} times"
            return Refused(AckError(segment.name, segment.number, field, code=102, text=text))
    return None
