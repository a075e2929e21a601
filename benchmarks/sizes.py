"""A large ImagingStudy over HTTP, the time that validation takes, and the memory of an HTTP worker after a mixed load.

python -m benchmarks.sizes [--instances 2000] [--rounds 10] [--seconds 10]

The study has 20 series; with 2,000 instances it is 400 kB. Each round puts it with one field changed, and reads it. Validation is
timed in this process. The mixed load is that of `benchmarks.crud` at 32 connections, with the study written and read meanwhile.
"""

import argparse
import asyncio
import functools
import statistics
import time
from collections.abc import Callable

import orjson
import uvloop

from benchmarks import seeds
from benchmarks.crud import Mix
from benchmarks.load import Answer, connected, machine
from benchmarks.stand import Stand, memory, standing
from fhir_server import fhir_json
from fhir_server.validation import validate

_SERIES = 20
_CONNECTIONS = 32
_TIMED_SECONDS = 1.0


def timed(call: Callable[[], object], seconds: float = _TIMED_SECONDS) -> tuple[float, float]:
    """The least and the median of its times, in milliseconds."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return min(times), statistics.median(times)


def validations(instances: int) -> None:
    """Time and print the validation of a ServiceRequest and of the study."""
    for resource in (
        seeds.service_request("bench", 1) | {"id": "bench"},
        seeds.imaging_study("bench", _SERIES, instances // _SERIES) | {"id": "bench"},
    ):
        written = orjson.dumps(resource)
        parsed = fhir_json.loads(written)
        assert not validate(parsed)
        least, median = timed(functools.partial(validate, parsed))
        print(
            f"validate {resource['resourceType']} ({len(written) / 1000:.1f} kB): "
            f"median {median * 1000:.0f} us, least {least * 1000:.0f} us"
        )


async def studies(stand: Stand, study: dict[str, object], rounds: int) -> tuple[list[float], list[float]]:
    """Put and read the study so many times; the milliseconds of each."""
    writes: list[float] = []
    reads: list[float] = []
    async with connected(stand.port) as connection:
        for n in range(rounds):
            body = orjson.dumps(study | {"description": f"Invented study, change {time.time_ns()} {n}"})
            for method, times in (("PUT", writes), ("GET", reads)):
                request = stand.http(method, f"ImagingStudy/{study['id']}", body if method == "PUT" else b"")
                answer, took = await connection.timed(request)
                _expect(answer)
                times.append(took)
    return writes, reads


def _expect(answer: Answer) -> None:
    if answer.status not in {200, 201}:
        raise RuntimeError(f"{answer.status} {answer.body[:300]!r}")


async def measure(instances: int, rounds: int, seconds: float) -> None:
    """All three, printed."""
    print(f"{machine()}\n", flush=True)
    validations(instances)
    async with standing() as stand:
        assert stand.server.process is not None
        pid = stand.server.process.pid
        at_start, _ = memory(pid)
        patient = await stand.app.ok("POST", "Patient", {"resourceType": "Patient"})
        study = seeds.imaging_study(patient["id"], _SERIES, instances // _SERIES) | {"id": "bench"}
        await studies(stand, study, 2)
        writes, reads = await studies(stand, study, rounds)
        for what, times in (("write", writes), ("read", reads)):
            print(f"{what} it over HTTP: median {statistics.median(times):.1f} ms, slowest {max(times):.1f} ms")
        both = [w + r for w, r in zip(writes, reads, strict=True)]
        print(f"written and read: median {statistics.median(both):.1f} ms", flush=True)
        mix = Mix(stand)
        loading = asyncio.create_task(mix.run(_CONNECTIONS, seconds))
        beside = 0
        while not loading.done():
            await studies(stand, study, 1)
            beside += 1
            await asyncio.sleep(0.5)
        whole = await loading
        now, most = memory(pid)
        print(
            f"memory of the worker: {at_start:.0f} MB at the start, {now:.0f} MB after {len(whole.times):,} requests of the mix "
            f"and {rounds + 2 + beside} studies, {most:.0f} MB at most"
        )
        print("    (it is the server's first process: it plays the v2, DICOM and delivery roles as well)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=2000, help="images of the study")
    parser.add_argument("--rounds", type=int, default=10, help="how often the study is written and read")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the mixed load lasts")
    given = parser.parse_args()
    uvloop.run(measure(given.instances, given.rounds, given.seconds))


if __name__ == "__main__":
    main()
