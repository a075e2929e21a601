"""Reading v2 messages (HL7 v2 chapter 2): tolerant. Writing them is `writing.py`, whose names can be had here too.

Reading is lazy: `parse` cuts segments, a segment cuts its fields when one is asked for, and only what is asked for is
unescaped. Numbers count as the standard counts: fields and components from 1 (MSH-1 is the field separator), while
`repetition` is an index from 0.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from bridges.v2.charset import (
    DEFAULT,
    WIDE,
    Separators,
    codec_of,
    declared_codec,
    decode,
    read_separators,
    restate,
    unescape,
    wide_codec,
)
from bridges.v2.writing import DELETE, NULL, Comp, Raw, Seg, Sub, Typed, Value, encode

__all__ = [
    "DEFAULT",
    "NULL",
    "Comp",
    "Field",
    "Message",
    "MessageError",
    "Raw",
    "Seg",
    "Segment",
    "Separators",
    "Sub",
    "Typed",
    "Value",
    "encode",
    "is_null",
    "parse",
]

MAX_SEGMENTS: Final = 50_000
MAX_HEADER: Final = 10_000  # bytes among which MSH-18 is looked for
_LINE_END: Final = re.compile(r"[\r\n]")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9]{3}.")


_UNREADABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def readable(text: str, limit: int = 200) -> str:
    """A sender's text as it may stand in a record of ours: at most `limit` characters, control characters as question marks."""
    return _UNREADABLE.sub("?", text[:limit])


class MessageError(Exception):
    """The bytes can't be read as a v2 message. The text says why and holds nothing of the content."""


def _part(text: str, separator: str, number: int) -> str:
    """The part with this number, from 1; empty where there is none."""
    if separator not in text:
        return text if number == 1 else ""
    parts = text.split(separator)
    return parts[number - 1] if 0 < number <= len(parts) else ""


class _Context:
    """What all parts of one message share: how to split and how to unescape."""

    __slots__ = ("codec", "guess", "separators")

    def __init__(self, separators: Separators, codec: str, guess: bool) -> None:
        self.separators = separators
        self.codec = codec
        self.guess = guess

    def text(self, raw: str) -> str:
        """Unescaped. White space alone is no text; nor is `""`: what that asks for, to delete, is `is_null`'s to tell."""
        if raw == DELETE or not raw.strip(" \t\r\n"):
            return ""
        return unescape(raw, self.separators, self.codec, guess=self.guess)

    def part(self, raw: str, component: int, subcomponent: int) -> str:
        part = _part(raw, self.separators.component, component)
        if not part or (part.isalnum() and subcomponent == 1):
            return part
        return self.text(_part(part, self.separators.subcomponent, subcomponent))


class Field:
    """One repetition of a field. `raw` is as it came; all else is unescaped."""

    __slots__ = ("_context", "raw")

    def __init__(self, raw: str, context: _Context) -> None:
        self.raw = raw
        self._context = context

    def __repr__(self) -> str:
        return f"Field({self.raw!r})"

    def get(self, component: int = 1, subcomponent: int = 1) -> str:
        """The text of one component (of its first subcomponent), empty where absent."""
        return self._context.part(self.raw, component, subcomponent)

    def components(self) -> list[str]:
        """The text of every component (of its first subcomponent)."""
        context = self._context
        return [context.part(part, 1, 1) for part in self.raw.split(context.separators.component)]

    def parts(self, most: int) -> list[list[str]]:
        """The text of every subcomponent of each component, at most so many of each."""
        separators, text = self._context.separators, self._context.text
        pieces = self.raw.split(separators.component, most)[:most]
        return [[text(part) for part in piece.split(separators.subcomponent, most)[:most]] for piece in pieces]

    def component(self, number: int) -> "Field":
        """A component whose subcomponents are read as components: data types within data types (OBR-32 is an NDL of a CNN)."""
        separators = self._context.separators
        raw = _part(self.raw, separators.component, number)
        return Field(raw.replace(separators.subcomponent, separators.component), self._context)

    def rest(self, number: int) -> "Field":
        """This component and all after it, for data that may hold separators (ED.5)."""
        parts = self.raw.split(self._context.separators.component, number - 1)
        return Field(parts[number - 1] if len(parts) >= number else "", self._context)

    def whole(self, number: int) -> str:
        """The text of a component in which subcomponent separators were left unescaped, such as a URL."""
        return self._context.text(_part(self.raw, self._context.separators.component, number))

    @property
    def text(self) -> str:
        """The whole repetition as one text, for ST, TX and FT: component separators that were left unescaped are text."""
        return self._context.text(self.raw)

    @property
    def standard(self) -> str:
        """`raw` in the default separators: what to keep for a later echo in another message."""
        return restate(self.raw, self._context.separators, DEFAULT)

    @property
    def is_null(self) -> bool:
        return self.raw == DELETE


