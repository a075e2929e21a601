"""What a service sees of the upper layer: the requests that it gets, the responses that it gives, and how it is registered."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from bridges.dicom.upper_layer import command
from bridges.dicom.upper_layer.messages import Message

if TYPE_CHECKING:
    from bridges.dicom.upper_layer.association import Association

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
# In the order in which they are chosen among those that are proposed.
TRANSFER_SYNTAXES: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
UNRECOGNISED_OPERATION: Final = 0x0211
MISTYPED_ARGUMENT: Final = 0x0212
_COMMENT_LENGTH = 64  # Error Comment is an LO


class Operation(IntEnum):
    """The DIMSE operations and notifications that can be served, by their command field (PS3.7 E.1)."""

    C_STORE = command.C_STORE
    C_GET = command.C_GET
    C_FIND = command.C_FIND
    C_MOVE = command.C_MOVE
    C_ECHO = command.C_ECHO
    N_EVENT_REPORT = command.N_EVENT_REPORT
    N_GET = command.N_GET
    N_SET = command.N_SET
    N_ACTION = command.N_ACTION
    N_CREATE = command.N_CREATE
    N_DELETE = command.N_DELETE


# Those whose messages name the class and instance as requested, not as affected (PS3.7 10.3).
_OF_REQUESTED: Final = frozenset({Operation.N_GET, Operation.N_SET, Operation.N_ACTION, Operation.N_DELETE})


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the connection. `certificate`: DER, when it showed one over TLS."""

    address: str
    tls: bool = False
    certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context that was agreed on."""

    id: int
    abstract_syntax: str
    transfer_syntax: str

    @property
    def explicit(self) -> bool:
        """Whether data sets have explicit VRs."""
        return self.transfer_syntax != IMPLICIT_LITTLE


@dataclass(frozen=True, slots=True)
class Response:
    """The (last) response to a request (PS3.7 annex C).

    sop_instance: of N-CREATE, where the requestor left the choice to us
    data: the encoded data set, in the context's transfer syntax
    """

    status: int = SUCCESS
    comment: str = ""
    error_id: int | None = None
    sop_instance: str | None = None
    data: bytes | None = None


@dataclass(slots=True, eq=False)
class Request:
    """A request of the peer, with the association that it came on."""

    association: "Association"
    context: Context
    message: Message
    _cancelled: bool = field(default=False)

    @property
    def operation(self) -> int:
        return self.message.field

    @property
    def message_id(self) -> int:
        return command.number(self.message.command, command.MESSAGE_ID)

    @property
    def sop_class(self) -> str:
        """The SOP class that the message names; where it names none, that of its context."""
        element = command.REQUESTED_SOP_CLASS if self.operation in _OF_REQUESTED else command.AFFECTED_SOP_CLASS
        return command.text(self.message.command, element) or self.context.abstract_syntax

    @property
    def sop_instance(self) -> str:
        """The SOP Instance UID, or an empty string."""
        element = command.REQUESTED_SOP_INSTANCE if self.operation in _OF_REQUESTED else command.AFFECTED_SOP_INSTANCE
        return command.text(self.message.command, element)

    @property
    def data(self) -> bytes:
        """The bytes of the data set; none when there is no data set."""
        return self.message.data or b""

    @property
    def cancelled(self) -> bool:
        """Whether the peer has cancelled the request (C-CANCEL), or is gone."""
        return self._cancelled or self.association.ended

    def cancel(self) -> None:
        self._cancelled = True

    async def pending(self, status: int, answers: Sequence[bytes]) -> None:
        """Send responses with these data sets before the last one. AssociationEnded when the peer is gone."""
        await self.association.send_all(self.context.id, self._command(Response(status, data=b"")), answers)

    async def respond(self, response: Response) -> None:
        answers = [] if response.data is None else [response.data]
        await self.association.send_all(self.context.id, self._command(response), answers)

    def _command(self, response: Response) -> bytes:
        """The command set of a response. The UIDs of response are always the affected ones (PS3.7 9.3, 10.3)."""
        told: command.Command = {
            command.COMMAND_FIELD: self.operation | command.RESPONSE,
            command.RESPONDED_TO: self.message_id,
            command.DATA_SET_TYPE: command.NO_DATA_SET if response.data is None else command.DATA_SET,
            command.STATUS: response.status,
            command.AFFECTED_SOP_CLASS: self.sop_class,
        }
        if instance := response.sop_instance or self.sop_instance:
            told[command.AFFECTED_SOP_INSTANCE] = instance
        if response.comment:
            told[command.ERROR_COMMENT] = response.comment[:_COMMENT_LENGTH]
        if response.error_id is not None:
            told[command.ERROR_ID] = response.error_id
        return command.encode(told)


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Service:
    """A SOP class that we are SCP of, with what serves its operations. A handler that raises is answered 0110.

    extended: the answer to the service class application information of its extended negotiation (PS3.7 D.3.3.5);
        None answers with none.
    """

    sop_class: str
    handlers: Mapping[Operation, Handler]
    transfer_syntaxes: tuple[str, ...] = TRANSFER_SYNTAXES
    extended: Callable[[bytes], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an association is refused: result, source and reason of the A-ASSOCIATE-RJ (PS3.8 9.3.4), and in words."""

    result: int
    source: int
    reason: int
    text: str


@dataclass(frozen=True, slots=True)
class Admission:
    """Who calls, for the services (`Association.caller`), and how many associations it may have at a time."""

    caller: Any = None
    most_associations: int = 0  # 0: as many as anybody
