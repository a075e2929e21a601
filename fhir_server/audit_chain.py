"""The audit trail is chained, so that it shows when an AuditEvent was changed or taken away, whoever has the database.

Each AuditEvent of ours carries, beside the resource, its place in a chain:

    chain: {of: 12, n: 345, seal: "..."}    seal = HMAC-SHA256(key, chain, n, the seal before, the event as JSON)

A process writes as many chains as it has transactions under way, each in turn, so that nobody waits for another; a chain whose
last transaction may or may not have been committed is not gone on with. `audit_chains` has a document a chain, numbered without
gaps: {_id: 12, n, seal, newest, at, mac}, written when it begins and every minute, so that a missing end shows as well, and (by
`newest`, the number of the last chain at that time) a missing chain.
The key is kept in a file, not in the database: see `KeyFile`. What checks all this is `audit_verify`.
"""

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator, Iterable
from typing import Any

import orjson
from pymongo import IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, PyMongoError

from fhir_server import clock
from fhir_server.background import beside

Document = dict[str, Any]
CHAINS = "audit_chains"
INDEX = IndexModel([("chain.of", 1), ("chain.n", 1)], unique=True, partialFilterExpression={"chain.of": {"$exists": True}})
_EVERY_SECONDS = 60.0


def seal(key: bytes, chain: int, n: int, before: str, event: Document) -> str:
    """The seal of the n-th event of a chain, in hexadecimal."""
    return _mac(key, f"event {chain} {n} {before} ".encode() + orjson.dumps(event))


def head_mac(key: bytes, chain: int, n: int, last: str, newest: int = 0) -> str:
    """What proves that a chain had got so far, and how many chains there were."""
    return _mac(key, f"head {chain} {n} {last} {newest}".encode())


def check_mac(key: bytes, check: Document) -> str:
    """What proves that a check of the trail has found this (`audit_verify.Check`)."""
    return _mac(key, b"check " + orjson.dumps(check, option=orjson.OPT_SORT_KEYS))


def _mac(key: bytes, text: bytes) -> str:
    return hmac.new(key, text, hashlib.sha256).hexdigest()


class Lane:
    """A chain, for as long as one transaction has it. `chained` comes first, then `committing`, then `committed`."""

    def __init__(self, key: bytes, number: int) -> None:
        self.number = number
        self.n, self.seal = 0, ""  # of the last event that is known to be stored
        self.in_doubt = False
        self._key = key
        self._next = (0, "")

    def chained(self, documents: Iterable[Document]) -> None:
        """Give each stored form of an AuditEvent its place, after those that are stored."""
        n, last = self.n, self.seal
        for document in documents:
            n += 1
            last = seal(self._key, self.number, n, last, document["resource"])
            document["chain"] = {"of": self.number, "n": n, "seal": last}
        self._next = (n, last)

    def committing(self) -> None:
        """From here on they may be stored."""
        self.in_doubt = True

    def committed(self) -> None:
        """They are."""
        self.n, self.seal = self._next
        self.in_doubt = False

    def head(self, newest: int) -> Document:
        """What `audit_chains` has of it, and that there were chains up to number `newest` then."""
        mac = head_mac(self._key, self.number, self.n, self.seal, newest)
        return {"n": self.n, "seal": self.seal, "newest": newest, "at": clock.naive(clock.now()), "mac": mac}


class Trail:
    """The chains of one process."""

    def __init__(self, db: AsyncDatabase[Document], key: bytes) -> None:
        """`key` is a secret of 32 bytes."""
        self._db = db
        self._chains = db[CHAINS]
        self._key = key
        self._free: list[Lane] = []
        self._moved: dict[int, Lane] = {}  # whose head is behind

    @contextlib.asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        """A chain that nobody else writes to meanwhile."""
        lane = self._free.pop() if self._free else await self._begun()
        before = lane.n
        try:
            yield lane
        finally:
            if lane.n != before:
                self._moved[lane.number] = lane
            if not lane.in_doubt:
                self._free.append(lane)

    async def _begun(self) -> Lane:
        """A new chain, whose number the insert takes: a transaction that a broken connection left open would keep others out."""
        while True:
            lane = Lane(self._key, await self._newest() + 1)
            try:
                await self._chains.insert_one({"_id": lane.number, **lane.head(lane.number)})
            except DuplicateKeyError:
                continue
            return lane

    async def _newest(self) -> int:
        found = await self._chains.find_one({}, {"_id": 1}, sort=[("_id", -1)])
        return int(found["_id"]) if found else 0

    async def note_heads(self) -> None:
        """Write down how far each chain has got."""
        newest = await self._newest() if self._moved else 0
        for number, lane in list(self._moved.items()):
            head = lane.head(newest)
            await self._chains.update_one({"_id": number, "n": {"$lt": head["n"]}}, {"$set": head})
            if lane.n == head["n"]:
                del self._moved[number]

    @contextlib.asynccontextmanager
    async def noting(self) -> AsyncIterator[None]:
        """Write the heads down every minute, and at the end."""
        try:
            async with beside(self._keep()):
                yield
        finally:
            with contextlib.suppress(PyMongoError):
                await self.note_heads()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            with contextlib.suppress(PyMongoError):
                await self.note_heads()
