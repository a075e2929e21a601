"""Acknowledgements (HL7 v2 2.9.2 and 2.13.1): writing ours, and reading a receiver's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridges.v2.charset import DEFAULT
from bridges.v2.datatypes import EI
from bridges.v2.message import Comp, Message, MessageError, Raw, Seg, Segment, Sub, Value, encode, parse
from bridges.v2.times import from_datetime

# Table 0357, message error condition codes.
ERROR_CODES: Final = {
    0: "Message accepted",
    100: "Segment sequence error",
    101: "Required field missing",
    102: "Data type error",
    103: "Table value not found",
    200: "Unsupported message type",
    201: "Unsupported event code",
    202: "Unsupported processing id",
    203: "Unsupported version id",
    204: "Unknown key identifier",
    205: "Duplicate key identifier",
    206: "Application record locked",
    207: "Application internal error",
}
# Table 0008: A for the application's answer, C for "received and kept"; A accept, E error, R reject.
POSITIVE: Final = frozenset({"AA", "CA"})
CODES: Final = POSITIVE | {"AE", "AR", "CE", "CR"}
_OUR_VERSION: Final = "2.5.1"  # of an answer to a message that names none


@dataclass(frozen=True, slots=True)
class AckError:
    """One error: where (segment name and its number among those of this name, field, component; all from 1) and what.

    code: table 0357; None when read from an answer without a readable one
    text: for the user at the other end; diagnostics: for whoever mends the interface; severity: E, W or I (table 0516)
    """

    segment: str = ""
    sequence: int | None = None
    field: int | None = None
    component: int | None = None
    code: int | None = 207
    text: str = ""
    severity: str = "E"
    repetition: int | None = None
    diagnostics: str = ""


@dataclass(frozen=True, slots=True)
class Numbers:
    """An ORC of an order response: its order control, and the numbers that it tells."""

    control: str
    placer: EI
    filler: EI


@dataclass(frozen=True, slots=True)
class Ack:
    """A receiver's answer to `control_id`. `numbers` are those of an order response, `sender` is its MSH-4, else MSH-3."""

    code: str
    control_id: str
    text: str = ""
    errors: tuple[AckError, ...] = ()
    numbers: tuple[Numbers, ...] = ()
    sender: str = ""

    @property
    def positive(self) -> bool:
        return self.code in POSITIVE


def acknowledge(
    message: Message | None,
    code: str,
    *,
    control_id: str,
    when: datetime,
    errors: Sequence[AckError] = (),
    text: str = "",
    extra_segments: Sequence[Seg] = (),
    response: tuple[str, str, str] | None = None,
    application: str = "",
    facility: str = "",
) -> bytes:
    """The answer to a message, or to a frame that could not be read (None): then MSA-2 is empty.

    code: of table 0008; ValueError for others
    control_id, when: MSH-10 and MSH-7 of the answer; `when` is aware
    text: MSA-3; the first error's where left out
    extra_segments: after MSA and ERR, such as the ORC and OBR of an order response
    response: MSH-9 of an application response, such as `("ORG", "O20", "ORG_O20")`, in place of ACK
    application, facility: MSH-3 and MSH-4 where the message doesn't say who it was meant for

    Sender and receiver change places; separators, version, processing id and character set are the message's own, and MSA-2
    is its MSH-10 byte for byte. Versions below 2.5 get the old ERR-1, others an ERR segment for each error.
    """
    if code not in CODES:
        raise ValueError(f"{code} is no acknowledgement code")
    echoed = {number: Raw(message.msh.raw(number)) if message else Raw("") for number in (3, 4, 5, 6, 10, 11, 12, 18)}
    version = _version(message.version if message else "")
    msh: dict[int, Value | Sequence[Value]] = {
        3: echoed[5] if echoed[5].text else application,
        4: echoed[6] if echoed[6].text else facility,
        5: echoed[3],
        6: echoed[4],
        7: from_datetime(when),
        9: Comp(*response) if response else _message_type(message, version),
        10: control_id,
        11: echoed[11] if echoed[11].text else "P",
        12: echoed[12] if echoed[12].text else _OUR_VERSION,
        18: echoed[18],
    }
    msa: dict[int, Value | Sequence[Value]] = {
        1: code,
        2: echoed[10],
        3: text or next((e.text or _meaning(e) for e in errors), ""),
    }
    segments = [Seg("MSH", msh), Seg("MSA", msa), *_err(errors, version), *extra_segments]
    if message is None:
        return encode(segments)
    return encode(segments, message.codec, message.separators)


