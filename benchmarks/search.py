"""An indexed search page of 20 at two sizes of the archive: times, and how much slower the larger one is.

python -m benchmarks.search [--sizes 100000,1000000] [--seconds 4] [--processes 2]

For each size a server gets an archive (see `benchmarks/archive.py`) in a temporary directory, which a million resources and their
indexes make about 3 GB large; it is removed at the end. Then each kind of search is asked over HTTP with other values each time,
with 1 and with 8 connections. `finds` is how many resources the first of these searches matches.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import uvloop

from benchmarks import archive
from benchmarks.load import Result, machine, run
from benchmarks.stand import Stand, standing, temporary

CONNECTIONS = (1, 8)
_PAGE = 20
_WARM_SECONDS = 1.0
_HALF_YEAR = 182


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of search: the query for a random number, in an archive of `total` resources."""

    name: str
    query: Callable[[int, int], str]


def _patient(n: int, total: int) -> str:
    return archive.resource_id("Patient", n % archive.patients(total))


def _by_patient_and_status(n: int, total: int) -> str:
    return f"ServiceRequest?patient=Patient/{_patient(n, total)}&status=active"


def _by_code_and_date(n: int, _total: int) -> str:
    first = n % (archive.DAYS - _HALF_YEAR)
    code = quote(f"http://loinc.org|{archive.code(n)}")
    return f"Observation?code={code}&date=ge{archive.day(first)}&date=lt{archive.day(first + _HALF_YEAR)}&_sort=-date"


def _by_identifier(n: int, total: int) -> str:
    value = f"B{n % (archive.patients(total) * 90):07d}"
    return f"ServiceRequest?identifier={quote('urn:example:bench|' + value)}"


def _worklist(_n: int, _total: int) -> str:
    return "Task?code=interpretation&status=requested&_sort=-priority,authored-on"


def _by_name_and_birth_date(n: int, total: int) -> str:
    number = n % archive.patients(total)
    return f"Patient?family={archive.name(number)[0]}&birthdate={archive.birth_date(number)}"


def _newest_of_patient(n: int, total: int) -> str:
    return f"Observation?patient={_patient(n, total)}&_sort=-date"


KINDS = (
    Kind("orders by patient and status", _by_patient_and_status),
    Kind("results by code and half year, newest first", _by_code_and_date),
    Kind("order by identifier", _by_identifier),
    Kind("reading worklist by priority and age", _worklist),
    Kind("patient by family name and birth date", _by_name_and_birth_date),
    Kind("newest results of a patient", _newest_of_patient),
)


async def _measure_kind(stand: Stand, kind: Kind, total: int, connections: int, seconds: float) -> Result:
    chance = random.Random(total)
    numbers = [chance.randrange(10**9) for _ in range(5000)]

    def request(n: int) -> bytes:
        return stand.http("GET", f"{kind.query(numbers[n % len(numbers)], total)}&_count={_PAGE}")

    await run(stand.port, lambda n: request(n + 2500), connections=connections, seconds=min(_WARM_SECONDS, seconds))
    return await run(stand.port, request, connections=connections, seconds=seconds)


async def _found(stand: Stand, kind: Kind, total: int) -> int:
    number = random.Random(total).randrange(10**9)
    bundle = await stand.app.ok("GET", f"{kind.query(number, total)}&_summary=count")
    return int(bundle["total"])


async def measure(sizes: Sequence[int], seconds: float, processes: int) -> None:
    """Fill, measure and print, one size after the other."""
    results: dict[tuple[str, int, int], Result] = {}
    print(f"{machine()}; 1 HTTP worker", flush=True)
    for total in sizes:
        with temporary() as directory:
            said = await archive.fill(directory / "data", total, processes=processes)
            print(f"\n{said}", flush=True)
            async with standing(directory) as stand:
                for kind in KINDS:
                    finds = await _found(stand, kind, total)
                    for connections in CONNECTIONS:
                        result = await _measure_kind(stand, kind, total, connections, seconds)
                        results[kind.name, connections, total] = result
                        print(f"{kind.name:<44} finds {finds:>5}  c={connections} {result}", flush=True)
    if len(sizes) > 1:
        small, large = sizes[0], sizes[-1]
        print(f"\np50 at {large:,} over p50 at {small:,} resources:")
        for kind in KINDS:
            ratios = [
                f"c={c} {results[kind.name, c, large].percentile(50) / results[kind.name, c, small].percentile(50):.2f}"
                for c in CONNECTIONS
            ]
            print(f"{kind.name:<44} {'   '.join(ratios)}")


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if any(size < archive.BLOCK for size in sizes):
        raise argparse.ArgumentTypeError(f"a size is at least {archive.BLOCK}")
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=_sizes, default=(100_000, 1_000_000), help="how many resources, with commas between")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each kind is measured")
    parser.add_argument("--processes", type=int, default=2, help="how many processes fill")
    given = parser.parse_args()
    uvloop.run(measure(given.sizes, given.seconds, given.processes))


if __name__ == "__main__":
    main()
