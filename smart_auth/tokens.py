"""Access tokens: opaque, 256 random bits, of which MongoDB (collection `oauth_tokens`) has the SHA-256 only.

A document: `_id` (hash), `client_id`, `registration` (of the client, see clients.py), `scope`, `issued`, `expires`; of a person's
also `user` (FHIR reference), `user_name`, `role`, `patient`, `encounter`, `grant`, `purpose`, as in `Access`.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from fhir_server import clock
from smart_auth import circumstances
from smart_auth.access import Access
from smart_auth.assertion_ids import ASSERTION_IDS
from smart_auth.clients import CLIENTS, GRANTS, TOKENS, Client
from smart_auth.grants import Grant, judgement, judging
from smart_auth.scopes import parse_scopes

BACKEND_LIFETIME = 300  # seconds; SMART App Launch 2.2, Backend Services: `expires_in` should not exceed it
_CACHE_SECONDS = 0.9  # with the time of one look-up, revocation and removal take effect within a second
_CACHE_SIZE = 10_000
_LONGEST_TOKEN = 512

_Look = Callable[[datetime], list[dict[str, Any]]]  # the stages of a pipeline that look something up


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
        self._issued = db.get_collection(
            TOKENS, read_preference=ReadPreference.PRIMARY, read_concern=local, write_concern=WriteConcern(1)
        )
        self._db = db
        self._revoked = db.get_collection(TOKENS, write_concern=WriteConcern("majority"))
        # By token id: until when (of the monotonic clock) it needs no look, when the token expires, and its rights.
        self._cache: dict[str, tuple[float, datetime, Access]] = {}

    async def issue(self, client: Client, scope: str, lifetime: int = BACKEND_LIFETIME, **context: str | None) -> str:
        """A new token for the client, with the granted scopes (space-separated), good for `lifetime` seconds."""
        bearer = new_bearer()
        await self.store(bearer, client, scope, lifetime, **context)
        return bearer

    async def store(self, bearer: str, client: Client, scope: str, lifetime: int, **context: str | None) -> None:
        """Make a token good that was drawn by `new_bearer`; `context` is what of CONTEXT it carries."""
        now = datetime.now(UTC)
        document = {
            "_id": token_id(bearer),
            "client_id": client.client_id,
            "registration": client.registration,
            "scope": scope,
            "issued": now,
            "expires": now + timedelta(seconds=lifetime),
            **{name: context[name] for name in CONTEXT if context.get(name) is not None},
        }
        await self._issued.insert_one(document)
        token = _token(document)
        self._remember(0.0, token, _access(token))  # it will be looked up, but only for what there is to know of its kind

    async def find(self, bearer: str) -> Token | None:
        """The token as it is now, past the cache; None if unknown, expired, revoked, or its client is gone."""
        found = await self._look(bearer, datetime.now(UTC), _client, _grant)
        return None if found is None else _judged(found)

    async def _look(self, bearer: str, now: datetime, *looks: _Look) -> dict[str, Any] | None:
        """What is kept of a token, with what its life depends on beside it: one command, by indexed keys."""
        if len(bearer) > _LONGEST_TOKEN:
            return None
        live = {"$match": {"_id": token_id(bearer), "expires": {"$gt": now}}}
        found = await self._issued.aggregate([live, *(stage for look in looks for stage in look(now))])
        return next(iter(await found.to_list()), None)

    async def access(self, token: Token) -> Access:
        """The rights that come with a token, as they are now."""
        return await _access(token).settled(self._db)

    async def _authenticated(self, bearer: str, before: Access | None) -> tuple[Token, Access] | None:
        """A token and the rights that come with it, as they are now, in one command. `before`: what it was when last seen here.

        What kind of token it is doesn't change, so that what is known needn't be looked for in all ways.
        """
        now = clock.now()
        with circumstances.refused_if_too_large():
            found = await self._look(bearer, now, *_looks(before))
        if found is None or (token := _judged(found)) is None:
            return None
        access = _access(token)
        about = found.get("about", [found] if access.personal else [])
        return token, next((access.under(circumstances.read(one, now)) for one in about), access)

    async def authenticate(self, bearer: str) -> Access | None:
        """The rights that come with a token; None if it isn't valid. What is known is at most a second old."""
        key = token_id(bearer)
        cached = self._cache.get(key)
        if cached and cached[0] > time.monotonic() and cached[1] > datetime.now(UTC):
            return cached[2]
        fresh_until = time.monotonic() + _CACHE_SECONDS
        found = await self._authenticated(bearer, cached[2] if cached else None)
        if found is None:
            self._cache.pop(key, None)
            return None
        token, access = found
        self._remember(fresh_until, token, access)
        return access

    def _remember(self, fresh_until: float, token: Token, access: Access) -> None:
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        self._cache[token.token_id] = (fresh_until, token.expires, access)

    async def revoke(self, bearer: str) -> bool:
        """End a token: at once in this process, within a second in others. False if there was none."""
        key = token_id(bearer)
        removed = await self._revoked.delete_one({"_id": key})
        self._cache.pop(key, None)
        return removed.deleted_count == 1

    def forget(self, token_id: str) -> None:
        """Have a token looked up anew by this process: what its rights depend on has changed."""
        if known := self._cache.get(token_id):
            self._cache[token_id] = (0.0, *known[1:])

    def forget_grant(self, grant_id: str) -> None:
        """A grant was ended: in this process, its tokens are refused at once."""
        for key in [key for key, (_, _, access) in self._cache.items() if access.grant == grant_id]:
            del self._cache[key]


