"""Scenarios of a department as text (tests/scenarios/*.txt): a title, then a line for what each person or system does or sees.

A line is matched against the patterns of `scenario_steps/`; what no pattern matches is an error, so that a scenario can't say
anything that isn't checked. Empty lines and lines that begin with `#` are for readers.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "scenarios"
Act = Callable[..., Awaitable[None]]
STEPS: list[tuple[re.Pattern[str], Act]] = []


def step(pattern: str) -> Callable[[Act], Act]:
    """What a line of this form does. Its groups are what the function is given, after the scenario's world."""

    def entered(act: Act) -> Act:
        STEPS.append((re.compile(pattern), act))
        return act

    return entered


@dataclass(frozen=True, slots=True)
class Scenario:
    """A title and its lines with their numbers."""

    name: str
    title: str
    lines: list[tuple[int, str]]


def scenario(path: Path) -> Scenario:
    rows = [(n, line.strip()) for n, line in enumerate(path.read_text().splitlines(), 1)]
    told = [(n, line) for n, line in rows if line and not line.startswith("#")]
    return Scenario(path.stem, told[0][1], told[1:])


def scenarios() -> list[Scenario]:
    return [scenario(path) for path in sorted(FOLDER.glob("*.txt"))]


def act_of(line: str) -> tuple[Act, tuple[str, ...]]:
    """What a line does. KeyError for a line that says nothing that is known, or two things."""
    found = [(act, match.groups()) for pattern, act in STEPS if (match := pattern.fullmatch(line))]
    if len(found) != 1:
        raise KeyError(f"{len(found)} steps are meant by: {line}")
    return found[0]


async def play(told: Scenario, world: Any) -> None:
    """Do what it says, line by line. AssertionError with the line where it isn't so."""
    for number, line in told.lines:
        act, given = act_of(line)
        try:
            await act(world, *given)
        except (AssertionError, RuntimeError, ConnectionError, TimeoutError) as error:
            raise AssertionError(f"{told.name}.txt, line {number}: {line}\n{error}") from error
