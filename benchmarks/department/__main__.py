"""python -m benchmarks.department [--exams 600] [--scanners 12] [--at-once 24] [--seed 1]

A day of a department with all interfaces on, as fast as the machine plays it; prints how long it took, and what doesn't balance.
"""

import argparse
import asyncio
import sys

from benchmarks.department.day import Day
from benchmarks.load import machine


async def play(exams: int, scanners: int, at_once: int, seed: int) -> int:
    print(machine())
    day = Day(exams=exams, scanners=scanners, at_once=at_once, seed=seed)
    faults = await day.run()
    for life, count in sorted(day.played.items()):
        print(f"  {count:4} {life}")
    rate = exams / day.seconds * 60
    print(f"{exams} exams, {scanners} scanners: all was done in {day.seconds:.0f} s, {rate:.0f} exams a minute")
    print(f"messages delivered: {', '.join(f'{n} to {who}' for who, n in day.delivered.items())}")
    print("\n".join(faults) or "all books balance")
    return bool(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exams", type=int, default=600)
    parser.add_argument("--scanners", type=int, default=12)
    parser.add_argument("--at-once", type=int, default=24, help="how many patients are in the department at a time")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(play(given.exams, given.scanners, given.at_once, given.seed)))


main()