def _by(field: str) -> dict[str, str]:
    return {"localField": field, "foreignField": "_id"}


def _client(_now: datetime) -> list[dict[str, Any]]:
    return [
        {"$lookup": {"from": CLIENTS, **_by("client_id"), "pipeline": [{"$project": {"registration": 1}}], "as": "of_client"}}
    ]


def _grant(now: datetime) -> list[dict[str, Any]]:
    return [{"$lookup": {"from": GRANTS, **_by("grant"), "pipeline": judging(now), "as": "of_grant"}}]


def _session(_now: datetime) -> list[dict[str, Any]]:
    return [{"$set": {"session": {"$ifNull": ["$grant", "$_id"]}}}]


def _any_circumstances(now: datetime) -> list[dict[str, Any]]:
    """What a person's or a patient's rights depend on beside the token, as `about`; others have none."""
    someone = [{"$gt": [f"${name}", ""]} for name in ("user", "user_name", "role")]
    personal = {"$or": [*someone, {"$regexMatch": {"input": "$scope", "regex": "(^| )(patient|user)/"}}]}
    inner = [*_session(now), *circumstances.stages(now)]
    return [
        {"$set": {"personal": {"$cond": [personal, "$_id", ""]}}},
        {"$lookup": {"from": TOKENS, **_by("personal"), "pipeline": inner, "as": "about"}},
    ]


def _looks(known: Access | None) -> list[_Look]:
    """What is to be looked up beside a token, of which this is known already."""
    if known is None:
        return [_client, _grant, _any_circumstances]
    life = _client if known.grant is None else _grant
    return [life, _session, partial(circumstances.stages, among=[known.role])] if known.personal else [life]


def _judged(document: Mapping[str, Any]) -> Token | None:
    """A token, by what `Tokens._look` found; None if what it depends on is gone."""
    grant = None
    if "grant" in document:
        grant, alive = next(map(judgement, document["of_grant"]), (None, False))
        if not alive:
            return None
    # A token can be stored just after its client was removed; the registration tells.
    elif [client["registration"] for client in document["of_client"]] != [document["registration"]]:
        return None
    return _token(document, grant)


def _token(document: Mapping[str, Any], grant: Grant | None = None) -> Token:
    return Token(
        document["_id"],
        document["client_id"],
        document["scope"],
        document["issued"].replace(tzinfo=UTC),
        document["expires"].replace(tzinfo=UTC),
        {name: document.get(name) for name in CONTEXT},
        grant,
    )


def _access(token: Token) -> Access:
    """The rights of a token, of a person's or a patient's without the circumstances."""
    context: dict[str, Any] = dict(token.context)
    context["authenticated_at"] = token.grant.auth_time if token.grant else None
    context["methods"] = token.grant.amr if token.grant else ()
    return Access(token.client_id, parse_scopes(token.scope), token.token_id, **context)


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
