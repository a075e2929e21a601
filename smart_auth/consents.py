"""What people have granted to apps before, so that they aren't asked the same twice: MongoDB collection `oauth_consents`.

A document: `_id` {user, user_registration, client, registration}, `scopes` (granted), `at`. Who unticked something is asked
again the next time that it is wanted, and so is who is asked for more.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.clients import Client
from smart_auth.granting import covers
from smart_auth.users import User

CONSENTS = "oauth_consents"


@dataclass(frozen=True, slots=True)
class Remembered:
    """One remembered consent."""

    user_name: str
    user_registration: str
    client_id: str
    registration: str
    scopes: list[str]
    at: datetime


class Consents:
    """The remembered consents."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._consents = db.get_collection(
            CONSENTS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
        )

    async def given(self, user: User, client: Client, scopes: list[str]) -> bool:
        """Whether this user has granted all of these scopes to this app before."""
        document = await self._consents.find_one({"_id": _key(user, client)})
        return document is not None and covers(document["scopes"], scopes)

    async def remember(self, user: User, client: Client, scopes: list[str]) -> None:
        """What was granted now counts, and no longer what was before."""
        update = {"$set": {"scopes": scopes, "at": datetime.now(UTC)}}
        await self._consents.update_one({"_id": _key(user, client)}, update, upsert=True)

    async def of_user(self, user: User) -> list[Remembered]:
        """What this user has granted, to which app, and since when."""
        return await self._found({"_id.user": user.name, "_id.user_registration": user.registration})

    async def of_client(self, client: Client) -> list[Remembered]:
        """What this app was granted, by whom, and since when."""
        return await self._found({"_id.client": client.client_id, "_id.registration": client.registration})

    async def _found(self, which: dict[str, str]) -> list[Remembered]:
        return [
            Remembered(
                document["_id"]["user"],
                document["_id"]["user_registration"],
                document["_id"]["client"],
                document["_id"]["registration"],
                document["scopes"],
                document["at"].replace(tzinfo=UTC),
            )
            async for document in self._consents.find(which)
        ]

    async def withdraw(self, user: User, client_id: str) -> None:
        """Ask again the next time."""
        mine = {"_id.user": user.name, "_id.user_registration": user.registration, "_id.client": client_id}
        await self._consents.delete_many(mine)


def _key(user: User, client: Client) -> dict[str, str]:
    return {
        "user": user.name,
        "user_registration": user.registration,
        "client": client.client_id,
        "registration": client.registration,
    }
