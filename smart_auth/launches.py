"""Launches: what an EHR hands an app that it starts, to exchange for context (SMART App Launch 2.2, "Launch App: EHR Launch").

The value is 256 random bits, good for five minutes and once, for one app, and when a user was named for that user. MongoDB
(`oauth_launches`) has by its SHA-256: `client_id`, `registration`, `user_name` or None, `context` (launch_context.py), `made_by`
(a client, or a user), `used`, `expires`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.clients import Client
from smart_auth.launch_context import Context
from smart_auth.tokens import new_bearer, token_id

LAUNCHES = "oauth_launches"
LIFETIME = timedelta(minutes=5)
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Launch:
    """What a launch is for. `user_name`: whose it is, or None for whoever logs in."""

    user_name: str | None
    context: Context


class Launches:
    """The launches of all processes."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._launches = db.get_collection(
            LAUNCHES, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
        )

    async def mint(self, client: Client, context: Context, *, user_name: str | None, made_by: str) -> str:
        """A launch of this app in this context; its value."""
        value = new_bearer()
        await self._launches.insert_one(
            {
                "_id": token_id(value),
                "client_id": client.client_id,
                "registration": client.registration,
                "user_name": user_name,
                "context": context,
                "made_by": made_by,
                "used": None,
                "expires": datetime.now(UTC) + LIFETIME,
            }
        )
        return value

    async def take(self, value: str, client: Client) -> Launch | None:
        """Use a launch up. None if it is unknown, expired, used, or another app's (whose it then still is)."""
        if len(value) > _LONGEST:
            return None
        now = datetime.now(UTC)
        its = {"client_id": client.client_id, "registration": client.registration, "used": None, "expires": {"$gt": now}}
        document = await self._launches.find_one_and_update({"_id": token_id(value), **its}, {"$set": {"used": now}})
        return None if document is None else Launch(document["user_name"], document["context"])


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    await db[LAUNCHES].create_index("expires", expireAfterSeconds=0)
