"""The frame of every FHIR request: who asks, in which format, how large; and every refusal as an OperationOutcome."""

import urllib.parse
from collections.abc import Awaitable, Callable
from datetime import datetime
from email.utils import format_datetime

import structlog
from pymongo.errors import ConnectionFailure, ExecutionTimeout
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fhir_server import fhir_json
from fhir_server.interactions import unavailable
from fhir_server.outcome import FhirError, Issue, fail, operation_outcome
from fhir_server.registry import Resource
from smart_auth.access import Access

log = structlog.get_logger()

MAX_BODY = 20 * 1024 * 1024
MAX_FORM = 1024 * 1024
FHIR_JSON = "application/fhir+json"
FORM = "application/x-www-form-urlencoded"
_ACCEPTED = frozenset({FHIR_JSON, "application/json", "text/json", "*/*", "application/*", "json", ""})
_SENT = frozenset({FHIR_JSON, "application/json"})

Authenticate = Callable[[Request], Awaitable[Access]]
Handler = Callable[[Request, Access], Awaitable[Response]]

_NOBODY = Access(client_id="", scopes=(), token_id="")


class Endpoint:
    """One address and what it does by HTTP method: an ASGI application. HEAD is a GET whose body isn't sent."""

    def __init__(self, handlers: dict[str, Handler], authenticate: Authenticate | None) -> None:
        """Without `authenticate`, anybody may ask; no handlers: there is nothing at this address."""
        self._handlers = handlers
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._handle(request)
        except FhirError as error:
            return _refusal(error)
        except (ConnectionFailure, ExecutionTimeout):
            return _refusal(unavailable())
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("request failed", method=request.method, type=request.path_params.get("type"))
            return _refusal(fail("exception", "an internal error; it is in the server's log"))

    async def _handle(self, request: Request) -> Response:
        access = await self._authenticate(request) if self._authenticate else _NOBODY
        if not self._handlers:
            raise fail("not-supported", f"there is nothing at {request.url.path[:200]}", status=404)
        handler = self._handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            raise self._not_allowed(request.method)
        _negotiate(request)
        return await handler(request, access)

    def _not_allowed(self, method: str) -> FhirError:
        allowed = ", ".join([*self._handlers, *(["HEAD"] if "GET" in self._handlers else [])])
        issue = Issue("not-supported", f"{method[:16]} is not supported here; {allowed} is")
        return FhirError(issue, status=405, headers={"Allow": allowed})


def peer(request: Request) -> str | None:
    """The network address of the caller."""
    return request.client.host if request.client else None


def _negotiate(request: Request) -> None:
    """406 unless JSON is among what the caller takes (FHIR R4 RESTful API, "Content Types and encodings")."""
    # An unencoded + of `_format=application/fhir+json` arrives as a space.
    wanted = request.query_params.get("_format", "").replace(" ", "+") or request.headers.get("accept", "*/*")
    offered = {part.partition(";")[0].strip().lower() for part in wanted.split(",")}
    if offered.isdisjoint(_ACCEPTED):
        raise fail("not-supported", f"this server answers in {FHIR_JSON}", status=406)


async def _read(request: Request, limit: int) -> bytes:
    refusal = fail("too-long", f"a request body holds at most {limit // 1024 // 1024} MiB here", status=413)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 12 or int(announced) > limit):
        raise refusal
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise refusal
        chunks.append(chunk)
    return b"".join(chunks)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request) -> Resource:
    """The JSON object in the body. FhirError 415, 413, or `structure` (400)."""
    if _content_type(request) not in _SENT:
        raise fail("not-supported", f"resources are sent as {FHIR_JSON}", status=415)
    return fhir_json.loads(await _read(request, MAX_BODY))


async def read_form(request: Request) -> list[tuple[str, str]]:
    """The parameters in the body of a search by POST. FhirError 415 or 413, or `structure` (400)."""
    if _content_type(request) != FORM:
        raise fail("not-supported", f"a search by POST is sent as {FORM}", status=415)
    try:
        return urllib.parse.parse_qsl((await _read(request, MAX_FORM)).decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise fail("structure", "the form is not valid UTF-8", status=400) from None


def json_response(body: Resource, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer with a FHIR resource."""
    return Response(
        fhir_json.dumps(body), status, {"Cache-Control": "no-store", **(headers or {})}, f"{FHIR_JSON}; charset=utf-8"
    )


def stored_response(resource: Resource, request: Request, status: int, headers: dict[str, str]) -> Response:
    """The answer to a write, as the `Prefer` header wants it (FHIR R4 RESTful API, "create/update/patch/transaction")."""
    headers = {**headers, **version_headers(resource)}
    wanted = request.headers.get("prefer", "").replace(" ", "")
    if "return=minimal" in wanted:
        return Response(status_code=status, headers=headers)
    if "return=OperationOutcome" in wanted:
        done = Issue("informational", "done", severity="information")
        return json_response(operation_outcome(done), status, headers)
    return json_response(resource, status, headers)


def version_headers(resource: Resource) -> dict[str, str]:
    """ETag and Last-Modified of a version (FHIR R4 RESTful API, "Support for Versions")."""
    updated = datetime.fromisoformat(resource["meta"]["lastUpdated"])
    return {"ETag": f'W/"{resource["meta"]["versionId"]}"', "Last-Modified": format_datetime(updated, usegmt=True)}


def _refusal(error: FhirError) -> Response:
    return json_response(operation_outcome(*error.issues), error.status, error.headers)
