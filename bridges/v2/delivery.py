"""Delivering the outbox: one worker a destination, in order, under a lease, until each message is acknowledged.

Any number of processes may run this; the lease in MongoDB decides who serves a destination. A message is sent byte for byte as it
was written, under the same control id however often. A receiver that is away is tried again with growing pauses, for ever.
One that refuses (AE, AR) is asked a few times; then the message is set aside as `refused`, shown, and can be replayed.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import structlog
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from bridges.v2.ack import Ack
from bridges.v2.mllp import MllpClient, MllpError
from fhir_server import audit, clock, metrics, outbox
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

log = structlog.get_logger()

LEASE = timedelta(seconds=6)
_LOOK_SECONDS = 1.0
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 30.0
_REFUSALS = 4
_ACK_SECONDS = 10.0


class Delivery:
    """The delivery role."""

    def __init__(self, interactions: Interactions) -> None:
        self._interactions = interactions
        self._db = interactions.store.db
        self._owner = uuid.uuid4().hex
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._wake: dict[str, asyncio.Event] = {}
        self.working = False

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
                await self._db["leases"].delete_many({"owner": self._owner})

    async def _look(self) -> None:
        """Start a worker for each destination that has something pending; wake them when a transaction has filled the outbox."""
        filled = self._interactions.outbox_filled
        while True:
            filled.clear()
            try:
                for destination in await self._db[outbox.COLLECTION].distinct("destination", {"state": "pending"}):
                    worker = self._workers.get(destination)
                    if worker is None or worker.done():
                        self._wake[destination] = asyncio.Event()
                        self._workers[destination] = asyncio.create_task(self._serve(destination))
                    self._wake[destination].set()
            except PyMongoError as error:
                log.warning("the outbox can't be read", reason=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await filled.wait()

    async def _serve(self, destination: str) -> None:
        """Deliver to one destination while we hold its lease. Whatever goes wrong here, others don't feel it."""
        lease = f"delivery:{destination}"
        renewal = asyncio.create_task(self._renew(lease))
        client: tuple[str, MllpClient] | None = None
        try:
            while True:
                if not await self._lease(lease):
                    await asyncio.sleep(LEASE.total_seconds() / 3)
                    continue
                message = await self._db[outbox.COLLECTION].find_one(
                    {"destination": destination, "state": "pending"}, sort=[("key", 1)]
                )
                if message is None:
                    await self._rest(destination)
                    continue
                client = await self._client(destination, client)
                pause = await self._deliver(message, client)
                if pause:
                    await asyncio.sleep(pause)
        except (PyMongoError, FhirError) as error:
            log.warning("delivery stops for now", destination=destination, reason=type(error).__name__)
        finally:
            renewal.cancel()
            if client:
                await client[1].close()

    async def _rest(self, destination: str) -> None:
        wake = self._wake[destination]
        wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await wake.wait()

    async def _client(self, destination: str, have: tuple[str, MllpClient] | None) -> tuple[str, MllpClient] | None:
        """The connection to where the Endpoint points now; None while it isn't active."""
        await self._interactions.store.ensure("Endpoint")
        found = await self._interactions.store.read("Endpoint", destination.partition("/")[2])
        endpoint = found.resource if found else None
        address = endpoint["address"] if endpoint and endpoint.get("status") == "active" else None
        if have and have[0] == address:
            return have
        if have:
            await have[1].close()
        place = urlsplit(address) if address else None
        if place is None or address is None or place.scheme != "mllp" or not place.hostname:
            return None
        return address, MllpClient(place.hostname, place.port or 2575, connect_timeout=5, ack_timeout=_ACK_SECONDS)

    async def _deliver(self, message: dict[str, Any], client: tuple[str, MllpClient] | None) -> float:
        """One attempt; the seconds to wait before the next."""
        destination, attempts = message["destination"], message["attempts"] + 1
        if client is None:
            await self._note(message, "the Endpoint is not active, or its address isn't mllp://host:port")
            return _LONGEST_PAUSE / 10
        try:
            ack = await client[1].send(bytes(message["message"]), message["control_id"])
        except MllpError as error:
            metrics.DELIVERIES.labels(destination, "failed").inc()
            await self._note(message, str(error))
            return _pause(attempts)
        if ack.positive:
            await self._settle(message, "delivered", ack)
            metrics.DELIVERIES.labels(destination, "delivered").inc()
            return 0
        metrics.DELIVERIES.labels(destination, "refused").inc()
        if message.get("refusals", 0) + 1 >= _REFUSALS:
            await self._settle(message, "refused", ack)
            return 0
        await self._note(message, f"{ack.code}: {ack.text}"[:500], refusals=1)
        return _pause(message.get("refusals", 0) + 1)

    async def _note(self, message: dict[str, Any], error: str, refusals: int = 0) -> None:
        """Remember a failed attempt."""
        log.warning(
            "not delivered",
            destination=message["destination"],
            control_id=message["control_id"],
            attempts=message["attempts"] + 1,
        )
        await self._db[outbox.COLLECTION].update_one(
            {"_id": message["_id"], "state": "pending"}, {"$inc": {"attempts": 1, "refusals": refusals}, "$set": {"error": error}}
        )

    async def _settle(self, message: dict[str, Any], state: str, ack: Ack) -> None:
        """The receiver has answered for good: state, answer and AuditEvent in one transaction."""

        async def work(unit: UnitOfWork) -> None:
            await self._db[outbox.COLLECTION].update_one(
                {"_id": message["_id"], "state": "pending"},
                {
                    "$set": {
                        "state": state,
                        "delivered": clock.naive(unit.now),
                        "answer": f"{ack.code} {ack.text}".strip(),
                        "error": None if state == "delivered" else f"{ack.code}: {ack.text}"[:500],
                    },
                    "$inc": {"attempts": 1},
                },
                session=unit.session,
            )

        act = Act(message["type"], source="v2-out", detail=f"{state} {message['control_id']} {message['destination']}")
        await self._interactions.transact(Access.system("delivery"), act, work, entities=audit.seen(message["about"]))
        if state == "refused":
            log.error(
                "a receiver refused a message; it is set aside",
                destination=message["destination"],
                control_id=message["control_id"],
            )

    # Leases

    async def _lease(self, name: str) -> bool:
        """Take or keep a lease. It is ours until the time it says, unless we renew it."""
        now = clock.naive(clock.now())
        try:
            held = await self._db["leases"].find_one_and_update(
                {"_id": name, "$or": [{"owner": self._owner}, {"until": {"$lt": now}}]},
                {"$set": {"owner": self._owner, "until": now + LEASE}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            return False
        return held is not None and bool(held["owner"] == self._owner)

    async def _renew(self, name: str) -> None:
        """Keep the lease alive while a receiver takes its time."""
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            now = clock.naive(clock.now())
            with contextlib.suppress(PyMongoError):
                await self._db["leases"].update_one({"_id": name, "owner": self._owner}, {"$set": {"until": now + LEASE}})


def _pause(attempts: int) -> float:
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts - 1, 10))
