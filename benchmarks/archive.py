"""A department's archive of any size for the search benchmark: written straight into MongoDB as the store lays it out.

Of 200 resources one is a Patient, 90 are ServiceRequests, 30 Observations and 79 Tasks, of about 1 kB, spread over five years.
A patient has about 90 ServiceRequests, a third of them active, whatever the size; what grows is the number of patients, and of
Observations a code and month. About 300 interpretations are still to be done at any size: a department's open work does not
grow with its archive.
"""

import asyncio
import hashlib
import multiprocessing
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient, MongoClient

from benchmarks import seeds
from fhir_server import clock, fhir_json
from fhir_server.mongod import EmbeddedMongod
from fhir_server.search.index import index
from fhir_server.store import Store

TYPES = ("Patient", "ServiceRequest", "Observation", "Task")
BLOCK = 200
FIRST, DAYS = datetime(2021, 9, 1, 8, 0, tzinfo=UTC), 1826
CODES = 20
_OPEN = 300
_CHUNK = 2000
_STATUSES = ("active",) * 6 + ("completed",) * 13 + ("revoked",)
_PRIORITIES = ("routine",) * 14 + ("urgent",) * 4 + ("asap", "stat")
_SYLLABLES = ("ba", "do", "fen", "gil", "hu", "ka", "lor", "mi", "nes", "pa", "rud", "sol", "ti", "ver", "wim", "zan")

Resource = dict[str, Any]


def patients(total: int) -> int:
    """How many patients an archive of this size has."""
    return total // BLOCK


def resource_id(resource_type: str, number: int) -> str:
    """The id of the n-th of its type: scattered, which is the worst that a client may choose."""
    return hashlib.md5(f"{resource_type}/{number}".encode(), usedforsecurity=False).hexdigest()


def name(number: int) -> tuple[str, str]:
    """Invented family and given name of a patient; about 4,000 families."""
    one, two, three, four = (_SYLLABLES[(number >> shift) % 16] for shift in (0, 4, 8, 2))
    return (one + two + three).capitalize(), (four + "a").capitalize()


def birth_date(number: int) -> str:
    """Of a patient."""
    return f"{1930 + number % 90}-{number % 12 + 1:02d}-{number % 28 + 1:02d}"


def code(number: int) -> str:
    """One of the codes of Observations."""
    return f"8867-{number % CODES}"


def day(number: int) -> str:
    """The n-th day of the five years, around again."""
    return f"{FIRST + timedelta(days=number % DAYS):%Y-%m-%d}"


def resource(number: int, total: int, chance: random.Random) -> Resource:
    """The n-th resource of an archive; `number` counts over all types."""
    block, place = divmod(number, BLOCK)
    moment = f"{FIRST + timedelta(days=chance.randrange(DAYS), minutes=chance.randrange(600)):%Y-%m-%dT%H:%M:%S}Z"
    patient = resource_id("Patient", chance.randrange(max(1, patients(total))))
    if place == 0:
        family, given = name(block)
        made: Resource = {
            "resourceType": "Patient",
            "identifier": [{"system": "urn:example:bench:mrn", "value": f"M{block:07d}"}],
            "name": [{"use": "official", "family": family, "given": [given]}],
            "gender": ("female", "male")[block % 2],
            "birthDate": birth_date(block),
            "address": [{"line": [f"{block % 300} Example Street"], "city": "Exampleton", "postalCode": f"{block % 90000:05d}"}],
        }
        return {**made, "id": resource_id("Patient", block)}
    if place <= 90:
        count = block * 90 + place - 1
        made = seeds.service_request(patient, count)
        status, priority = chance.choice(_STATUSES), chance.choice(_PRIORITIES)
        made |= {"status": status, "priority": priority, "occurrenceDateTime": moment, "authoredOn": moment}
        return {**made, "id": resource_id("ServiceRequest", count)}
    if place <= 120:
        count = block * 30 + place - 91
        made = seeds.observation(patient, count) | {"effectiveDateTime": moment, "issued": moment}
        made["code"] = {"coding": [{"system": "http://loinc.org", "code": code(chance.randrange(CODES))}]}
        return {**made, "id": resource_id("Observation", count)}
    count = block * 79 + place - 121
    return {**_task(patient, count, moment, total, chance), "id": resource_id("Task", count)}


def _task(patient: str, count: int, moment: str, total: int, chance: random.Random) -> Resource:
    """A reading to be done, or one that is done: all but about 300."""
    is_open = count % max(1, patients(total) * 79 // _OPEN) == 0
    unread = {"businessStatus": {"coding": [{"system": "urn:fhir-ris:reading-status", "code": "unread"}]}}
    return (unread if is_open else {}) | {
        "resourceType": "Task",
        "identifier": [{"system": "urn:example:bench:task", "value": f"T{count:08d}"}],
        "status": "requested" if is_open else "completed",
        "intent": "order",
        "priority": chance.choice(_PRIORITIES),
        "code": {"coding": [{"system": "urn:fhir-ris:task", "code": "interpretation"}]},
        "for": {"reference": f"Patient/{patient}", "display": "Bench, Berta"},
        "authoredOn": moment,
        "lastModified": moment,
        "note": [{"text": "Please compare with the previous examination. " * 4}],
    }


def documents(start: int, stop: int, total: int) -> Iterator[tuple[str, Resource]]:
    """What the store would hold of these resources: (type, document)."""
    chance, now = random.Random(start), clock.now()
    for number in range(start, stop):
        made = resource(number, total, chance)
        made["meta"] = {"versionId": "1", "lastUpdated": clock.instant(now)}
        document = {
            "_id": made["id"],
            "version": 1,
            "method": "POST",
            "updated": clock.naive(now),
            "resource": fhir_json.to_bson(made),
            "search": index(made),
        }
        yield made["resourceType"], document


def _write(uri: str, database: str, start: int, stop: int, total: int) -> None:
    """Write a range of the archive; in a process of its own."""
    with MongoClient[dict[str, Any]](uri) as client:
        by_type: dict[str, list[Resource]] = {resource_type: [] for resource_type in TYPES}
        for resource_type, document in documents(start, stop, total):
            by_type[resource_type].append(document)
        for resource_type, many in by_type.items():
            if many:
                client[database][resource_type].insert_many(many, ordered=False)


async def fill(data_dir: Path, total: int, *, database: str = "ris", processes: int = 2) -> str:
    """Make an archive of `total` resources in a data directory, its indexes built at the end. What it took, as a line."""
    mongod = EmbeddedMongod(data_dir, role="command")
    uri = await mongod.start()
    try:
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            ranges = [(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
            await asyncio.gather(*(loop.run_in_executor(pool, _write, uri, database, a, b, total) for a, b in ranges))
        written = time.perf_counter()
        async with AsyncMongoClient[dict[str, Any]](uri) as client:
            await Store(client[database]).ensure(*TYPES)
        indexed = time.perf_counter()
    finally:
        await mongod.stop()
    return f"{total:,} resources written in {written - began:.0f} s, indexed in {indexed - written:.0f} s"
