"""The HL7 v2 interface specification, printed from the tables that the bridge runs.

python -m capability.v2_specification     writes the tables of docs/hl7v2.md anew; a test compares them
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bridges.v2 import definitions, outbound, receivers
from bridges.v2.codes import CODE_MAPS, CodeMap
from bridges.v2.mapping import TABLES, Layout, Table
from capability import printed

_BEGIN: Final = "<!-- tables: written by `python -m capability.v2_specification` -->\n"
_END: Final = "<!-- end of tables -->\n"
_FIELD = re.compile(r"([A-Z][A-Z0-9]{2})-(\d+)")
_USAGE = {"R": "required", "C": "conditional", "O": ""}
# The rooms whose import fills TABLES.
SOURCES: Final = (receivers, outbound)


def tables_in() -> list[Table[Any]]:
    return [t for t in TABLES if isinstance(t, Table)]


def layouts_out() -> list[Layout[Any]]:
    return [t for t in TABLES if isinstance(t, Layout)]


def named_fields(fields: str) -> list[tuple[str, int]]:
    """The fields that a row names: `TQ1-9, ORC-7.6` -> [("TQ1", 9), ("ORC", 7)]."""
    return [(segment, int(number)) for segment, number in _FIELD.findall(fields)]


def markdown() -> str:
    """All tables: what comes in, what goes out, code maps."""
    return "\n".join((*_in(), *_out(), *_codes()))


def _in() -> Iterator[str]:
    for table in sorted(tables_in(), key=lambda t: t.title):
        yield f"#### {table.title}\n"
        if table.fixed:
            yield "Always: " + ", ".join(f"`{name}` {_shown(value)}" for name, value in table.fixed.items()) + ".\n"
        yield "| field | name | element | | notes |\n|---|---|---|---|---|"
        for row in table.rows:
            names = "; ".join(dict.fromkeys(n for place in named_fields(row.fields) if (n := _name(*place))))
            yield f"| {_cell(row.fields)} | {names} | `{row.element}` | {_USAGE[row.usage]} | {_cell(row.note)} |"
        yield ""


def _out() -> Iterator[str]:
    for layout in sorted(layouts_out(), key=lambda t: t.title):
        yield f"#### {layout.title}\n\n| field | name | from | | notes |\n|---|---|---|---|---|"
        for field in layout.fields:
            place = f"{layout.segment}-{field.field}"
            name = _name(layout.segment, field.field)
            yield f"| {place} | {name} | {_cell(field.element)} | {_USAGE[field.usage]} | {_cell(field.note)} |"
        yield ""


def _codes() -> Iterator[str]:
    for codes in sorted(CODE_MAPS.values(), key=lambda c: (c.table, c.id)):
        yield f"#### Table {codes.table}: {codes.title}\n"
        yield f"`{codes.target}`. ConceptMap/{codes.id}.\n"
        yield f"In: {_pairs(codes)}." + (f" Out: {back}." if (back := _back(codes)) else "") + "\n"


def _pairs(codes: CodeMap) -> str:
    return ", ".join(f"{_cell(v2)} `{fhir}`" for v2, fhir in codes.codes.items())


def _back(codes: CodeMap) -> str:
    """What is written for a FHIR code, where that isn't plain from the way in."""
    told = [
        (fhir, v2)
        for fhir, v2 in codes.back.items()
        if list(codes.codes.values()).count(fhir) != 1 or codes.codes.get(v2) != fhir
    ]
    return ", ".join(f"`{fhir}` {_cell(v2) or 'nothing'}" for fhir, v2 in told)


def _name(segment: str, number: int) -> str:
    field = definitions.fields(segment).get(number)
    return field.name if field else ""


def _shown(value: Any) -> str:
    return (
        f"`{value}`" if isinstance(value, str) else f"`{value!r}`" if not isinstance(value, bool) else f"`{str(value).lower()}`"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def written(document: str) -> str:
    """The document with its tables as they are now. ValueError when it has no place for them."""
    return printed.replaced(document, _BEGIN, markdown(), _END)


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/hl7v2.md")
    path.write_text(written(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
