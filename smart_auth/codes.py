"""Authorization codes (RFC 6749 4.1.2): 256 random bits, good for a minute and once. MongoDB (`oauth_codes`) has the SHA-256.

A document: `_id` (hash), `client_id`, `redirect_uri`, `challenge` (PKCE, S256), `grant` (id), `issued`, `used` (when, or None),
`expires` (when MongoDB forgets it). A used one is remembered for a day: when it comes again, what it gave is revoked.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.tokens import new_bearer, token_id

CODES = "oauth_codes"
LIFETIME = timedelta(seconds=60)  # SMART App Launch 2.2: "about one minute"
_REMEMBERED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Code:
    """What is kept of a code."""

    code_id: str
    client_id: str
    redirect_uri: str
    challenge: str
    grant_id: str
    used: bool
    expired: bool


class Codes:
    """The codes of all processes."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._codes = db.get_collection(CODES, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority"))

    async def store(self, code: str, client_id: str, redirect_uri: str, challenge: str, grant_id: str) -> None:
        """Make a code good that was drawn by `new_code`."""
        now = datetime.now(UTC)
        document = {
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "challenge": challenge,
            "grant": grant_id,
            "issued": now,
        }
        await self._codes.insert_one({"_id": token_id(code), **document, "used": None, "expires": now + _REMEMBERED})

    async def find(self, code: str) -> Code | None:
        """The code, also when it can't be used any more."""
        document = await self._codes.find_one({"_id": token_id(code)})
        if document is None:
            return None
        return Code(
            document["_id"],
            document["client_id"],
            document["redirect_uri"],
            document["challenge"],
            document["grant"],
            used=document["used"] is not None,
            expired=document["issued"].replace(tzinfo=UTC) + LIFETIME < datetime.now(UTC),
        )

    async def use(self, code: Code) -> bool:
        """Use a code up; False if it is already: of many at once, one does it."""
        unused = {"_id": code.code_id, "used": None}
        return (await self._codes.update_one(unused, {"$set": {"used": datetime.now(UTC)}})).modified_count == 1


def new_code() -> str:
    return new_bearer()


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    await db[CODES].create_index("expires", expireAfterSeconds=0)
