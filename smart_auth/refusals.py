"""Refusals of the authorization server as JSON (RFC 6749 5.2), on record before they go out."""

import logging
from collections.abc import Awaitable, Callable

from pymongo.errors import PyMongoError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from smart_auth.audit_events import Audit
from smart_auth.forms import OAuthError
from smart_auth.key_file import KeyFileError

# RFC 6749 5.1, on refusals too.
NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_log = logging.getLogger(__name__)


def answering(
    handler: Callable[[Request], Awaitable[Response]], event: str, audit: Audit
) -> Callable[[Request], Awaitable[Response]]:
    """The handler, with its refusals and failures answered."""

    async def respond(request: Request) -> Response:
        try:
            return await handler(request)
        except OAuthError as error:
            await audit(event, False, error.client_id, _reason(error))
            return refusal(error, request)

    async def or_unavailable(request: Request) -> Response:
        try:
            return await respond(request)
        except PyMongoError:
            _log.exception("the authorization server can't reach its store")
        except KeyFileError as error:
            _log.error("id tokens can't be signed: %s", error)
        return refusal(OAuthError("temporarily_unavailable", "try again later", 503), request)

    return or_unavailable


def refusal(error: OAuthError, request: Request) -> JSONResponse:
    """The answer. A Basic challenge only to who tried Basic: a browser makes a dialog of it, under a script's request too."""
    headers = dict(NOT_STORED)
    if error.status == 401:
        basic = request.headers.get("authorization", "").partition(" ")[0].lower() == "basic"
        headers["WWW-Authenticate"] = 'Basic realm="oauth"' if basic else f'Bearer realm="oauth", error="{error.error}"'
    return JSONResponse({"error": error.error, "error_description": error.description}, error.status, headers)


def _reason(error: OAuthError) -> str:
    """For the audit trail."""
    claimed = f"; the client says it is {error.claimed}" if error.claimed else ""
    return f"{error.error}: {error.description}{claimed}"
