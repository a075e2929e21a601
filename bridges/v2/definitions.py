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


# MSH-9.1 and 9.2 -> structure, where it isn't the two joined (HL7 v2.5.1 table 0354).
_STRUCTURES = {
    **{f"ADT_A{event}": "ADT_A01" for event in ("01", "04", "08", "13")},
    **{f"ADT_A{event}": "ADT_A05" for event in ("05", "14", "28", "31")},
    **{f"ADT_A{event}": "ADT_A06" for event in ("06", "07")},
    **{f"ADT_A{event}": "ADT_A09" for event in ("09", "10", "11")},
    **{f"ADT_A{event}": "ADT_A30" for event in ("30", "34", "35", "36", "46", "47", "48", "49")},
    **{f"ADT_A{event}": "ADT_A39" for event in ("39", "40", "41", "42")},
    **{f"SIU_S{event}": "SIU_S12" for event in range(12, 27)},
}


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


def structure(kind: str, event: str) -> str:
    """The message structure of a type and event: ("ADT", "A04") -> `ADT_A01`."""
    name = f"{kind}_{event}"
    return _STRUCTURES.get(name, name)


@cache
def structures() -> dict[str, str]:
    """Message structure, such as `ADT_A01`, -> its grammar: segments in their order, [] optional, {} repeats."""
    return {line[1]: line[2] for line in _lines() if line[0] == "message"}
