"""Bridge to Authlib, 3 of 4: its grants, with the corrections that SMART and RFC 9700 ask for."""

import re
from collections.abc import Callable
from typing import Any

from authlib.oauth2.rfc6749 import (  # type: ignore[import-untyped]  # Authlib has no types
    AuthorizationServer,
    InvalidRequestError,
    InvalidScopeError,
)
from authlib.oauth2.rfc6749.grants import (  # type: ignore[import-untyped]
    AuthorizationCodeGrant,
    ClientCredentialsGrant,
    RefreshTokenGrant,
)
from authlib.oauth2.rfc6749.hooks import hooked  # type: ignore[import-untyped]
from authlib.oauth2.rfc6750 import BearerTokenGenerator  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import CodeChallenge  # type: ignore[import-untyped]
from authlib.oidc.core import OpenIDCode  # type: ignore[import-untyped]
from joserfc.jwk import ECKey, RSAKey

from smart_auth.authlib_clients import (
    BASIC,
    CONFIDENTIAL,
    NONE,
    POST,
    PRIVATE_KEY_JWT,
    ClientAssertion,
    authenticate_basic,
    authenticate_none,
    authenticate_post,
    refuse,
    way_of,
)
from smart_auth.authlib_request import Redeemable, RegisteredClient, Request
from smart_auth.codes import new_code
from smart_auth.endpoints import Endpoints
from smart_auth.granting import FHIR_USER, PROFILE, subset
from smart_auth.grants import ACCESS_LIFETIME
from smart_auth.signing_keys import ID_TOKEN_LIFETIME
from smart_auth.tokens import BACKEND_LIFETIME, new_bearer

CLIENT_CREDENTIALS, AUTHORIZATION_CODE, REFRESH_TOKEN = "client_credentials", "authorization_code", "refresh_token"
GRANT_TYPES = (AUTHORIZATION_CODE, CLIENT_CREDENTIALS, REFRESH_TOKEN)
CHALLENGE_METHOD = "S256"
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # base64url of a SHA-256
TokenResponse = tuple[int, dict[str, Any], list[tuple[str, str]]]


class BackendGrant(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = (PRIVATE_KEY_JWT,)

    def create_token_response(self) -> TokenResponse:
        """Authlib's own writes the access token to the log, at level debug; so do those of the other grants."""
        token = self.generate_token(scope=self.request.payload.scope, include_refresh_token=False)
        return 200, token, self.TOKEN_RESPONSE_HEADER


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]  # Authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = (*CONFIDENTIAL, NONE)

    def generate_authorization_code(self) -> str:
        return new_code()

    def save_authorization_code(self, code: str, request: Request) -> None:
        """The bridge stores it, with what the person granted."""
        request.drawn_code = code

    def query_authorization_code(self, code: str, client: RegisteredClient) -> Redeemable | None:  # noqa: ARG002 - fetched by it
        """Good as far as can be seen: of several requests that see it so, one will use it up (`Bridge`)."""
        credential: Redeemable | None = self.request.credential
        return credential if credential is not None and credential.code is not None and credential.of(client) else None

    @hooked  # type: ignore[untyped-decorator]  # Authlib has no types
    def create_token_response(self) -> TokenResponse:
        """Authlib's own decides on a refresh token by the kind of client; here it is by what the person granted."""
        code: Redeemable = self.request.authorization_code
        self.request.user = code.grant
        token = self.generate_token(user=code.grant, scope=code.get_scope(), include_refresh_token=False)
        assert code.grant is not None
        return 200, {**token, **code.grant.context}, self.TOKEN_RESPONSE_HEADER


class RefreshGrant(RefreshTokenGrant):  # type: ignore[misc]  # Authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = (*CONFIDENTIAL, NONE)

    def authenticate_refresh_token(self, refresh_token: str) -> Redeemable | None:  # noqa: ARG002 - fetched by it
        credential: Redeemable | None = self.request.credential
        return credential if credential is not None and credential.refresh_token is not None else None

    def _validate_token_scope(self, token: Redeemable) -> None:
        """Authlib compares strings; here a scope may also be part of one that was granted."""
        scope = self.request.payload.scope
        if scope and subset(scope, token.get_scope()) is None:
            raise InvalidScopeError(description="the scope is wider than what was granted")

    @hooked  # type: ignore[untyped-decorator]  # Authlib has no types
    def create_token_response(self) -> TokenResponse:
        """The successor of the refresh token is drawn by the bridge, when the old one has been used up."""
        credential: Redeemable = self.request.refresh_token
        # An id token goes by the login as it was then, and Authlib looks for that here.
        self.request.authorization_code, self.request.user = credential, credential.grant
        scope = self.request.payload.scope
        granted = subset(scope, credential.get_scope()) if scope else credential.get_scope()
        token = self.generate_token(user=credential.grant, scope=granted, include_refresh_token=False)
        assert credential.grant is not None
        return 200, {**token, **credential.grant.context}, self.TOKEN_RESPONSE_HEADER


