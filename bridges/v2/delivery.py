"""Delivering the outbox: one worker a destination, in order, under a lease, until each message is acknowledged.

Any number of processes may run this; the lease in MongoDB decides who serves a destination. A message is sent byte for byte as it
was written, under the same control id however often. A receiver that is away is tried again with growing pauses, for ever.
One that refuses (AE) is asked a few times, one that rejects (AR: it may be in trouble itself) for some minutes; then the message
is set aside as `refused`, shown, and can be replayed.
"""

import asyncio
import contextlib
import ssl as tls
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from bridges.v2 import leases
from bridges.v2.ack import Ack
from bridges.v2.destination import ack_timeout, address
from bridges.v2.leases import Lease
from bridges.v2.mllp import MllpError
from bridges.v2.mllp_client import MllpClient
from fhir_server import audit, clock, metrics, outbox
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient delivery is: seconds, and numbers of attempts."""

    lease: float = 6
    look: float = 1
    first_pause: float = 0.25
    longest_pause: float = 30
    connect: float = 5
    ack: float = 10
    refusals: int = 4
    rejections: int = 14

    def pause(self, failures: int) -> float:
        """The seconds to wait after so many failures."""
        return min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 20))


class Delivery:
    """The delivery role."""

    def __init__(self, interactions: Interactions, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self.working = False
        self._interactions = interactions
        self._db = interactions.store.db
        self._outbox = self._db[outbox.COLLECTION]
        self._owner = uuid.uuid4().hex
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._wake: dict[str, asyncio.Event] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver while inside. At the end what is not acknowledged stays pending, and the leases are given back."""
        task = asyncio.create_task(self._look())
        self.working = True
        try:
            yield
        finally:
            self.working = False
            workers = [task, *self._workers.values()]
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            with contextlib.suppress(PyMongoError):
                await leases.give_back(self._db, self._owner)

    async def _look(self) -> None:
        """Start a worker for each destination that has something pending; wake them when a transaction has filled the outbox."""
        filled = self._interactions.outbox_filled
        while True:
            filled.clear()
            try:
                for destination in await self._outbox.distinct("destination", {"state": "pending"}):
                    if destination.startswith(outbox.DICOM):
                        continue
                    worker = self._workers.get(destination)
                    if worker is None or worker.done():
                        self._wake[destination] = asyncio.Event()
                        self._workers[destination] = asyncio.create_task(self._serve(destination))
                    self._wake[destination].set()
            except PyMongoError as error:
                log.warning("the outbox can't be read", reason=type(error).__name__)
            await self._wait(filled)

    async def _wait(self, event: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timing.look):
                await event.wait()

    async def _serve(self, destination: str) -> None:
        """Deliver to one destination while we hold its lease. Whatever goes wrong here, others don't feel it."""
        lease = Lease(self._db, f"delivery:{destination}", self._owner, self.timing.lease)
        renewal = asyncio.create_task(lease.keep())
        line = Line(self.timing)
        try:
            while True:
                if not await lease.held():
                    await asyncio.sleep(self.timing.lease / 3)
                    continue
                wake = self._wake[destination]
                wake.clear()
                message = await self._outbox.find_one({"destination": destination, "state": "pending"}, sort=[("key", 1)])
                if message is None:
                    await self._wait(wake)
                    continue
                await line.to(await self._endpoint(destination))
                await asyncio.sleep(await self._deliver(message, line))
        except Exception as error:  # noqa: BLE001 - the next look starts the worker again; the text may name a patient
            log.warning("delivery stops for now", destination=destination, reason=type(error).__name__)
        finally:
            renewal.cancel()
            await line.close()

    async def _endpoint(self, destination: str) -> dict[str, Any] | None:
        """The Endpoint as it is now; None when it is gone or not active."""
        await self._interactions.store.ensure("Endpoint")
        found = await self._interactions.store.read("Endpoint", destination.partition("/")[2])
        endpoint = found.resource if found else None
        return endpoint if endpoint is not None and endpoint.get("status") == "active" else None

    async def _deliver(self, message: dict[str, Any], line: "Line") -> float:
        """One attempt; the seconds to wait before the next."""
        if line.client is None:
            await self._not_possible(message, line.problem)
            return 3 * self.timing.look
        try:
            ack = await line.client.send(bytes(message["message"]), message["control_id"])
        except MllpError as error:
            pause = self.timing.pause(message["attempts"] - message.get("refusals", 0) + 1)
            await self._failed(message, str(error), pause)
            return pause
        except ValueError as error:  # it can't be framed, now and ever
            ack = Ack("AE", message["control_id"], str(error))
            await self._settle(message, "refused", ack)
            return 0
        if ack.positive:
            await self._settle(message, "delivered", ack)
            return 0
        refusals = message.get("refusals", 0) + 1
        if refusals >= (self.timing.refusals if ack.code in {"AE", "CE"} else self.timing.rejections):
            await self._settle(message, "refused", ack)
            return 0
        pause = self.timing.pause(refusals)
        await self._failed(message, _answer(ack), pause, refusals=1)
        return pause

    async def _not_possible(self, message: dict[str, Any], problem: str) -> None:
        """Say once why nothing is sent: the Endpoint is as people have set it."""
        changed = await self._outbox.update_one(
            {"_id": message["_id"], "state": "pending", "error": {"$ne": problem}}, {"$set": {"error": problem}}
        )
        if changed.modified_count:
            log.warning("nothing is sent", destination=message["destination"], reason=problem)

    async def _failed(self, message: dict[str, Any], error: str, pause: float, refusals: int = 0) -> None:
        """Remember a failed attempt."""
        destination, control_id = message["destination"], message["control_id"]
        reason = "refused" if refusals else error  # a receiver's own text may name a patient
        log.warning(
            "not delivered", destination=destination, control_id=control_id, attempts=message["attempts"] + 1, reason=reason
        )
        metrics.DELIVERIES.labels(destination, "refused" if refusals else "failed").inc()
        again = clock.naive(clock.now() + timedelta(seconds=pause))
        await self._outbox.update_one(
            {"_id": message["_id"], "state": "pending"},
            {"$inc": {"attempts": 1, "refusals": refusals}, "$set": {"error": error, "next_attempt": again}},
        )

    async def _settle(self, message: dict[str, Any], state: str, ack: Ack) -> None:
        """The receiver has answered for good: state, answer and AuditEvent in one transaction."""
        destination, control_id = message["destination"], message["control_id"]
        delivered = state == "delivered"

        async def work(unit: UnitOfWork) -> None:
            outcome = {"state": state, "answer": f"{ack.code} {ack.text}".strip(), "error": None if delivered else _answer(ack)}
            await self._outbox.update_one(
                {"_id": message["_id"], "state": "pending"},
                {"$set": outcome | ({"delivered": clock.naive(unit.now)} if delivered else {}), "$inc": {"attempts": 1}},
                session=unit.session,
            )

        act = Act(message["type"], source="v2-out", detail=f"{state} {control_id} {destination}")
        await self._interactions.transact(Access.system("delivery"), act, work, entities=audit.seen(message["about"]))
        metrics.DELIVERIES.labels(destination, state).inc()
        if not delivered:
            log.error("a receiver refused a message; it is set aside", destination=destination, control_id=control_id)


class Line:
    """The connection to where an Endpoint points now. `client` is None where it points nowhere; `problem` says why."""

    def __init__(self, timing: Timing) -> None:
        self.client: MllpClient | None = None
        self.problem = ""
        self._timing = timing
        self._to: tuple[str, int, bool, float] | None = None

    async def to(self, endpoint: dict[str, Any] | None) -> None:
        """Follow the Endpoint, which people may change at any time."""
        try:
            place = (*address(endpoint), ack_timeout(endpoint, self._timing.ack)) if endpoint else None
            self.problem = "" if endpoint else "the Endpoint is not active"
        except ValueError as error:
            place, self.problem = None, str(error)
        if place == self._to:
            return
        await self.close()
        self._to = place
        if place is not None:
            host, port, secure, patience = place
            context = tls.create_default_context() if secure else None
            self.client = MllpClient(host, port, ssl=context, connect_timeout=self._timing.connect, ack_timeout=patience)

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()
        self.client, self._to = None, None


def _answer(ack: Ack) -> str:
    return f"{ack.code}: {ack.text}"[:500]
