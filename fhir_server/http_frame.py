"""The frame of every FHIR request: who asks, in which format, how large; and every refusal as an OperationOutcome."""

import asyncio
import zlib
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from urllib.parse import unquote_to_bytes

import structlog
from pymongo.errors import ConnectionFailure, ExecutionTimeout
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fhir_server import cors, fhir_json, http_body, native_content
from fhir_server.addresses import Address, parse
from fhir_server.exchange import Ask, Conditions, Parameters, Patch, Prefer, Reply, meant
from fhir_server.http_body import FHIR_JSON
from fhir_server.outcome import FhirError, fail, operation_outcome
from fhir_server.patching import as_patch
from fhir_server.registry import Resource
from fhir_server.transactions import unavailable
from smart_auth.access import Access

log = structlog.get_logger()

Authenticate = Callable[[Request], Awaitable[Access]]

_ACCEPTED = frozenset({FHIR_JSON, "application/json", "text/json", "*/*", "application/*", "json", ""})
_NOBODY = Access(client_id="", scopes=(), token_id="")
# What is smaller travels in one packet or two anyway.
_WORTH_PACKING = 1500
_LARGE = 256 * 1024
_PREFIX = "/fhir/"


class HttpAsk(Ask):
    """An interaction that is asked for by HTTP."""

    __slots__ = ("_base_url", "_request")

    def __init__(self, request: Request, access: Access, address: Address, headers: Mapping[str, str], base_url: str) -> None:
        given = headers.get
        if b"%" in request.scope["query_string"]:
            _require_utf8(request.scope["query_string"])
        super().__init__(
            method="GET" if request.method == "HEAD" else request.method,
            address=address,
            query=meant(request.query_params.multi_items()) if request.scope["query_string"] else [],
            access=access,
            conditions=Conditions(given("if-match"), given("if-none-match"), given("if-modified-since"), given("if-none-exist")),
            prefer=Prefer.of(headers["prefer"]) if "prefer" in headers else Prefer(),
            peer=request.client.host if request.client else None,
        )
        self._request = request
        self._base_url = base_url

    async def resource(self) -> Resource:
        return await http_body.read_json(self._request, self._base_url)

    async def bundle(self) -> Resource:
        return await http_body.read_json(self._request)

    async def parameters(self) -> Resource | None:
        return await http_body.read_optional_json(self._request, self._base_url)

    async def patch(self) -> Patch:
        return as_patch(await http_body.read_patch(self._request), self._base_url)

    async def form(self) -> Parameters:
        parameters = await http_body.read_form(self._request)
        if wanted := next((v for n, v in parameters if n == "_format"), None):
            _negotiate(wanted)
        return meant(parameters) + self.query


def _require_utf8(query: bytes) -> None:
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        raise fail("structure", "the address is not valid UTF-8", status=400) from None