class SmartRequest(CodeChallenge):  # type: ignore[misc]  # Authlib has no types
    """PKCE with S256 for every client, and the other parameters that SMART requires (SMART App Launch 2.2, "Request 1").

    Authlib asks public clients only, and takes `plain`, also where no method is given. One extension for all, as the order of
    several is not defined.
    """

    DEFAULT_CODE_CHALLENGE_METHOD = CHALLENGE_METHOD
    SUPPORTED_CODE_CHALLENGE_METHOD = (CHALLENGE_METHOD,)

    def __init__(self, fhir_base: str) -> None:
        super().__init__(required=True)
        self._audience = fhir_base.rstrip("/")

    def validate_code_challenge(self, grant: CodeGrant, redirect_uri: str) -> None:  # noqa: ARG002 - Authlib's signature
        given = grant.request.form
        if "state" not in given:
            raise InvalidRequestError("state is missing")
        for name in ("aud", "resource"):
            if name in given and given[name].removesuffix("/") != self._audience:
                raise InvalidRequestError(f"{name} is not the FHIR base URL of this server")
        if "aud" not in given and "resource" not in given:
            raise InvalidRequestError("aud is missing: the FHIR base URL that the token is for")
        if given.get("code_challenge_method") != CHALLENGE_METHOD:
            raise InvalidRequestError("code_challenge_method must be S256")
        if not _CHALLENGE.fullmatch(given.get("code_challenge", "")):
            raise InvalidRequestError("code_challenge is missing, or is not the base64url of a SHA-256")
        if given.get("response_mode", "query") != "query":
            raise InvalidRequestError("response_mode must be query")
        if "request" in given or "request_uri" in given:
            raise InvalidRequestError("request objects are not supported")


class IdToken(OpenIDCode):  # type: ignore[misc]  # Authlib has no types
    """id tokens (OpenID Connect Core 2) with the claim fhirUser (SMART App Launch 2.2, "Scopes for requesting identity data").

    Also at a refresh (OpenID Connect Core 12.2): the same issuer, subject, audience and time of the login, and no nonce.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(require_nonce=False)
        self._endpoints = endpoints

    def __call__(self, grant: CodeGrant | RefreshGrant) -> None:
        grant.register_hook("after_create_token_response", self.process_token)

    def process_token(self, grant: CodeGrant | RefreshGrant, response: TokenResponse) -> None:
        """Add the id token, unless it is one that a refresh may do without and there is no key for it."""
        if grant.request.client.signer is not None:
            super().process_token(grant, response)

    def exists_nonce(self, nonce: str, request: Request) -> bool:  # noqa: ARG002 - Authlib's signature
        """A nonce is for the client to check."""
        return False

    def get_client_claims(self, client: RegisteredClient) -> dict[str, Any]:
        return {"iss": self._endpoints.issuer, "aud": client.get_client_id()}

    def get_encode_header(self, client: RegisteredClient) -> dict[str, Any]:
        return {"alg": client.id_token_signed_response_alg, "typ": "JWT", "kid": client.signer.kid if client.signer else None}

    def resolve_client_private_key(self, client: RegisteredClient) -> RSAKey | ECKey | None:
        return client.signer

    def get_compatible_claims(self, request: Request) -> dict[str, Any]:
        claims: dict[str, Any] = super().get_compatible_claims(request)
        return claims | {"exp": claims["iat"] + ID_TOKEN_LIFETIME}

    def generate_user_info(self, user: Any, scope: str) -> dict[str, Any]:
        granted = scope.split(" ")
        url = f"{self._endpoints.fhir}/{user.user}"
        named = {claim: url for claim in (FHIR_USER, PROFILE) if claim in granted}
        # A name may be given to somebody else later, the registration isn't (OpenID Connect Core 5.7).
        return {"sub": user.user_registration, **named}


class Server(AuthorizationServer):  # type: ignore[misc]  # Authlib has no types
    """`registered` is the client of one authorization request; at the token endpoint each request brings its own."""

    def __init__(self, assertion: ClientAssertion, endpoints: Endpoints, registered: RegisteredClient | None = None) -> None:
        super().__init__()
        self._registered = registered
        ways: dict[str, Callable[..., Any]] = {
            PRIVATE_KEY_JWT: assertion, BASIC: authenticate_basic, POST: authenticate_post, NONE: authenticate_none
        }  # fmt: skip
        for name, authenticate in ways.items():
            self.register_client_auth_method(name, authenticate)
        self.register_grant(BackendGrant)
        self.register_grant(CodeGrant, [SmartRequest(endpoints.fhir), IdToken(endpoints)])
        self.register_grant(RefreshGrant, [IdToken(endpoints)])
        # Authlib's own lifetimes are ten days.
        self.register_token_generator("default", BearerTokenGenerator(_bearer, expires_generator=_lifetime))

    def query_client(self, client_id: str) -> RegisteredClient | None:
        known = self._registered
        return known if known is not None and known.get_client_id() == client_id else None

    def authenticate_client(self, request: Request, methods: tuple[str, ...], endpoint: str = "token") -> RegisteredClient:
        """Authlib tries one method after the other; here the one that the request uses has to do."""
        way = way_of(request)
        if way not in methods:
            refuse(f"clients prove themselves here by {', '.join(methods)}", request)
        client: RegisteredClient = super().authenticate_client(request, [way], endpoint)
        return client

    def create_oauth2_request(self, request: Request) -> Request:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> tuple[int, Any]:  # noqa: ARG002 - ours are set at the edge
        return status, body

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Authlib's events: nobody listens."""


def _bearer(**_: Any) -> str:
    return new_bearer()


def _lifetime(_client: RegisteredClient, grant_type: str) -> int:
    return BACKEND_LIFETIME if grant_type == CLIENT_CREDENTIALS else ACCESS_LIFETIME
