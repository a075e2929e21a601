"""Proposals of `$find`: kept beside the resources for as long as somebody may come back for one, and gone by themselves.

    proposals  {_id, ids: of its Appointments, appointments: [Appointment, ...], question: what was asked, until: date}

One proposal is one visit. Its Appointments have ids already: `$hold` and `$book` store them under these.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from pymongo import IndexModel, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import clock
from fhir_server.ids import new_id
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.scheduling.question import Question

COLLECTION: Final = "proposals"
_KEPT: Final = timedelta(hours=1)


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    await db[COLLECTION].create_indexes([IndexModel([("ids", 1)]), IndexModel([("until", 1)], expireAfterSeconds=0)])


def keep(unit: UnitOfWork, visit: Sequence[Resource], question: Question) -> None:
    """Keep a visit with this transaction."""
    document = {
        "ids": [appointment["id"] for appointment in visit],
        "appointments": list(visit),
        "question": asdict(question),
        "until": unit.now + _KEPT,
    }
    unit.keep(COLLECTION, UpdateOne({"_id": new_id()}, {"$set": document}, upsert=True))


async def of(db: AsyncDatabase[dict[str, Any]], appointment_id: str) -> tuple[list[Resource], Question] | None:
    """The visit that an Appointment was proposed in, and what had been asked; None when it isn't known (any more)."""
    found = await db[COLLECTION].find_one({"ids": appointment_id, "until": {"$gt": clock.now()}})
    return (found["appointments"], Question.again(found["question"])) if found else None