class Edge:
    """All addresses under the FHIR base: an ASGI application. HEAD is a GET whose body isn't sent."""

    def __init__(
        self,
        perform: Callable[[Ask], Awaitable[Reply]],
        authenticate: Authenticate,
        methods: Callable[[Address], list[str]],
        base: str,
        origins: cors.Origins = cors.anybody,
    ) -> None:
        """`perform` does an interaction; `methods` are those that an address takes; `base` is our FHIR base URL.

        `origins`: whose scripts may call; those of all may ask for the metadata.
        """
        self._perform = perform
        self._authenticate = authenticate
        self._methods = methods
        self._base = base
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        if cors.is_preflight(scope["method"], headers):
            response = await cors.preflight(headers["origin"], self._origins_of(scope))
        else:
            response = await self._respond(Request(scope, receive), headers)
            if "origin" in headers:
                await cors.allow(response.headers, headers["origin"], self._origins_of(scope))
        await response(scope, receive, send)

    def _origins_of(self, scope: Scope) -> cors.Origins:
        return cors.anybody if scope["path"] == f"{_PREFIX}metadata" else self._origins

    async def _respond(self, request: Request, headers: Mapping[str, str]) -> Response:
        pretty = False
        try:
            pretty = b"_pretty=true" in request.scope["query_string"]
            reply = await self._handle(request, headers)
        except FhirError as error:
            reply = _refusal(error)
        except (ConnectionFailure, ExecutionTimeout):
            reply = _refusal(unavailable())
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            # The first part of the address names a type, and nobody.
            log.exception("request failed", method=request.method, address=request.scope["path"].split("/")[2:3])
            reply = _refusal(fail("exception", "an internal error; it is in the server's log"))
        return await self._rendered(reply, headers, pretty=pretty)

    async def _handle(self, request: Request, headers: Mapping[str, str]) -> Reply:
        path = request.scope["path"].removeprefix(_PREFIX) if request.scope["path"] != "/fhir" else ""
        access = _NOBODY if path == "metadata" else await self._authenticate(request)
        address = parse(path)
        if request.method == "OPTIONS":
            return _options(self._methods(address))
        wanted = _wanted(request, headers)
        is_native = native_content.is_offered(address, request.method) and not _takes_json(wanted)
        if not is_native:
            _negotiate(wanted)
        reply = await self._perform(HttpAsk(request, access, address, headers, self._base))
        return native_content.native(reply, wanted) if is_native else reply

    async def _rendered(self, reply: Reply, asked: Mapping[str, str], *, pretty: bool) -> Response:
        headers = {**self._version_headers(reply), **reply.headers}
        if reply.resource is None:
            return Response(status_code=reply.status, headers=headers)
        kind = f"{FHIR_JSON}; charset=utf-8"
        if reply.native:
            kind, body = reply.resource["contentType"], b64decode(reply.resource["data"])
        else:
            body = fhir_json.dumps(reply.resource, pretty=pretty)
        headers |= {"Content-Type": kind, "Cache-Control": "no-store"}
        if len(body) >= _WORTH_PACKING:
            headers["Vary"] = "Accept-Encoding"
            if _takes_gzip(asked.get("accept-encoding", "")):
                headers["Content-Encoding"] = "gzip"
                body = await asyncio.to_thread(_packed, body) if len(body) > _LARGE else _packed(body)
        return Response(body, reply.status, headers)

    def _version_headers(self, reply: Reply) -> dict[str, str]:
        """ETag, Last-Modified and Location of a version (FHIR R4 3.1.0.1.3, 3.1.0.8)."""
        if reply.stored is None:
            return {}
        meta = reply.stored["meta"]
        updated = datetime.fromisoformat(meta["lastUpdated"])
        headers = {"ETag": f'W/"{meta["versionId"]}"', "Last-Modified": format_datetime(updated, usegmt=True)}
        if reply.located:
            resource = reply.stored
            headers["Location"] = f"{self._base}/{resource['resourceType']}/{resource['id']}/_history/{meta['versionId']}"
        return headers


def _options(methods: list[str]) -> Reply:
    """What an address takes. Accept-Patch says that PATCH is among it (RFC 5789 3.1)."""
    patch = {"Accept-Patch": http_body.ACCEPT_PATCH} if "PATCH" in methods else {}
    return Reply(204, headers={"Allow": ", ".join(methods), **patch})


def _headers(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; what comes in several lines is one list (RFC 9110 5.3)."""
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1")
        text = value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _wanted(request: Request, headers: Mapping[str, str]) -> str:
    if b"_format" in request.scope["query_string"] and (given := request.query_params.get("_format")):
        return given
    return headers.get("accept", "*/*")


def _negotiate(wanted: str) -> None:
    """406 unless JSON in FHIR R4 is among what the caller takes (FHIR R4 3.1.0.1.11, "Content Types and encodings")."""
    if not _takes_json(wanted):
        raise fail("not-supported", f"this server answers in {FHIR_JSON} (FHIR R4) only; XML is not offered", status=406)


def _takes_json(wanted: str) -> bool:
    if wanted in _ACCEPTED:
        return True
    # An unencoded + of `_format=application/fhir+json` arrives as a space.
    for part in wanted.replace("fhir json", "fhir+json").split(","):
        kind, _, parameters = part.partition(";")
        if kind.strip().lower() in _ACCEPTED and http_body.is_our_version(parameters):
            return True
    return False


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() in {"gzip", "*"}:
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _packed(body: bytes) -> bytes:
    packer = zlib.compressobj(level=2, wbits=16 + zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def _refusal(error: FhirError) -> Reply:
    return Reply(error.status, operation_outcome(*error.issues), headers=error.headers)
