"""Grants: what a person granted to an app, at one time: MongoDB collection `oauth_grants`. What is issued from it is its family.

A document: `_id` (random), `client_id` and `registration` (of the client), `user_name`, `user` (FHIR reference), `role`,
`user_registration` and `stamp` (the user's, see users.py), `scope`, `context` (what the token response says of the launch),
`auth_time`, `amr`, `nonce`, `life` ("", "online" or "offline"), `session` (online: of which login), `created`, `expires`.

A grant is judged anew wherever something of its family is used: it is dead when its client was removed, its user disabled,
removed or another than before, or the login that an online one hangs on over. To revoke is to remove: nothing of the family
works without it.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from smart_auth import sessions
from smart_auth.clients import CLIENTS, GRANTS, TOKENS, Client
from smart_auth.sessions import SESSIONS
from smart_auth.users import USERS, User

REFRESH_TOKENS = "oauth_refresh_tokens"
ACCESS_LIFETIME = 3600  # seconds; SMART App Launch 2.2 asks for an hour at most
# How long a refresh token is good when it isn't used; each use gives a new one.
REFRESH_LIFETIMES = {"offline": timedelta(days=180), "online": timedelta(hours=12)}
_UNTIL_REDEEMED = timedelta(minutes=10)

Life = Literal["", "online", "offline"]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a person granted. `context` holds parameters of the token response (launch_context.py)."""

    grant_id: str
    client_id: str
    registration: str
    user_name: str
    user: str
    role: str
    user_registration: str
    stamp: str
    scope: str
    auth_time: datetime
    amr: tuple[str, ...]
    context: Mapping[str, Any] = field(default_factory=dict)
    nonce: str | None = None
    life: Life = ""
    session: str | None = None

    @property
    def token_context(self) -> dict[str, str | None]:
        """What an access token says of the person and the launch (`tokens.CONTEXT`)."""
        launched = {name: self.context.get(name) for name in ("patient", "encounter")}
        return {"user": self.user, "user_name": self.user_name, "role": self.role, "grant": self.grant_id, **launched}

    @property
    def scopes(self) -> list[str]:
        return self.scope.split(" ")


class Grants:
    """The grants of all processes."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        durable = WriteConcern("majority")
        # What was just written is seen, what was removed is not (see tokens.py).
        primary, local = ReadPreference.PRIMARY, ReadConcern("local")
        self._grants = db.get_collection(GRANTS, read_preference=primary, read_concern=local, write_concern=durable)
        self._families = [db.get_collection(name, write_concern=durable) for name in (TOKENS, REFRESH_TOKENS)]

    async def start(self, grant: Grant) -> None:
        """Keep a grant until its code is redeemed."""
        now = datetime.now(UTC)
        await self._grants.insert_one({**_document(grant), "created": now, "expires": now + _UNTIL_REDEEMED})

    async def redeemed(self, grant: Grant) -> None:
        """Keep it as long as what was issued from it now can be used."""
        seconds = timedelta(seconds=ACCESS_LIFETIME)
        until = datetime.now(UTC) + max(seconds, REFRESH_LIFETIMES.get(grant.life, seconds))
        await self._grants.update_one({"_id": grant.grant_id}, {"$max": {"expires": until}})

    async def get(self, grant_id: str) -> Grant | None:
        """The grant, alive or not; None if it is over."""
        document = await self._grants.find_one({"_id": grant_id, "expires": {"$gt": datetime.now(UTC)}})
        return None if document is None else _grant(document)

    async def judged(self, grant_id: str) -> tuple[Grant, bool] | None:
        """The grant, and whether it is alive; None if it is over."""
        now = datetime.now(UTC)
        found = await self._grants.aggregate([{"$match": {"_id": grant_id}}, *judging(now)])
        return next(((grant, alive) for grant, alive in map(judgement, await found.to_list())), None)

    async def of_user(self, user: User) -> list[Grant]:
        """What a user has granted and is alive, the newest first."""
        mine = {"user_name": user.name, "user_registration": user.registration, "stamp": user.security_stamp}
        return await self._alive(mine)

    async def of_client(self, client: Client) -> list[Grant]:
        """What was granted to an app and is alive, the newest first."""
        return await self._alive({"client_id": client.client_id, "registration": client.registration})

    async def _alive(self, which: Mapping[str, Any]) -> list[Grant]:
        found = await self._grants.aggregate([{"$match": which}, {"$sort": {"created": -1}}, *judging(datetime.now(UTC))])
        return [grant for grant, alive in map(judgement, await found.to_list()) if alive]

    async def end(self, grant_id: str) -> None:
        """Revoke a grant with everything that was issued from it."""
        await self._grants.delete_one({"_id": grant_id})
        for family in self._families:
            await family.delete_many({"grant": grant_id})


def judging(now: datetime) -> list[dict[str, Any]]:
    """The stages that look up what the life of grants depends on: client, user and login. `judgement` reads what they give."""

    def look(name: str, collection: str, by: str, *stages: dict[str, Any]) -> dict[str, Any]:
        return {"$lookup": {"from": collection, "localField": by, "foreignField": "_id", "pipeline": stages, "as": name}}

    as_now = {"disabled": 1, "registration": 1, "security_stamp": 1}
    return [
        {"$match": {"expires": {"$gt": now}}},
        look("of_client", CLIENTS, "client_id", {"$project": {"registration": 1}}),
        look("of_user", USERS, "user_name", {"$project": as_now}),
        look("of_session", SESSIONS, "session", {"$match": {"expires": {"$gt": now}}}, {"$project": sessions.OWNER}),
    ]


def judgement(document: Mapping[str, Any]) -> tuple[Grant, bool]:
    """A grant, and whether it is alive, by what `judging` has put beside it."""
    grant = _grant(document)
    clients, users = document["of_client"], document["of_user"]
    alive = (
        [client["registration"] for client in clients] == [grant.registration]
        and [(u["registration"], u["security_stamp"]) for u in users] == [(grant.user_registration, grant.stamp)]
        and not users[0]["disabled"]
        and (grant.session is None or any(sessions.belongs(login, users[0]) for login in document["of_session"]))
    )
    return grant, alive


def new_grant_id() -> str:
    return secrets.token_hex(16)


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """Create the indexes of grants: MongoDB removes what is over."""
    await db[GRANTS].create_index("expires", expireAfterSeconds=0)
    await db[GRANTS].create_index("client_id")
    await db[GRANTS].create_index("user_name")


_FIELDS = (
    "client_id",
    "registration",
    "user_name",
    "user",
    "role",
    "user_registration",
    "stamp",
    "scope",
    "nonce",
    "life",
    "session",
)


def _document(grant: Grant) -> dict[str, Any]:
    document = {name: getattr(grant, name) for name in _FIELDS}
    context = {"auth_time": grant.auth_time, "amr": list(grant.amr), "context": dict(grant.context)}
    return {"_id": grant.grant_id, **document, **context}


def _grant(document: Mapping[str, Any]) -> Grant:
    return Grant(
        document["_id"],
        auth_time=document["auth_time"].replace(tzinfo=UTC),
        amr=tuple(document["amr"]),
        context=document["context"],
        **{name: document[name] for name in _FIELDS},
    )