class Segment:
    """One segment. Absent fields and parts read as empty text.

    number: which one of its name it is in the message, from 1, as an error location counts (ERL.2)
    """

    __slots__ = ("_context", "_fields", "_line", "asked", "name", "number")

    def __init__(self, line: str, context: _Context, number: int = 1) -> None:
        self.name = line[:3]
        self.number = number
        self._line = line
        self._context = context
        self._fields: list[str] | None = None
        self.asked = 0  # a bit for each field that was asked for

    def most_repeated(self) -> tuple[int, int]:
        """The field that repeats most, and how often."""
        separators = self._context.separators
        counts = [field.count(separators.repetition) + 1 for field in self._line.split(separators.field)]
        most = max(counts)
        return counts.index(most) + (self.name == "MSH"), most

    @property
    def was_read(self) -> bool:
        """Whether a field of it was asked for."""
        return bool(self.asked)

    def unread(self) -> list[int]:
        """The fields that hold something and that nobody has asked for."""
        fields = self.values()
        return [n for n, text in enumerate(fields) if n and text and text != DELETE and not self.asked >> n & 1]

    @property
    def repetition(self) -> str:
        """The character between the repetitions of a field."""
        return self._context.separators.repetition

    def values(self) -> list[str]:
        """All fields as they came, by their numbers (0 is the segment's name), without counting as read."""
        fields = self._line.split(self._context.separators.field)
        if self.name == "MSH":
            fields.insert(1, self._context.separators.field)
        return fields

    def __repr__(self) -> str:
        return f"Segment({self._line!r})"

    def raw(self, field: int) -> str:
        """The field as it came, with all its repetitions and escape sequences."""
        if field >= 0:
            self.asked |= 1 << field
        fields = self._fields
        if fields is None:
            separator = self._context.separators.field
            fields = self._fields = self._line.split(separator)
            if self.name == "MSH":
                fields.insert(1, separator)
        return fields[field] if 0 <= field < len(fields) else ""

    def field(self, field: int) -> str:
        """The text of the first component of the first repetition."""
        return self.get(field)

    def get(self, field: int, component: int = 1, subcomponent: int = 1, repetition: int = 0) -> str:
        """The text of one part."""
        raw = self.raw(field)
        if not raw:
            return ""
        if raw.isalnum():  # most are one plain word, with nothing to cut or to unescape
            return raw if component == subcomponent == 1 and repetition == 0 else ""
        if field <= 2 and self.name == "MSH":
            return raw if component == subcomponent == 1 and repetition == 0 else ""
        return self._context.part(_part(raw, self._context.separators.repetition, repetition + 1), component, subcomponent)

    def text(self, field: int, repetition: int = 0) -> str:
        """The text of a whole repetition, for ST, TX and FT: component separators that were left unescaped are text."""
        return self._context.text(_part(self.raw(field), self._context.separators.repetition, repetition + 1))

    def unsplit(self, field: int) -> Field:
        """The field as one repetition, for data that may hold separators (ED.5)."""
        return Field(self.raw(field), self._context)

    def repetitions(self, field: int) -> list[Field]:
        """All repetitions, the empty ones between others included; none where the field is empty."""
        raw = self.raw(field)
        if not raw:
            return []
        if field <= 2 and self.name == "MSH":
            return [Field(raw, self._context)]
        return [Field(part, self._context) for part in raw.split(self._context.separators.repetition)]


def is_null(segment: Segment, field: int) -> bool:
    """Whether the sender asks to delete the value (`""`), unlike an empty field, which asks for no change (HL7 v2 2.5.3)."""
    return segment.raw(field) == DELETE


