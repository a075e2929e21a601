"""Mapping tables: which fields of a message make which elements of a resource, and the other way round.

A table is what the code runs and what the interface specification prints (`docs/hl7v2.md`, the conformance profile in
`capability/`), so that neither can say what isn't so. A test reads every table with a recorder and compares the fields that a
row names with those that it reads.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

from bridges.v2.message import Seg, Value
from fhir_server.registry import Resource

S = TypeVar("S")  # what is mapped: a segment with its sender, an order group, the facts of an order, ...
# R: without it the message is refused; C: required under the condition in the note; O: optional.
Usage = Literal["R", "C", "O"]

TABLES: Final[list["Table[Any] | Layout[Any]"]] = []


@dataclass(frozen=True, slots=True)
class Row(Generic[S]):
    """One line of a table for what comes in.

    fields: as an analyst writes them: `PID-5`; `TQ1-9, ORC-7.6, OBR-5` where the first that has a value counts
    element: the path within the resource, `restriction.period.start`. Rows of one list element add up, in their order; of
        another element the first row with a value counts
    read: the value, awaitable where it must be looked up; None, an empty text or an empty list for none
    note: what an analyst must know; one line
    """

    fields: str
    element: str
    read: Callable[[S], Any]
    note: str = ""
    usage: Usage = "O"


@dataclass(frozen=True, slots=True)
class Table(Generic[S]):
    """Segments in, one resource out. `fixed` are elements that are always so."""

    title: str
    resource: str
    rows: Sequence[Row[S]]
    fixed: Resource = field(default_factory=dict)

    async def build(self, source: S) -> Resource:
        """The resource that the fields of `source` make; elements that nothing speaks of are left out."""
        made: Resource = {"resourceType": self.resource} | self.fixed
        for row in self.rows:
            value = row.read(source)
            if inspect.isawaitable(value):
                value = await value
            if value not in (None, "", [], {}):
                _put(made, row.element.split("."), value)
        return made


def _put(into: Resource, path: list[str], value: Any) -> None:
    for name in path[:-1]:
        into = into.setdefault(name, {})
    known = into.get(path[-1])
    if known is None:
        into[path[-1]] = value
    elif isinstance(known, list):
        into[path[-1]] = [*known, *(value if isinstance(value, list) else [value])]


@dataclass(frozen=True, slots=True)
class Out(Generic[S]):
    """One field that is written: its number, the elements that it tells, and how.

    write: the value of the field from (what is told, the destination); None or empty text leaves it empty
    """

    field: int
    element: str
    write: Callable[[S, Any], "Value | Sequence[Value]"]
    note: str = ""
    usage: Usage = "O"


@dataclass(frozen=True, slots=True)
class Layout(Generic[S]):
    """A resource in, one segment out."""

    title: str
    segment: str
    fields: Sequence[Out[S]]

    def seg(self, source: S, to: Any, extra: dict[int, Any] | None = None) -> Seg:
        """The segment for a destination (`Destination`); `extra` adds fields of the message at hand, or replaces some."""
        return Seg(self.segment, {f.field: f.write(source, to) for f in self.fields} | (extra or {}))


def table(title: str, resource: str, *rows: Row[S], **fixed: Any) -> Table[S]:
    """A table for what comes in, as it is printed in the specification."""
    made = Table(title, resource, rows, fixed)
    TABLES.append(made)
    return made


def layout(title: str, segment: str, *fields: Out[S]) -> Layout[S]:
    """A table for what goes out, as it is printed in the specification."""
    made = Layout(title, segment, fields)
    TABLES.append(made)
    return made
