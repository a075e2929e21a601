"""Writing v2 messages (HL7 v2 chapter 2): exact, whatever the text holds. Reading them is `message.py`."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from bridges.v2.charset import DEFAULT, Separators, codec_of, escape, to_bytes

log = logging.getLogger(__name__)

DELETE: Final = '""'
_NAME: Final = re.compile(r"[A-Z][A-Z0-9]{2}")


class Raw:
    """A value that is written as it is: already escaped, in the separators of the message it goes into.

    Only what would break the segment or the frame is escaped.
    """

    __slots__ = ("text",)
    _BREAKS: Final = re.compile(r"\r\n|[\r\n\x0b\x1c]")

    def __init__(self, text: str) -> None:
        self.text = text

    def written(self, separators: Separators) -> str:
        return self._BREAKS.sub(lambda m: escape("\n" if m[0] == "\r" else m[0], separators), self.text)


NULL: Final = Raw(DELETE)


class Sub:
    """The subcomponents of one component, in their order."""

    __slots__ = ("parts",)

    def __init__(self, *parts: "str | int | Raw | None") -> None:
        self.parts = parts


class Comp:
    """The components of one repetition, in their order."""

    __slots__ = ("parts",)

    def __init__(self, *parts: "str | int | Raw | Sub | None") -> None:
        self.parts = parts


class Typed(Protocol):
    """A value of one of the data types of `datatypes`."""

    def value(self) -> "Comp | Raw":
        """How it is written."""


Value: TypeAlias = str | int | Raw | Sub | Comp | Typed | None


class Seg:
    """A segment to be written: `Seg("PID", {1: 1, 3: [CX(...), CX(...)], 5: Comp("Doe", "Jane"), 8: "F"})`.

    A list has repetitions, None and empty text write nothing, and empty ends are trimmed. MSH-1 and MSH-2 are filled in.
    """

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: Mapping[int, Value | Sequence[Value]]) -> None:
        lowest = 3 if name == "MSH" else 1
        if not _NAME.fullmatch(name) or min(fields, default=lowest) < lowest:
            raise ValueError(f"{name} is no segment name, or it has a field below {lowest}")
        self.name = name
        self.fields = fields

    def written(self, separators: Separators) -> str:
        written = {number: _written(value, separators) for number, value in self.fields.items()}
        last = max((number for number, text in written.items() if text), default=0)
        head = [self.name, separators.encoding] if self.name == "MSH" else [self.name]
        first = len(head) + (self.name == "MSH")
        return separators.field.join([*head, *(written.get(number, "") for number in range(first, last + 1))])


def _written(value: Value | Sequence[Value], separators: Separators) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escape(value, separators)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Raw):
        return value.written(separators)
    if isinstance(value, Sub):
        return _joined(value.parts, separators.subcomponent, separators)
    if isinstance(value, Comp):
        return _joined(value.parts, separators.component, separators)
    if isinstance(value, Sequence):
        return _joined(value, separators.repetition, separators)
    return _written(value.value(), separators)


def _joined(parts: Iterable[Value], separator: str, separators: Separators) -> str:
    written = [_written(part, separators) for part in parts]
    while written and not written[-1]:
        written.pop()
    return separator.join(written)


def encode(segments: Iterable[Seg], charset: str = "utf-8", separators: Separators = DEFAULT) -> bytes:
    """The message, each segment ended by CR. `charset` is named as in MSH-18 or as Python does; ValueError when unknown.

    Characters that the character set lacks become `?`, and how many is logged (`charset.to_bytes` tells the number).
    """
    codec = codec_of(charset)
    if codec is None:
        raise ValueError(f"unknown character set: {charset}")
    data, lost = to_bytes("".join(segment.written(separators) + "\r" for segment in segments), codec)
    if lost:
        log.warning("%d characters have no place in %s and were sent as question marks", lost, charset)
    return data
