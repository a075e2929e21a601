"""FHIR REST rates: create, read, search by concurrency; tokens, validation, history, index and audit on.

python -m benchmarks.fhir [--count 2000] [--workers 1]
"""

import argparse

import orjson
import uvloop

from benchmarks.load import machine, run
from benchmarks.seeds import service_request
from benchmarks.stand import standing

CONNECTIONS = (1, 16, 64)


async def measure(count: int, workers: int) -> None:
    """Measure and print a line for each."""
    async with standing(RIS_HTTP_WORKERS=str(workers)) as stand:
        patients = [
            (await stand.app.ok("POST", "Patient", {"resourceType": "Patient", "name": [{"family": f"Bench{i}"}]}))["id"]
            for i in range(50)
        ]
        print(f"{machine()}; {workers} HTTP worker(s)\n", flush=True)

        def create(n: int) -> bytes:
            return stand.http("POST", "ServiceRequest", orjson.dumps(service_request(patients[n % 50], n)))

        for connections in CONNECTIONS:
            result = await run(stand.port, create, connections=connections, count=count)
            print(f"create ServiceRequest    c={connections:<3} {result}", flush=True)
        ids = [r["id"] for r in await stand.app.search("ServiceRequest?_count=1000")]

        def read(n: int) -> bytes:
            return stand.http("GET", f"ServiceRequest/{ids[n % len(ids)]}")

        def search(n: int) -> bytes:
            return stand.http("GET", f"ServiceRequest?patient=Patient/{patients[n % 50]}&status=active&_count=20")

        for connections in CONNECTIONS:
            result = await run(stand.port, read, connections=connections, count=count * 2)
            print(f"read ServiceRequest      c={connections:<3} {result}", flush=True)
        for connections in CONNECTIONS:
            result = await run(stand.port, search, connections=connections, count=count)
            print(f"search by patient+status c={connections:<3} {result}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="requests a measurement")
    parser.add_argument("--workers", type=int, default=1, help="HTTP worker processes")
    given = parser.parse_args()
    uvloop.run(measure(given.count, given.workers))


if __name__ == "__main__":
    main()