def read_ack(data: bytes) -> Ack:
    """A receiver's answer, with or without an MSH. Raises MessageError where no MSA can be read."""
    try:
        message = parse(data)
    except MessageError:
        # Some receivers send a bare MSA; the default separators are the best guess there is.
        found = re.search(rb"(?:^|[\r\n\x0b])(MSA\|)", data)
        if found is None:
            raise
        message = parse(b"MSH|" + DEFAULT.encoding.encode() + b"\r" + data[found.start(1) :])
    msa = message.first("MSA")
    if msa is None:
        raise MessageError("the answer has no MSA segment")
    errors = tuple(error for segment in message.all("ERR") for error in _read_err(segment))
    numbers = tuple(_read_orc(segment) for segment in message.all("ORC"))
    sender = message.msh.field(4).strip() or message.msh.field(3).strip()
    return Ack(msa.field(1).strip().upper(), msa.text(2).strip(), msa.text(3), errors, numbers, sender)


def _read_orc(orc: Segment) -> Numbers:
    placer, filler = (EI.from_field(orc.repetitions(n)[0]) if orc.raw(n) else EI() for n in (2, 3))
    return Numbers(orc.field(1).strip().upper(), placer, filler)


def _version(text: str) -> tuple[int, ...]:
    """Comparable; unknown versions count as new ones."""
    return tuple(int(n) for n in re.findall(r"[0-9]{1,4}", text)[:3]) or (2, 5, 1)


def _message_type(message: Message | None, version: tuple[int, ...]) -> Value:
    event = message.type[1] if message else ""
    return Comp("ACK", event, "ACK") if version >= (2, 4) and event else "ACK"


def _meaning(error: AckError) -> str:
    return ERROR_CODES.get(207 if error.code is None else error.code, "")


def _err(errors: Sequence[AckError], version: tuple[int, ...]) -> list[Seg]:
    if not errors:
        return []
    if version < (2, 5):
        return [Seg("ERR", {1: [Comp(e.segment, e.sequence, e.field, Sub(_code(e), _meaning(e), "HL70357")) for e in errors]})]
    return [
        Seg(
            "ERR",
            {
                2: Comp(e.segment, e.sequence, e.field, e.repetition or (1 if e.component else None), e.component),
                3: Comp(_code(e), _meaning(e), "HL70357"),
                4: e.severity,
                7: e.diagnostics,
                8: e.text,
            },
        )
        for e in errors
    ]


def _code(error: AckError) -> int:
    return 207 if error.code is None else error.code


def _read_err(segment: Segment) -> list[AckError]:
    """ERR of 2.5 and later where ERR-3 is there, else the repetitions of the old ERR-1."""
    if segment.raw(3):
        place = segment.repetitions(2)[0].get if segment.raw(2) else lambda _: ""
        return [
            AckError(
                place(1),
                _number(place(2)),
                _number(place(3)),
                _number(place(5)),
                _number(segment.get(3)),
                segment.text(8) or segment.get(3, 2),
                segment.field(4) or "E",
                _number(place(4)),
                segment.text(7),
            )
        ]
    return [
        AckError(e.get(1), _number(e.get(2)), _number(e.get(3)), None, _number(e.get(4, 1)), e.get(4, 2))
        for e in segment.repetitions(1)
    ]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
