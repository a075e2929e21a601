"""Figures over a year: how long each question takes over HTTP, with 200,000 examinations, their bookings, slots and messages.

python -m benchmarks.numbers [--exams 200000] [--times 5]

The year is written straight into MongoDB as the store and the projections lay it out: examinations as rows made by
`resources.numbers.exam_rows.row` from parts as the resources give them, bookings, Slots, and six messages an examination. It is
in a temporary directory, removed at the end. Each question is asked once to warm up, then as often as said; the slowest counts.
"""

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from pymongo import AsyncMongoClient

from benchmarks.load import connected, machine
from benchmarks.stand import Stand, standing, temporary
from fhir_server import clock, fhir_json, outbox
from fhir_server.database import Document
from fhir_server.mongod import EmbeddedMongod
from fhir_server.search.index import index
from fhir_server.store import Store
from resources import numbers
from resources.numbers import bookings, exam_rows

YEAR = datetime(2025, 1, 1)  # noqa: DTZ001 - UTC without tzinfo, as MongoDB keeps it
_MODALITIES = ("CT", "CT", "CT", "MR", "MR", "DX", "DX", "DX", "DX", "US", "US", "MG")
_SCANNERS = 12
_CHUNK = 5000
_YEAR = "periodStart=2025-01-01&periodEnd=2025-12-31"
QUESTIONS = {
    "turn-around, the usual spans": f"Measure/turn-around/$evaluate-measure?{_YEAR}",
    "turn-around, the usual spans by modality": f"Measure/turn-around/$evaluate-measure?{_YEAR}&group-by=modality",
    "turn-around, one span by four dimensions": (
        f"Measure/turn-around/$evaluate-measure?{_YEAR}&from=ended&to=final"
        "&group-by=modality&group-by=priority&group-by=location&group-by=reader"
    ),
    "turn-around, one span by month and modality": (
        f"Measure/turn-around/$figures?{_YEAR}&from=ordered&to=final&basis=final&group-by=month,modality&format=csv"
    ),
    "turn-around, the usual spans of a week": "Measure/turn-around/$evaluate-measure?periodStart=2025-05-05&periodEnd=2025-05-11",
    "volumes by modality": f"Measure/volumes/$evaluate-measure?{_YEAR}",
    "volumes by day": f"Measure/volumes/$figures?{_YEAR}&group-by=day&format=csv",
    "scanners": f"Measure/scanners/$evaluate-measure?{_YEAR}",
    "backlog by age": "Measure/backlog/$evaluate-measure?periodStart=2000&periodEnd=2099",
    "critical results": f"Measure/critical-results/$evaluate-measure?{_YEAR}",
    "interfaces": f"Measure/interfaces/$evaluate-measure?{_YEAR}",
}


