"""Bridge to Authlib, 1 of 4: a request as Authlib reads it, with everything that was fetched for it before.

Authlib is synchronous, and so is all it does here: it judges what was fetched for it, on the event loop (it would keep the
interpreter's lock in a thread as well). What it decided is then committed, atomically, which settles replays and races.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc6749 import OAuth2Request  # type: ignore[import-untyped]  # Authlib has no types
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload  # type: ignore[import-untyped]
from joserfc.jwk import ECKey, RSAKey

from smart_auth.clients import Client
from smart_auth.codes import Code
from smart_auth.granting import grant
from smart_auth.grants import Grant
from smart_auth.refresh_tokens import RefreshToken
from smart_auth.scopes import Level

AUTH_METHODS = {
    "private_key_jwt": "private_key_jwt",
    "client_secret_basic": "client_secret",
    "client_secret_post": "client_secret",
    "none": "none",
}


class Request(OAuth2Request):  # type: ignore[misc]  # Authlib has no types
    """A form or query that was read already. The URL is the public one: behind a proxy, that of the socket is plain http."""

    def __init__(self, url: str, form: Mapping[str, str], *, method: str = "POST", authorization: str = "") -> None:
        super().__init__(method, url, headers={"Authorization": authorization} if authorization else {})
        self.payload = BasicOAuth2Payload(dict(form))
        self.registered: RegisteredClient | None = None
        self.lately = False  # whether it is as it was up to a second ago
        self.credential: Redeemable | None = None
        self.drawn_code: str | None = None

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data  # type: ignore[no-any-return]  # what __init__ put there

    @property
    def args(self) -> dict[str, str]:
        return {}


@dataclass(slots=True)
class RegisteredClient:
    """A client in one request, as Authlib asks for it (`ClientMixin`).

    `levels` are those of the scopes that this kind of request can give. `keys` are its public ones. `proof` has the claims of
    its assertion when they have been verified; `signer` is the key for its id token.
    """

    client: Client = field(repr=False)
    levels: Collection[Level]
    keys: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    proof: dict[str, Any] = field(default_factory=dict, repr=False)
    signer: RSAKey | ECKey | None = field(default=None, repr=False)

    @property
    def id_token_signed_response_alg(self) -> str:
        return self.client.id_token_alg

    def get_client_id(self) -> str:
        return self.client.client_id

    def get_default_redirect_uri(self) -> None:
        """None: SMART asks every client to say where it wants the answer."""

    def get_allowed_scope(self, scope: str | None) -> str | None:
        return " ".join(grant(scope or "", self.client.scope, self.levels)) or None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return self.client.may_return_to(redirect_uri)

    def check_client_secret(self, client_secret: str) -> bool:
        return self.client.has_secret(client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 - Authlib's signature
        return AUTH_METHODS.get(method) == self.client.auth_method

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and bool(self.client.redirect_uris)

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.client.grant_types


@dataclass(frozen=True, slots=True)
class Redeemable:
    """A code or a refresh token in one request, with its grant (None: it is over or dead), as Authlib asks for it."""

    grant: Grant | None
    code: Code | None = None
    refresh_token: RefreshToken | None = None

    def of(self, client: RegisteredClient) -> bool:
        """Whether it was issued to this client, and can still be used."""
        if self.grant is None or self.grant.client_id != client.client.client_id:
            return False
        if self.code is not None:
            return not self.code.used and not self.code.expired
        return self.refresh_token is not None and not self.refresh_token.spent

    def check_client(self, client: RegisteredClient) -> bool:
        return self.of(client)

    @property
    def code_challenge(self) -> str | None:
        return self.code.challenge if self.code else None

    @property
    def code_challenge_method(self) -> str:
        return "S256"

    def get_redirect_uri(self) -> str | None:
        return self.code.redirect_uri if self.code else None

    def get_scope(self) -> str:
        return self._known.scope

    def get_nonce(self) -> str | None:
        """Of the authorization request; that was answered with the code."""
        return self._known.nonce if self.code is not None else None

    def get_auth_time(self) -> int:
        return int(self._known.auth_time.timestamp())

    def get_amr(self) -> list[str]:
        return list(self._known.amr)

    def get_acr(self) -> None:
        """None: there are no levels, only methods (`amr`)."""

    @property
    def _known(self) -> Grant:
        assert self.grant is not None
        return self.grant
