"""The pending responses of a C-FIND (PS3.7 9.1.2, 9.3.2.2), handed to the upper layer in their encoded form.

The command set is the same for all answers of a query, so it is encoded once; the library would take a millisecond for each.
"""

import struct
import time

from pynetdicom import evt
from pynetdicom.pdu_primitives import P_DATA

_C_FIND_RSP = 0x8020
_DATA_SET_PRESENT = 0x0000
# Message control headers (PS3.8 E.2): the last fragment of a command, a fragment of a data set, its last fragment.
_COMMAND, _DATA, _LAST_DATA = b"\x03", b"\x00", b"\x02"
_PDV_OVERHEAD = 6  # length, context id, message control header


class PendingAnswers:
    """Sends the answers to one C-FIND request, all with this status."""

    def __init__(self, event: evt.Event, status: int) -> None:
        self._association = event.assoc
        self._context_id = event.context.context_id
        sop_class = str(getattr(event.request, "AffectedSOPClassUID", ""))
        self._command = self._fragment(_COMMAND + _command_set(sop_class, int(event.request.MessageID or 0), status))
        # Zero: the peer takes PDUs of any length.
        limit = int(event.assoc.dimse.maximum_pdu_size or 0)
        self._size = limit - _PDV_OVERHEAD if limit > _PDV_OVERHEAD else 0

    def send(self, data_set: bytes) -> None:
        """Queue an answer."""
        self._association.dul.send_pdu(self._command)
        size = self._size or len(data_set)
        for start in range(0, len(data_set), size):
            last = start + size >= len(data_set)
            self._association.dul.send_pdu(self._fragment((_LAST_DATA if last else _DATA) + data_set[start : start + size]))

    def flush(self, seconds: float) -> None:
        """Wait until what is queued is sent: only then does the library read again, and so hear a C-CANCEL."""
        queue, deadline = self._association.dul.to_provider_queue, time.monotonic() + seconds
        while not queue.empty() and self._association.is_established and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.003)

    def _fragment(self, value: bytes) -> P_DATA:
        fragment = P_DATA()
        fragment.presentation_data_value_list.append((self._context_id, value))
        return fragment


def _command_set(sop_class: str, message_id: int, status: int) -> bytes:
    """The command set of a response, in implicit VR little endian (PS3.7 6.3.1)."""
    uid = sop_class.encode("ascii")
    uid += b"\0" * (len(uid) % 2)
    elements = struct.pack("<HHI", 0x0000, 0x0002, len(uid)) + uid
    numbers = ((0x0100, _C_FIND_RSP), (0x0120, message_id), (0x0800, _DATA_SET_PRESENT), (0x0900, status))
    for element, value in numbers:
        elements += struct.pack("<HHIH", 0x0000, element, 2, value)
    return struct.pack("<HHII", 0x0000, 0x0000, 4, len(elements)) + elements
