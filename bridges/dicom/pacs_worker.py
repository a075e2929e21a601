"""Asking the PACS: what has arrived of the studies that are watched (`study_watch.py`), and which studies nobody ordered.

Any number of processes may run this; leases in MongoDB decide who asks which PACS. A PACS that is away is asked again later;
others and the department don't feel it.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
from pymongo.errors import PyMongoError

from bridges import contacts
from bridges.dicom import dicom_endpoints, study_arrival, study_watch
from bridges.dicom.dicom_json import Attributes, is_uid, text
from bridges.dicom.qido import PAGE, NotAnswered, Qido, number
from bridges.dicom.study_arrival import Arrived
from fhir_server import clock, fhir_json
from fhir_server.audit import Act
from fhir_server.background import beside
from fhir_server.interactions import Interactions
from fhir_server.leases import Lease, give_back
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from fhir_server.search.query import compile_query
from fhir_server.unit_of_work import UnitOfWork
from resources import imaging_study, terms
from smart_auth.access import Access

log = structlog.get_logger()
_ACCESS: Final = Access.system("pacs")
_MOST_FOUND: Final = 200
_GIVE_UP_AFTER: Final = 20  # studies on end that the PACS has no answer about


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds and numbers. `first_pause`: between two looks at a study that isn't there; it doubles up to `longest_pause`."""

    lease: float = 60
    look: float = 5
    sweep: float = 300
    first_pause: float = 30
    longest_pause: float = 900
    between_counts: float = 60
    batch: int = 20
    pages: int = 20

    def pause(self, tries: int) -> timedelta:
        return timedelta(seconds=min(self.longest_pause, self.first_pause * 2.0 ** min(tries, 20)))


