"""What was loaded from which file, in MongoDB: written in the transactions that load, so that it is always true.

`loads`        a document a file, by the SHA-256 of its content: {_id, path, size, begun, finished, loaded, refused}
`load_ranges`  while it is loaded, what is done of it: {_id: "<file>:<offset>", end, next_number, loaded}
`load_lines`   while it is loaded, the lines that did not go in: {_id: "<file>:<offset>", number, length, state, what, outcome};
               state `waiting` (for what it refers to) or `refused`
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from fhir_server import clock
from fhir_server.loading.sources import Opened, Place
from fhir_server.store import Document
from fhir_server.unit_of_work import UnitOfWork


class AlreadyNotedError(Exception):
    """What a transaction was to note is in the books: it was done before, or somebody else has just done it."""


COLLECTIONS = ("loads", "load_ranges", "load_lines")


@dataclass(slots=True)
class Tally:
    """How many resources went in, were refused, or wait for what they refer to."""

    loaded: int = 0
    refused: int = 0
    waiting: int = 0

    def add(self, other: "Tally") -> None:
        self.loaded += other.loaded
        self.refused += other.refused
        self.waiting += other.waiting


@dataclass(frozen=True, slots=True)
class Left:
    """A line that did not go in: why, and whether it waits for what it refers to."""

    place: Place
    what: str
    outcome: dict[str, Any]
    waits: bool


class Ledger:
    """The books of one database."""

    def __init__(self, db: AsyncDatabase[Document]) -> None:
        self._db = db

    async def begin(self, file: Opened, *, again: bool) -> Document:
        """The document of a file; it has `finished` when all of it was loaded before. `again`: forget that."""
        present = set(await self._db.list_collection_names())
        for name in COLLECTIONS:  # a transaction need not make them
            if name not in present:
                await self._db.create_collection(name, check_exists=False)
        if again and await self._db["loads"].find_one_and_delete({"_id": file.key, "finished": {"$ne": None}}):
            await self._forget(file.key)
        new = {"path": str(file.path.resolve()), "size": file.size, "begun": clock.naive(clock.now()), "finished": None}
        await self._db["loads"].update_one({"_id": file.key}, {"$setOnInsert": new}, upsert=True)
        found = await self._db["loads"].find_one({"_id": file.key})
        assert found is not None
        return found

    async def done(self, file: str) -> dict[int, tuple[int, int]]:
        """What of a file is done: offset -> (offset after it, number of the line there)."""
        ranges = self._db["load_ranges"].find({**_of(file), "end": {"$gte": 0}})
        return {_offset(r): (r["end"], r["next_number"]) async for r in ranges}

    async def is_done(self, file: str, start: int) -> bool:
        """Whether the range that begins here is done."""
        return await self._db["load_ranges"].find_one({"_id": _id(file, start)}, {"_id": 1}) is not None

    async def tally(self, file: str) -> Tally:
        """How it stands with a file."""
        found = Tally()
        async for r in self._db["load_ranges"].find(_of(file), {"loaded": 1}):
            found.loaded += r["loaded"]
        found.waiting = await self._db["load_lines"].count_documents({**_of(file), "state": "waiting"})
        found.refused = await self._db["load_lines"].count_documents({**_of(file), "state": "refused"})
        return found

    async def waiting(self, file: str, after: int, limit: int) -> list[Place]:
        """The lines that wait, beyond an offset, in the order of the file."""
        beyond = {"_id": {"$gt": _id(file, after), "$lt": f"{file};"}, "state": "waiting"}
        rows = self._db["load_lines"].find(beyond, {"outcome": 0}, sort=[("_id", 1)], limit=limit)
        return [Place(row["number"], _offset(row), row["length"]) async for row in rows]

    async def refuse_waiting(self, file: str) -> int:
        """Nothing more will come that these could wait for."""
        done = await self._db["load_lines"].update_many({**_of(file), "state": "waiting"}, {"$set": {"state": "refused"}})
        return done.modified_count

    async def refusals(self, file: str) -> list[Document]:
        """The refused lines with their outcomes, in the order of the file."""
        rows = self._db["load_lines"].find({**_of(file), "state": "refused"}, sort=[("_id", 1)])
        return [
            {"line": row["number"], **({"resource": row["what"]} if row["what"] else {}), "outcome": row["outcome"]}
            async for row in rows
        ]

    async def finish(self, file: str, tally: Tally) -> None:
        """All of it is in, or refused; what was noted on the way may go."""
        result = {"finished": clock.naive(clock.now()), "loaded": tally.loaded, "refused": tally.refused}
        await self._db["loads"].update_one({"_id": file}, {"$set": result})
        await self._forget(file)

    async def _forget(self, file: str) -> None:
        for name in ("load_ranges", "load_lines"):
            await self._db[name].delete_many(_of(file))


# Notes taken inside the transactions that load


async def note_range(
    unit: UnitOfWork, file: str, start: int, end: int, next_number: int, loaded: int, left: Iterable[Left]
) -> None:
    """That a range is done, and what of it did not go in. AlreadyNotedError when it is so already."""
    row = {"_id": _id(file, start), "end": end, "next_number": next_number, "loaded": loaded}
    try:
        await unit.db["load_ranges"].insert_one(row, session=unit.session)
    except DuplicateKeyError:
        raise AlreadyNotedError from None
    lines = [
        {
            "_id": _id(file, one.place.offset),
            "number": one.place.number,
            "length": one.place.length,
            "state": "waiting" if one.waits else "refused",
            "what": one.what,
            "outcome": one.outcome,
        }
        for one in left
    ]
    if lines:
        await unit.db["load_lines"].insert_many(lines, session=unit.session)


async def note_arrived(unit: UnitOfWork, file: str, arrived: Iterable[int], left: Iterable[Left]) -> None:
    """That lines which waited (by offset) are in now, and what has become of the others."""
    ids = [_id(file, offset) for offset in arrived]
    lines = unit.db["load_lines"]
    gone = await lines.delete_many({"_id": {"$in": ids}, "state": "waiting"}, session=unit.session)
    if gone.deleted_count != len(ids):
        raise AlreadyNotedError
    if ids:  # counted where the ranges are
        row = {"_id": f"{ids[0]}+", "end": -1, "next_number": -1, "loaded": len(ids)}
        await unit.db["load_ranges"].insert_one(row, session=unit.session)
    for one in left:
        state = "waiting" if one.waits else "refused"
        change = {"$set": {"state": state, "outcome": one.outcome}}
        await lines.update_one({"_id": _id(file, one.place.offset)}, change, session=unit.session)


def _id(file: str, offset: int) -> str:
    return f"{file}:{offset:015d}" if offset >= 0 else f"{file}:"


def _offset(row: Mapping[str, Any]) -> int:
    return int(str(row["_id"]).rpartition(":")[2].removesuffix("+"))


def _of(file: str) -> Document:
    return {"_id": {"$gte": f"{file}:", "$lt": f"{file};"}}
