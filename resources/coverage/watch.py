"""Watching authorizations: those that end before what is booked on them, or are used up while an order still waits.

Each that is watched has a row in the collection `authorization_watch`: {_id: "ClaimResponse/1", due: date}. A projection makes it
due when something that matters changes: the authorization, a procedure that is booked on it or names it, a step that moves. One
process looks at what is due, and raises or ends one work item an authorization and kind (`authorization-expiring`,
`authorization-exhausted`). What only time brings about, the row is due for by itself: a week before the end, and at the end.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, tzinfo
from typing import Final

import structlog
from pymongo import IndexModel, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.elements import identifier_value
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.registry import Change, Resource
from fhir_server.store import Document
from fhir_server.unit_of_work import UnitOfWork
from fhir_server.watching import looking
from resources import order_numbers, task, terms, work_items
from resources.coverage import authorized, marks
from resources.coverage.authorization import TYPES, Terms, is_authorization
from smart_auth.access import Access

log = structlog.get_logger()
COLLECTION: Final = "authorization_watch"
EXPIRING: Final = "authorization-expiring"
EXHAUSTED: Final = "authorization-exhausted"
SOON: Final = timedelta(days=7)  # an order that isn't booked yet should be, so long before its authorization ends
_LOOKED_AT: Final = 200  # orders of one patient, the newest
_BATCH: Final = 100
_EVERY: Final = 30.0  # seconds between two looks
_LEASE: Final = 120.0
_AGAIN: Final = timedelta(minutes=10)  # after a look that failed


async def ensure_indexes(db: AsyncDatabase[Document]) -> None:
    await db[COLLECTION].create_indexes([IndexModel([("due", 1)])])


# What is to be looked at


async def project(unit: UnitOfWork, changes: list[Change]) -> None:
    """Make due the authorizations that these changes matter to."""
    due: dict[str, None] = {}
    for change in changes:
        for resource in (change.before, change.after):
            if resource is not None:
                due |= dict.fromkeys(await _concerned(unit, change, resource))
    now = clock.naive(unit.now)
    for reference in due:
        unit.keep(COLLECTION, UpdateOne({"_id": reference}, {"$set": {"due": now}}, upsert=True))


async def _concerned(unit: UnitOfWork, change: Change, resource: Resource) -> list[str]:
    if change.type in TYPES:
        return [f"{change.type}/{change.id}"] if is_authorization(resource) else []
    if change.type == "ServiceRequest":
        named = [str(r.get("reference", "")) for r in resource.get("insurance", ())]
        bound = marks.bound(resource)
        return [*(r for r in named if r.startswith("ClaimResponse/")), *([bound] if bound else [])]
    if change.type == "Task" and task.is_step(resource) and _planned(change.before) != _planned(change.after):
        bound = marks.bound(await unit.get(resource.get("focus")))
        return [bound] if bound else []
    return []


def _planned(step: Resource | None) -> object:
    """What of a step matters: whether it waits, is booked or has begun, and for when."""
    return step and (step["status"], step.get("restriction"))


# Looking


async def look(unit: UnitOfWork, reference: str, now: datetime, zone: tzinfo) -> datetime | None:
    """Raise or end the work items of one authorization; when to look again, or None when time alone changes nothing."""
    answer = await unit.get(reference)
    if answer is None:
        for kind in (EXPIRING, EXHAUSTED):
            await work_items.close(unit, kind, reference, "the authorization is gone")
        return None
    patient = answer["patient"]["reference"]
    late = await _booked_beyond(unit, reference, zone)
    waiting = await _waiting(unit, reference, patient, zone, now)
    ends = [end for _, one in waiting if (end := one.end(zone)) is not None]
    ending = [p for p, one in waiting if (end := one.end(zone)) is not None and end - SOON <= now]
    text = ""
    if late:
        text = f"The payer's authorization does not hold (any more) at the time that is booked: {_names(late)}"
    elif ending:
        text = f"The payer's authorization ends on {_day(min(ends), zone)} and this is not booked yet: {_names(ending)}"
    await _settle(unit, EXPIRING, reference, patient, text)
    used_up = [p for p, one in waiting if await authorized.left(unit, one, p) == 0]
    text = f"The payer's authorization is used up, and this still needs one: {_names(used_up)}" if used_up else ""
    await _settle(unit, EXHAUSTED, reference, patient, text)
    return min((moment for end in ends for moment in (end - SOON, end) if moment > now), default=None)


async def _settle(unit: UnitOfWork, kind: str, reference: str, patient: str, text: str) -> None:
    if text:
        await work_items.raise_once(unit, kind, reference, text, about=reference, patient=patient)
    else:
        await work_items.close(unit, kind, reference, "over")


async def _booked_beyond(unit: UnitOfWork, reference: str, zone: tzinfo) -> list[Resource]:
    """The procedures that are booked on it for a time at which it doesn't hold."""
    found = []
    for procedure in await authorized.booked_on(unit, reference):
        wanted = await authorized.wanted(unit, procedure)
        if wanted is None or marks.is_overridden(procedure, wanted.order):
            continue
        held = next((t for t in await authorized.candidates(unit, wanted) if t.of == reference), None)
        for step in await task.steps_of(unit, procedure["id"]):
            start = step.get("restriction", {}).get("period", {}).get("start")
            if step["status"] in {"accepted", "ready", "on-hold"} and start is not None:
                moment = datetime.fromisoformat(start)
                if held is None or not held.begun(moment, zone) or held.over(moment, zone):
                    found.append(procedure)
                    break
    return found


