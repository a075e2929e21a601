"""DIMSE command sets (PS3.7 6.3.1, annex E): always implicit VR little endian, one group."""

import struct
from typing import Final

# Elements of group 0000 (PS3.7 E.1)
AFFECTED_SOP_CLASS: Final = 0x0002
REQUESTED_SOP_CLASS: Final = 0x0003
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
RESPONDED_TO: Final = 0x0120
PRIORITY: Final = 0x0700
DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
OFFENDING_ELEMENT: Final = 0x0901
ERROR_COMMENT: Final = 0x0902
ERROR_ID: Final = 0x0903
AFFECTED_SOP_INSTANCE: Final = 0x1000
REQUESTED_SOP_INSTANCE: Final = 0x1001
EVENT_TYPE: Final = 0x1002
ATTRIBUTE_LIST: Final = 0x1005
ACTION_TYPE: Final = 0x1008

NO_DATA_SET: Final = 0x0101
DATA_SET: Final = 0x0000

# Command fields (PS3.7 E.1); a response's has the highest bit.
C_STORE, C_GET, C_FIND, C_MOVE, C_ECHO, C_CANCEL = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF
N_EVENT_REPORT, N_GET, N_SET, N_ACTION, N_CREATE, N_DELETE = 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150
RESPONSE: Final = 0x8000

_UIDS: Final = frozenset({AFFECTED_SOP_CLASS, REQUESTED_SOP_CLASS, AFFECTED_SOP_INSTANCE, REQUESTED_SOP_INSTANCE})
_NUMBERS: Final = frozenset(
    {COMMAND_FIELD, MESSAGE_ID, RESPONDED_TO, PRIORITY, DATA_SET_TYPE, STATUS, ERROR_ID, EVENT_TYPE, ACTION_TYPE}
)

# Element -> value: a UID or text as `str`, a number as `int`, tags (AT) and what isn't known as `bytes`.
Command = dict[int, "str | int | bytes"]


class MalformedCommand(Exception):
    """Bytes that are no command set."""


def decode(data: bytes) -> Command:
    """The command set; its group length is not looked at."""
    found: Command = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise MalformedCommand("an element is cut")
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        value = data[at : at + length]
        at += length
        if group != 0 or at > len(data):
            raise MalformedCommand("an element is of another group, or too long")
        if element in _NUMBERS:
            if length != 2:
                raise MalformedCommand("a number has a wrong length")
            found[element] = int.from_bytes(value, "little")
        elif element in _UIDS or element == ERROR_COMMENT:
            found[element] = value.decode("ascii", "replace").strip(" \0")
        elif element:
            found[element] = value
    if COMMAND_FIELD not in found:
        raise MalformedCommand("it has no command field")
    return found


def encode(command: Command) -> bytes:
    parts = []
    for element in sorted(command):
        value = command[element]
        if isinstance(value, int):
            data = value.to_bytes(2, "little")
        elif isinstance(value, str):
            data = value.encode("ascii", "replace")
            data += (b"\0" if element in _UIDS else b" ") * (len(data) % 2)
        else:
            data = value
        parts.append(struct.pack("<HHI", 0, element, len(data)) + data)
    body = b"".join(parts)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def number(command: Command, element: int) -> int:
    """A number of the command; 0 when it isn't there."""
    value = command.get(element, 0)
    return value if isinstance(value, int) else 0


def text(command: Command, element: int) -> str:
    value = command.get(element, "")
    return value if isinstance(value, str) else ""
