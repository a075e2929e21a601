"""Slots made ahead from the hours of a Schedule, and made to fit when these change. What is booked stays as it is.

A slot's id follows from its Schedule, start and length, so that none is made twice. One that isn't wanted any more is closed
(`busy-unavailable`), as a cancelled booking may refer to it; wanted again, it is open again. Slots made by people are left alone,
and none is made where one of them is. A booking in time that is closed by now is a work item.

    schedules_kept  {_id: id of the Schedule, digest: of what its slots follow from, until: the day up to which they are made}
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import structlog
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from fhir_server import clock, fhir_json
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, work_items
from resources.scheduling import hours, occupancy, schedules, waiting
from resources.scheduling.hours import Interval, overlap
from smart_auth.access import Access

log = structlog.get_logger()

KEPT: Final = "schedules_kept"
_ACCESS: Final = Access.system("scheduling")
_ACT: Final = Act("generate-slots", source="scheduling")
_PORTION: Final = timedelta(days=3)  # of slots that one transaction makes


async def keep_all(interactions: Interactions, zone: ZoneInfo, now: datetime) -> int:
    """Bring the slots of all Schedules in use to where they should be; how many were made or changed."""
    generated = interactions.store.current("Schedule").find({"resource.extension.url": schedules.GENERATION}, {"_id": 1})
    changed = 0
    for found in await generated.to_list():
        try:
            changed += await keep(interactions, found["_id"], zone, now)
        except FhirError as error:  # the others need not wait for it
            log.warning("the slots of a schedule can't be kept", schedule=found["_id"], reason=error.code)
        except PyMongoError:
            raise
        except Exception as error:  # noqa: BLE001 - nor for what nobody has thought of
            log.error("the slots of a schedule can't be kept", schedule=found["_id"], reason=type(error).__name__)  # noqa: TRY400
    return changed


async def keep(interactions: Interactions, schedule_id: str, zone: ZoneInfo, now: datetime) -> int:
    """Bring the slots of one Schedule to where they should be; how many were made or changed.

    Where nothing has changed but the day, only the new day's are made.
    """
    today = now.astimezone(zone).date()
    schedule = await _read(interactions, f"Schedule/{schedule_id}")
    rule = schedules.generation(schedule) if schedule else None
    if schedule is None or rule is None:
        return 0
    sources = [s for actor in schedules.actors(schedule, *schedules.HOURS) if (s := await _read(interactions, actor))]
    said = [schedule.get("extension"), schedule.get("actor"), str(zone)]
    said += [[s.get("availableTime"), s.get("notAvailable")] for s in sources]
    digest = hashlib.sha256(fhir_json.dumps(said)).hexdigest()
    kept = await interactions.store.db[KEPT].find_one({"_id": schedule_id}) or {}
    same = kept.get("digest") == digest
    day = max(today, date.fromisoformat(kept["until"])) if same else today
    until, changed = today + timedelta(days=rule.days), 0
    while day < until:
        following = min(day + _PORTION, until)
        portion = _Portion(schedule_id, sources, rule.minutes, zone, day, following, digest)
        changed += await interactions.transact(_ACCESS, _ACT, portion.make)
        day = following
    return changed


async def _read(interactions: Interactions, reference: str) -> Resource | None:
    """A resource of the department's own, past the audit trail: it names no patient, and this looks every minute."""
    resource_type, id_ = reference.split("/")
    found = await interactions.store.read(resource_type, id_)
    return found.resource if found else None


