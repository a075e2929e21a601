"""The protocol data units (PS3.8 9.3), from and to bytes."""

import struct
from dataclasses import dataclass, field
from typing import Final

from bridges.dicom.upper_layer import items
from bridges.dicom.upper_layer.items import MalformedPdu, UserInformation

ASSOCIATE_RQ: Final = 0x01
ASSOCIATE_AC: Final = 0x02
ASSOCIATE_RJ: Final = 0x03
DATA_TF: Final = 0x04
RELEASE_RQ: Final = 0x05
RELEASE_RP: Final = 0x06
ABORT: Final = 0x07
KINDS: Final = frozenset(range(ASSOCIATE_RQ, ABORT + 1))

HEADER_LENGTH: Final = 6  # type, reserved, length
PDV_OVERHEAD: Final = 6  # length, presentation context id, message control header
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION: Final = 1

# Message control header (PS3.8 E.2)
COMMAND: Final = 0x01
LAST: Final = 0x02

# Results of a presentation context (PS3.8 9.3.3.2)
ACCEPTED: Final = 0
NO_REASON: Final = 2
ABSTRACT_SYNTAX_NOT_SUPPORTED: Final = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED: Final = 4

# Sources and reasons of an abort (PS3.8 9.3.8)
BY_SERVICE_USER: Final = 0
BY_SERVICE_PROVIDER: Final = 2
UNRECOGNISED_PDU: Final = 1
UNEXPECTED_PDU: Final = 2
INVALID_PARAMETER: Final = 6


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as it is proposed: `id` is odd, 1 to 255."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextResult:
    """The answer to a proposed presentation context. The transfer syntax counts only when `result` is ACCEPTED."""

    id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ. AE titles come without the spaces around them, which mean nothing (PS3.5 6.2)."""

    called: str
    calling: str
    contexts: tuple[ProposedContext, ...]
    user: UserInformation = field(default_factory=UserInformation)
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = PROTOCOL_VERSION

    def encode(self) -> bytes:
        body = _fixed(self.protocol_version, self.called, self.calling) + _application_context(self.application_context)
        for context in self.contexts:
            syntaxes = b"".join(items.item(0x40, t.encode("ascii")) for t in context.transfer_syntaxes)
            head = struct.pack(">BBBB", context.id, 0, 0, 0)
            body += items.item(0x20, head + items.item(0x30, context.abstract_syntax.encode("ascii")) + syntaxes)
        return _pdu(ASSOCIATE_RQ, body + self.user.encode())


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """A-ASSOCIATE-AC. The titles are sent back as they came, and not looked at by the requestor (PS3.8 9.3.3)."""

    called: str
    calling: str
    contexts: tuple[ContextResult, ...]
    user: UserInformation = field(default_factory=UserInformation)

    def encode(self) -> bytes:
        body = _fixed(PROTOCOL_VERSION, self.called, self.calling) + _application_context(APPLICATION_CONTEXT)
        for context in self.contexts:
            head = struct.pack(">BBBB", context.id, 0, context.result, 0)
            body += items.item(0x21, head + items.item(0x40, context.transfer_syntax.encode("ascii")))
        return _pdu(ASSOCIATE_AC, body + self.user.encode())


@dataclass(frozen=True, slots=True)
class AssociateReject:
    """A-ASSOCIATE-RJ: result (1 permanent, 2 transient), source and reason (PS3.8 table 9-21)."""

    result: int
    source: int
    reason: int

    def encode(self) -> bytes:
        return _pdu(ASSOCIATE_RJ, bytes((0, self.result, self.source, self.reason)))


@dataclass(frozen=True, slots=True)
class DataValue:
    """A presentation data value: a fragment of a command or of a data set (PS3.8 9.3.5.1, E.2)."""

    context_id: int
    control: int
    data: bytes


@dataclass(frozen=True, slots=True)
class DataTransfer:
    """P-DATA-TF"""

    values: tuple[DataValue, ...]


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    def encode(self) -> bytes:
        return _pdu(RELEASE_RQ, bytes(4))


@dataclass(frozen=True, slots=True)
class ReleaseResponse:
    def encode(self) -> bytes:
        return _pdu(RELEASE_RP, bytes(4))


@dataclass(frozen=True, slots=True)
class Abort:
    source: int
    reason: int = 0

    def encode(self) -> bytes:
        return _pdu(ABORT, bytes((0, 0, self.source, self.reason)))


Pdu = AssociateRequest | AssociateAccept | AssociateReject | DataTransfer | ReleaseRequest | ReleaseResponse | Abort


def decode(kind: int, body: bytes) -> Pdu:
    """The PDU of this type with this body. MalformedPdu when it isn't one."""
    if kind == DATA_TF:
        return DataTransfer(_data_values(body))
    if kind == ASSOCIATE_RQ:
        return _associate_request(body)
    if kind == ASSOCIATE_AC:
        return _associate_accept(body)
    if kind not in KINDS or len(body) < 4:
        raise MalformedPdu("a PDU is too short")
    if kind == ASSOCIATE_RJ:
        return AssociateReject(body[1], body[2], body[3])
    if kind == ABORT:
        return Abort(body[2], body[3])
    return ReleaseRequest() if kind == RELEASE_RQ else ReleaseResponse()


