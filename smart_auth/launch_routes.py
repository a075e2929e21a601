"""`POST /launch`: an EHR mints a launch for an app (SMART App Launch 2.2, "EHR Launch").

JSON in: `client_id`, the members of the context (launch_context.py), and from a backend client optionally `user`, whose login the
launch is for. JSON out (201): `launch`, `launch_uri` to open in the user's browser, `expires_in`. Who may: a backend client whose
token has the scope `urn:fhir-ris:launch`, or a user who is logged in here (with X-CSRF-Token), whose launch is then for that
user. The context must be readable by whoever mints the launch: it opens nothing to anybody.
"""

import hmac
import json
from typing import Any
from urllib.parse import quote, urlencode

from pymongo.asynchronous.database import AsyncDatabase
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from smart_auth import launch_context
from smart_auth.access import Access
from smart_auth.audit_events import Audit
from smart_auth.chart import Chart, access_of
from smart_auth.clients import Client, Clients
from smart_auth.endpoints import LAUNCH_PATH, Endpoints
from smart_auth.forms import OAuthError, read_body
from smart_auth.granting import LAUNCH_RIGHT
from smart_auth.launch_context import Context, ContextError
from smart_auth.launches import LIFETIME, Launches
from smart_auth.refusals import NOT_STORED, answering
from smart_auth.sessions import Sessions
from smart_auth.tokens import Tokens
from smart_auth.users import Users

_MEMBERS = {"client_id", "user", *launch_context.MEMBERS}


class LaunchRoutes:
    """The handler, with what it works on."""

    def __init__(
        self,
        db: AsyncDatabase[dict[str, Any]],
        tokens: Tokens,
        sessions: Sessions,
        chart: Chart,
        audit: Audit,
        endpoints: Endpoints,
    ) -> None:
        self._clients = Clients(db)
        self._users = Users(db)
        self._launches = Launches(db)
        self._tokens = tokens
        self._sessions = sessions
        self._chart = chart
        self._audit = audit
        self._endpoints = endpoints

    async def mint(self, request: Request) -> JSONResponse:
        """Raises OAuthError."""
        access, user_name = await self._caller(request)
        given = await _read(request)
        client = await self._client(given.get("client_id"), access)
        if user_name is None and "user" in given:
            user_name = await self._named(given["user"], access)
        elif "user" in given and given["user"] != user_name:
            raise OAuthError("invalid_request", "a launch from a login is for its user", client_id=access.client_id)
        context = await self._context(given, access)
        made_by = access.user_name or access.client_id
        launch = await self._launches.mint(client, context, user_name=user_name, made_by=made_by)
        await self._audit("launch", True, access.client_id, f"of {client.client_id}", access.user_name)
        assert client.launch_uri is not None
        query = urlencode({"iss": self._endpoints.fhir, "launch": launch}, quote_via=quote)
        uri = f"{client.launch_uri}{'&' if '?' in client.launch_uri else '?'}{query}"
        body = {"launch": launch, "launch_uri": uri, "expires_in": int(LIFETIME.total_seconds())}
        return JSONResponse(body, 201, NOT_STORED)

    async def _caller(self, request: Request) -> tuple[Access, str | None]:
        """Who mints the launch; of a login also the user's name."""
        authorization = request.headers.get("authorization", "")
        if authorization:
            scheme, _, bearer = authorization.partition(" ")
            token = await self._tokens.find(bearer.strip()) if scheme.lower() == "bearer" else None
            if token is None:
                raise OAuthError("invalid_token", "the access token is unknown, expired or revoked", 401)
            if LAUNCH_RIGHT not in token.scope.split(" "):
                raise OAuthError("insufficient_scope", f"the scope {LAUNCH_RIGHT} is needed", 403, client_id=token.client_id)
            return await self._tokens.access(token), None
        session = await self._sessions.current(request)
        if session is None:
            raise OAuthError("invalid_token", "an access token or a login is needed", 401)
        if not hmac.compare_digest(request.headers.get("x-csrf-token", "").encode(), session.csrf.encode()):
            raise OAuthError("access_denied", "the header X-CSRF-Token is not that of this login", 403)
        return access_of(session.user), session.user.name

    async def _client(self, client_id: object, access: Access) -> Client:
        client = await self._clients.get(client_id) if isinstance(client_id, str) else None
        if client is None or client.launch_uri is None:
            raise OAuthError("invalid_request", "client_id must be that of an app with a launch URI", client_id=access.client_id)
        return client

    async def _named(self, name: object, access: Access) -> str:
        user = await self._users.get(name) if isinstance(name, str) else None
        if user is None or user.disabled:
            raise OAuthError("invalid_request", "user must be the name of a login", client_id=access.client_id)
        return user.name

    async def _context(self, given: dict[str, Any], access: Access) -> Context:
        try:
            context = launch_context.checked(given)
        except ContextError as error:
            raise OAuthError("invalid_request", str(error), client_id=access.client_id) from None
        if not await self._chart.sees(access, launch_context.references(context)):
            raise OAuthError(
                "access_denied", "the context does not exist, or you may not read it", 403, client_id=access.client_id
            )
        encounter, patient = context.get("encounter"), context.get("patient")
        if encounter and patient and not await self._chart.is_of(access, encounter, patient):
            raise OAuthError("invalid_request", "the encounter is not one of the patient", client_id=access.client_id)
        return context

    def routes(self) -> list[Route]:
        return [Route(LAUNCH_PATH, answering(self.mint, "launch", self._audit), methods=["POST"])]


async def _read(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise OAuthError("invalid_request", "the content type must be application/json", 415)
    try:
        given = json.loads(await read_body(request))
        json.dumps(given, ensure_ascii=False).encode()  # no half characters, which nothing could store
    except (ValueError, RecursionError) as error:
        raise OAuthError("invalid_request", "the body is not JSON") from error
    if not isinstance(given, dict) or set(given) - _MEMBERS:
        raise OAuthError(
            "invalid_request", f"the body must be an object with no other members than {', '.join(sorted(_MEMBERS))}"
        )
    return given
