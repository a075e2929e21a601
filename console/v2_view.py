"""An HL7 v2 message as it is read on a page: by segment and field, escapes decoded, each line as it came beside.

`view(...)` makes the rows that the macro `message` of `templates/v2_message.html` shows:

    {% import "v2_message.html" as v2 with context %} ... {{ v2.message(view) }}      and in `styles`: asset("v2_message.css")

Who may see a message is for the page to ask.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from bridges.v2 import definitions
from bridges.v2.message import Field, MessageError, Segment, parse
from bridges.v2.message_show import harmless
from bridges.v2.writing import DELETE

# What is longer is cut, as is a message of more parts than anybody reads: a report as PDF in OBX-5 is of no use to a reader.
_LONGEST: Final = 2_000
_MOST_PARTS: Final = 10_000
_MOST_FIELDS: Final = 200
_MOST_REPETITIONS: Final = 50
_MOST_COMPONENTS: Final = 30
# Data types in which a separator is text (HL7 v2 2.5.3): nothing is cut in them.
_PLAIN: Final = frozenset({"ST", "TX", "FT", "NM", "SI", "ID", "IS", "DT", "TM", "GTS"})


@dataclass(frozen=True, slots=True)
class Part:
    """A component or subcomponent: `number` is `1` or `1.2` of PID-5.1 or PID-5.1.2, "" for a field's only one."""

    number: str
    text: str
    cut: int = 0  # characters that are left out


@dataclass(frozen=True, slots=True)
class FieldRow:
    """A field that holds something. `repetitions`: the parts of each; none where it asks to delete the value (`""`)."""

    number: int
    name: str
    repetitions: tuple[tuple[Part, ...], ...]
    unread: bool = False  # nothing of the product reads it

    @property
    def deletes(self) -> bool:
        return not self.repetitions


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment with its fields; `number`: which one of its name it is; `raw`: its line as it came.

    `hidden`: it is there, but not for this reader.
    """

    name: str
    number: int
    fields: tuple[FieldRow, ...]
    raw: str
    cut: int = 0  # characters of `raw` that are left out
    unread: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message. Of an `unreadable` one there are no segments, but (where nothing is hidden) its beginning, `raw`."""

    segments: tuple[SegmentRow, ...]
    codec: str = ""
    left_off: int = 0  # segments
    raw: str = ""
    unreadable: bool = False


def view(
    raw: bytes, *, names: bool = True, unmapped: Collection[str] = (), hides: Callable[[str, str], bool] | None = None
) -> MessageView:
    """The rows of a message. `names`: with the names of fields; `unmapped`: what nothing reads (`PV2-3`, `ZXY`), to be marked.

    `hides`: which segments are not for the reader, by name and by the segment that a note (NTE) stands under.
    """
    if not raw:
        return MessageView(())
    try:
        message = parse(bytes(raw))
    except MessageError:
        return MessageView((), raw=repr(bytes(raw[:_LONGEST])) if hides is None else "", unreadable=True)
    rows: list[SegmentRow] = []
    parts, owner = 0, ""
    for segment in message.segments:
        if parts > _MOST_PARTS:
            break
        owner = owner if segment.name == "NTE" else segment.name
        if hides is not None and hides(segment.name, owner):
            rows.append(SegmentRow(segment.name, segment.number, (), "", hidden=True))
            continue
        rows.append(_segment(segment, message.separators.field, names, unmapped))
        parts += 1 + sum(len(repetition) for field in rows[-1].fields for repetition in field.repetitions)
    return MessageView(tuple(rows), message.codec, len(message.segments) - len(rows))


def _segment(segment: Segment, separator: str, names: bool, unmapped: Collection[str]) -> SegmentRow:
    values = segment.values()
    known = definitions.fields(segment.name)
    fields = []
    for number, value in enumerate(values[: _MOST_FIELDS + 1]):
        if not number or not value:
            continue
        name = known[number].name if names and number in known else ""
        repetitions = () if value == DELETE else _repetitions(segment, number)
        fields.append(FieldRow(number, name, repetitions, f"{segment.name}-{number}" in unmapped))
    line = separator.join([values[0], *values[2:]] if segment.name == "MSH" else values)
    cut = max(0, len(line) - _LONGEST)
    return SegmentRow(segment.name, segment.number, tuple(fields), harmless(line[:_LONGEST]), cut, segment.name in unmapped)


def _repetitions(segment: Segment, number: int) -> tuple[tuple[Part, ...], ...]:
    kind = _kind(segment, number)
    if kind == "ED":  # data that may hold separators
        return (_parts(segment.unsplit(number)),)
    if segment.name == "MSH" and number <= 2:  # the separators themselves
        return ((_part("", segment.raw(number)),),)
    found = [field for field in segment.repetitions(number)[:_MOST_REPETITIONS] if field.raw]
    return tuple((_part("", field.text),) if kind in _PLAIN else _parts(field) for field in found)


def _kind(segment: Segment, number: int) -> str:
    """The data type of a field; OBX-2 says that of OBX-5."""
    if (segment.name, number) == ("OBX", 5):
        return segment.get(2)
    known = definitions.fields(segment.name).get(number)
    return known.kind if known else ""


def _parts(field: Field) -> tuple[Part, ...]:
    """The parts of a repetition that hold something."""
    components = field.parts(_MOST_COMPONENTS)
    if len(components) == len(components[0]) == 1:
        return (_part("", components[0][0]),)
    return tuple(
        _part(f"{number}.{n}" if len(texts) > 1 else str(number), text)
        for number, texts in enumerate(components, 1)
        for n, text in enumerate(texts, 1)
        if text
    )


def _part(number: str, text: str) -> Part:
    return Part(number, harmless(text[:_LONGEST]), max(0, len(text) - _LONGEST))
