"""A peer at the level of bytes: it sends what it likes, and reads when it likes. Blocking."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from bridges.dicom.upper_layer import command, pdu
from bridges.dicom.upper_layer.items import UserInformation
from bridges.dicom.upper_layer.messages import Assembler, Message
from bridges.dicom.upper_layer.pdu import AssociateAccept, AssociateRequest, Pdu, ProposedContext

WORKLIST, MPPS, VERIFICATION = "1.2.840.10008.5.1.4.31", "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.1.1"
ILLE, ELE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def encoded(data: Dataset) -> bytes:
    """A data set in implicit VR little endian."""
    to = DicomBytesIO()
    to.is_little_endian, to.is_implicit_VR = True, True
    write_dataset(to, data)
    return bytes(to.getvalue())


@dataclass
class Wire:
    """A connection to a DICOM server."""

    port: int
    receive_buffer: int = 0
    source: str = "127.0.0.1"
    connection: socket.socket = field(init=False)
    _assembler: Assembler = field(default_factory=Assembler)

    def __enter__(self) -> Self:
        self.connection = socket.socket()
        if self.receive_buffer:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        self.connection.settimeout(30)
        self.connection.bind((self.source, 0))
        self.connection.connect(("127.0.0.1", self.port))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.connection.close()

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def associate(
        self,
        calling: str = "CT1",
        called: str = "FHIR_RIS",
        *,
        contexts: tuple[ProposedContext, ...] = (),
        user: UserInformation | None = None,
        **more: Any,
    ) -> Pdu | None:
        """Propose an association (context 1: worklist, 3: MPPS, 5: verification, implicit VR), and read the answer."""
        contexts = contexts or tuple(ProposedContext(i, s, (ILLE,)) for i, s in ((1, WORKLIST), (3, MPPS), (5, VERIFICATION)))
        self.send(AssociateRequest(called, calling, contexts, user or UserInformation(65536, "2.25.1"), **more).encode())
        return self.read()

    def established(self, calling: str = "CT1", **more: Any) -> AssociateAccept:
        answer = self.associate(calling, **more)
        assert isinstance(answer, AssociateAccept), answer
        return answer

    def read(self) -> Pdu | None:
        """The next PDU; None at the end of the connection."""
        head = self._exactly(6)
        if head is None:
            return None
        kind, _, length = struct.unpack(">BBI", head)
        body = self._exactly(length)
        return None if body is None else pdu.decode(kind, body)

    def _exactly(self, length: int) -> bytes | None:
        found = b""
        while len(found) < length:
            try:
                part = self.connection.recv(length - len(found))
            except ConnectionError:
                return None
            if not part:
                return None
            found += part
        return found

    def say(self, context: int, told: dict[int, str | int | bytes], data: bytes | None = None, limit: int = 16384) -> None:
        told = told | {command.DATA_SET_TYPE: command.NO_DATA_SET if data is None else command.DATA_SET}
        sent = pdu.fragments(context, pdu.COMMAND, command.encode(told), limit)
        self.send(sent if data is None else sent + pdu.fragments(context, 0, data, limit))

    def ask_worklist(self, keys: Dataset, message_id: int = 1, context: int = 1) -> None:
        told: dict[int, str | int | bytes] = {
            command.AFFECTED_SOP_CLASS: WORKLIST,
            command.COMMAND_FIELD: command.C_FIND,
            command.MESSAGE_ID: message_id,
            command.PRIORITY: 0,
        }
        self.say(context, told, encoded(keys))

    def echo(self, context: int = 5) -> int:
        told: dict[int, str | int | bytes] = {
            command.AFFECTED_SOP_CLASS: VERIFICATION,
            command.COMMAND_FIELD: command.C_ECHO,
            command.MESSAGE_ID: 9,
        }
        self.say(context, told)
        return status(next(self.messages()))

    def messages(self) -> Iterator[Message]:
        """The messages that come, until the connection ends or something else comes."""
        while isinstance(got := self.read(), pdu.DataTransfer):
            for value in got.values:
                if (message := self._assembler.add(value)) is not None:
                    yield message


def status(message: Message) -> int:
    return command.number(message.command, command.STATUS)
