"""Senders, the server and receivers, killed and started again at random while messages flow; and what must hold afterwards."""

import asyncio
import contextlib
import itertools
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hl7.mllp
from pymongo import AsyncMongoClient

from benchmarks.stand import embedded_uri
from bridges.v2.ack import acknowledge
from bridges.v2.message import parse
from bridges.v2.mllp import MllpServer, Peer
from demo import ehr
from demo.apps import App
from demo.server import free_port
from tests.quick_command import QuickServer

# What happens to each order: the order control codes, one message each, and the statuses that it then has had.
LIFE = ("NW", "HD", "RL", "HD", "CA")
STATUSES = ["active", "on-hold", "active", "on-hold", "revoked"]


@dataclass(slots=True)
class Receiver:
    """A destination that comes and goes. `theirs`: played by PyPI `hl7`'s asyncio server instead of ours."""

    theirs: bool
    port: int = field(default_factory=free_port)
    came: list[str] = field(default_factory=list)
    _server: Any = None

    async def start(self) -> None:
        if self.theirs:
            self._server = await hl7.mllp.start_hl7_server(self._answer_theirs, host="127.0.0.1", port=self.port)
        else:
            self._server = MllpServer("127.0.0.1", self.port, self._answer_ours)
            await self._server.start()

    async def stop(self) -> None:
        if self.theirs:
            self._server.close()
        else:
            await self._server.stop(grace=0)

    async def _answer_ours(self, frame: bytes, _peer: Peer) -> bytes:
        message = parse(frame)
        self.came.append(message.control_id)
        return acknowledge(message, "AA", control_id=f"R{len(self.came)}", when=datetime.now(UTC))

    async def _answer_theirs(self, reader: Any, writer: Any) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                message = await reader.readmessage()
                self.came.append(str(message.segment("MSH")[10]))
                writer.writemessage(message.create_ack())
                await writer.drain()


@dataclass(slots=True)
class Sender:
    """A placer with a queue on disk: it goes on where it was when it is killed and started again."""

    number: int
    messages: list[tuple[str, bytes]]
    done: int = 0

    async def run(self, port: int) -> None:
        """Send each message until it is acknowledged AA, then the next."""
        while self.done < len(self.messages):
            with contextlib.suppress(OSError, TimeoutError, ConnectionError):
                ack = await ehr.send(port, self.messages[self.done][1])
                if ack.all("MSA")[0].field(1) == "AA":
                    self.done += 1
                    continue
            await asyncio.sleep(0.1)


