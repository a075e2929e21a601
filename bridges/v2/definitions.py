"""What HL7 v2.5.1 says of segments and messages of a radiology department: `definitions.tsv` (script/v2-definitions)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("definitions.tsv")


@dataclass(frozen=True, slots=True)
class FieldDefinition:
    """One field: its data type (`varies` where OBX-2 says it), name, table (`0001`; empty without one) and cardinality."""

    kind: str
    name: str
    table: str
    required: bool
    repeats: bool


@cache
def _lines() -> list[list[str]]:
    return [line.split("\t") for line in _FILE.read_text("utf-8").splitlines()]


@cache
def fields(segment: str) -> dict[int, FieldDefinition]:
    """The fields of a segment by their number; none for segments that aren't in the table, such as Z segments."""
    return {
        int(number): FieldDefinition(kind, name, "" if table == "-" else table, bounds.startswith("1"), bounds.endswith("*"))
        for of, number, kind, name, table, bounds in (line for line in _lines() if line[0] == segment)
    }


@cache
def structures() -> dict[str, str]:
    """Message structure, such as `ADT_A01`, -> its grammar: segments in their order, [] optional, {} repeats."""
    return {line[1]: line[2] for line in _lines() if line[0] == "message"}
