"""Access tokens: opaque, 256 random bits, of which MongoDB (collection `oauth_tokens`) has the SHA-256 only.

A document: `_id` (hash), `client_id`, `registration` (of the client, see clients.py), `scope`, `issued`, `expires`; of a token
that acts for a person also `grant` (id, see grants.py), `user` (FHIR reference), `user_name`, `role`, and where there is one
`patient` and `encounter` (logical ids, from the launch context) and `purpose` (such as BTG).
"""

import hashlib
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from smart_auth.access import Access
from smart_auth.assertion_ids import ASSERTION_IDS
from smart_auth.clients import CLIENTS, TOKENS, Client
from smart_auth.grants import Grant, Grants
from smart_auth.scopes import parse_scopes

BACKEND_LIFETIME = 300  # seconds; SMART App Launch 2.2, Backend Services: `expires_in` should not exceed it
_CACHE_SECONDS = 0.9  # with the time of one look-up, revocation and removal take effect within a second
_CACHE_SIZE = 10_000
_LONGEST_TOKEN = 512
_OF_A_PERSON = ("user", "user_name", "role", "patient", "encounter", "purpose")


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a valid token. `token_id` is its SHA-256 in hexadecimal; `grant` is there when it acts for a person."""

    token_id: str
    client_id: str
    scope: str
    issued: datetime
    expires: datetime
    access: Access
    grant: Grant | None = None


class Tokens:
    """The access tokens, with a short cache: one object a process."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        # A token lost in a failover costs its client one more request, so issuing waits for the primary only, and reading
        # sees what the primary has: a token works from the moment it is handed out. Revoking waits for the majority.
        local = ReadConcern("local")
        self._clients = db.get_collection(CLIENTS, read_preference=ReadPreference.PRIMARY, read_concern=local)
        self._issued = db.get_collection(
            TOKENS, read_preference=ReadPreference.PRIMARY, read_concern=local, write_concern=WriteConcern(1)
        )
        self._revoked = db.get_collection(TOKENS, write_concern=WriteConcern("majority"))
        self._grants = Grants(db)
        self._cache: dict[str, tuple[float, datetime, Access]] = {}

    async def issue(self, client: Client, scope: str, lifetime: int = BACKEND_LIFETIME) -> str:
        """A new token for the client, with the granted scopes (space-separated), good for `lifetime` seconds."""
        bearer = new_bearer()
        await self.store(bearer, client, scope, lifetime)
        return bearer

    async def store(
        self, bearer: str, client: Client, scope: str, lifetime: int, grant: Grant | None = None, purpose: str | None = None
    ) -> None:
        """Make a token good that was drawn by `new_bearer`; with a grant, it acts for the person who gave that."""
        now = datetime.now(UTC)
        document = {
            "_id": token_id(bearer),
            "client_id": client.client_id,
            "registration": client.registration,
            "scope": scope,
            "issued": now,
            "expires": now + timedelta(seconds=lifetime),
        }
        if grant is not None:
            person = {
                "grant": grant.grant_id,
                "user": grant.user,
                "user_name": grant.user_name,
                "role": grant.role,
                "patient": grant.context.get("patient"),
                "encounter": grant.context.get("encounter"),
                "purpose": purpose,
            }
            document |= {name: value for name, value in person.items() if value is not None}
        await self._issued.insert_one(document)

    async def find(self, bearer: str) -> Token | None:
        """The token as it is now, past the cache; None if unknown, expired or revoked, or its client or grant is no more."""
        if len(bearer) > _LONGEST_TOKEN:
            return None
        document = await self._issued.find_one({"_id": token_id(bearer), "expires": {"$gt": datetime.now(UTC)}})
        if document is None:
            return None
        grant = None
        if "grant" in document:
            grant = await self._grants.get(document["grant"])
            if grant is None or await self._grants.alive(grant) is None:
                return None
        else:
            # A token can be stored just after its client was removed; the registration tells.
            client = {"_id": document["client_id"], "registration": document["registration"]}
            if await self._clients.find_one(client, {"_id": 1}) is None:
                return None
        person = {name: document[name] for name in _OF_A_PERSON if name in document}
        return Token(
            document["_id"],
            document["client_id"],
            document["scope"],
            document["issued"].replace(tzinfo=UTC),
            document["expires"].replace(tzinfo=UTC),
            Access(
                document["client_id"], parse_scopes(document["scope"]), document["_id"], grant=document.get("grant"), **person
            ),
            grant,
        )

    async def authenticate(self, bearer: str) -> Access | None:
        """The rights that come with a token; None if it isn't valid. What is known is at most a second old."""
        key = token_id(bearer)
        cached = self._cache.get(key)
        if cached and cached[0] > time.monotonic() and cached[1] > datetime.now(UTC):
            return cached[2]
        fresh_until = time.monotonic() + _CACHE_SECONDS
        token = await self.find(bearer)
        if token is None:
            self._cache.pop(key, None)
            return None
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        self._cache[key] = (fresh_until, token.expires, token.access)
        return token.access

    async def revoke(self, bearer: str) -> bool:
        """End a token: at once in this process, within a second in others. False if there was none."""
        key = token_id(bearer)
        removed = await self._revoked.delete_one({"_id": key})
        self._cache.pop(key, None)
        return removed.deleted_count == 1

    def forget(self, grant_id: str) -> None:
        """A grant was ended: in this process, its tokens are refused at once."""
        for key in [key for key, (_, _, access) in self._cache.items() if access.grant == grant_id]:
            del self._cache[key]


def new_bearer() -> str:
    """256 random bits, as 43 characters of base64url."""
    return secrets.token_urlsafe(32)


def token_id(bearer: str) -> str:
    """By what a token is known here: its SHA-256, in hexadecimal."""
    return hashlib.sha256(bearer.encode()).hexdigest()


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """Create the indexes of tokens and assertion ids: MongoDB removes both when they have expired."""
    await db[TOKENS].create_index("expires", expireAfterSeconds=0)
    await db[TOKENS].create_index("client_id")
    await db[TOKENS].create_index("grant", sparse=True)
    await db[ASSERTION_IDS].create_index("expires", expireAfterSeconds=0)