class PacsWorker:
    """The worker. `zone` is the department's: study dates are local. `credentials`: `web_credentials.py`."""

    def __init__(
        self, interactions: Interactions, zone: ZoneInfo, timing: Timing | None = None, *, credentials: Path | None = None
    ) -> None:
        self._interactions = interactions
        self._zone = zone
        self._credentials = credentials
        self.timing = timing or Timing()
        self._db = interactions.store.db
        self._watch = self._db[study_watch.COLLECTION]
        self._owner = uuid.uuid4().hex
        self._swept: dict[str, datetime] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask while inside."""
        try:
            async with beside(self._run()):
                yield
        finally:
            with contextlib.suppress(PyMongoError):
                await give_back(self._db, self._owner)

    async def _run(self) -> None:
        """Each PACS is asked by a task of its own: one that hangs keeps the others from nothing."""
        rounds: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                try:
                    endpoints = await self.endpoints()
                except Exception as error:  # noqa: BLE001 - the next look tries again
                    log.warning("pacs.not_asked", reason=type(error).__name__)
                    endpoints = []
                for endpoint in endpoints:
                    if (before := rounds.get(endpoint["id"])) is None or before.done():
                        rounds[endpoint["id"]] = asyncio.create_task(self._round(endpoint, only=len(endpoints) == 1))
                rounds = {id_: task for id_, task in rounds.items() if not task.done()}
                await asyncio.sleep(self.timing.look)
        finally:
            for task in rounds.values():
                task.cancel()
            await asyncio.gather(*rounds.values(), return_exceptions=True)

    async def _round(self, endpoint: Resource, *, only: bool) -> None:
        try:
            await self._serve(endpoint, only=only)
        except Exception as error:  # noqa: BLE001 - the next look tries again; the text may name a patient
            log.warning("pacs.not_asked", endpoint=f"Endpoint/{endpoint['id']}", reason=type(error).__name__)

    async def endpoints(self) -> list[Resource]:
        """The PACSs that can be asked."""
        found = await self._stored("Endpoint", [("status", "active"), ("connection-type", dicom_endpoints.QIDO)])
        return sorted((e for e in found if dicom_endpoints.kind_of(e) == dicom_endpoints.QIDO), key=lambda e: str(e["id"]))

    async def _stored(self, resource_type: str, parameters: list[tuple[str, str]]) -> list[Resource]:
        """What is stored, without a transaction and its AuditEvent: nobody is shown it."""
        store = self._interactions.store
        await store.ensure(resource_type)
        found = await store.find(compile_query(resource_type, parameters), limit=_MOST_FOUND)
        return [fhir_json.from_bson(document["resource"]) for document in found]

    async def _serve(self, endpoint: Resource, *, only: bool) -> None:
        """A round at one PACS, if the lease is ours."""
        lease = Lease(self._db, f"pacs:Endpoint/{endpoint['id']}", self._owner, self.timing.lease)
        if not await lease.held():
            return
        renewal = asyncio.create_task(lease.keep())
        try:
            async with Qido(endpoint, self._credentials) as pacs:
                if await self.look_up(pacs, only=only):
                    await contacts.note(self._db, f"Endpoint/{endpoint['id']}", ok=True, text="QIDO-RS")
                swept = self._swept.get(endpoint["id"])
                if swept is None or clock.now() - swept >= timedelta(seconds=self.timing.sweep):
                    self._swept[endpoint["id"]] = clock.now()
                    await self.sweep(pacs)
                    await contacts.note(self._db, f"Endpoint/{endpoint['id']}", ok=True, text="QIDO-RS")
        except NotAnswered as error:
            await contacts.note(self._db, f"Endpoint/{endpoint['id']}", ok=False, text=str(error))
            log.warning("pacs.no_answer", endpoint=f"Endpoint/{endpoint['id']}", reason=str(error))
        finally:
            renewal.cancel()

    # Studies that are watched

    async def look_up(self, pacs: Qido, *, only: bool = True) -> int:
        """Look at the studies that are due, a batch at most; how many. `only`: no other PACS has those that this one lacks."""
        due = {"due": {"$lte": clock.naive(clock.now())}}
        rows = await self._watch.find(due, sort=[("due", 1)], limit=self.timing.batch).to_list()
        for row in rows:
            try:
                await self._look_at(pacs, row, only=only)
            except NotAnswered:
                await self._later(row, {}, self.timing.pause(row["tries"]))
                raise
        return len(rows)

    async def _look_at(self, pacs: Qido, row: dict[str, Any], *, only: bool) -> None:
        found = await pacs.study(row["_id"])
        if found is None:
            await self._later(row, {}, self.timing.pause(row["tries"]) if only else timedelta(seconds=self.timing.first_pause))
            return
        arrived = Arrived(row["_id"], await pacs.series(row["_id"]), found)
        count = sum(s.count or 0 for s in arrived.series)
        since = row.get("seen") if row.get("instances") == count else None
        now = clock.now()
        arrived.stable_for = (clock.naive(now) - since).total_seconds() if since is not None else 0.0
        settled = await self._settle(arrived)
        if settled is None:
            await self._later(row, {}, self.timing.pause(row["tries"]))
        elif since is not None and settled.over:
            await self._watch.delete_one({"_id": row["_id"]})
        else:
            seen = {"instances": count, "seen": since or clock.naive(now)}
            await self._later(row, seen, timedelta(seconds=self.timing.between_counts))

    async def _later(self, row: dict[str, Any], seen: dict[str, Any], pause: timedelta) -> None:
        change = {"due": clock.naive(clock.now() + pause), **seen}
        await self._watch.update_one({"_id": row["_id"]}, {"$set": change, "$inc": {"tries": 1}})

    # Studies that nobody ordered

    async def sweep(self, pacs: Qido) -> int:
        """Look at all studies of yesterday and today; how many were new to us, or other than we knew. One that the PACS can't
        tell us about is passed over; it comes again with the next sweep.
        """
        today = clock.now().astimezone(self._zone)
        yesterday = today - timedelta(days=1)
        changed = unanswered = 0
        for page in range(self.timing.pages):
            found = await pacs.studies(f"{yesterday:%Y%m%d}", f"{today:%Y%m%d}", page * PAGE)
            for one in await self._unlike_ours(found):
                uid = text(one, "StudyInstanceUID")
                try:
                    arrived = Arrived(uid, await pacs.series(uid), one)
                except NotAnswered as error:
                    log.warning("pacs.study_not_told", study=uid, reason=str(error))
                    unanswered += 1
                    if unanswered >= _GIVE_UP_AFTER:  # it isn't about the study
                        raise
                    continue
                unanswered = 0
                changed += await self._settle(arrived) is not None
            if len(found) < PAGE:
                return changed
        log.warning("pacs.more_studies_than_looked_at", pages=self.timing.pages)
        return changed

    async def _unlike_ours(self, found: list[Attributes]) -> list[Attributes]:
        """Those of these studies that we don't know, or know with another number of images."""
        by_uid = {uid: one for one in found if is_uid(uid := text(one, "StudyInstanceUID"))}
        if not by_uid:
            return []

        tokens = ",".join(f"{terms.DICOM_UID}|urn:oid:{uid}" for uid in by_uid)
        stored = await self._stored("ImagingStudy", [("identifier", tokens)])
        ours = {imaging_study.study_uid(s) or "": s for s in stored}
        return [one for uid, one in by_uid.items() if _differs(one, ours.get(uid))]

    async def _settle(self, arrived: Arrived) -> "Settled | None":
        """Bring what we know to where the PACS is. None when a rule refuses, which a person has to see in the log."""

        async def work(unit: UnitOfWork) -> Settled:
            study = await study_arrival.settle(unit, arrived, self._zone)
            awaited = await study_arrival.is_awaited(unit, study)
            return Settled(over=study["status"] == "available" and not awaited)

        act = Act("pacs-study", "dicom", f"study {arrived.study_uid}")
        try:
            return await self._interactions.transact(_ACCESS, act, work)
        except FhirError as error:
            log.warning("pacs.study_refused", study=arrived.study_uid, code=error.code)
            return None


@dataclass(frozen=True, slots=True)
class Settled:
    """A study that has been brought to where the PACS is. `over`: nobody waits for more of it."""

    over: bool


def _differs(one: Attributes, ours: Resource | None) -> bool:
    if ours is None or ours["status"] == "registered":
        return True
    count = number(one, "NumberOfStudyRelatedInstances")
    return count is not None and count != ours.get("numberOfInstances", 0)
