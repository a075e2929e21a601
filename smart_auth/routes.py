"""The HTTP edge of the authorization server (`/oauth/...`, `/launch`), and the FHIR API's door."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from fastapi import APIRouter
from pymongo.asynchronous.database import AsyncDatabase
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fhir_server.outcome import FhirError, Issue
from smart_auth import authorization_requests, codes, grants, launches, refresh_tokens, signing_keys, smart_style, tokens
from smart_auth.access import Access
from smart_auth.apps_page import AppsPage
from smart_auth.audit_events import Audit
from smart_auth.authlib_bridge import Answer, Bridge
from smart_auth.authorization import Authorization
from smart_auth.authorize_pages import AuthorizePages
from smart_auth.chart import Chart
from smart_auth.endpoints import INTROSPECT_PATH, JWKS_PATH, REVOKE_PATH, TOKEN_PATH, Endpoints
from smart_auth.forms import read_form
from smart_auth.introspection import TokenEndpoints
from smart_auth.jwks_fetcher import JwksFetcher
from smart_auth.launch_routes import LaunchRoutes
from smart_auth.refusals import NOT_STORED, answering
from smart_auth.sessions import Sessions
from smart_auth.signing_keys import JWKS_CACHED, SigningKeys, signing_key_file
from smart_auth.tokens import Tokens

_Act = Callable[[Mapping[str, str], str], Awaitable[Answer]]


def router(
    db: AsyncDatabase[dict[str, Any]],
    tokens: Tokens,
    base_url: str,
    audit: Audit,
    *,
    data_dir: Path,
    chart: Chart,
    fetcher: JwksFetcher | None = None,
) -> APIRouter:
    """The routes of the authorization server. `audit` is called for each request, before its answer goes out.

    `tokens` is the object that the other edges authenticate with, so that a revocation here is in effect there at once;
    `data_dir` has the key that the signing keys are sealed with; `chart` is what people choose patients from.
    Raises ValueError if `base_url` is neither https nor loopback.
    """
    endpoints, url = Endpoints.under(base_url), urlsplit(base_url)
    keys = SigningKeys(db, signing_key_file(data_dir))
    bridge = Bridge(db, tokens, endpoints, keys, fetcher)
    about_tokens = TokenEndpoints(db, bridge, tokens, endpoints)
    sessions = Sessions(db, secure=url.scheme == "https")
    origin = f"{url.scheme}://{url.netloc}".lower()
    pages = AuthorizePages(Authorization(db, bridge, endpoints), sessions, chart, audit, origin)

    async def jwks(_request: Request) -> Response:
        return JSONResponse(await keys.jwks(), headers={"Cache-Control": f"public, max-age={JWKS_CACHED}"})

    def endpoint(event: str, act: _Act, *schemes: str) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            form = await read_form(request, schemes=schemes)
            answer = await act(form, request.headers.get("authorization", ""))
            await audit(event, True, answer.client_id, answer.body.get("scope", ""), answer.user)
            return JSONResponse(answer.body, headers=NOT_STORED)

        return answering(respond, event, audit)

    routes = APIRouter()
    routes.add_route(TOKEN_PATH, endpoint("token", bridge.token, "basic"), methods=["POST"])
    routes.add_route(REVOKE_PATH, endpoint("revoke", about_tokens.revoke, "basic"), methods=["POST"])
    routes.add_route(INTROSPECT_PATH, endpoint("introspect", about_tokens.introspect, "basic", "bearer"), methods=["POST"])
    routes.add_route(JWKS_PATH, answering(jwks, "keys", audit), methods=["GET"])
    routes.routes.extend(pages.routes())
    routes.routes.extend(LaunchRoutes(db, tokens, sessions, chart, audit, endpoints).routes())
    routes.routes.extend(AppsPage(db, bridge, sessions, audit, origin).routes())
    routes.routes.extend(smart_style.routes())
    return routes


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """Create the indexes of everything that the authorization server keeps."""
    for kept in (tokens, grants, codes, refresh_tokens, launches, authorization_requests, signing_keys):
        await kept.ensure_indexes(db)


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


def _unauthenticated(diagnostics: str, error: str | None = None) -> FhirError:
    challenge = 'Bearer realm="fhir"' + (f', error="{error}"' if error else "")
    return FhirError(Issue("login", diagnostics), headers={"WWW-Authenticate": challenge})
