"""Bridge to Authlib, 2 of 4: how clients prove who they are, with what SMART asks beyond Authlib.

What Authlib knows of JWTs, and of a request that uses two ways at once, is not what SMART has; each correction says so where it
is made.
"""

import time
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote_plus

from authlib.oauth2.rfc6749 import InvalidClientError, InvalidGrantError  # type: ignore[import-untyped]  # Authlib has no types
from authlib.oauth2.rfc6749.util import extract_basic_authorization  # type: ignore[import-untyped]
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from smart_auth.authlib_request import RegisteredClient, Request
from smart_auth.jwks import ALGORITHMS, find_key

PRIVATE_KEY_JWT = "private_key_jwt"
BASIC, POST, NONE = "client_secret_basic", "client_secret_post", "none"
CONFIDENTIAL = (PRIVATE_KEY_JWT, BASIC, POST)
LONGEST_ASSERTION = 300  # seconds from now to `exp` (SMART App Launch 2.2, "Authentication JWT claims")
LEEWAY = 10  # seconds that the clocks of client and server may be apart
_LONGEST_JTI = 256
# One text for each way, so that it doesn't tell which client ids exist.
_UNKNOWN = "no registered client has this client id, kid and key type"
_WRONG_SECRET = "the client id or the secret is wrong"  # noqa: S105 - a text
_NOT_PUBLIC = "this is not the id of a public client"
_OVER = "the refresh token is unknown, expired or revoked"


def way_of(request: Request) -> str:
    """How the client of this request means to prove itself: exactly one way (RFC 6749 2.3). Raises InvalidClientError."""
    form = request.form
    ways = {
        PRIVATE_KEY_JWT: "client_assertion" in form or "client_assertion_type" in form,
        BASIC: bool(request.headers),
        POST: "client_secret" in form,
    }
    used = [way for way, is_used in ways.items() if is_used]
    if len(used) > 1:
        refuse("more than one way of client authentication is used", request)
    return used[0] if used else NONE


def basic_credentials(authorization: str) -> tuple[str, str]:
    """Client id and secret of an `Authorization: Basic` header, each form-encoded in it (RFC 6749 2.3.1); empty if it is none."""
    try:
        client_id, secret = extract_basic_authorization({"Authorization": authorization})
    except (ValueError, TypeError):
        return "", ""
    return unquote_plus(client_id or ""), unquote_plus(secret or "")


def authenticate_basic(_query_client: Callable[[str], Any], request: Request) -> RegisteredClient:
    client_id, secret = basic_credentials(request.headers.get("Authorization", ""))
    if request.form.get("client_id", client_id) != client_id:
        refuse("client_id is not the one that is authenticated", request)
    return _by_secret(request, secret)


def authenticate_post(_query_client: Callable[[str], Any], request: Request) -> RegisteredClient:
    return _by_secret(request, request.form.get("client_secret", ""))


def authenticate_none(_query_client: Callable[[str], Any], request: Request) -> RegisteredClient:
    """A public client, by its id or, at a refresh, by the token alone: SMART's refresh request has no client_id."""
    client = request.registered
    if client is None and request.form.get("grant_type") == "refresh_token" and "client_id" not in request.form:
        raise InvalidGrantError(description=_OVER)  # not the client is at fault: an app takes this to begin anew
    if client is None or client.client.auth_method != NONE:
        refuse(_NOT_PUBLIC, request)
    request.client = client
    return client


def _by_secret(request: Request, secret: str) -> RegisteredClient:
    client = request.registered
    if client is None or not client.check_client_secret(secret):
        refuse(_WRONG_SECRET, request)
    request.client = client
    return client


class ClientAssertion(JWTBearerClientAssertion):  # type: ignore[misc]  # Authlib has no types
    """private_key_jwt (RFC 7523 3) by the rules of SMART App Launch 2.2, "Client authentication: asymmetric"."""

    CLIENT_AUTH_METHOD = PRIVATE_KEY_JWT

    def __init__(self, audiences: tuple[str, ...]) -> None:
        super().__init__(leeway=LEEWAY)
        self._audiences = audiences

    def __call__(self, _query_client: Callable[[str], Any], request: Request) -> RegisteredClient | None:
        def fetched(_client_id: str) -> RegisteredClient:
            return request.registered or refuse(_UNKNOWN)

        client: RegisteredClient | None = super().__call__(fetched, request)
        if client and request.form.get("client_id", client.client.client_id) != client.client.client_id:
            refuse("client_id is not the subject of the client_assertion")
        return client

    def extract_assertion(self, assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and claims, not verified yet; the header is judged here, before anything is looked up for it."""
        try:
            header, claims = super().extract_assertion(assertion)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            refuse("the client_assertion is not a JWT")  # malformed in ways that Authlib lets through
        if not isinstance(header, dict) or header.get("typ") != "JWT":
            refuse("typ of the client_assertion must be JWT")
        if header.get("alg") not in ALGORITHMS.values():
            refuse(f"alg of the client_assertion must be {' or '.join(ALGORITHMS.values())}")
        if not isinstance(header.get("kid"), str):
            refuse("the client_assertion has no kid")
        if "crit" in header:
            refuse("the client_assertion has critical header parameters, and none is supported")
        return header, claims

    def resolve_client_public_key(self, client: RegisteredClient) -> RegisteredClient:
        """The client as a whole, for the next method to choose among its keys."""
        return client

    def process_assertion_claims(self, assertion: str, resolve_key: RegisteredClient) -> dict[str, Any]:
        """Authlib names no algorithms, which leaves joserfc's defaults: without RS384 and ES384, and the first of equal kids."""

        def choose(signature: Any) -> RSAKey | ECKey:
            header = signature.headers()
            if "jku" in header and header["jku"] != resolve_key.client.jwks_uri:
                refuse("jku is not the registered JWKS URL of this client")
            return find_key(resolve_key.keys, header["kid"], header["alg"]) or refuse(_UNKNOWN)

        try:
            claims = jwt.decode(assertion, choose, algorithms=list(ALGORITHMS.values())).claims
        except (JoseError, ValueError):
            refuse("the signature of the client_assertion is not that of the registered key")
        self.verify_claims(claims)
        resolve_key.proof = claims
        return claims

    def verify_claims(self, claims: dict[str, Any]) -> None:
        """What Authlib leaves open, then its own checks: iss, sub, aud, exp, nbf, iat."""
        audience = claims.get("aud")
        if not audience or any(a not in self._audiences for a in (audience if isinstance(audience, list) else [audience])):
            refuse("aud of the client_assertion must be the URL of the token endpoint")
        expires = claims.get("exp")
        if not isinstance(expires, int | float) or not expires <= time.time() + LONGEST_ASSERTION + LEEWAY:
            refuse(f"exp of the client_assertion must be a time at most {LONGEST_ASSERTION} s ahead")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_JTI or not jti.isprintable():
            refuse(f"the client_assertion needs a jti of 1 to {_LONGEST_JTI} printable characters")
        super().verify_claims(claims)

    def get_audiences(self) -> list[str]:
        return list(self._audiences)

    def validate_jti(self, claims: dict[str, Any], jti: str) -> bool:  # noqa: ARG002 - Authlib's signature
        """Whether it was used before is settled by the store, atomically, when all else is well: `Bridge._proven`."""
        return True


def refuse(description: str, request: Request | None = None) -> NoReturn:
    """Authlib answers 401 wherever Basic would do; RFC 6749 5.2 asks for it when Basic was tried. In a browser it is a dialog."""
    raise InvalidClientError(description=description, status_code=401 if request is not None and request.headers else 400)