def fragments(context_id: int, control: int, data: bytes, max_length: int) -> bytes:
    """The P-DATA-TF PDUs of a command or data set, one value each, none longer than the peer takes (0: of any length).

    control: COMMAND, or 0 for a data set.
    """
    size = max_length - PDV_OVERHEAD if max_length > PDV_OVERHEAD else max(len(data), 1)
    if len(data) <= size:
        return _data_pdu(context_id, control | LAST, data)
    size -= size % 2
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(_data_pdu(context_id, control | (LAST if p is pieces[-1] else 0), p) for p in pieces)


def _data_pdu(context_id: int, control: int, data: bytes) -> bytes:
    length = len(data)
    return struct.pack(">BBIIBB", DATA_TF, 0, length + PDV_OVERHEAD, length + 2, context_id, control) + data


def _data_values(body: bytes) -> tuple[DataValue, ...]:
    found, at = [], 0
    while at < len(body):
        if at + PDV_OVERHEAD > len(body):
            raise MalformedPdu("a presentation data value is cut")
        length, context_id, control = struct.unpack_from(">IBB", body, at)
        end = at + 4 + length
        if length < 2 or end > len(body):
            raise MalformedPdu("a presentation data value has a wrong length")
        found.append(DataValue(context_id, control, body[at + PDV_OVERHEAD : end]))
        at = end
    if not found:
        raise MalformedPdu("P-DATA without values")
    return tuple(found)


def _associate_request(body: bytes) -> AssociateRequest:
    version, called, calling = _read_fixed(body)
    application, contexts, user = "", [], UserInformation()
    for kind, value in items.split(body[68:]):
        if kind == 0x10:
            application = items.uid(value)
        elif kind == 0x20:
            contexts.append(_proposed(value))
        elif kind == 0x50:
            user = UserInformation.decode(value)
    ids = [c.id for c in contexts]
    if not contexts or len(set(ids)) != len(ids):
        raise MalformedPdu("presentation contexts are missing, or come twice")
    return AssociateRequest(called, calling, tuple(contexts), user, application, version)


def _proposed(value: bytes) -> ProposedContext:
    if len(value) < 4 or value[0] % 2 == 0:
        raise MalformedPdu("a presentation context has a wrong id")
    abstract, transfers = "", []
    for kind, content in items.split(value[4:]):
        if kind == 0x30:
            abstract = items.uid(content)
        elif kind == 0x40:
            transfers.append(items.uid(content))
    if not abstract or not transfers:
        raise MalformedPdu("a presentation context has no abstract or no transfer syntax")
    return ProposedContext(value[0], abstract, tuple(transfers))


def _associate_accept(body: bytes) -> AssociateAccept:
    _, called, calling = _read_fixed(body)
    contexts, user = [], UserInformation()
    for kind, value in items.split(body[68:]):
        if kind == 0x21:
            if len(value) < 4:
                raise MalformedPdu("a presentation context is cut")
            syntaxes = [items.uid(content) for sub, content in items.split(value[4:]) if sub == 0x40]
            contexts.append(ContextResult(value[0], value[2], syntaxes[0] if syntaxes else ""))
        elif kind == 0x50:
            user = UserInformation.decode(value)
    return AssociateAccept(called, calling, tuple(contexts), user)


def _read_fixed(body: bytes) -> tuple[int, str, str]:
    if len(body) < 68:
        raise MalformedPdu("an A-ASSOCIATE PDU is too short")
    return int.from_bytes(body[:2], "big"), _title(body[4:20]), _title(body[20:36])


def _title(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _fixed(version: int, called: str, calling: str) -> bytes:
    titles = [t.encode("ascii", "replace")[:16].ljust(16) for t in (called, calling)]
    return struct.pack(">HH", version, 0) + titles[0] + titles[1] + bytes(32)


def _application_context(uid: str) -> bytes:
    return items.item(0x10, uid.encode("ascii"))


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body
