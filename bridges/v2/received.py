"""A message as it came in: what was read of it, from whom it is, and how it is called in metrics, audit and store."""

import re
from dataclasses import dataclass
from datetime import datetime

from bridges.v2.ack import AckError
from bridges.v2.message import MAX_HEADER, Message, MessageError, parse, readable
from bridges.v2.message_log import Key
from bridges.v2.mllp import Peer
from bridges.v2.mllp_frames import holds_another
from bridges.v2.partner import DEFAULT_CHARSET, Partner
from bridges.v2.partners import Directory
from bridges.v2.refused import Refused
from fhir_server import clock
from fhir_server.audit import Act
from smart_auth.access import Access

# A message is kept whole in one MongoDB document, which has at most 16 MiB.
MAX_SIZE = 15 * 1024 * 1024
# So much is kept of what can't be read, not even its MSH.
MAX_UNREADABLE = 64 * 1024
_LINE_END = re.compile(rb"[\r\n]")


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came in. `failure` says why it can't be taken, before anything of its content is looked at.

    message: its MSH alone where the rest can't be read, and None where not even that can
    """

    frame: bytes
    message: Message | None
    peer: Peer
    when: datetime
    key: Key
    partner: Partner
    failure: Refused | None = None

    @property
    def kind(self) -> str:
        """Such as `ADT^A04`."""
        return "^".join(self.message.type[:2]) if self.message else ""

    @property
    def label(self) -> str:
        """The kind, as far as it is one: for metrics and the audit, where a sender's arbitrary text has no place."""
        return self.kind if re.fullmatch(r"[A-Z]{3}\^[A-Z]\d\d", self.kind) else "other" if self.message else "unreadable"

    @property
    def is_strange(self) -> bool:
        """Whether nobody that we know has sent it."""
        return self.failure is not None and self.failure.stranger

    @property
    def access(self) -> Access:
        return Access.system(f"v2:{self.key.sender or 'unknown'}")

    def act(self, code: str) -> Act:
        control_id = readable(self.message.control_id) if self.message else ""
        return Act(self.label, source="v2", detail=f"{code} {control_id}".strip(), peer=self.peer.host)


def receive(frame: bytes, peer: Peer, directory: Directory, known: Partner | None = None) -> Received:
    """Read a frame and find out who sent it. `known`: that is known already, of a message that was kept."""
    when = clock.now()
    unreadable: MessageError | None = None
    try:
        message = parse(frame)
        if holds_another(frame):
            unreadable = MessageError("another message begins within this one")
    except MessageError as error:
        unreadable = error
        head = _head(frame)
        if head is None:
            return Received(frame, None, peer, when, Key.of(frame, None), known or Partner(), _refused(error))
        message = head
    key = Key.of(frame, message)
    try:
        partner = known or directory.sender(message, peer)
    except Refused as stranger:
        return Received(frame, message, peer, when, key, Partner(), stranger)
    if unreadable is not None:
        return Received(frame, message, peer, when, key, partner, _refused(unreadable))
    if message.declared is None and partner.charset != DEFAULT_CHARSET:
        message = parse(frame, default_charset=partner.charset)
    return Received(frame, message, peer, when, key, partner)


def _refused(error: MessageError) -> Refused:
    return Refused(AckError(code=100, text=str(error)), code="AR")


def _head(frame: bytes) -> Message | None:
    """The MSH of a message that can't be read as a whole: enough to know its sender and to answer it."""
    line = _LINE_END.split(frame.lstrip(b" \t\r\n\x0b")[:MAX_HEADER], 1)[0]
    try:
        return parse(line)
    except MessageError:
        return None
