"""Asking payers from the outbox: several requests to one payer at a time, under its lease, until each has an answer.

| what comes back | what is done |
|---|---|
| a CoverageEligibilityResponse | it is kept; the message is `delivered` |
| one with outcome `queued` | the payer is asked again later (GET of that response), for three days at most |
| nothing, 408, 425, 429, 5xx | again with growing pauses, six times; then `dead`, and a work item |
| another 4xx | `refused`, and a work item |
| what is no answer | `refused`, and a work item |
Any number of processes may run this. A message that was set aside can be replayed (`fhir-ris messages`), or its request submitted
again; a payer gets the same X-Request-Id for the same message. What became of a message, the response and the AuditEvent are one
transaction.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from bridges.payer.client import NotAnswered, NotUnderstood, Payers, Refused
from fhir_server import audit, clock, metrics, outbox
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outbox_workers import OutboxWorkers
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.coverage import payers, submission
from smart_auth.access import Access

log = structlog.get_logger()
Message = dict[str, Any]
_ACCESS: Final = Access.system("payer")
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, and numbers. `attempts`: without an answer; `at_once`: requests to one payer; `queued`: how long it may take."""

    lease: float = 60
    look: float = 1
    first_pause: float = 2
    factor: float = 4
    longest_pause: float = 900
    attempts: int = 6
    at_once: int = 4
    first_poll: float = 15
    queued: float = 3 * 86400

    def pause(self, failures: int) -> timedelta:
        return timedelta(seconds=min(self.longest_pause, self.first_pause * self.factor ** min(failures - 1, 10)))

    def poll(self, polls: int) -> timedelta:
        return timedelta(seconds=min(self.longest_pause, self.first_poll * 2.0 ** min(polls, 10)))