class Chaos:
    """A server, senders and receivers under a random hand. `seed` names the run; `cuts` is how often the server is killed."""

    def __init__(self, directory: Path, *, messages: int, seed: int, cuts: int, senders: int = 6) -> None:
        self.server = QuickServer(directory)
        self.random = random.Random(seed)
        self.cuts = cuts
        self.receivers = {"ours": Receiver(theirs=False), "theirs": Receiver(theirs=True)}
        self.placers = [f"CH{seed}-{n}" for n in range(messages // len(LIFE))]
        self.senders = [Sender(n, self._queue(self.placers[n::senders])) for n in range(senders)]

    def _queue(self, placers: list[str]) -> list[tuple[str, bytes]]:
        """The messages about these orders: each order's in its sequence, of several orders at a time in a random mixture."""
        lines = [[self._message(placer, i) for i in range(len(LIFE))] for placer in placers]
        queue: list[tuple[str, bytes]] = []
        for start in range(0, len(lines), 5):
            some = lines[start : start + 5]
            while some:
                line = self.random.choice(some)
                queue.append(line.pop(0))
                some = [x for x in some if x]
        return queue

    def _message(self, placer: str, i: int) -> tuple[str, bytes]:
        control_id = f"{placer}-{i}"
        return control_id, ehr.order(control_id, placer, f"P-{placer}", control=LIFE[i])

    async def run(self) -> None:
        """Everything sent, everything delivered; AssertionError for what doesn't hold."""
        for receiver in self.receivers.values():
            await receiver.start()
        await self.server.start()
        try:
            await self._register()
            hands = [asyncio.create_task(hand) for hand in (self._kill_servers(), self._stop_receivers())]
            await asyncio.gather(*(self._send(sender) for sender in self.senders))
            for hand in hands:
                hand.cancel()
            await asyncio.gather(*hands, return_exceptions=True)
            await self._recovered()
            await self._check()
        finally:
            assert await self.server.stop() == 0
            for receiver in self.receivers.values():
                await receiver.stop()

    async def _register(self) -> None:
        async with App("chaos", "system/*.cruds", self.server.base_url) as app:
            jwks = str(app.write_jwks(self.server.directory))
            await self.server.command("client", "add", "chaos", "--scope", "system/*.cruds", "--jwks", jwks)
            for name, receiver in self.receivers.items():
                await app.ok("PUT", f"Endpoint/{name}", _endpoint(name, receiver.port))

    async def _send(self, sender: Sender) -> None:
        """A sender that is killed now and then, wherever it is, and started again."""
        while sender.done < len(sender.messages):
            task = asyncio.create_task(sender.run(self.server.mllp_port))
            await asyncio.wait({task}, timeout=self.random.uniform(0.5, 4))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _kill_servers(self) -> None:
        for _ in range(self.cuts):
            await asyncio.sleep(self.random.uniform(1, 3))
            # Not to be broken off half-way: a server that was killed is always started again.
            await asyncio.shield(self._cut(mongod=self.random.random() < 0.5))

    async def _cut(self, *, mongod: bool) -> None:
        await self.server.kill(mongod=mongod)
        await self.server.start()

    async def _stop_receivers(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 3))
            receiver = self.random.choice(list(self.receivers.values()))
            await asyncio.shield(_pause(receiver, self.random.uniform(0.1, 2)))

    async def _recovered(self) -> None:
        """The server answers (a last cut may be under way)."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError, TimeoutError, ConnectionError):
                    await ehr.send(self.server.mllp_port, self.senders[0].messages[-1][1])
                    return
                await asyncio.sleep(0.2)

    async def _check(self) -> None:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(embedded_uri(self.server.directory))
        db = client["ris"]
        try:
            async with asyncio.timeout(120):
                while await db["outbox"].count_documents({"state": "pending"}):
                    await asyncio.sleep(0.2)
            kept = await db["messages"].find({"type": "ORM^O01"}, {"control_id": 1, "outcome": 1}).to_list()
            expected = sorted(control_id for sender in self.senders for control_id, _ in sender.messages)
            assert sorted(m["control_id"] for m in kept if m["outcome"] == "AA") == expected, (
                "a message is not there exactly once"
            )
            await self._check_orders(db)
            for name, receiver in self.receivers.items():
                await self._check_deliveries(db, name, receiver)
        finally:
            await client.close()

    async def _check_deliveries(self, db: Any, name: str, receiver: Receiver) -> None:
        """Everything came, under the control id that it has in the outbox; what is about one order, in its sequence."""
        sent = await db["outbox"].find({"destination": f"Endpoint/{name}"}, sort=[("key", 1)]).to_list()
        about = {m["control_id"]: parse(bytes(m["message"])).all("ORC")[0].raw(2) for m in sent}
        came = list(dict.fromkeys(receiver.came))
        assert sent
        assert sorted(came) == sorted(about), f"{name} did not get what was sent"
        assert _by_order(came, about) == _by_order(about, about), f"{name} got an order's messages in another sequence"

    async def _check_orders(self, db: Any) -> None:
        """One order a placer number, and its versions are its life."""
        placers: dict[str, list[str]] = defaultdict(list)
        async for order in db["ServiceRequest"].find({"resource.intent": "order"}):
            numbers = [i["value"] for i in order["resource"]["identifier"]]
            placers[next(n for n in numbers if n.startswith("CH"))].append(order["_id"])
        assert sorted(placers) == sorted(self.placers)
        assert all(len(ids) == 1 for ids in placers.values()), "an order is there twice"
        for placer, (id_,) in placers.items():
            versions = await db["ServiceRequest_history"].find({"id": id_}, sort=[("version", 1)]).to_list()
            versions.append(await db["ServiceRequest"].find_one({"_id": id_}))
            statuses = [status for status, _ in itertools.groupby(v["resource"]["status"] for v in versions)]
            assert statuses == STATUSES, f"{placer} was {statuses}"


def _by_order(control_ids: Iterable[str], about: dict[str, str]) -> dict[str, list[str]]:
    """Order number -> the control ids about it, as they come."""
    found: dict[str, list[str]] = defaultdict(list)
    for control_id in control_ids:
        found[about[control_id]].append(control_id)
    return found


async def _pause(receiver: Receiver, seconds: float) -> None:
    await receiver.stop()
    await asyncio.sleep(seconds)
    await receiver.start()


def _endpoint(name: str, port: int) -> dict[str, Any]:
    return {
        "resourceType": "Endpoint",
        "id": name,
        "status": "active",
        "connectionType": {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"},
        "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": "ORM^O01"}]}],
        "address": f"mllp://127.0.0.1:{port}",
        "header": ["ack-timeout: 2"],
    }
