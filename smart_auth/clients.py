"""The registered clients: MongoDB collection `oauth_clients`, shared by all processes, so that changes take effect at once.

A document: `_id` (client id), `registration` (random; tokens carry it, so that those of a removed client never work for a
new one of the same name), `scope`, `keys` (public JWKs) or `jwks_uri` or `secret` (SHA-256) or none of them for a public
client, `redirect_uris`, `launch_uri`, `name`, `id_token_alg`, `origins`, `created`.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from smart_auth.granting import registrable
from smart_auth.jwks import JwksError, public_keys
from smart_auth.redirect_uris import UriError, checked_uri, is_registered, origin

CLIENTS = "oauth_clients"
TOKENS = "oauth_tokens"
GRANTS = "oauth_grants"
ID_TOKEN_ALGORITHMS = ("RS256", "ES384")

# How clients prove who they are at the token endpoint (RFC 7591 2, `token_endpoint_auth_method`).
AuthMethod = Literal["none", "client_secret", "private_key_jwt"]

_CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST_URIS = 20
_LONGEST_NAME = 80


class ClientError(ValueError):
    """The client can't be registered; the text is one line for the person who tries."""


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client: `scope` is the space-separated list it may ask for, `keys` its public JWKs, `secret` a SHA-256.

    With redirect URIs it is an app that people use (authorization code); with keys or a JWKS URL it may also come on its own
    account (client credentials), for the system/ scopes it has.
    """

    client_id: str
    registration: str
    scope: str
    keys: tuple[Mapping[str, Any], ...]
    created: datetime
    jwks_uri: str | None = None
    secret: str | None = None
    redirect_uris: tuple[str, ...] = ()
    launch_uri: str | None = None
    name: str = ""
    id_token_alg: str = "RS256"  # noqa: S105 - an algorithm

    @property
    def auth_method(self) -> AuthMethod:
        if self.keys or self.jwks_uri:
            return "private_key_jwt"
        return "client_secret" if self.secret else "none"

    @property
    def grant_types(self) -> frozenset[str]:
        app = frozenset(("authorization_code", "refresh_token") if self.redirect_uris else ())
        return app | (frozenset({"client_credentials"}) if self.auth_method == "private_key_jwt" else frozenset())

    @property
    def title(self) -> str:
        """What people are shown."""
        return self.name or self.client_id

    def may_return_to(self, uri: str) -> bool:
        return is_registered(uri, self.redirect_uris, native=self.auth_method == "none")

    def has_secret(self, secret: str) -> bool:
        """Whether this is its secret, in a time that doesn't tell how much of it is right."""
        return self.secret is not None and hmac.compare_digest(self.secret, _digest(secret))


