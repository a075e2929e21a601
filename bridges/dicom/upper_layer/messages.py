"""DIMSE messages out of presentation data values (PS3.7 6.3, PS3.8 annex E)."""

from dataclasses import dataclass
from typing import Final

from bridges.dicom.upper_layer import command
from bridges.dicom.upper_layer.command import Command, MalformedCommand
from bridges.dicom.upper_layer.pdu import COMMAND, LAST, DataValue

MAX_MESSAGE: Final = 16 * 1024 * 1024  # bytes of one message, command and data set
_MAX_COMMAND: Final = 64 * 1024


class BrokenMessage(Exception):
    """Fragments that are no message, or one that is longer than we take. It costs the association."""


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message: its presentation context, command set, and the bytes of its data set, if it has one."""

    context_id: int
    command: Command
    data: bytes | None

    @property
    def field(self) -> int:
        return command.number(self.command, command.COMMAND_FIELD)


class Assembler:
    """Puts the fragments of one association's messages together; messages come one after the other, never mixed."""

    def __init__(self) -> None:
        self._context_id = 0
        self._command: Command | None = None
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, value: DataValue) -> Message | None:
        """The message that this fragment completes. BrokenMessage when it doesn't fit."""
        of_command = bool(value.control & COMMAND)
        if (self._parts or self._command is not None) and value.context_id != self._context_id:
            raise BrokenMessage("fragments of several presentation contexts are mixed")
        if of_command != (self._command is None):
            raise BrokenMessage("a fragment of a command set and one of a data set are mixed up")
        self._context_id = value.context_id
        self._parts.append(value.data)
        self._length += len(value.data)
        if self._length > (_MAX_COMMAND if of_command else MAX_MESSAGE):
            raise BrokenMessage("a message is longer than is taken")
        if not value.control & LAST:
            return None
        data, self._parts, self._length = b"".join(self._parts), [], 0
        if not of_command:
            return self._complete(data)
        try:
            self._command = command.decode(data)
        except MalformedCommand as error:
            raise BrokenMessage(f"a command set can't be read: {error}") from None
        if command.number(self._command, command.DATA_SET_TYPE) == command.NO_DATA_SET:
            return self._complete(None)
        return None

    def _complete(self, data: bytes | None) -> Message:
        assert self._command is not None
        message, self._command = Message(self._context_id, self._command, data), None
        return message
