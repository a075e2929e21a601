"""Writing many at once: transaction Bundles over HTTP, and `fhir-ris load` of NDJSON beside the running server.

python -m benchmarks.bundles [--entries 50] [--seconds 8] [--resources 40000] [--processes 2]

A Bundle is one Patient and 49 Observations of it, linked by `urn:uuid:`. The NDJSON file has a Patient for each 39 Observations;
its rate is that of the whole command as a user types it, start included.
"""

import argparse
import asyncio
import re
import time
from pathlib import Path

import orjson
import uvloop

from benchmarks import seeds
from benchmarks.load import machine, run
from benchmarks.stand import Stand, standing, temporary

CONNECTIONS = (1, 4)
_GROUP = 40
_WARM_SECONDS = 2.0


def bundle(entries: int) -> bytes:
    """A transaction of a Patient and Observations. It has no ids, so that it can be sent again and again."""
    urn = "urn:uuid:6c1f7a32-0000-4000-8000-000000000417"
    patient = {"resourceType": "Patient", "name": [{"family": "Bench", "given": ["Berta"]}]}
    observations = (seeds.observation(urn, number) for number in range(entries - 1))
    entry = [
        {"fullUrl": urn, "resource": patient, "request": {"method": "POST", "url": "Patient"}},
        *({"resource": o, "request": {"method": "POST", "url": "Observation"}} for o in observations),
    ]
    return orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entry})


def write_ndjson(path: Path, resources: int) -> None:
    """A file of Patients, each before its Observations."""
    with path.open("wb") as file:
        for number in range(resources):
            patient = f"bench-{number // _GROUP}"
            if number % _GROUP == 0:
                resource = {"resourceType": "Patient", "id": patient, "name": [{"family": "Bench", "given": ["Berta"]}]}
            else:
                resource = {**seeds.observation(patient, number), "id": f"bench-{number}"}
            file.write(orjson.dumps(resource) + b"\n")


async def bundles(stand: Stand, entries: int, seconds: float) -> None:
    """Measure and print transactions."""
    body = bundle(entries)

    def request(_: int) -> bytes:
        return stand.http("POST", "", body)

    await run(stand.port, request, connections=2, seconds=min(_WARM_SECONDS, seconds))
    for connections in CONNECTIONS:
        with stand.watched() as shares:
            result = await run(stand.port, request, connections=connections, seconds=seconds)
            used = shares(len(result.times) * entries)
        print(f"transactions of {entries}  c={connections}  {result.rate * entries:7.0f} resources/s   {result}", flush=True)
        print(f"    used: {used}")


async def load(stand: Stand, resources: int, processes: int) -> None:
    """Measure and print the `load` command."""
    with temporary() as directory:
        path = directory / "bench.ndjson"
        await asyncio.to_thread(write_ndjson, path, resources)
        size = path.stat().st_size
        with stand.watched() as shares:
            began = time.perf_counter()
            said = await stand.server.command("load", str(path), "--processes", str(processes))
            took = time.perf_counter() - began
            used = shares(resources)
    print(
        f"fhir-ris load, {processes} processes: {resources:,} resources ({size / 1e6:.0f} MB) in {took:.1f} s, "
        f"{resources / took:.0f} resources/s"
    )
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    last = next((line.strip() for line in reversed(plain.splitlines()) if line.strip()), "")
    print(f"    it says: {last}\n    used beside it: {used}")


async def measure(entries: int, seconds: float, resources: int, processes: int) -> None:
    """Both."""
    async with standing() as stand:
        print(f"{machine()}; 1 HTTP worker\n", flush=True)
        if seconds:
            await bundles(stand, entries, seconds)
        if resources:
            await load(stand, resources, processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=50, help="resources a Bundle")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long Bundles are sent, 0 for not at all")
    parser.add_argument("--resources", type=int, default=40_000, help="lines of NDJSON, 0 for none")
    parser.add_argument("--processes", type=int, default=2, help="of `fhir-ris load`")
    given = parser.parse_args()
    uvloop.run(measure(given.entries, given.seconds, given.resources, given.processes))


if __name__ == "__main__":
    main()
