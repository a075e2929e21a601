"""What a department tells of its days (tests/scenarios), played over real sockets on a running server."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from benchmarks.department.stage import Stage, stage
from tests import scenario, scenario_steps
from tests.quick_command import QuickServer
from tests.scenario import Scenario
from tests.scenario_steps.staff import Staff

_numbers = itertools.count(1)


class Running:
    """The department, in an event loop that lives as long as the module's tests."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.stage: Stage = self.runner.run(self._stack.enter_async_context(stage(3, QuickServer)))
        self.staff = self.runner.run(self._prepared())

    async def _prepared(self) -> Staff:
        await scenario_steps.furnish(self.stage)
        staff = await scenario_steps.engage(self.stage)
        self._stack.push_async_callback(staff.close)
        return staff

    def close(self) -> None:
        self.runner.run(self._stack.aclose())
        self.runner.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    department = Running()
    yield department
    department.close()


@pytest.mark.parametrize("told", scenario.scenarios(), ids=lambda told: told.name)
def test_it_goes_as_it_is_told(told: Scenario, running: Running) -> None:
    world = scenario_steps.World.new(running.stage, running.staff, next(_numbers))
    running.runner.run(scenario.play(told, world))


def test_every_line_says_something() -> None:
    for told in scenario.scenarios():
        assert told.lines, told.name
        for _, line in told.lines:
            scenario.act_of(line)