class _Portion:
    """The slots of some days."""

    def __init__(
        self, schedule_id: str, sources: list[Resource], minutes: int, zone: ZoneInfo, first: date, until: date, digest: str
    ) -> None:
        self._schedule_id, self._minutes, self._zone, self._until, self._digest = schedule_id, minutes, zone, until, digest
        days = [first + timedelta(days=n) for n in range((until - first).days)]
        self._wanted = [slot for day in days for slot in hours.slots(sources, day, minutes, zone)]
        midnights = [datetime.combine(day, datetime.min.time(), zone).astimezone(UTC) for day in (first, until)]
        self._when: Interval = (midnights[0], midnights[1])

    async def make(self, unit: UnitOfWork) -> int:
        schedule = await unit.read("Schedule", self._schedule_id)
        if schedule is None:
            return 0
        actors = await schedules.whose(unit, schedule)
        await unit.lock(*(occupancy.lock_of(actor) for actor in actors))  # nobody books what isn't there yet
        taken = [b for actor in actors for b in await occupancy.holders(unit, actor, self._when)]
        there = await occupancy.slots_between(unit, [self._schedule_id], self._when)
        by_hand = [occupancy.interval(slot) for slot in there if not occupancy.is_generated(slot)]
        known = {slot["id"]: slot for slot in there if occupancy.is_generated(slot)}
        wanted = {self._id(slot): slot for slot in self._wanted if slot[1] > unit.now and not _touches(slot, by_hand)}
        changed = 0
        for id_, when in wanted.items():
            status = _status(when, taken)
            if id_ not in known:
                await unit.create(self._slot(when, status), id_)
            elif known[id_]["status"] == "busy-unavailable":
                await unit.update(known[id_] | {"status": status})
            else:
                continue
            changed += 1
        for id_, slot in known.items():
            if id_ not in wanted and slot["status"] == "free":
                await unit.update(slot | {"status": "busy-unavailable"})
                changed += 1
        same = [s["id"] for actor in actors for s in await schedules.of_actor(unit, actor)]
        await self._note_outside(unit, taken, [id_ for id_ in same if id_ != self._schedule_id])
        await self._done(unit, schedule)
        return changed

    def _id(self, when: Interval) -> str:
        return hashlib.sha256(f"{self._schedule_id} {clock.instant(when[0])} {self._minutes}".encode()).hexdigest()[:32]

    def _slot(self, when: Interval, status: str) -> Resource:
        return {
            "resourceType": "Slot",
            "meta": {"tag": [occupancy.GENERATED]},
            "schedule": {"reference": f"Schedule/{self._schedule_id}"},
            "status": status,
            "start": clock.instant(when[0]),
            "end": clock.instant(when[1]),
        }

    async def _note_outside(self, unit: UnitOfWork, taken: Iterable[Resource], others_of: Iterable[str]) -> None:
        """A booking that had a slot, in time that is closed by now, is for a person to look at: it isn't moved by itself.

        Open is what one of the Schedules of its scanner (or person) has open.
        """
        for booking in (b for b in taken if b.get("slot")):
            start, end = occupancy.interval(booking)
            others = await occupancy.slots_between(unit, others_of, (start, end))
            open_ = [occupancy.interval(slot) for slot in others if slot["status"] != "busy-unavailable"]
            if any(a <= start and end <= b for a, b in hours.merged([*self._wanted, *open_])):
                await work_items.close(unit, waiting.OUTSIDE_HOURS, f"Appointment/{booking['id']}", "Its time is open again")
            else:
                patient = next(iter(appointment.participants(booking, "Patient")), None)
                about = f"Appointment/{booking['id']}"
                text = "A booking is in time that is closed now. Is it to be moved, or to stay?"
                await work_items.raise_once(unit, waiting.OUTSIDE_HOURS, about, text, about=about, patient=patient)

    async def _done(self, unit: UnitOfWork, schedule: Resource) -> None:
        """Note how far slots are made: for us, and as FHIR tells it."""
        kept = {"digest": self._digest, "until": self._until.isoformat()}
        unit.keep(KEPT, UpdateOne({"_id": self._schedule_id}, {"$set": kept}, upsert=True))
        horizon = schedule.get("planningHorizon", {})
        start = horizon.get("start", clock.instant(self._when[0]))
        await unit.update(schedule | {"planningHorizon": {"start": start, "end": clock.instant(self._when[1])}})


def _touches(slot: Interval, others: Iterable[Interval]) -> bool:
    return any(overlap(slot, other) for other in others)


def _status(when: Interval, taken: Iterable[Resource]) -> str:
    """The status of a slot that is made where somebody may have booked already."""
    there = [b["status"] for b in taken if overlap(occupancy.interval(b), when)]
    return "free" if not there else "busy-tentative" if set(there) == {"pending"} else "busy"
