"""The one module that knows Authlib: its client-credentials grant, and its private_key_jwt with what SMART asks beyond it.

Authlib is synchronous, and so is all it does here: it judges what was fetched for it before, on the event loop (it would keep
the interpreter's lock in a thread as well). What it decided is then committed: the assertion id first, which settles replays.
What it knows of JWTs, scopes and lifetimes is not what SMART has; each correction says so where it is made.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from authlib.common.security import is_secure_transport  # type: ignore[import-untyped]  # Authlib has no types
from authlib.oauth2.rfc6749 import AuthorizationServer, InvalidClientError, OAuth2Error, OAuth2Request  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload  # type: ignore[import-untyped]
from authlib.oauth2.rfc6750 import BearerTokenGenerator  # type: ignore[import-untyped]
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.assertion_ids import AssertionIds
from smart_auth.clients import Client, Clients
from smart_auth.endpoints import Endpoints
from smart_auth.forms import OAuthError
from smart_auth.jwks import ALGORITHMS, find_key
from smart_auth.scopes import grant
from smart_auth.tokens import BACKEND_LIFETIME, Tokens, new_bearer

CLIENT_AUTH_METHOD = "private_key_jwt"
GRANT_TYPE = "client_credentials"
LONGEST_ASSERTION = 300  # seconds from now to `exp` (SMART App Launch 2.2, "Authentication JWT claims")
LEEWAY = 10  # seconds that the clocks of client and server may be apart
_LONGEST_JTI = 256
# One text for both, so that it doesn't tell which client ids exist.
_UNKNOWN = "no registered client has this client id, kid and key type"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an OAuth endpoint answers to a client that has proven to be `client_id`; refusals are raised, as OAuthError."""

    client_id: str
    body: dict[str, Any]


