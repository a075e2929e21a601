"""Every case file under tests/v2_cases (how to read one: tests/v2_case.py)."""

import asyncio

import pytest

from bridges.v2.mapping import Table
from bridges.v2.message import Segment
from capability.v2_specification import named_fields
from tests.v2_case import FILES, FOLDER, Case


@pytest.fixture
def unnamed(monkeypatch) -> set[tuple[str, str, int]]:
    """(table, segment, field) of each field that a row reads without naming it (in its note at least), while tables are built."""
    read: set[tuple[str, int]] = set()
    found: set[tuple[str, str, int]] = set()
    raw, build = Segment.raw, Table.build

    def recorded(self: Segment, field: int) -> str:
        read.add((self.name, field))
        return raw(self, field)

    async def checked(self: Table, source: object) -> object:
        for row in self.rows:
            read.clear()
            value = row.read(source)
            if asyncio.iscoroutine(value):
                await value
            found.update((self.title, *place) for place in read - set(named_fields(f"{row.fields} {row.note}")))
        return await build(self, source)

    monkeypatch.setattr(Segment, "raw", recorded)
    monkeypatch.setattr(Table, "build", checked)
    return found


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(FOLDER)) for f in FILES])
def test_case(ris, unnamed, file):
    ris.run(Case(ris).play(file.read_text("utf-8")))
    assert unnamed == set(), "fields that a mapping table reads and doesn't name"
