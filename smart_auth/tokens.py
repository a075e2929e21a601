"""Access tokens: opaque, 256 random bits, of which MongoDB (collection `oauth_tokens`) has the SHA-256 only.

A document: `_id` (hash), `client_id`, `registration` (of the client, see clients.py), `scope`, `issued`, `expires`; of a person's
also `user` (FHIR reference), `user_name`, `role`, `patient`, `encounter`, `grant`, `purpose`, as in `Access`.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a valid token. `token_id` is its SHA-256 in hexadecimal; `grant` what a person's was issued from."""

    token_id: str
    client_id: str
    scope: str
    issued: datetime
    expires: datetime
    context: Mapping[str, str | None] = field(default_factory=dict)
    grant: Grant | None = None


CONTEXT = ("user", "user_name", "role", "patient", "encounter", "grant", "purpose")
"""What a token may carry of a person and a launch, by the names that `Access` has for it."""


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
        self._db = db
        self._grants = Grants(db)
        self._revoked = db.get_collection(TOKENS, write_concern=WriteConcern("majority"))
        self._cache: dict[str, tuple[float, datetime, Access]] = {}

    async def issue(self, client: Client, scope: str, lifetime: int = BACKEND_LIFETIME, **context: str | None) -> str:
        """A new token for the client, with the granted scopes (space-separated), good for `lifetime` seconds."""
        bearer = new_bearer()
        await self.store(bearer, client, scope, lifetime, **context)
        return bearer

    async def store(self, bearer: str, client: Client, scope: str, lifetime: int, **context: str | None) -> None:
        """Make a token good that was drawn by `new_bearer`; `context` is what of CONTEXT it carries."""
        now = datetime.now(UTC)
        await self._issued.insert_one(
            {
                "_id": token_id(bearer),
                "client_id": client.client_id,
                "registration": client.registration,
                "scope": scope,
                "issued": now,
                "expires": now + timedelta(seconds=lifetime),
                **{name: context[name] for name in CONTEXT if context.get(name) is not None},
            }
        )

    async def find(self, bearer: str) -> Token | None:
        """The token as it is now, past the cache; None if unknown, expired, revoked, or its client is gone."""
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
        return Token(
            document["_id"],
            document["client_id"],
            document["scope"],
            document["issued"].replace(tzinfo=UTC),
            document["expires"].replace(tzinfo=UTC),
            {name: document.get(name) for name in CONTEXT},
            grant,
        )

    async def access(self, token: Token) -> Access:
        """The rights that come with a token, as they are now."""
        context: dict[str, Any] = dict(token.context)
        return await Access(token.client_id, parse_scopes(token.scope), token.token_id, **context).settled(self._db)

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
        access = await self.access(token)
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        self._cache[key] = (fresh_until, token.expires, access)
        return access

    async def revoke(self, bearer: str) -> bool:
        """End a token: at once in this process, within a second in others. False if there was none."""
        key = token_id(bearer)
        removed = await self._revoked.delete_one({"_id": key})
        self._cache.pop(key, None)
        return removed.deleted_count == 1

    def forget(self, token_id: str) -> None:
        """Have a token looked up anew by this process: what its rights depend on has changed."""
        self._cache.pop(token_id, None)

    def forget_grant(self, grant_id: str) -> None:
        """A grant was ended: in this process, its tokens are refused at once."""
        for key in [key for key, (_, _, access) in self._cache.items() if access.grant == grant_id]:
            del self._cache[key]


def new_bearer() -> str:
    """256 random bits, as 43 characters of base64url."""
    return secrets.token_urlsafe(32)


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """Create the indexes of tokens and assertion ids: MongoDB removes both when they have expired."""
    await db[TOKENS].create_index("expires", expireAfterSeconds=0)
    await db[TOKENS].create_index("client_id")
    await db[TOKENS].create_index("grant", sparse=True)
    await db[ASSERTION_IDS].create_index("expires", expireAfterSeconds=0)


def token_id(bearer: str) -> str:
    """By what a token is known here: its SHA-256, in hexadecimal."""
    return hashlib.sha256(bearer.encode()).hexdigest()
