"""The HTTP edge of the authorization server (`/oauth/token`, `/oauth/revoke`, `/oauth/introspect`), and the FHIR API's door."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_plus

from fastapi import APIRouter
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError
from starlette.requests import Request
from starlette.responses import JSONResponse

from fhir_server.outcome import FhirError, Issue
from smart_auth.access import Access
from smart_auth.authlib_bridge import Answer, Bridge
from smart_auth.endpoints import INTROSPECT_PATH, REVOKE_PATH, TOKEN_PATH, Endpoints
from smart_auth.forms import OAuthError, read_form
from smart_auth.tokens import Token, Tokens

# Called with: event (`token`, `revoke`, `introspect`), whether it was granted, the client if proven, and a detail.
Audit = Callable[[str, bool, str | None, str], Awaitable[None]]
Form = dict[str, str]

# RFC 6749 5.1, on refusals too.
_NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_log = logging.getLogger(__name__)


def router(db: AsyncDatabase[dict[str, Any]], tokens: Tokens, base_url: str, audit: Audit) -> APIRouter:
    """The routes of the authorization server. `audit` is called for each request, before its answer goes out.

    `tokens` is the object that the other edges authenticate with, so that a revocation here is in effect there at once.
    Raises ValueError if `base_url` is neither https nor loopback.
    """
    bridge = Bridge(db, tokens, Endpoints.under(base_url))
    routes = APIRouter()

    async def introspect(form: Form) -> Answer:
        """RFC 7662, for a client's own tokens."""
        client_id, token = await own_token(form)
        if token is None or token.client_id != client_id:
            return Answer(client_id, {"active": False})
        expires = int(token.expires.timestamp())
        body = {"active": True, "scope": token.scope, "client_id": client_id, "exp": expires, "token_type": "Bearer"}
        return Answer(client_id, body)

    async def revoke(form: Form) -> Answer:
        """RFC 7009, for a client's own tokens; one that is no token, or no longer, is fine too."""
        client_id, token = await own_token(form)
        if token is not None and token.client_id != client_id:
            raise OAuthError("invalid_grant", "the token was issued to another client", client_id=client_id)
        if token is not None:
            await tokens.revoke(form["token"])
        return Answer(client_id, {})

    async def own_token(form: Form) -> tuple[str, Token | None]:
        client = await bridge.authenticate_client(form)
        if "token" not in form:
            raise OAuthError("invalid_request", "token is missing", client_id=client.client_id)
        return client.client_id, await tokens.find(form["token"])

    def endpoint(event: str, act: Callable[[Form], Awaitable[Answer]]) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def respond(request: Request) -> JSONResponse:
            try:
                answer = await act(await read_form(request))
                await audit(event, True, answer.client_id, answer.body.get("scope", ""))
            except OAuthError as refusal:
                await audit(event, False, refusal.client_id, _reason(refusal))
                return _refusal(refusal)
            return JSONResponse(answer.body, headers=_NOT_STORED)

        async def or_unavailable(request: Request) -> JSONResponse:
            try:
                return await respond(request)
            except PyMongoError:
                _log.exception("the authorization server can't reach its store")
                return _refusal(OAuthError("temporarily_unavailable", "try again later", 503))

        return or_unavailable

    for path, act in ((TOKEN_PATH, bridge.token), (REVOKE_PATH, revoke), (INTROSPECT_PATH, introspect)):
        routes.add_route(path, endpoint(path.rpartition("/")[2], act), methods=["POST"])
    return routes


async def authenticate(tokens: Tokens, request: Request) -> Access:
    """Who sends this request, by its one `Authorization: Bearer` header (RFC 6750 2.1). Raises FhirError `login` (401).

    A token in the URL, where logs and caches keep it, is refused even beside a good header.
    """
    query: bytes = request.scope["query_string"]
    if query and any(unquote_plus(part.partition("=")[0]) == "access_token" for part in query.decode("latin-1").split("&")):
        raise _unauthenticated("an access token must not be sent in the URL", "invalid_request")
    given = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"authorization"]
    if not given:
        raise _unauthenticated("an access token is needed: Authorization: Bearer ...")
    if len(given) > 1:
        raise _unauthenticated("there is more than one Authorization header", "invalid_request")
    scheme, _, bearer = given[0].partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthenticated("the authorization scheme must be Bearer")
    access = await tokens.authenticate(bearer.strip())
    if access is None:
        raise _unauthenticated("the access token is unknown, expired or revoked", "invalid_token")
    return access


def _refusal(refusal: OAuthError) -> JSONResponse:
    body = {"error": refusal.error, "error_description": refusal.description}
    headers = {**_NOT_STORED, "WWW-Authenticate": 'Basic realm="oauth"'} if refusal.status == 401 else _NOT_STORED
    return JSONResponse(body, refusal.status, headers)


def _reason(refusal: OAuthError) -> str:
    """For the audit trail."""
    claimed = f"; the client says it is {refusal.claimed}" if refusal.claimed else ""
    return f"{refusal.error}: {refusal.description}{claimed}"


def _unauthenticated(diagnostics: str, error: str | None = None) -> FhirError:
    challenge = 'Bearer realm="fhir"' + (f', error="{error}"' if error else "")
    return FhirError(Issue("login", diagnostics), headers={"WWW-Authenticate": challenge})
