"""A department of real size: bookings of today and of tomorrow, what waits to be read, and months of messages.

The bookings, and one examination, come through the doors of the product. What is to be many of the same kind, the readings and
messages, is that examination again, written straight into MongoDB under other ids and numbers.
"""

import asyncio
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, Final

from bson import ObjectId, json_util
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.stand import Stand
from demo import ehr
from demo.apps import App
from demo.bookings import booking
from demo.department.rooms import EXAMINATIONS, Station
from demo.scanner import Scanner
from fhir_server import outbox
from fhir_server.elements import concept
from resources import terms
from resources.numbers import exam_rows
from resources.order_numbers import accession_number

Document = dict[str, Any]
Resource = dict[str, Any]
STATIONS: Final = tuple(
    Station(f"{modality}{n}", modality, f"{modality} {n}", f"Room {modality} {n}", "06:00:00", "20:00:00", 30)
    for modality, count in (("CT", 3), ("MR", 3), ("DX", 3), ("US", 3))
    for n in range(1, count + 1)
)
_CODES: Final = {s.modality: [e for e in EXAMINATIONS.values() if e.modality == s.modality and not e.rules] for s in STATIONS}
_FAMILIES: Final = "Abel Brandt Conrad Dietz Engel Falk Gruber Haas Imhof Jung Keller Lang Moser Neumann Otto Pohl".split()
_GIVEN: Final = "Anna Bernd Clara David Emma Felix Greta Hans Ida Jonas Karla Leo Mia Nils Olga Paul".split()
_RESOURCES: Final = ("Patient", "ServiceRequest", "Task", "Procedure", "ImagingStudy", exam_rows.COLLECTION)
_MESSAGES: Final = ("messages", outbox.COLLECTION)
_NUMBER, _PLACER = "E00001", "PL00001"
_OF_THE_ORDER: Final = 300  # messages
_CHUNK: Final = 500
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is: bookings of each day, readings, messages."""

    exams: int = 200
    readings: int = 500
    messages: int = 50_000


@dataclass(frozen=True, slots=True)
class Seeded:
    """What pages are asked for by: tomorrow, and the ids of an order that is booked for then, of one that waits, of one that was
    examined, and of the reading of that."""

    tomorrow: date
    booked: str
    waiting: str
    examined: str
    reading: str


async def fill(stand: Stand, size: Size) -> Seeded:
    """Make it all."""
    examined = await _examined(stand)
    reading = (await stand.app.search("Task?code=interpretation"))[0]["id"]
    client = AsyncMongoClient[dict[str, Any]](stand.mongodb_uri)
    try:
        await _multiplied(client["ris"], size, examined)
    finally:
        await client.close()
    today = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0)
    orders = [await _day(stand.app, size.exams, today + timedelta(days=day), 10_000 * (day + 1)) for day in (0, 1)]
    waiting = [await _ordered(stand.app, 90_000 + n, STATIONS[n % len(STATIONS)]) for n in range(60)]
    return Seeded((today + timedelta(days=1)).date(), orders[1][0], waiting[0]["id"], examined, reading)


# Through the doors


async def _day(app: App, exams: int, opens: datetime, first: int) -> list[str]:
    """Book that many examinations of a day; the ids of their orders."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(n: int) -> str:
        station = STATIONS[n % len(STATIONS)]
        async with free:
            order = await _ordered(app, first + n, station)
            start = opens + timedelta(minutes=30 * (n // len(STATIONS)))
            await app.ok("POST", "Appointment", booking(order, f"Device/{station.id}", start, station.minutes))
        return str(order["id"])

    return list(await asyncio.gather(*map(one, range(exams))))


async def _ordered(app: App, number: int, station: Station) -> Resource:
    chance = random.Random(number)
    name = {"family": chance.choice(_FAMILIES), "given": [chance.choice(_GIVEN)]}
    record = {"type": concept(terms.V2_0203, "MR"), "system": "urn:example:mrn", "value": f"N{number}"}
    patient = await app.ok(
        "POST",
        "Patient",
        {"resourceType": "Patient", "identifier": [record], "name": [name], "gender": "female", "birthDate": "1970-01-31"},
    )
    examination = chance.choice(_CODES[station.modality])
    return await app.ok("POST", "ServiceRequest", {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "identifier": [{"type": concept(terms.V2_0203, "PLAC"), "system": "urn:example:placer", "value": f"N-{number}"}],
        "code": {"coding": [{"system": "http://loinc.org", "code": examination.code, "display": examination.name}]},
        "subject": {"reference": f"Patient/{patient['id']}"},
        "priority": chance.choice(("routine",) * 6 + ("urgent", "asap", "stat")),
        "reasonCode": [{"text": "Cough for six weeks"}],
    })  # fmt: skip


async def _examined(stand: Stand) -> str:
    """An examination of yesterday that came by HL7 v2 and was done at a scanner; the id of its order."""
    for message in (ehr.registration("A1", _NUMBER), ehr.order("O1", _PLACER, _NUMBER)):
        ack = await ehr.send(stand.server.mllp_port, message)
        if ack.all("MSA")[0].field(1) != "AA":
            raise RuntimeError(ack.raw.decode("utf-8", "replace"))
    (order,) = await stand.app.search(f"ServiceRequest?identifier={_PLACER}&intent=order")
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)
    await stand.app.ok("POST", "Appointment", booking(order, f"Device/{STATIONS[0].id}", start, 30))
    scanner = Scanner(STATIONS[0].title, stand.server.dicom_port)
    item = (await scanner.worklist(f"{start:%Y%m%d}", ""))[0]
    uid = await scanner.begin(item, at=start)
    await scanner.end(uid, at=start + timedelta(minutes=20))
    return str(order["id"])


# Again, and again


async def _multiplied(db: AsyncDatabase[Document], size: Size, order: str) -> None:
    there = {name: [d async for d in db[name].find()] for name in (*_RESOURCES, *_MESSAGES)}
    patient = next(d["_id"] for d in there["Patient"] if _NUMBER in json_util.dumps(d))
    own = {d["_id"] for name in _RESOURCES for d in there[name] if f"Patient/{patient}" in json_util.dumps(d)} | {patient}
    accession = next(accession_number(d["resource"]) for d in there["ServiceRequest"] if d["_id"] == order)
    uids = re.findall(r"urn:oid:([\d.]+)", json_util.dumps(there["ImagingStudy"]))
    names = [*own, str(accession), _NUMBER, _PLACER, *dict.fromkeys(uids)]
    for name in _RESOURCES:
        mine = [d for d in there[name] if d["_id"] in own]
        await _insert(db, name, mine, size.readings - 1, lambda text, n: _renamed(text, names, n))
    months = timedelta(days=90) / max(1, size.messages)
    for name in _MESSAGES:
        mine = [d for d in there[name] if any(n in json_util.dumps(d) for n in own)]
        await _insert(db, name, mine, size.messages // max(1, len(mine)), lambda text, n: _message(text, names, n, months * n))


def _renamed(text: str, names: Iterable[str], n: int) -> Document:
    for name in names:
        text = text.replace(name, f"{name}.{n}")
    return dict(json_util.loads(text))


def _message(text: str, names: Iterable[str], n: int, ago: timedelta) -> Document:
    """Another message, that long ago; the first ones are about the same order."""
    document = _renamed(text, names, n) if n > _OF_THE_ORDER else dict(json_util.loads(text))
    document |= {"_id": ObjectId(), "control_id": f"{document['control_id']}.{n}"}
    document |= {name: document[name] - ago for name in ("received", "created", "delivered") if name in document}
    return document | ({"key": document["key"] - ago // timedelta(microseconds=1) * 1000} if "key" in document else {})


async def _insert(
    db: AsyncDatabase[Document], name: str, documents: Iterable[Document], copies: int, another: Callable[[str, int], Document]
) -> None:
    texts = [json_util.dumps(d) for d in documents]
    made = (another(text, n) for n in range(1, copies + 1) for text in texts)
    while chunk := list(islice(made, _CHUNK)):
        await db[name].insert_many(chunk, ordered=False)