async def _waiting(unit: UnitOfWork, reference: str, patient: str, zone: tzinfo, now: datetime) -> list[tuple[Resource, Terms]]:
    """The procedures that wait to be booked and have this authorization, and no other that holds."""
    found = []
    for procedure in await unit.some(
        "ServiceRequest", _LOOKED_AT, patient=patient, intent="filler-order", status="active,on-hold"
    ):
        if not any(s["status"] in {"requested", "on-hold"} for s in await task.steps_of(unit, procedure["id"])):
            continue
        wanted = await authorized.wanted(unit, procedure)
        if wanted is None or marks.is_overridden(procedure, wanted.order):
            continue
        one = next((t for t in await authorized.candidates(unit, wanted) if t.of == reference), None)
        if one is not None and (await authorized.find(unit, wanted, now, zone, besides=reference)).terms is None:
            found.append((procedure, one))
    return found


def _names(procedures: list[Resource]) -> str:
    """By their numbers: a work item's text holds nothing about the patient."""
    numbers = (identifier_value(p, terms.REQUESTED_PROCEDURE_ID) or order_numbers.accession_number(p) for p in procedures)
    return ", ".join(n or "unnumbered" for n in numbers)


def _day(end: datetime, zone: tzinfo) -> str:
    """The last day before an end."""
    return f"{(end - timedelta(milliseconds=1)).astimezone(zone):%Y-%m-%d}"


# The worker


class AuthorizationWatch:
    """Looks at what is due. `now` tells the time, `zone` is the department's."""

    def __init__(self, interactions: Interactions, zone: tzinfo, now: Callable[[], datetime] = clock.now) -> None:
        self._interactions = interactions
        self._rows = interactions.store.db[COLLECTION]
        self._zone = zone
        self._now = now

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look every now and then while inside, unless another process does."""
        db = self._interactions.store.db
        async with looking(db, "authorization-watch", self.look, every=_EVERY, lease=_LEASE):
            yield

    async def look(self) -> None:
        """Look at what is due now, a batch at most."""
        due = {"due": {"$lte": clock.naive(self._now())}}
        for row in await self._rows.find(due, sort=[("due", 1)], limit=_BATCH).to_list():
            await self._look_at(row)

    async def _look_at(self, row: Document) -> None:
        """One that is made due again meanwhile stays so."""
        reference, seen = str(row["_id"]), {"_id": row["_id"], "due": row["due"]}

        async def work(unit: UnitOfWork) -> datetime | None:
            return await look(unit, reference, self._now(), self._zone)

        try:
            again = await self._interactions.transact(
                Access.system("authorization-watch"), Act("authorization-watch", source="department", detail=reference), work
            )
        except FhirError as error:
            log.warning("an authorization can't be looked at now", authorization=reference, reason=error.code)
            again = self._now() + _AGAIN
        if again is None:
            await self._rows.delete_one(seen)
        else:
            await self._rows.update_one(seen, {"$set": {"due": clock.naive(again)}})
