"""FHIR REST rates: create, read, search by concurrency; tokens, validation, history, index and audit on.

python -m benchmarks.fhir [--count 2000] [--workers 1]
"""

import argparse
import asyncio
import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.load import http, machine, run
from demo.apps import App
from demo.server import Server

CONNECTIONS = (1, 16, 64)


def service_request(patient: str, number: int) -> dict[str, object]:
    """An order of about 1.4 kB, not imaging: what is measured is the FHIR server, not the department's reactions."""
    return {
        "resourceType": "ServiceRequest",
        "identifier": [{"system": "urn:example:bench", "value": f"B{number:07d}"}],
        "status": "active",
        "intent": "order",
        "category": [{"coding": [{"system": "http://snomed.info/sct", "code": "108252007", "display": "Laboratory procedure"}]}],
        "priority": "routine",
        "code": {
            "coding": [
                {"system": "http://loinc.org", "code": "24627-2", "display": "CT Chest"},
                {"system": "urn:example:local", "code": "CTTHX", "display": "CT thorax without contrast"},
            ],
            "text": "CT chest without contrast",
        },
        "subject": {"reference": f"Patient/{patient}", "display": "Bench, Berta"},
        "occurrenceDateTime": f"2026-09-{number % 28 + 1:02d}T10:00:00+02:00",
        "authoredOn": "2026-09-01T08:30:00+02:00",
        "requester": {"display": "Referrer, Rolf"},
        "reasonCode": [
            {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "R05", "display": "Cough"}], "text": "Cough"}
        ],
        "note": [{"text": "Please compare with the previous examination. " * 4}],
        "bodySite": [{"coding": [{"system": "http://snomed.info/sct", "code": "51185008", "display": "Thoracic structure"}]}],
    }


async def measure(count: int, workers: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="fhir-ris-bench-"))
    server = Server(directory, RIS_HTTP_WORKERS=str(workers))
    try:
        await server.start()
        app = App("bench", "system/*.cruds", server.base_url)
        await server.command("client", "add", "bench", "--scope", "system/*.cruds", "--jwks", str(app.write_jwks(directory)))
        port = int(server.settings["RIS_HTTP_PORT"])
        patients = [
            (await app.ok("POST", "Patient", {"resourceType": "Patient", "name": [{"family": f"Bench{i}"}]}))["id"]
            for i in range(50)
        ]
        print(f"{machine()}; {workers} HTTP worker(s)\n")
        ids: list[str] = []
        for connections in CONNECTIONS:
            token, base = await app.token(), len(ids)

            def create(n: int, base: int = base, token: str = token) -> bytes:
                return http("POST", "ServiceRequest", token, json.dumps(service_request(patients[n % 50], base + n)).encode())

            print(f"create ServiceRequest    c={connections:<3} {await run(port, create, connections=connections, count=count)}")
            ids = [r["id"] for r in await app.search("ServiceRequest?_count=1000")]
        for connections in CONNECTIONS:
            token = await app.token()

            def read(n: int, token: str = token) -> bytes:
                return http("GET", f"ServiceRequest/{ids[n % len(ids)]}", token)

            print(
                f"read ServiceRequest      c={connections:<3} {await run(port, read, connections=connections, count=count * 2)}"
            )
        for connections in CONNECTIONS:
            token = await app.token()

            def search(n: int, token: str = token) -> bytes:
                return http("GET", f"ServiceRequest?patient=Patient/{patients[n % 50]}&status=active&_count=20", token)

            print(f"search by patient+status c={connections:<3} {await run(port, search, connections=connections, count=count)}")
        await app.close()
    finally:
        await server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="requests a measurement")
    parser.add_argument("--workers", type=int, default=1, help="HTTP worker processes")
    given = parser.parse_args()
    asyncio.run(measure(given.count, given.workers))


if __name__ == "__main__":
    main()