class Message:
    """A message as it was read.

    raw: the bytes as they came
    codec: the Python codec in which they were read
    declared: the codec that MSH-18 names, None when it names none that is known
    """

    __slots__ = ("_by_name", "_context", "declared", "raw", "segments")

    def __init__(self, raw: bytes, lines: Iterable[str], context: _Context, declared: str | None) -> None:
        self.raw = raw
        self._context = context
        self.declared = declared
        self.segments: list[Segment] = []
        self._by_name: dict[str, list[Segment]] = {}
        for line in lines:
            same = self._by_name.setdefault(line[:3], [])
            segment = Segment(line, context, len(same) + 1)
            same.append(segment)
            self.segments.append(segment)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is asked for in here doesn't count as read."""
        asked = [segment.asked for segment in self.segments]
        try:
            yield
        finally:
            for segment, before in zip(self.segments, asked, strict=True):
                segment.asked = before

    @property
    def codec(self) -> str:
        return self._context.codec

    @property
    def separators(self) -> Separators:
        return self._context.separators

    @property
    def msh(self) -> Segment:
        return self.segments[0]

    def first(self, name: str) -> Segment | None:
        """The first segment of this name."""
        found = self._by_name.get(name)
        return found[0] if found else None

    def all(self, name: str) -> list[Segment]:
        """All segments of this name, in their order."""
        return list(self._by_name.get(name, ()))

    @property
    def type(self) -> tuple[str, str, str]:
        """Message code, trigger event and structure of MSH-9, such as `("OMG", "O19", "OMG_O19")`."""
        msh = self.segments[0]
        return msh.get(9, 1), msh.get(9, 2), msh.get(9, 3)

    @property
    def version(self) -> str:
        """MSH-12, such as `2.5.1`."""
        return self.segments[0].get(12)

    @property
    def control_id(self) -> str:
        """MSH-10."""
        return self.segments[0].text(10)


def parse(data: bytes, *, default_charset: str = "utf-8", guess_charset: bool = True) -> Message:
    """Read one message without its frame.

    default_charset: of a message whose MSH-18 is empty or unknown
    guess_charset: whether bytes that are valid UTF-8 may be taken for UTF-8 although MSH-18 says otherwise (`charset.decode`)

    Lines end in CR, LF or both. A line that doesn't begin with three letters or digits and the field separator goes on with
    the field before it, after a line feed. Raises MessageError where no MSH can be read, and where there are two: in such a
    message nobody can say which order belongs to which patient.
    """
    default = codec_of(default_charset)
    if default is None:
        raise ValueError(f"unknown character set: {default_charset}")
    body = data.lstrip(b" \t\r\n\x0b")
    wide = wide_codec(body)
    declared: str | None
    if wide is not None and (wide[0] != "utf-8" or not body[wide[1] :].isascii()):
        declared = wide[0]
        text, codec = decode(body[wide[1] :], declared, default=default, guess=False)
        text = text.lstrip(" \t\r\n")
        separators = _separators(text)
    else:
        body = body[wide[1] :].lstrip(b" \t\r\n") if wide else body
        header = _LINE_END.split(body[:MAX_HEADER].decode("iso8859-1"), 1)[0]
        separators = _separators(header)
        declared = declared_codec(_msh_18(header, separators), separators.repetition)
        text, codec = decode(body, declared, default=default, guess=guess_charset)
    guess = guess_charset and codec != "utf-8" and codec not in WIDE and body.isascii()
    return Message(data, _lines(text, separators.field), _Context(separators, codec, guess), declared)


def _separators(header: str) -> Separators:
    if not header.startswith("MSH") or len(header) < 4:
        raise MessageError("the message doesn't begin with an MSH segment")
    try:
        return read_separators(header[3], _part(_LINE_END.split(header[4:], 1)[0], header[3], 1))
    except ValueError as error:
        raise MessageError(str(error)) from None


def _msh_18(header: str, separators: Separators) -> str:
    fields = header.split(separators.field, 18)
    return fields[17] if len(fields) > 17 else ""


def _lines(text: str, separator: str) -> list[str]:
    """Segments, each with the lines that go on with it; blank lines count only between such lines."""
    if "\n" not in text:
        whole = text.strip("\r\x1c").split("\r")
        if len(whole) <= MAX_SEGMENTS and all(_SEGMENT.match(line) and line[3] == separator for line in whole):
            if any(line.startswith("MSH") for line in whole[1:]):
                raise MessageError("the message has more than one MSH segment")
            return whole
    segments: list[list[str]] = []
    blanks = 0
    for line in text.replace("\r\n", "\n").replace("\r", "\n").strip("\n\x1c").split("\n"):
        if line[3:4] == separator and line[:3].isalnum() and line[:3].isascii():
            if segments and line.startswith("MSH"):
                raise MessageError("the message has more than one MSH segment")
            segments.append([line])
        elif not line or line.isspace():
            blanks += 1
            continue
        else:
            segments[-1] += [*([""] * blanks), line]
        blanks = 0
    if len(segments) > MAX_SEGMENTS:
        raise MessageError(f"the message has more than {MAX_SEGMENTS} segments")
    return ["\n".join(lines) for lines in segments]