class PayerDelivery:
    """The worker. `now` tells the time."""

    def __init__(self, interactions: Interactions, client: Payers, timing: Timing | None = None) -> None:
        self._interactions = interactions
        self._client = client
        self._timing = timing or Timing()
        self._outbox = interactions.store.db[outbox.COLLECTION]
        self._workers = OutboxWorkers(
            interactions.store, outbox.PAYER, due=_due, serve=self._serve, wait=self._until_filled, lease=self._timing.lease
        )

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Ask while inside. What is not answered stays pending."""
        return self._workers.running()

    async def _until_filled(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.look):
                await self._interactions.outbox_filled.wait()
                await asyncio.sleep(self._timing.look / 20)  # it is delivery's to clear it

    async def _serve(self, destination: str) -> bool:
        """Ask one payer what is due."""
        due = self._outbox.find(_due(destination), sort=[("key", 1)], limit=self._timing.at_once)
        messages = await due.to_list()
        await asyncio.gather(*(self._try(m) for m in messages))
        return bool(messages)

    async def _try(self, message: Message) -> None:
        """One attempt. What nobody has foreseen counts as one without an answer: a payer isn't asked without pause for it."""
        try:
            await self._attempt(message)
        except PyMongoError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is; the text may name a patient
            await self._not_answered(message, f"the answer can't be dealt with ({type(error).__name__})")

    async def _not_answered(self, message: Message, text: str) -> None:
        """Again later, or not at all any more."""
        failures = message["attempts"] + 1
        if failures < self._timing.attempts:
            await self._later(message, text, self._timing.pause(failures), 1)
        else:
            await self._failed(message, "dead", "no-answer", text)

    async def _attempt(self, message: Message) -> None:
        """One call, and what comes of it."""
        request = await self._read("CoverageEligibilityRequest", message["about"][0])
        if request is None or request.get("status") != "active":
            await self._failed(message, "cancelled", "cancelled", "the request is not active any more")
            return
        endpoint = await self._read("Endpoint", message["destination"].removeprefix(outbox.PAYER))
        base = payers.base_url(endpoint) if endpoint is not None and payers.is_fhir(endpoint) else None
        if base is None:
            await self._later(
                message, "the Endpoint is not active, or has no address that may be called", self._timing.pause(3), 0
            )
            return
        try:
            if message.get("poll"):
                answer = await self._client.read(base, message["poll"], message["control_id"])
            else:
                answer = await self._client.submit(base, bytes(message["message"]), message["control_id"])
        except NotAnswered as error:
            await self._not_answered(message, str(error))
        except Refused as error:
            await self._failed(message, "refused", "refused", str(error), error.said)
        except NotUnderstood as error:
            await self._failed(message, "refused", "not-understood", str(error))
        else:
            await self._take(message, answer, base)

    async def _take(self, message: Message, answer: Resource, base: str) -> None:
        """Keep an answer; of one that is queued, ask again later."""
        if answer.get("outcome") == "queued":
            id_ = str(answer.get("id", message.get("poll", "")))
            waited = clock.naive(clock.now()) - message["created"]
            if not _ID.fullmatch(id_) or waited.total_seconds() > self._timing.queued:
                await self._failed(message, "dead", "no-answer", "the payer has queued the request, and can't be asked again")
                return
            pause, polls = self._timing.poll(message.get("polls", 0)), {"poll": id_, "polls": message.get("polls", 0) + 1}
            await self._later(message, "the payer has queued it", pause, -message["attempts"], polls)
            return

        async def keep(unit: UnitOfWork, waiting: Resource) -> None:
            await submission.answered(unit, waiting, answer, base)

        try:
            await self._settle(message, "delivered", f"outcome {answer.get('outcome')}", keep)
        except FhirError as error:  # it isn't FHIR R4, or is about something else
            await self._failed(message, "refused", "not-understood", "the payer's answer can't be kept", str(error))

    async def _failed(self, message: Message, state: str, code: str, text: str, said: str = "") -> None:
        """Set it aside, for a person."""

        async def keep(unit: UnitOfWork, waiting: Resource) -> None:
            await submission.failed(unit, waiting, code, f"{text}: {said}" if said else text)

        level = log.info if state == "cancelled" else log.error
        level("a payer has not answered", destination=message["destination"], control_id=message["control_id"], reason=text)
        await self._settle(message, state, text, keep)

    async def _settle(self, message: Message, state: str, text: str, keep: Any) -> None:
        """Response, state of the message and AuditEvent in one transaction."""

        async def work(unit: UnitOfWork) -> None:
            waiting = await unit.read("CoverageEligibilityResponse", message["control_id"])
            if waiting is not None:
                await keep(unit, waiting)
            outcome: Message = {"state": state, "answer": text, "error": None if state == "delivered" else text}
            if state == "delivered":
                outcome["delivered"] = clock.naive(unit.now)
            where = {"_id": message["_id"], "state": "pending"}
            change = {"$set": outcome, "$unset": {"poll": 1, "polls": 1}, "$inc": {"attempts": 1}}
            unit.keep(outbox.COLLECTION, UpdateOne(where, change))

        destination, id_ = message["destination"], message["control_id"]
        act = Act("eligibility-request", source="payer-out", detail=f"{state} {id_} {destination}")
        await self._interactions.transact(_ACCESS, act, work, entities=audit.seen(message["about"]))
        metrics.DELIVERIES.labels(destination, state).inc()

    async def _later(self, message: Message, error: str, pause: timedelta, attempts: int, also: Message | None = None) -> None:
        destination = message["destination"]
        if attempts > 0:
            metrics.DELIVERIES.labels(destination, "failed").inc()
        if message.get("error") != error:
            log.warning("not answered yet", destination=destination, control_id=message["control_id"], reason=error)
        change = {"error": error, "next_attempt": clock.naive(clock.now() + pause), **(also or {})}
        await self._outbox.update_one(
            {"_id": message["_id"], "state": "pending"}, {"$set": change, "$inc": {"attempts": attempts}}
        )

    async def _read(self, resource_type: str, reference: str) -> Resource | None:
        await self._interactions.store.ensure(resource_type)
        found = await self._interactions.store.read(resource_type, reference.partition("/")[2])
        return found.resource if found else None


def _due(destination: object) -> Message:
    now: datetime = clock.naive(clock.now())
    return {"destination": destination, "state": "pending", "next_attempt": {"$lte": now}}
