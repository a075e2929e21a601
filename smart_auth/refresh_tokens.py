"""Refresh tokens, with rotation (RFC 9700 4.14.2): each is good once and gives its successor; a second use ends the family.

MongoDB (`oauth_refresh_tokens`) has, by the SHA-256 of a token: `grant` (id), `used` (when, or None), `salt`, `expires`. The
successor is made of the token and the salt: who has only one of the two, a thief of a token or of the database, can't make it.
An app that refreshes twice at the same time gets the same successor for ten seconds, so that it doesn't lose its session.
"""

import base64
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReadPreference, ReturnDocument, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.grants import REFRESH_LIFETIMES, REFRESH_TOKENS, Grant
from smart_auth.tokens import new_bearer, token_id

GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What is kept of a refresh token. `spent`: it was used, longer ago than the grace lasts."""

    token_id: str
    grant_id: str
    spent: bool


class RefreshTokens:
    """The refresh tokens of all processes."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._tokens = db.get_collection(
            REFRESH_TOKENS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
        )

    async def issue(self, grant: Grant) -> str:
        """The first refresh token of a grant."""
        token = new_bearer()
        await self._store(token, grant)
        return token

    async def find(self, token: str) -> RefreshToken | None:
        document = await self._tokens.find_one({"_id": token_id(token), "expires": {"$gt": datetime.now(UTC)}})
        return None if document is None else RefreshToken(document["_id"], document["grant"], _spent(document))

    async def rotate(self, token: str, grant: Grant) -> str | None:
        """The successor of a token; None if the token was used up before, which is a reason to end the grant."""
        key, now = token_id(token), datetime.now(UTC)
        first = {"$set": {"used": now, "salt": secrets.token_bytes(32)}}
        document = await self._tokens.find_one_and_update(
            {"_id": key, "used": None}, first, return_document=ReturnDocument.AFTER
        ) or await self._tokens.find_one({"_id": key})
        if document is None or _spent(document):
            return None
        successor = _successor(token, bytes(document["salt"]))
        await self._store(successor, grant)
        return successor

    async def _store(self, token: str, grant: Grant) -> None:
        document = {"grant": grant.grant_id, "used": None, "expires": datetime.now(UTC) + REFRESH_LIFETIMES[grant.life]}
        await self._tokens.update_one({"_id": token_id(token)}, {"$setOnInsert": document}, upsert=True)


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    await db[REFRESH_TOKENS].create_index("expires", expireAfterSeconds=0)
    await db[REFRESH_TOKENS].create_index("grant")


def _spent(document: dict[str, Any]) -> bool:
    return document["used"] is not None and document["used"].replace(tzinfo=UTC) + GRACE < datetime.now(UTC)


def _successor(token: str, salt: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(token.encode(), salt, "sha256")).decode().rstrip("=")
