"""When those whom we ask were last reached, or weren't: the PACS by its worker, everybody by whoever tests a connection.

A document of `contacts`, one an Endpoint or Device:
    {_id: "Endpoint/pacs", at, ok: bool, text: what was answered, or why nothing was, test: bool, by: who tested}
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import clock

COLLECTION: Final = "contacts"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Contact:
    """The last one; `at` is UTC."""

    at: datetime
    ok: bool
    text: str = ""
    test: bool = False
    by: str = ""


async def note(db: AsyncDatabase[Document], reference: str, *, ok: bool, text: str, by: str = "") -> None:
    """Remember how it went with `Endpoint/pacs`, or `Device/ct1`. `by`: who tested it."""
    said = {"at": clock.naive(clock.now()), "ok": ok, "text": text[:500], "test": bool(by), "by": by}
    await db[COLLECTION].replace_one({"_id": reference}, said, upsert=True)


async def last(db: AsyncDatabase[Document], references: list[str]) -> dict[str, Contact]:
    """The last contacts of these."""
    found = db[COLLECTION].find({"_id": {"$in": references}})
    return {d["_id"]: Contact(**{name: value for name, value in d.items() if name != "_id"}) async for d in found}
