"""One HTTP worker against two: checks of a resource, searches, reads and creates, the load generator in processes of its own.

python -m benchmarks.workers [--connections 16] [--seconds 5] [--rounds 3] [--generators 1]

Both servers run at the same time, each with a MongoDB of its own, and are measured in turns. Below each pair of rates stands what
every process took of a core: where they add up to all cores of the machine, a second worker has nothing left to run on.
`$validate` is nearly all the worker's own work, a create is half MongoDB's.
"""

import argparse
import asyncio
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor

import orjson
import uvloop

from benchmarks import seeds
from benchmarks.load import Result, http, machine, run
from benchmarks.stand import Stand, standing

_PATIENTS, _ORDERS = 50, 500
_WARM_SECONDS = 2.0


def generate(port: int, requests: list[bytes], connections: int, seconds: float) -> Result:
    """Send these requests over and over, in a process of its own."""
    return uvloop.run(run(port, lambda n: requests[n % len(requests)], connections=connections, seconds=seconds))


class _Side:
    """One of the two servers, and what to ask it."""

    def __init__(self, stand: Stand, workers: int) -> None:
        self.stand, self.workers = stand, workers
        self.bodies: list[bytes] = []
        self.ids: list[str] = []
        self.patients: list[str] = []
        self.results: list[Result] = []

    async def prepare(self) -> None:
        created = [await self.stand.app.ok("POST", "Patient", {"resourceType": "Patient"}) for _ in range(_PATIENTS)]
        self.patients = [patient["id"] for patient in created]
        self.bodies = [orjson.dumps(seeds.service_request(created[n % _PATIENTS]["id"], n)) for n in range(_ORDERS)]
        self.ids = [(await self.stand.app.ok("POST", "ServiceRequest", orjson.loads(body)))["id"] for body in self.bodies]

    def requests(self, what: str) -> list[bytes]:
        if what == "create":
            return [http("POST", "ServiceRequest", self.stand.token, body) for body in self.bodies]
        if what == "validate":
            return [http("POST", "ServiceRequest/$validate", self.stand.token, body) for body in self.bodies]
        if what == "search":
            return [http("GET", f"ServiceRequest?patient={id_}&_count=50", self.stand.token) for id_ in self.patients]
        return [http("GET", f"ServiceRequest/{id_}", self.stand.token) for id_ in self.ids]

    @property
    def rate(self) -> float:
        return statistics.median(r.rate for r in self.results)


async def _round(pool: ProcessPoolExecutor, side: _Side, what: str, connections: int, generators: int, seconds: float) -> Result:
    requests, loop = side.requests(what), asyncio.get_running_loop()
    shares = [connections // generators + (i < connections % generators) for i in range(generators)]
    parts = (loop.run_in_executor(pool, generate, side.stand.port, requests, share, seconds) for share in shares)
    return Result.together(await asyncio.gather(*parts))


async def _compare(
    pool: ProcessPoolExecutor, one: _Side, two: _Side, what: str, connections: int, generators: int, seconds: float, rounds: int
) -> None:
    used = {}
    for side in (one, two):
        side.results.clear()
        await _round(pool, side, what, connections, generators, min(_WARM_SECONDS, seconds))
    for _ in range(rounds):
        for side in (one, two):
            with side.stand.watched() as shares:
                result = await _round(pool, side, what, connections, generators, seconds)
                used[side.workers] = shares(len(result.times))
            side.results.append(result)
    print(f"{what:<8} c={connections}   one worker {one.rate:7.0f}/s   two {two.rate:7.0f}/s   ratio {two.rate / one.rate:.2f}")
    for side in (one, two):
        last = side.results[-1]
        print(f"    {side.workers} worker(s): {last}")
        print(f"        used: {used[side.workers]}, each load generator {last.generator:.2f}", flush=True)


async def measure(connections: int, seconds: float, rounds: int, generators: int) -> None:
    """Start both, measure in turns, print."""
    async with standing(RIS_HTTP_WORKERS="1") as first, standing(RIS_HTTP_WORKERS="2") as second:
        one, two = _Side(first, 1), _Side(second, 2)
        await one.prepare()
        await two.prepare()
        print(f"{machine()}; {generators} load generator(s) in processes of their own\n", flush=True)
        with ProcessPoolExecutor(generators, multiprocessing.get_context("spawn")) as pool:
            for what in ("validate", "search", "read", "create"):
                await _compare(pool, one, two, what, connections, generators, seconds, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each is measured each time")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--generators", type=int, default=1, help="processes that send requests")
    given = parser.parse_args()
    uvloop.run(measure(given.connections, given.seconds, given.rounds, given.generators))


if __name__ == "__main__":
    main()
