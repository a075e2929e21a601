"""Delivering performed steps from the outbox: one worker a destination, in order, under a lease, until each is answered.

A destination that can't be reached is tried again with growing pauses, for ever. One that refuses is asked again a few times;
then the message is set aside as `refused`, shown, and can be replayed (`fhir-ris messages`).
"""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
import structlog

from bridges.dicom import dicom_endpoints, dimse, mpps_scu
from bridges.dicom.mpps_forward import N_CREATE, N_SET
from bridges.dicom.mpps_scu import Answer, NotSent
from fhir_server import audit, clock, metrics, outbox
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outbox_workers import OutboxWorkers
from fhir_server.tls_files import TlsError, TlsFiles
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

log = structlog.get_logger()
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, and numbers of attempts."""

    lease: float = 15
    look: float = 1
    first_pause: float = 0.5
    longest_pause: float = 60
    answer: float = 15
    refusals: int = 4

    def pause(self, failures: int) -> float:
        return min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 20))


class MppsDelivery:
    """The worker. `own_title` is the AE title that we call with; `tls` is for destinations that are called over it."""

    def __init__(
        self, interactions: Interactions, own_title: str, timing: Timing | None = None, tls: TlsFiles | None = None
    ) -> None:
        self._interactions = interactions
        self._own_title = own_title
        self._tls = tls or TlsFiles()
        self._timing = timing or Timing()
        self._outbox = interactions.store.db[outbox.COLLECTION]
        self._workers = OutboxWorkers(
            interactions.store, outbox.DICOM, due=_pending, serve=self._serve, wait=self._rest, lease=self._timing.lease
        )

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Deliver while inside. What is not answered stays pending."""
        return self._workers.running()

    async def _rest(self) -> None:
        await asyncio.sleep(self._timing.look)

    async def _serve(self, destination: str) -> bool:
        """The first message that is pending for a destination, and the pause after it."""
        message = await self._outbox.find_one(_pending(destination), sort=[("key", 1)])
        if message is None:
            return False
        await asyncio.sleep(await self._deliver(message))
        return True

    async def _deliver(self, message: Message) -> float:
        """One attempt; the seconds to wait before the next."""
        endpoint = await self._endpoint(message["destination"].removeprefix(outbox.DICOM))
        place = dicom_endpoints.place_of(endpoint) if endpoint else None
        if place is None:
            await self._failed(message, "the Endpoint is not active", 0)
            return 3 * self._timing.look
        try:
            remote = place.remote(self._own_title, self._tls)
            data = orjson.loads(message["message"])
            answer = await mpps_scu.send(remote, message["type"], message["control_id"], data, self._timing.answer)
        except (NotSent, TlsError) as error:
            await self._failed(message, str(error), 1)
            return self._timing.pause(message["attempts"] + 1)
        except ValueError as error:  # it can't be encoded, now and ever
            await self._settle(message, "refused", Answer(dimse.PROCESSING_FAILURE, type(error).__name__))
            return 0
        if answer.positive or _has_it_already(message, answer):
            await self._settle(message, "delivered", answer)
            return 0
        refusals = message.get("refusals", 0) + 1
        if refusals >= self._timing.refusals or answer.error_id == dimse.MAY_NO_LONGER_BE_UPDATED:
            await self._settle(message, "refused", answer)
            return 0
        await self._failed(message, _shown(answer), 1, refusals=1)
        return self._timing.pause(refusals)

    async def _endpoint(self, reference: str) -> dict[str, Any] | None:
        await self._interactions.store.ensure("Endpoint")
        found = await self._interactions.store.read("Endpoint", reference.partition("/")[2])
        endpoint = found.resource if found else None
        active = endpoint is not None and endpoint.get("status") == "active"
        return endpoint if active and endpoint and dicom_endpoints.kind_of(endpoint) == dicom_endpoints.MPPS else None

    async def _failed(self, message: Message, error: str, attempts: int, refusals: int = 0) -> None:
        destination = message["destination"]
        if message.get("error") != error:
            log.warning("not delivered", destination=destination, sop_instance=message["control_id"], reason=error)
        if attempts:
            metrics.DELIVERIES.labels(destination, "refused" if refusals else "failed").inc()
        pause = self._timing.pause(message["attempts"] + 1)
        change = {"error": error, "next_attempt": clock.naive(clock.now() + timedelta(seconds=pause))}
        await self._outbox.update_one(
            {"_id": message["_id"], "state": "pending"},
            {"$inc": {"attempts": attempts, "refusals": refusals}, "$set": change},
        )

    async def _settle(self, message: Message, state: str, answer: Answer) -> None:
        """It has been answered for good: state, answer and AuditEvent in one transaction."""
        delivered = state == "delivered"

        async def work(unit: UnitOfWork) -> None:
            outcome: Message = {"state": state, "answer": _shown(answer), "error": None if delivered else _shown(answer)}
            if delivered:
                outcome["delivered"] = clock.naive(unit.now)
            await self._outbox.update_one(
                {"_id": message["_id"], "state": "pending"},
                {"$set": outcome, "$inc": {"attempts": 1}},
                session=unit.session,
            )

        destination, uid = message["destination"], message["control_id"]
        act = Act(f"mpps-{message['type'].lower()}", source="dicom-out", detail=f"{state} {uid} {destination}")
        await self._interactions.transact(Access.system("delivery"), act, work, entities=audit.seen(message["about"]))
        metrics.DELIVERIES.labels(destination, state).inc()
        if not delivered:
            log.error("a performed step was refused; it is set aside", destination=destination, sop_instance=uid)


def _pending(destination: object) -> Message:
    return {"destination": destination, "state": "pending"}


def _has_it_already(message: Message, answer: Answer) -> bool:
    """Whether an earlier attempt, whose answer was lost, has done it."""
    if message["type"] == N_CREATE:
        return answer.status == dimse.DUPLICATE_SOP_INSTANCE
    retried = message["attempts"] > message.get("refusals", 0)
    return message["type"] == N_SET and retried and answer.error_id == dimse.MAY_NO_LONGER_BE_UPDATED


def _shown(answer: Answer) -> str:
    return f"{answer.status:04X} {answer.comment}".strip()