class Bridge:
    """The token endpoint, and client authentication for the others."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], tokens: Tokens, endpoints: Endpoints) -> None:
        if not is_secure_transport(endpoints.token):
            raise ValueError(f"access tokens need https: the base URL {endpoints.issuer} is neither https nor loopback")
        self._clients = Clients(db)
        self._tokens = tokens
        self._ids = AssertionIds(db)
        self._assertion = _ClientAssertion((endpoints.token, endpoints.issuer))
        self._server = _Server(self._assertion)
        self._url = endpoints.token

    async def token(self, form: dict[str, str]) -> Answer:
        """The answer to a token request (RFC 6749 4.4, 5); raises OAuthError."""
        if "grant_type" not in form:
            raise OAuthError("invalid_request", "grant_type is missing")
        if form["grant_type"] != GRANT_TYPE:
            raise OAuthError("unsupported_grant_type", f"the grant type must be {GRANT_TYPE}")
        request = await self._request(form)
        status, body = self._server.create_token_response(request)
        if request.auth_method is None:  # `request.client` is set before it is verified, this only after
            raise OAuthError(body["error"], body["error_description"], status, claimed=_claimed(request))
        client = await self._proven(request)
        if "error" in body:
            raise OAuthError(body["error"], body["error_description"], status, client_id=client.client_id)
        await self._tokens.store(body["access_token"], client, body["scope"], body["expires_in"])
        return Answer(client.client_id, body)

    async def authenticate_client(self, form: dict[str, str]) -> Client:
        """The client that proves itself by `client_assertion`; raises OAuthError `invalid_client`."""
        request = await self._request(form)
        try:
            self._server.authenticate_client(request, [CLIENT_AUTH_METHOD])
        except OAuth2Error as error:
            raise OAuthError(error.error, error.description, error.status_code, claimed=_claimed(request)) from None
        return await self._proven(request)

    async def _request(self, form: dict[str, str]) -> "_Request":
        """The request for Authlib, with the client that the assertion names fetched for it."""
        request = _Request(self._url, form)
        with contextlib.suppress(OAuth2Error):  # Authlib is to refuse it in its turn
            _, claims = self._assertion.extract_assertion(form.get("client_assertion", ""))
            if isinstance(claims.get("sub"), str) and (client := await self._clients.get(claims["sub"])):
                request.registered = _RegisteredClient(client)
        return request

    async def _proven(self, request: "_Request") -> Client:
        """The client of a verified assertion, which counts once, whatever else is wrong with the request."""
        registered: _RegisteredClient = request.client
        claims = registered.proof
        if not await self._ids.first_use(claims["iss"], claims["jti"], claims["exp"] + LEEWAY):
            raise OAuthError("invalid_client", "the client_assertion was used before", claimed=claims["iss"])
        return registered.client


class _Request(OAuth2Request):  # type: ignore[misc]  # Authlib has no types
    """A form that was read already. The URL is the public one: behind a proxy, that of the socket is plain http."""

    def __init__(self, url: str, form: dict[str, str]) -> None:
        super().__init__("POST", url)
        self.payload = BasicOAuth2Payload(form)
        self.registered: _RegisteredClient | None = None

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data  # type: ignore[no-any-return]  # what __init__ put there

    @property
    def args(self) -> dict[str, str]:
        return {}


@dataclass(slots=True)
class _RegisteredClient:
    """A client in one request, as Authlib asks for it (`ClientMixin`), as far as this grant does.

    `proof` has the claims of its assertion when they have been verified.
    """

    client: Client
    proof: dict[str, Any] = field(default_factory=dict)

    def get_client_id(self) -> str:
        return self.client.client_id

    def get_allowed_scope(self, scope: str | None) -> str | None:
        return " ".join(s.text for s in grant(scope or "", self.client.scope)) or None

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 - Authlib's signature
        return method == CLIENT_AUTH_METHOD

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == GRANT_TYPE


class _ClientAssertion(JWTBearerClientAssertion):  # type: ignore[misc]  # Authlib has no types
    """private_key_jwt (RFC 7523 3) by the rules of SMART App Launch 2.2, "Client authentication: asymmetric"."""

    CLIENT_AUTH_METHOD = CLIENT_AUTH_METHOD

    def __init__(self, audiences: tuple[str, ...]) -> None:
        super().__init__(leeway=LEEWAY)
        self._audiences = audiences

    def __call__(self, _query_client: Callable[[str], Any], request: _Request) -> _RegisteredClient | None:
        if "client_secret" in request.form:
            _refuse("more than one way of client authentication is used")

        def fetched(_client_id: str) -> _RegisteredClient:
            return request.registered or _refuse(_UNKNOWN)

        client: _RegisteredClient | None = super().__call__(fetched, request)
        if client and request.form.get("client_id", client.client.client_id) != client.client.client_id:
            _refuse("client_id is not the subject of the client_assertion")
        return client

    def extract_assertion(self, assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and claims, not verified yet; the header is judged here, before anything is looked up for it."""
        try:
            header, claims = super().extract_assertion(assertion)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            _refuse("the client_assertion is not a JWT")  # malformed in ways that Authlib lets through
        if not isinstance(header, dict) or header.get("typ") != "JWT":
            _refuse("typ of the client_assertion must be JWT")
        if header.get("alg") not in ALGORITHMS.values():
            _refuse(f"alg of the client_assertion must be {' or '.join(ALGORITHMS.values())}")
        if not isinstance(header.get("kid"), str):
            _refuse("the client_assertion has no kid")
        if "jku" in header:
            _refuse("jku is not the registered JWKS URL: this client is registered by its keys")
        if "crit" in header:
            _refuse("the client_assertion has critical header parameters, and none is supported")
        return header, claims

    def resolve_client_public_key(self, client: _RegisteredClient) -> _RegisteredClient:
        """The client as a whole, for the next method to choose among its keys."""
        return client

    def process_assertion_claims(self, assertion: str, resolve_key: _RegisteredClient) -> dict[str, Any]:
        """Authlib names no algorithms, which leaves joserfc's defaults: without RS384 and ES384, and the first of equal kids."""

        def choose(signature: Any) -> RSAKey | ECKey:
            header = signature.headers()
            return find_key(resolve_key.client.keys, header["kid"], header["alg"]) or _refuse(_UNKNOWN)

        try:
            claims = jwt.decode(assertion, choose, algorithms=list(ALGORITHMS.values())).claims
        except (JoseError, ValueError):
            _refuse("the signature of the client_assertion is not that of the registered key")
        self.verify_claims(claims)
        resolve_key.proof = claims
        return claims

    def verify_claims(self, claims: dict[str, Any]) -> None:
        """What Authlib leaves open, then its own checks: iss, sub, aud, exp, nbf, iat."""
        audience = claims.get("aud")
        if not audience or any(a not in self._audiences for a in (audience if isinstance(audience, list) else [audience])):
            _refuse("aud of the client_assertion must be the URL of the token endpoint")
        expires = claims.get("exp")
        if not isinstance(expires, int | float) or not expires <= time.time() + LONGEST_ASSERTION + LEEWAY:
            _refuse(f"exp of the client_assertion must be a time at most {LONGEST_ASSERTION} s ahead")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_JTI or not jti.isprintable():
            _refuse(f"the client_assertion needs a jti of 1 to {_LONGEST_JTI} printable characters")
        super().verify_claims(claims)

    def get_audiences(self) -> list[str]:
        return list(self._audiences)

    def validate_jti(self, claims: dict[str, Any], jti: str) -> bool:  # noqa: ARG002 - Authlib's signature
        """Whether it was used before is settled by the store, atomically, when all else is well: `Bridge._proven`."""
        return True


class _ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = (CLIENT_AUTH_METHOD,)

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """Authlib's own writes the access token to the log, at level debug."""
        token = self.generate_token(scope=self.request.payload.scope, include_refresh_token=False)
        return 200, token, self.TOKEN_RESPONSE_HEADER


class _Server(AuthorizationServer):  # type: ignore[misc]  # Authlib has no types
    def __init__(self, assertion: _ClientAssertion) -> None:
        super().__init__()
        self.register_client_auth_method(CLIENT_AUTH_METHOD, assertion)
        self.register_grant(_ClientCredentials)
        # Authlib's own lifetime for this grant is ten days.
        self.register_token_generator("default", BearerTokenGenerator(_bearer, expires_generator=BACKEND_LIFETIME))

    def create_oauth2_request(self, request: _Request) -> _Request:
        return request

    def handle_response(self, status: int, body: dict[str, Any], headers: list[tuple[str, str]]) -> tuple[int, dict[str, Any]]:  # noqa: ARG002 - ours are set at the edge
        return status, body

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Authlib's events: nobody listens."""


def _bearer(**_: Any) -> str:
    return new_bearer()


def _claimed(request: _Request) -> str | None:
    return request.registered.client.client_id if request.registered else None


def _refuse(description: str) -> NoReturn:
    raise InvalidClientError(description=description)
