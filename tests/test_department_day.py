"""A small day of a whole department, over real sockets: at its end every order is as it should be and all books balance."""

import asyncio

from benchmarks.department.day import Day
from benchmarks.department.lives import LIVES


def test_at_the_end_of_a_day_all_books_balance() -> None:
    day = Day(exams=len(LIVES), scanners=3, at_once=8, seed=1)
    assert asyncio.run(day.run()) == []
    assert all(day.delivered.values())
