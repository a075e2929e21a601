"""The registered clients: MongoDB collection `oauth_clients`, shared by all processes, so that changes take effect at once.

A document: `_id` (client id), `registration` (random; tokens carry it, so that those of a removed client never work for a
new one of the same name), `scope`, `keys` (public JWKs), `created`.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from smart_auth.jwks import JwksError, public_keys
from smart_auth.scopes import grantable, parse_scope

CLIENTS = "oauth_clients"
TOKENS = "oauth_tokens"

_CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ClientError(ValueError):
    """The client can't be registered; the text is one line for the person who tries."""


@dataclass(frozen=True, slots=True)
class Client:
    """A backend client: `scope` is the space-separated list it is registered with, `keys` its public JWKs."""

    client_id: str
    registration: str
    scope: str
    keys: tuple[Mapping[str, Any], ...]
    created: datetime


class Clients:
    """The client registry."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        # A removal must be seen by the next request, and survive a failover.
        durable = WriteConcern("majority")
        self._clients = db.get_collection(CLIENTS, read_preference=ReadPreference.PRIMARY, write_concern=durable)
        self._tokens = db.get_collection(TOKENS, write_concern=durable)

    async def add(
        self,
        client_id: str,
        scope: str,
        *,
        jwks: Mapping[str, Any] | str | bytes | None = None,
        redirect_uris: Sequence[str] = (),
        secret: str | None = None,
        launch_uri: str | None = None,
    ) -> Client:
        """Register a backend client by its JWK Set (parsed, or the JSON text). Raises ClientError, also if the id is taken."""
        if not _CLIENT_ID.fullmatch(client_id):
            raise ClientError("a client id is 1 to 128 letters, digits, '.', '_' and '-', and starts with a letter or digit")
        if redirect_uris or secret is not None or launch_uri is not None:
            raise ClientError(
                "redirect URIs, secrets and launch URIs make authorization-code clients, which aren't supported yet"
            )
        if jwks is None:
            raise ClientError("a backend client needs its public keys: a JWK Set")
        try:
            keys = public_keys(jwks)
        except JwksError as error:
            raise ClientError(str(error)) from error
        client = Client(client_id, secrets.token_hex(8), _checked_scope(scope), tuple(keys), datetime.now(UTC))
        try:
            await self._clients.insert_one(
                {
                    "_id": client.client_id,
                    "registration": client.registration,
                    "scope": client.scope,
                    "keys": keys,
                    "created": client.created,
                }
            )
        except DuplicateKeyError as error:
            raise ClientError(f"there is a client {client_id!r} already; remove it first to change it") from error
        return client

    async def get(self, client_id: str) -> Client | None:
        if not _CLIENT_ID.fullmatch(client_id):
            return None
        document = await self._clients.find_one({"_id": client_id})
        return None if document is None else _client(document)

    async def remove(self, client_id: str) -> bool:
        """Remove a client and its access tokens; False if there is none of this id. In effect everywhere within a second."""
        removed = await self._clients.delete_one({"_id": client_id})
        await self._tokens.delete_many({"client_id": client_id})
        return removed.deleted_count == 1

    async def list(self) -> "list[Client]":
        """All clients, by id."""
        return [_client(document) async for document in self._clients.find().sort("_id")]


def _checked_scope(scope: str) -> str:
    texts = list(dict.fromkeys(scope.split()))
    if not texts:
        raise ClientError("a client needs at least one scope, such as system/*.rs")
    for text in texts:
        parsed = parse_scope(text)
        if parsed is None:
            raise ClientError(f"{text!r} is not a SMART scope such as system/Patient.rs")
        if not grantable(parsed):
            raise ClientError(f"{text!r} can't be granted yet: backend clients have system/ scopes without a query")
    return " ".join(texts)


def _client(document: Mapping[str, Any]) -> Client:
    return Client(document["_id"], document["registration"], document["scope"], tuple(document["keys"]), document["created"])
