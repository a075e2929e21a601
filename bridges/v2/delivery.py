"""Delivering the outbox: one worker a destination, in order, under a lease, until each message is acknowledged.

Any number of processes may run this; the lease in MongoDB decides who serves a destination. A message is sent byte for byte as it
was written, under the same control id however often. A receiver that is away is tried again with growing pauses, for ever.
One that refuses (AE) is asked a few times, one that rejects (AR: it may be in trouble itself) for some minutes, one that takes a
message and never answers for two hours; then the message is set aside as `refused` or `dead`, shown, and can be replayed.

Messages are read ahead, and what became of those that are delivered is written while the next ones are under way.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from bridges.v2.ack import Ack
from bridges.v2.line import Line
from bridges.v2.mllp import MllpError
from bridges.v2.mllp_client import ConnectError
from bridges.v2.settlement import Settled, Settlement, described
from fhir_server import clock, leases, metrics, outbox
from fhir_server.interactions import Interactions
from fhir_server.leases import Lease
from fhir_server.tls_files import TlsFiles

log = structlog.get_logger()

_AHEAD = 200  # messages that are read ahead of their sending; MongoDB gives at most 16 MiB of them at a time
_BATCH = 50
_LAST_WRITE = 5  # seconds that what is delivered may take to be written when the worker ends


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
    unanswered: int = 240

    def pause(self, failures: int) -> float:
        """The seconds to wait after so many failures."""
        return min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 20))


class Delivery:
    """The delivery role."""

    def __init__(self, interactions: Interactions, timing: Timing | None = None, tls: TlsFiles | None = None) -> None:
        self.timing = timing or Timing()
        self._tls = tls or TlsFiles()
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
                    if destination.startswith((outbox.DICOM, outbox.PAYER)):
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
        line = Line(self.timing.connect, self.timing.ack, self._tls)
        settlement = Settlement(self._interactions)
        try:
            while True:
                if not await lease.held():
                    await asyncio.sleep(self.timing.lease / 3)
                    continue
                wake = self._wake[destination]
                wake.clear()
                await self._refused_late(destination, line, settlement)
                if not await self._send_pending(destination, lease, line, settlement):
                    await self._wait(wake)
        except Exception as error:  # noqa: BLE001 - the next look starts the worker again; the text may name a patient
            log.warning("delivery stops for now", destination=destination, reason=type(error).__name__)
        finally:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_LAST_WRITE):
                    await settlement.done()
            renewal.cancel()
            await line.close()

    async def _send_pending(self, destination: str, lease: Lease, line: Line, settlement: Settlement) -> bool:
        """Send what is pending, up to the first that fails; whether there was anything."""
        found = False
        where = {"destination": destination, "state": "pending"}
        async with self._outbox.find(where, sort=[("key", 1)], limit=_AHEAD, batch_size=_BATCH) as pending:
            looked = float("-inf")
            async for message in pending:
                found = True
                if time.monotonic() - looked > self.timing.look:
                    await line.to(await self._endpoint(destination))
                    looked = time.monotonic()
                if not await lease.held():
                    break
                pause = await self._deliver(message, line, settlement)
                if pause is not None:
                    await settlement.done()
                    await asyncio.sleep(pause)
                    break
        await settlement.done()
        return found

    async def _refused_late(self, destination: str, line: Line, settlement: Settlement) -> None:
        """Set aside what a receiver has accepted (CA) and then refused, though it was asked for one answer only."""
        while line.late:
            ack = line.late.pop(0)
            where = {"destination": destination, "control_id": ack.control_id, "state": "delivered"}
            if (message := await self._outbox.find_one(where)) is not None:
                log.error("a message is set aside", state="refused", destination=destination, control_id=ack.control_id)
                await settlement.add(Settled(message, "refused", ack))

    async def _endpoint(self, destination: str) -> dict[str, Any] | None:
        """The Endpoint as it is now; None when it is gone or not active."""
        await self._interactions.store.ensure("Endpoint")
        found = await self._interactions.store.read("Endpoint", destination.partition("/")[2])
        endpoint = found.resource if found else None
        return endpoint if endpoint is not None and endpoint.get("status") == "active" else None

    async def _deliver(self, message: dict[str, Any], line: Line, settlement: Settlement) -> float | None:
        """One attempt. None: it is settled, and the next one may go; else the seconds to wait before this one's next."""
        if line.client is None:
            await self._not_possible(message, line.problem)
            return 3 * self.timing.look
        try:
            ack = await line.client.send(bytes(message["message"]), message["control_id"], application=line.application)
        except ConnectError as error:
            return await self._failed(message, str(error), self._pause_after(message))
        except MllpError as error:  # it was sent, and nobody knows what became of it
            if message.get("unanswered", 0) + 1 < self.timing.unanswered:
                return await self._failed(message, str(error), self._pause_after(message), unanswered=1)
            state, ack = "dead", Ack("", message["control_id"], str(error))
        except ValueError as error:  # it can't be framed, now and ever
            state, ack = "refused", Ack("AE", message["control_id"], str(error))
        else:
            state = "delivered" if ack.positive else "refused"
            refusals = message.get("refusals", 0) + 1
            most = self.timing.refusals if ack.code in {"AE", "CE"} else self.timing.rejections
            if not ack.positive and refusals < most:
                return await self._failed(message, described(ack), self.timing.pause(refusals), refusals=1)
        if state != "delivered":
            place = {"destination": message["destination"], "control_id": message["control_id"]}
            log.error("a message is set aside", state=state, **place)
        await settlement.add(Settled(message, state, ack))
        return None

    def _pause_after(self, message: dict[str, Any]) -> float:
        return self.timing.pause(message["attempts"] - message.get("refusals", 0) + 1)

    async def _not_possible(self, message: dict[str, Any], problem: str) -> None:
        """Say once why nothing is sent: the Endpoint is as people have set it."""
        changed = await self._outbox.update_one(
            {"_id": message["_id"], "state": "pending", "error": {"$ne": problem}}, {"$set": {"error": problem}}
        )
        if changed.modified_count:
            log.warning("nothing is sent", destination=message["destination"], reason=problem)

    async def _failed(
        self, message: dict[str, Any], error: str, pause: float, *, refusals: int = 0, unanswered: int = 0
    ) -> float:
        """Remember a failed attempt; the seconds to wait."""
        destination, control_id = message["destination"], message["control_id"]
        reason = "refused" if refusals else error  # a receiver's own text may name a patient
        log.warning(
            "not delivered", destination=destination, control_id=control_id, attempts=message["attempts"] + 1, reason=reason
        )
        metrics.DELIVERIES.labels(destination, "refused" if refusals else "failed").inc()
        again = clock.naive(clock.now() + timedelta(seconds=pause))
        await self._outbox.update_one(
            {"_id": message["_id"], "state": "pending"},
            {
                "$inc": {"attempts": 1, "refusals": refusals, "unanswered": unanswered},
                "$set": {"error": error, "next_attempt": again},
            },
        )
        return pause