def _exam(number: int, total: int, chance: random.Random) -> tuple[Document, Document]:
    """The rows of an examination and of its booking."""
    scanner = chance.randrange(_SCANNERS)
    at = YEAR + timedelta(seconds=365 * 86400 * number // total)
    modality = _MODALITIES[scanner]

    def later(median: float) -> datetime:
        nonlocal at
        at += timedelta(seconds=int(chance.lognormvariate(0, 0.8) * median * 60))
        return at

    priority = chance.choice(("routine",) * 14 + ("urgent",) * 4 + ("asap", "stat"))
    request = {
        "status": "completed",
        "priority": priority,
        "ordered": at,
        "accepted": later(5),
        "code": f"{modality}{number % 30}",
    }
    step = {"status": "completed", "scheduled": later(30), "arrived": later(2000), "started": later(12), "modality": modality}
    step |= {"ended": later(15), "scanner": f"Device/scanner{scanner}"}
    reader = f"Practitioner/reader{chance.randrange(25)}"
    parts: list[dict[str, Any]] = [
        {"of": f"ServiceRequest/p{number}", "kind": "procedure"} | request,
        {"of": f"ServiceRequest/o{number}", "kind": "order", "referrer": f"Practitioner/gp{chance.randrange(400)}"} | request,
        {"of": f"Task/s{number}", "kind": "step"} | step,
        {"of": f"Procedure/m{number}", "kind": "performed", "technologist": f"Practitioner/tech{chance.randrange(30)}"},
        {"of": f"ImagingStudy/i{number}", "kind": "study", "images": later(4)},
        {"of": f"Task/r{number}", "kind": "reading", "status": "completed", "claimed": later(40), "reader": reader},
    ]
    if number < total - 300:  # about 300 are still to be read
        signed = {"preliminary": later(10), "final": later(60), "signed": at}
        sent = [
            {"type": "ORU^R01", "created": at, "delivered": later(1)},
            {"type": "DFT^P03", "created": at, "delivered": later(1)},
        ]
        parts += [
            {"of": f"DiagnosticReport/d{number}", "kind": "report", "reader": reader} | signed,
            {"of": "outbox", "kind": "sent", "messages": sent},
        ]
    status = chance.choice(("fulfilled",) * 18 + ("noshow", "cancelled"))
    booking = {"_id": f"a{number}", "start": step["started"], "minutes": 30.0, "status": status, "scanners": [step["scanner"]]}
    return exam_rows.row(f"p{number}", parts), booking


def _messages(number: int, at: datetime) -> Iterator[tuple[str, Document]]:
    for i in range(3):
        partner = f"Endpoint/partner{(number + i) % 6}"
        made = {
            "sender": partner,
            "control_id": f"M{number}-{i}",
            "digest": "",
            "partner": partner,
            "outcome": "AA" if number % 50 else "AE",
        }
        yield "messages", made | {"received": at, "type": "ORM^O01", "raw": b"x" * 800, "about": []}
        key = {
            "destination": partner,
            "key": number * 3 + i,
            "state": "delivered",
            "type": "ORU^R01",
            "control_id": f"O{number}-{i}",
        }
        yield (
            outbox.COLLECTION,
            key | {"created": at, "delivered": at, "about": [f"ServiceRequest/p{number}"], "message": b"x" * 800},
        )


def _slots() -> Iterator[tuple[str, Document]]:
    """Half an hour each from 7 to 19 on each day of the year, and the schedules and scanners that they are of."""
    now = clock.now()
    for n in range(_SCANNERS):
        actor = {"reference": f"Device/scanner{n}"}
        device = {
            "deviceName": [{"name": f"Scanner {n}", "type": "user-friendly-name"}],
            "location": {"reference": f"Location/l{n % 4}"},
        }
        made = [{"resourceType": "Device", "id": f"scanner{n}"} | device]
        made.append({"resourceType": "Schedule", "id": f"schedule{n}", "actor": [actor]})
        for half in range(365 * 24):
            start = YEAR.replace(tzinfo=UTC) + timedelta(days=half // 24, hours=7, minutes=30 * (half % 24))
            times = {"start": clock.instant(start), "end": clock.instant(start + timedelta(minutes=30))}
            slot = {"resourceType": "Slot", "id": f"slot{n}-{half}", "schedule": {"reference": f"Schedule/schedule{n}"}}
            made.append(slot | {"status": "busy" if half % 5 else "free"} | times)
        for resource in made:
            stamped = resource | {"meta": {"versionId": "1", "lastUpdated": clock.instant(now)}}
            stored = {"_id": resource["id"], "version": 1, "method": "POST", "updated": clock.naive(now)}
            yield str(resource["resourceType"]), stored | {"resource": fhir_json.to_bson(stamped), "search": index(stamped)}


def _documents(total: int) -> Iterator[tuple[str, Document]]:
    chance = random.Random(1)
    for number in range(total):
        exam, booking = _exam(number, total, chance)
        yield exam_rows.COLLECTION, exam
        yield bookings.COLLECTION, booking
        yield from _messages(number, exam["ordered"])
    yield from _slots()


async def fill(data_dir: Path, total: int) -> str:
    """Make the year in a data directory; what it took, as a line."""
    mongod = EmbeddedMongod(data_dir, role="command")
    uri = await mongod.start()
    began = time.perf_counter()
    try:
        async with AsyncMongoClient[dict[str, Any]](uri) as client:
            db = client["ris"]
            await Store(db).ensure("Slot", "Schedule", "Device")
            await numbers.ensure_indexes(db)
            waiting: dict[str, list[Document]] = {}
            for collection, document in _documents(total):
                chunk = waiting.setdefault(collection, [])
                chunk.append(document)
                if len(chunk) == _CHUNK:
                    await db[collection].insert_many(chunk, ordered=False)
                    chunk.clear()
            for collection, chunk in waiting.items():
                if chunk:
                    await db[collection].insert_many(chunk, ordered=False)
    finally:
        await mongod.stop()
    return f"{total:,} examinations written in {time.perf_counter() - began:.0f} s"


async def _asked(stand: Stand, question: str) -> tuple[float, int]:
    """Seconds until the answer was there, and its size in bytes."""
    async with connected(stand.port) as connection:
        began = time.perf_counter()
        answer = await connection.send(stand.http("GET", question))
        took = time.perf_counter() - began
    assert answer.status == 200, answer.body[:500]
    return took, len(answer.body)


async def measure(exams: int, times: int) -> None:
    """Fill, ask and print."""
    print(machine(), flush=True)
    with temporary() as directory:
        print(await fill(directory / "data", exams), flush=True)
        async with standing(directory) as stand:
            for name, question in QUESTIONS.items():
                first, size = await _asked(stand, question)
                found = [(await _asked(stand, question))[0] for _ in range(times)]
                told = f"median {statistics.median(found):.2f} s, slowest {max(found):.2f} s, first {first:.2f} s"
                print(f"{name:<46} {told}, {size:,} bytes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=200_000)
    parser.add_argument("--times", type=int, default=5, help="how often each question is asked")
    given = parser.parse_args()
    uvloop.run(measure(given.exams, given.times))


if __name__ == "__main__":
    main()
