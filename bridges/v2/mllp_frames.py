"""MLLP's frames (HL7 "Minimal Lower Layer Protocol", release 1): 0B, message, 1C 0D."""

import re
import socket
from typing import Final

START: Final = b"\x0b"
END: Final = b"\x1c\x0d"
MAX_SIZE: Final = 16 * 1024 * 1024
MAX_JUNK: Final = 4096
RESTART: Final = b"\x0bMSH"
_END_MARK: Final = 0x1C
_HEADED: Final = re.compile(rb"[ \t\r\n]*MSH[^\r\n]*[\r\n]")  # an MSH segment with its end
_AFTER_END: Final = b"\x0d\x0a\x0b"


class MllpError(Exception):
    """What the transport can't do. The texts hold nothing of a message."""


class FrameError(MllpError):
    """A frame is longer than allowed, or a peer sends bytes outside of frames."""


def frame(message: bytes) -> bytes:
    """The message in its frame. ValueError where it holds the frame's own end mark."""
    if b"\x1c" in message:
        raise ValueError("the message holds the byte that ends a frame")
    return START + message + END


def holds_another(message: bytes) -> bool:
    """Whether a message may have another one in it: one was broken off and begun anew, or its text holds such bytes."""
    return RESTART in message.lstrip(b" \t\r\n\x0b")


class FrameReader:
    """Finds frames in a byte stream, however it is cut.

    A frame ends with 1C 0D. Two habits are allowed for: 1C 0A, and a 1C with nothing after it but the next frame (or a
    pause: `waits_for_cr`, then `finish`). A 1C before any other byte belongs to the message. Where a sender broke off a frame
    within its first segment and began anew (0B, MSH), what came before is dropped. After that, the 0B may as well be text: the
    frame is given whole, for whoever reads it to refuse (`holds_another`).

    junk: how many bytes outside of frames were dropped, line ends not counted
    """

    def __init__(self, max_size: int = MAX_SIZE, max_junk: int = MAX_JUNK) -> None:
        self.max_size = max_size
        self.max_junk = max_junk
        self.junk = 0
        self._junk_in_a_row = 0
        self._buffer = bytearray()
        self._inside = False
        self._seen = 0

    @property
    def inside(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._inside

    @property
    def waits_for_cr(self) -> bool:
        """Whether the last byte was a 1C within a frame, so that nothing but 0D should follow."""
        return self._inside and self._buffer.endswith(b"\x1c")

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete, without their frames. Raises FrameError."""
        self._buffer += data
        messages: list[bytes] = []
        while self._enter() and (end := self._end()) >= 0:
            messages.append(self._take(end))
        return messages

    def finish(self) -> list[bytes]:
        """The message of a frame that ended in 1C without a 0D, when nothing more has come."""
        return [self._take(len(self._buffer) - 1)] if self.waits_for_cr else []

    def _enter(self) -> bool:
        """Drop what stands before the next frame; whether one has begun."""
        if not self._inside:
            start = self._buffer.find(START)
            outside = self._buffer[: start if start >= 0 else len(self._buffer)]
            self._drop(outside)
            del self._buffer[: len(outside) + 1]
            self._inside = start >= 0
            self._seen = 0
        return self._inside

    def _end(self) -> int:
        """Where the message ends; -1 while it doesn't."""
        buffer = self._buffer
        end = buffer.find(_END_MARK, self._seen)
        while 0 <= end < len(buffer) - 1 and buffer[end + 1] not in _AFTER_END:
            end = buffer.find(_END_MARK, end + 1)
        complete = 0 <= end < len(buffer) - 1
        self._seen = end if end >= 0 else len(buffer)
        if (end if complete else len(buffer)) > self.max_size:
            raise FrameError(f"a frame is longer than {self.max_size} bytes")
        return end if complete else -1

    def _take(self, end: int) -> bytes:
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1 if self._buffer[end + 1 : end + 2] == START else end + 2]
        self._inside = False
        self._junk_in_a_row = 0
        begin = 0
        while (restart := message.find(RESTART, begin)) >= 0 and not _HEADED.match(message, begin, restart):
            begin = restart + 1
        self.junk += max(begin - 1, 0)
        return message[begin:]

    def _drop(self, outside: bytearray) -> None:
        dropped = len(outside.translate(None, b"\r\n"))
        self.junk += dropped
        self._junk_in_a_row += dropped
        if self._junk_in_a_row > self.max_junk:
            raise FrameError(f"more than {self.max_junk} bytes outside of frames")


def tune(sock: socket.socket | None) -> None:
    """No delay for small answers, and probes that find a dead peer within about two minutes."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
