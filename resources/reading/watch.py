"""What nobody has done in time is escalated: readings past their target, and critical results past their limit.

One process looks at a time. Each is escalated once: it is marked overdue, and a work item asks the department to see to it.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Final

import structlog
from pymongo.errors import ConnectionFailure

from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.elements import concept, has_code
from fhir_server.interactions import Interactions
from fhir_server.registry import Change, Registry, Resource
from fhir_server.search.query import compile_query
from fhir_server.unit_of_work import UnitOfWork
from fhir_server.watching import looking
from resources import terms, work_items
from resources.reading import critical_request, worklist
from smart_auth.access import Access

log = structlog.get_logger()

_EVERY: Final = 30.0  # seconds between two looks
_LEASE: Final = 120.0
_AT_ONCE: Final = 200  # that one look escalates of each kind
READING_OVERDUE: Final = "reading-overdue"
CRITICAL_OVERDUE: Final = f"{critical_request.CRITICAL}-{critical_request.OVERDUE}"
_ACCESS: Final = Access.system("reading-watch")

Escalate = Callable[[UnitOfWork, Resource, datetime], Awaitable[bool]]


@contextlib.asynccontextmanager
async def watching(interactions: Interactions) -> AsyncIterator[None]:
    """Look every now and then while inside, unless another process does."""

    async def once() -> None:
        await look(interactions, clock.now())

    async with looking(interactions.store.db, "reading-watch", once, every=_EVERY, lease=_LEASE):
        yield


async def look(interactions: Interactions, now: datetime) -> int:
    """Escalate what is overdue at this time; how many these are."""
    past = f"lt{clock.instant(now)}"
    overdue = f"{terms.READING_STATUS}|{worklist.OVERDUE}"
    readings = [("business-status", worklist.OPEN), ("business-status:not", overdue), ("due", past)]
    critical = f"{critical_request.KIND}|{critical_request.CRITICAL}"
    late = f"{critical_request.KIND}|{critical_request.OVERDUE}"
    requests = [("category", critical), ("category:not", late), ("status", "active"), ("occurrence", past)]
    done = 0
    for kind, parameters, escalate in (("Task", readings, _reading), ("CommunicationRequest", requests, _critical)):
        found = await interactions.store.find(compile_query(kind, parameters), limit=_AT_ONCE)
        for document in found:
            try:
                done += await _escalated(interactions, f"{kind}/{document['_id']}", now, escalate)
            except ConnectionFailure:
                raise
            except Exception as error:  # noqa: BLE001 - one that is odd keeps no other from being escalated
                log.warning("this can't be escalated", kind=kind, id=document["_id"], reason=type(error).__name__)
    return done


async def _escalated(interactions: Interactions, reference: str, now: datetime, escalate: Escalate) -> bool:
    async def work(unit: UnitOfWork) -> bool:
        found = await unit.get(reference)
        return found is not None and await escalate(unit, found, now)

    return await interactions.transact(_ACCESS, Act("escalation", source="reading-watch", detail=reference), work)


async def _reading(unit: UnitOfWork, reading: Resource, now: datetime) -> bool:
    until = worklist.due(reading)
    marked = has_code(reading.get("businessStatus"), terms.READING_STATUS, worklist.OVERDUE)
    if marked or not worklist.is_open(reading) or until is None or until >= now:
        return False
    stored = await unit.update(worklist.marked(reading, worklist.OVERDUE))
    if not has_code(stored.get("businessStatus"), terms.READING_STATUS, worklist.OVERDUE):
        return False
    about, patient = f"Task/{reading['id']}", reading.get("for", {}).get("reference")
    text = f"A study ({reading.get('priority', 'routine')}) was to be reported until {clock.instant(until)}"
    await work_items.raise_once(unit, READING_OVERDUE, about, text, about=about, patient=patient)
    return True


async def _critical(unit: UnitOfWork, request: Resource, now: datetime) -> bool:
    until = datetime.fromisoformat(request["occurrenceDateTime"])
    if (
        request["status"] != "active"
        or until >= now
        or has_code(request["category"], critical_request.KIND, critical_request.OVERDUE)
    ):
        return False
    late = concept(critical_request.KIND, critical_request.OVERDUE)
    await unit.update(request | {"category": [*request["category"], late], "priority": "stat"})
    about = request["about"][0]["reference"]
    text = f"A critical result was to be told until {clock.instant(until)}: nobody has acknowledged it"
    subject = f"CommunicationRequest/{request['id']}"
    patient = request["subject"]["reference"]
    await work_items.raise_once(unit, CRITICAL_OVERDUE, subject, text, about=about, patient=patient)
    return True


async def follow(unit: UnitOfWork, change: Change) -> None:
    """A reading that has ended, or has more time again, is not overdue any more."""
    was, reading = change.before, change.after
    if was is None or reading is None or not worklist.is_reading(reading):
        return
    had, has = (has_code(r.get("businessStatus"), terms.READING_STATUS, worklist.OVERDUE) for r in (was, reading))
    if had and not has:
        await work_items.close(unit, READING_OVERDUE, f"Task/{reading['id']}", reading["status"])


def register(registry: Registry) -> None:
    registry.reaction("Task", follow)
