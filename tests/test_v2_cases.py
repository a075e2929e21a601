"""Every case file under tests/v2_cases (how to read one: tests/v2_case.py)."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.department import Department
from tests.v2_case import FILES, FOLDER, Case


@pytest.fixture(scope="module")
def ris(mongodb_uri: str) -> Iterator[Department]:
    with asyncio.Runner() as runner:
        department = Department(runner, mongodb_uri)
        yield department
        department.run(department.close())


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(FOLDER)) for f in FILES])
def test_case(ris, file):
    ris.run(Case(ris).play(file.read_text("utf-8")))
