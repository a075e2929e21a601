"""How many whole orders a minute go through steps 1 to 8: registration, order, booking, arrival, worklist, MPPS, report, ORU.

python -m benchmarks.day [--orders 40] [--stations 4]
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.load import machine
from demo.ehr import Listener
from demo.play import Play, ct_scanner
from demo.server import Server


async def measure(orders: int, stations: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="fhir-ris-bench-"))
    server, listener = Server(directory), Listener()
    await listener.start()
    try:
        await server.start()
        first = Play(server, listener)
        await first.prepare()
        for n in range(2, stations + 1):
            device = ct_scanner(n)
            await first.apps["demo-admin"].ok("PUT", f"Device/{device['id']}", device)
        times: list[float] = []
        began = time.perf_counter()
        per_station = orders // stations
        await asyncio.gather(*(station(server, listener, first, n, per_station, times) for n in range(1, stations + 1)))
        took = time.perf_counter() - began
        print(f"{machine()}\n")
        print(f"{len(times)} orders, {stations} stations at once: {len(times) / took * 60:.0f} whole orders a minute")
        print(f"one order: median {statistics.median(times):.2f} s, slowest {max(times):.2f} s")
        await first.close()
    finally:
        await listener.stop()
        await server.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def station(server: Server, listener: Listener, first: Play, number: int, orders: int, times: list[float]) -> None:
    """One station works through its orders, one after the other."""
    for i in range(orders):
        order = Play(server, listener, apps=first.apps, station=number, slot=i)
        began = time.perf_counter()
        for _, act in order.steps[:7]:
            await act()
        await listener.expect("ORU^R01", 2, placer=order.placer)
        times.append(time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=40, help="how many orders in all")
    parser.add_argument("--stations", type=int, default=4, help="how many scanners work at once")
    given = parser.parse_args()
    asyncio.run(measure(given.orders, given.stations))


if __name__ == "__main__":
    main()
