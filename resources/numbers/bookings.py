"""One row for each booking of a scanner: what of its time was given away, and who didn't come. Nothing of a patient is in it.

Collection `scanner_bookings`, written in the transaction that changes the Appointment, and from the Appointment alone:

    {_id: Appointment id, start: date, minutes: 30, status: "booked", scanners: ["Device/ct1"]}

`minutes` is how long it holds the scanner's time. What is proposed, pending or on a waiting list is no booking.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from pymongo import DeleteOne, IndexModel, ReplaceOne
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.registry import Change, Resource
from fhir_server.search.dates import of_text
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment
from smart_auth.access import Access

COLLECTION: Final = "scanner_bookings"
BOOKED: Final = ("booked", "arrived", "checked-in", "fulfilled", "cancelled", "noshow")
CAME: Final = ("arrived", "checked-in", "fulfilled")
_PORTION: Final = 500
_ACCESS: Final = Access.system("numbers")
_ACT: Final = Act("numbers", source="command-line", detail="rebuild")


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    await db[COLLECTION].create_indexes([IndexModel([("start", 1), ("status", 1), ("scanners", 1), ("minutes", 1)])])


async def project(unit: UnitOfWork, changes: list[Change]) -> None:
    """The projection."""
    writes = [_write(c.id, c.after) for c in changes if c.type == "Appointment" and not c.redirected]
    if writes:
        unit.put_rows(COLLECTION, writes)


async def rebuild(interactions: Interactions) -> AsyncIterator[int]:
    """Make all rows anew; yields how many are made so far. May run beside everything else."""
    db, done, last = interactions.store.db, 0, ""
    while found := await db["Appointment"].find({"_id": {"$gt": last}}, {"_id": 1}, sort=[("_id", 1)], limit=_PORTION).to_list():
        last = found[-1]["_id"]
        await _rebuilt(interactions, [d["_id"] for d in found])
        done += len(found)
        yield done


async def _rebuilt(interactions: Interactions, ids: list[str]) -> None:
    async def work(unit: UnitOfWork) -> None:
        writes = [_write(id_, await unit.read("Appointment", id_)) for id_ in ids]
        unit.put_rows(COLLECTION, writes)

    await interactions.transact(_ACCESS, _ACT, work)


def _write(id_: str, booking: Resource | None) -> ReplaceOne[dict[str, Any]] | DeleteOne:
    made = row(booking) if booking is not None else None
    return ReplaceOne({"_id": id_}, made, upsert=True) if made else DeleteOne({"_id": id_})


def row(booking: Resource) -> dict[str, Any] | None:
    """The row of an Appointment; None for one that is no booking of a scanner."""
    scanners = appointment.participants(booking, "Device")
    if booking.get("status") not in BOOKED or not scanners or "start" not in booking or "end" not in booking:
        return None
    start, end = _moment(booking["start"]), _moment(booking["end"])
    minutes = (end - start).total_seconds() / 60
    return {"_id": booking["id"], "start": start, "minutes": minutes, "status": booking["status"], "scanners": scanners}


def _moment(instant: str) -> datetime:
    return of_text(instant)[0]
