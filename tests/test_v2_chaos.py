"""Senders, server and receivers killed at random: what was acknowledged is there once, and everything is delivered in its order.

`pytest tests/test_v2_chaos.py --chaos-messages 10000 --chaos-seed 7` goes on for some minutes.
"""

import asyncio
from pathlib import Path

import pytest

from tests.chaos import Chaos


def test_nothing_is_lost_doubled_or_overtaken_when_everything_is_killed_at_random(tmp_path: Path, request: pytest.FixtureRequest):
    messages, seed = request.config.getoption("--chaos-messages"), request.config.getoption("--chaos-seed")
    asyncio.run(Chaos(tmp_path, messages=messages, seed=seed, cuts=max(3, messages // 250)).run())