class Clients:
    """The client registry, inside a transaction if `session` is given."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], session: AsyncClientSession | None = None) -> None:
        self._session = session
        # A removal must be seen by the next request, and survive a failover.
        durable = WriteConcern("majority")
        self._clients = db.get_collection(CLIENTS, read_preference=ReadPreference.PRIMARY, write_concern=durable)
        self._issued = [db.get_collection(name, write_concern=durable) for name in (TOKENS, GRANTS)]

    async def add(
        self,
        client_id: str,
        scope: str,
        *,
        jwks: Mapping[str, Any] | str | bytes | None = None,
        jwks_uri: str | None = None,
        redirect_uris: Sequence[str] = (),
        secret: str | None = None,
        launch_uri: str | None = None,
        name: str = "",
        id_token_alg: str = "RS256",  # noqa: S107 - an algorithm
    ) -> Client:
        """Register a client. Raises ClientError, also if the id is taken.

        `jwks` is a JWK Set (parsed, or the JSON text), `secret` from `new_secret`: only its hash is stored. A client without
        redirect URIs is a backend service and needs keys; one with them, and without keys and secret, is public.
        """
        if not _CLIENT_ID.fullmatch(client_id):
            raise ClientError("a client id is 1 to 128 letters, digits, '.', '_' and '-', and starts with a letter or digit")
        if id_token_alg not in ID_TOKEN_ALGORITHMS:
            raise ClientError(f"id tokens are signed with {' or '.join(ID_TOKEN_ALGORITHMS)}, not {id_token_alg!r}")
        client = Client(
            client_id,
            secrets.token_hex(8),
            "",
            _checked_keys(jwks),
            datetime.now(UTC),
            jwks_uri=_checked_jwks_uri(jwks_uri),
            secret=None if secret is None else _digest(secret),
            redirect_uris=_checked_uris(redirect_uris),
            launch_uri=None if launch_uri is None else _checked_uris([launch_uri], "launch URI")[0],
            name=_checked_name(name),
            id_token_alg=id_token_alg,
        )
        _check_whole(client)
        client = replace(client, scope=_checked_scope(scope, client))
        await self._insert(client)
        return client

    async def _insert(self, client: Client) -> None:
        document = asdict(client)
        document["_id"] = document.pop("client_id")
        document["keys"] = [dict(key) for key in client.keys]
        document["redirect_uris"] = list(client.redirect_uris)
        document["origins"] = sorted({origin(uri) for uri in client.redirect_uris})
        try:
            await self._clients.insert_one(document, session=self._session)
        except DuplicateKeyError as error:
            raise ClientError(f"there is a client {client.client_id!r} already; remove it first to change it") from error

    async def get(self, client_id: str) -> Client | None:
        if not _CLIENT_ID.fullmatch(client_id):
            return None
        document = await self._clients.find_one({"_id": client_id}, session=self._session)
        return None if document is None else _client(document)

    async def remove(self, client_id: str) -> bool:
        """Remove a client, its access tokens and grants; False if there is none of this id. In effect within a second."""
        removed = await self._clients.delete_one({"_id": client_id}, session=self._session)
        for issued in self._issued:
            await issued.delete_many({"client_id": client_id}, session=self._session)
        return removed.deleted_count == 1

    async def origins(self) -> list[str]:
        """The web origins of all clients."""
        return await self._clients.distinct("origins")

    async def list(self) -> "list[Client]":
        """All clients, by id."""
        return [_client(document) async for document in self._clients.find().sort("_id")]


def new_secret() -> str:
    """A client secret: 256 random bits, which is why a plain hash is enough to keep it by."""
    return secrets.token_urlsafe(32)


def _checked_keys(jwks: Mapping[str, Any] | str | bytes | None) -> tuple[Mapping[str, Any], ...]:
    try:
        return () if jwks is None else tuple(public_keys(jwks))
    except JwksError as error:
        raise ClientError(str(error)) from error


def _checked_jwks_uri(uri: str | None) -> str | None:
    if uri is None:
        return None
    if not uri.startswith("https://"):
        raise ClientError(f"the JWKS URL {uri!r} must begin with https://")
    return _checked_uris([uri], "JWKS URL")[0]


def _checked_uris(uris: Sequence[str], what: str = "redirect URI") -> tuple[str, ...]:
    try:
        return tuple(checked_uri(uri, what) for uri in dict.fromkeys(uris))
    except UriError as error:
        raise ClientError(str(error)) from None


def _checked_name(name: str) -> str:
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ClientError(f"a name that people are shown has at most {_LONGEST_NAME} printable characters")
    return name.strip()


def _check_whole(client: Client) -> None:
    """What goes together."""
    proofs = [bool(client.keys), client.jwks_uri is not None, client.secret is not None]
    if sum(proofs) > 1:
        raise ClientError("a client proves itself in one way: by a JWK Set, a JWKS URL or a secret")
    if len(client.redirect_uris) > _MOST_URIS:
        raise ClientError(f"a client has at most {_MOST_URIS} redirect URIs")
    if client.redirect_uris:
        return
    if client.secret is not None or client.launch_uri is not None:
        raise ClientError("a client with a secret or a launch URI is an app that people use, and needs a redirect URI")
    if not client.keys and client.jwks_uri is None:
        raise ClientError("a backend client needs its public keys: a JWK Set or a JWKS URL")


def _checked_scope(scope: str, client: Client) -> str:
    texts = list(dict.fromkeys(scope.split()))
    if not texts:
        raise ClientError("a client needs at least one scope, such as system/*.rs")
    for text in texts:
        if reason := registrable(text, client.grant_types):
            raise ClientError(reason)
    return " ".join(texts)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _client(document: Mapping[str, Any]) -> Client:
    return Client(
        document["_id"],
        document["registration"],
        document["scope"],
        tuple(document.get("keys", ())),
        document["created"],
        jwks_uri=document.get("jwks_uri"),
        secret=document.get("secret"),
        redirect_uris=tuple(document.get("redirect_uris", ())),
        launch_uri=document.get("launch_uri"),
        name=document.get("name", ""),
        id_token_alg=document.get("id_token_alg", "RS256"),
    )
