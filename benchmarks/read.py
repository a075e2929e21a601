"""Read by id and create, next to bare FastAPI routes that do the same MongoDB call: what the FHIR server costs on top.

python -m benchmarks.read [--rounds 5] [--seconds 2]

Ours checks tokens and writes an AuditEvent for each request, and for a create validates, keeps history and indexes. The bare
routes share the MongoDB. Ours and theirs are measured in turns, so that a slow moment of the machine meets both; the rates are
medians of the rounds.
"""

import argparse

import orjson
import uvloop

from benchmarks import seeds
from benchmarks.bare import bare
from benchmarks.load import Side, in_turns, machine, request_bytes
from benchmarks.stand import standing

CONNECTIONS = (8, 16)
_PATIENTS, _ORDERS = 50, 500
_COLLECTION = "bare_ServiceRequest"


async def compare(what: str, ours: Side, bare: Side, connections: int, rounds: int, seconds: float) -> None:
    """Measure in turns and print a line."""
    await in_turns([ours, bare], connections=connections, rounds=rounds, seconds=seconds)
    generator = max(r.generator for r in ours.results + bare.results)
    print(
        f"{what:<7} c={connections:<3} ours {ours.rate:7.0f}/s   bare {bare.rate:7.0f}/s   ratio {ours.rate / bare.rate:5.2f}   "
        f"our p50 {ours.p50:6.2f} ms   bare p50 {bare.p50:6.2f} ms   load generator at most {generator:.2f} cores"
    )
    if wrong := ours.wrong + bare.wrong:
        print(f"        errors: {dict(wrong)}")


async def measure(rounds: int, seconds: float) -> None:
    """Prepare, measure reads and creates, print."""
    async with standing() as stand:
        created = [await stand.app.ok("POST", "Patient", {"resourceType": "Patient"}) for _ in range(_PATIENTS)]
        patients = [p["id"] for p in created]
        bodies = [orjson.dumps(seeds.service_request(patients[n % _PATIENTS], n)) for n in range(_ORDERS)]
        ids = [(await stand.app.ok("POST", "ServiceRequest", orjson.loads(body)))["id"] for body in bodies]

        def read(n: int) -> bytes:
            return stand.http("GET", f"ServiceRequest/{ids[n % _ORDERS]}")

        def bare_read(n: int) -> bytes:
            return request_bytes("GET", f"/ServiceRequest/{ids[n % _ORDERS]}")

        def create(n: int) -> bytes:
            return stand.http("POST", "ServiceRequest", bodies[n % _ORDERS])

        def bare_create(n: int) -> bytes:
            return request_bytes("POST", f"/{_COLLECTION}", bodies[n % _ORDERS])

        async with bare(stand.mongodb_uri) as port:
            print(f"{machine()}\n", flush=True)
            for what, our_request, bare_request in (("read", read, bare_read), ("create", create, bare_create)):
                for connections in CONNECTIONS:
                    ours, theirs = Side(stand.port, our_request), Side(port, bare_request)
                    await compare(what, ours, theirs, connections, rounds, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each time")
    given = parser.parse_args()
    uvloop.run(measure(given.rounds, given.seconds))


if __name__ == "__main__":
    main()
