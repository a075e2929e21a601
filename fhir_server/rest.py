"""The FHIR REST edge (FHIR R4 3.1.0): HTTP in, an interaction, HTTP out. All but `metadata` and discovery needs a token."""

import urllib.parse
from collections.abc import Awaitable, Callable
from datetime import datetime
from email.utils import format_datetime
from typing import Any

import structlog
from pymongo.errors import ConnectionFailure
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fhir_server import audit, bundles, definitions, fhir_json
from fhir_server.audit import Act
from fhir_server.interactions import Found, Interactions, known_type, unavailable
from fhir_server.outcome import FhirError, fail, operation_outcome
from fhir_server.registry import Resource
from smart_auth.access import Access

log = structlog.get_logger()

MAX_BODY = 20 * 1024 * 1024
FHIR_JSON = "application/fhir+json"
_ACCEPTED = ("application/fhir+json", "application/json", "text/json", "*/*", "application/*")
_SENT = ("application/fhir+json", "application/json", "application/json-patch+json")

Authenticate = Callable[[Request], Awaitable[Access]]
Handler = Callable[[Request, Access], Awaitable[Response]]


class Rest:
    """The routes under the FHIR base."""

    def __init__(
        self, interactions: Interactions, authenticate: Authenticate, *, base_url: str, metadata: Callable[[], Resource]
    ) -> None:
        self._interactions = interactions
        self._authenticate = authenticate
        self._base = f"{base_url}/fhir"
        self._metadata = metadata

    def routes(self) -> list[Route]:
        """All routes, the fixed paths first."""
        return [
            Route("/fhir/metadata", self._open(self.metadata), methods=["GET"]),
            Route("/fhir", self._guarded(self.system), methods=["GET", "POST"]),
            Route("/fhir/", self._guarded(self.system), methods=["GET", "POST"]),
            Route("/fhir/{type}/_search", self._guarded(self.search_form), methods=["POST"]),
            Route("/fhir/{type}/{id}/_history/{version}", self._guarded(self.vread), methods=["GET"]),
            Route("/fhir/{type}/{id}/_history", self._guarded(self.history), methods=["GET"]),
            Route("/fhir/{type}/{id}", self._guarded(self.instance), methods=["GET", "PUT", "DELETE"]),
            Route("/fhir/{type}", self._guarded(self.type_level), methods=["GET", "POST"]),
            Route("/fhir/{rest:path}", self._guarded(self.unknown), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]

    # The frame of every request

    def _open(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def run(request: Request) -> Response:
            try:
                return await handler(request)
            except FhirError as error:
                return _refusal(error)

        return run

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def run(request: Request) -> Response:
            access: Access | None = None
            try:
                access = await self._authenticate(request)
                _negotiate(request)
                return await handler(request, access)
            except FhirError as error:
                if access is not None and error.status == 403:
                    await self._audit_refusal(request, access, error)
                return _refusal(error)
            except ConnectionFailure:
                return _refusal(unavailable())
            except Exception:
                log.exception(
                    "request failed", method=request.method, route=request.scope.get("route") and request.scope["route"].path
                )
                return _refusal(fail("exception", "an internal error; it is in the server's log"))

        return run

    async def _audit_refusal(self, request: Request, access: Access, error: FhirError) -> None:
        event = audit.audit_event(_act(request, "refused"), access, (), failed=str(error))
        await self._interactions.store.ensure("AuditEvent")
        await self._interactions.reads.write(event)

    # Interactions

    async def metadata(self, _request: Request) -> Response:
        return _json(self._metadata())

    async def unknown(self, request: Request, _access: Access) -> Response:
        raise fail("not-supported", f"{request.method} {request.url.path} is nothing this server does", status=404)

    async def system(self, request: Request, access: Access) -> Response:
        if request.method == "GET":
            raise fail("not-supported", "a search over all types is not supported yet: name a type")
        body = await _body(request)
        if body.get("resourceType") != "Bundle":
            raise fail("structure", "only a Bundle can be posted to the base", "resourceType")
        kind = str(body.get("type"))
        return _json(await bundles.process(self._interactions, access, body, _act(request, kind)))

    async def type_level(self, request: Request, access: Access) -> Response:
        resource_type = _type(request)
        if request.method == "GET":
            return await self._search(request, access, resource_type, list(request.query_params.multi_items()))
        if request.headers.get("if-none-exist"):
            raise fail("not-supported", "conditional create is not supported yet")
        body = await _body(request)
        if known_type(body) != resource_type:
            raise fail("structure", f"a {resource_type} is expected here, not a {body['resourceType']}", "resourceType")
        created = await self._interactions.create(access, body, _act(request, "create"))
        location = f"{self._base}/{resource_type}/{created['id']}/_history/{created['meta']['versionId']}"
        return _resource(created, request, 201, {"Location": location})

    async def instance(self, request: Request, access: Access) -> Response:
        resource_type, id_ = _type(request), request.path_params["id"]
        if request.method == "GET":
            found = await self._interactions.read(access, resource_type, id_, _act(request, "read"))
            assert found.resource is not None
            if request.headers.get("if-none-match") == _etag(found.resource):
                return Response(status_code=304, headers=_version_headers(found.resource))
            return _json(found.resource, headers=_version_headers(found.resource))
        if_match = bundles.etag(request.headers.get("if-match"))
        if request.method == "DELETE":
            await self._interactions.delete(access, resource_type, id_, if_match, _act(request, "delete"))
            return Response(status_code=204)
        body = await _body(request)
        if known_type(body) != resource_type or body.get("id") != id_:
            raise fail("value", f"the resource sent must be {resource_type}/{id_}, as the address says", f"{resource_type}.id")
        stored, created = await self._interactions.update(access, body, if_match, _act(request, "update"))
        headers = {"Location": f"{self._base}/{resource_type}/{id_}/_history/{stored['meta']['versionId']}"} if created else {}
        return _resource(stored, request, 201 if created else 200, headers)

    async def vread(self, request: Request, access: Access) -> Response:
        resource_type, id_ = _type(request), request.path_params["id"]
        found = await self._interactions.vread(access, resource_type, id_, request.path_params["version"], _act(request, "vread"))
        assert found.resource is not None
        return _json(found.resource, headers=_version_headers(found.resource))

    async def history(self, request: Request, access: Access) -> Response:
        resource_type, id_ = _type(request), request.path_params["id"]
        count = request.query_params.get("_count", "100")
        if not count.isdecimal():
            raise fail("value", "_count takes a whole number")
        versions = await self._interactions.history(access, resource_type, id_, int(count), _act(request, "history-instance"))
        entries = [
            {
                "fullUrl": f"{self._base}/{resource_type}/{id_}",
                **({"resource": v.resource} if v.resource else {}),
                "request": {"method": v.method, "url": resource_type if v.method == "POST" else f"{resource_type}/{id_}"},
                "response": {
                    "status": {"POST": "201", "DELETE": "204"}.get(v.method, "200"),
                    "etag": f'W/"{v.version}"',
                    "lastModified": v.updated.isoformat(timespec="milliseconds") + "Z",
                },
            }
            for v in versions
        ]
        return _json({"resourceType": "Bundle", "type": "history", "total": len(entries), "entry": entries})

    async def search_form(self, request: Request, access: Access) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            raise fail("not-supported", "a search by POST is sent as application/x-www-form-urlencoded", status=415)
        form = (await _read_body(request)).decode("utf-8", "replace")
        parameters = urllib.parse.parse_qsl(form, keep_blank_values=True) + list(request.query_params.multi_items())
        return await self._search(request, access, _type(request), parameters)

    async def _search(self, request: Request, access: Access, resource_type: str, parameters: list[tuple[str, str]]) -> Response:
        query = urllib.parse.urlencode(parameters)
        act = Act("search-type", peer=_peer(request), query=query)
        found = await self._interactions.search(access, resource_type, parameters, act)
        return _json(self._searchset(resource_type, parameters, found))

    def _searchset(self, resource_type: str, parameters: list[tuple[str, str]], found: Found) -> Resource:
        asked = [(n, v) for n, v in parameters if n != "_cursor"]
        links = [{"relation": "self", "url": self._link(resource_type, parameters)}]
        if found.cursor:
            links.append({"relation": "next", "url": self._link(resource_type, [*asked, ("_cursor", found.cursor)])})
        entries = [self._entry(r, "match") for r in found.matches] + [self._entry(r, "include") for r in found.included]
        if found.truncated:
            warning = fail("too-costly", "not all included resources are here").issues[0].as_fhir() | {"severity": "warning"}
            entries.append({"resource": {"resourceType": "OperationOutcome", "issue": [warning]}, "search": {"mode": "outcome"}})
        bundle: Resource = {"resourceType": "Bundle", "type": "searchset", "link": links}
        if found.total is not None:
            bundle["total"] = found.total
        if entries:
            bundle["entry"] = entries
        return bundle

    def _entry(self, resource: Resource, mode: str) -> dict[str, Any]:
        url = f"{self._base}/{resource['resourceType']}/{resource['id']}"
        return {"fullUrl": url, "resource": resource, "search": {"mode": mode}}

    def _link(self, resource_type: str, parameters: list[tuple[str, str]]) -> str:
        query = urllib.parse.urlencode(parameters, safe=":/|,")
        return f"{self._base}/{resource_type}" + (f"?{query}" if query else "")


def _type(request: Request) -> str:
    resource_type: str = request.path_params["type"]
    if resource_type not in definitions.RESOURCE_TYPES:
        raise fail("not-supported", f"{resource_type} is not a FHIR R4 resource type", status=404)
    return resource_type


def _act(request: Request, event: str) -> Act:
    return Act(event, peer=_peer(request))


def _peer(request: Request) -> str | None:
    return request.client.host if request.client else None


def _negotiate(request: Request) -> None:
    wanted = request.query_params.get("_format") or request.headers.get("accept", "*/*")
    offered = [part.partition(";")[0].strip().lower() for part in wanted.split(",")]
    if not any(o in _ACCEPTED or o in {"json", ""} for o in offered):
        raise fail("not-supported", f"this server answers in {FHIR_JSON}", status=406)


async def _read_body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise fail("too-long", f"a request body holds at most {MAX_BODY // 1024 // 1024} MiB", status=413)
        chunks.append(chunk)
    return b"".join(chunks)


async def _body(request: Request) -> Resource:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _SENT:
        raise fail("not-supported", f"resources are sent as {FHIR_JSON}", status=415)
    return fhir_json.loads(await _read_body(request))


def _resource(resource: Resource, request: Request, status: int, headers: dict[str, str]) -> Response:
    headers = {**headers, **_version_headers(resource)}
    wanted = request.headers.get("prefer", "")
    if "return=minimal" in wanted:
        return Response(status_code=status, headers=headers)
    if "return=OperationOutcome" in wanted:
        done = {"severity": "information", "code": "informational", "diagnostics": "done"}
        return _json({"resourceType": "OperationOutcome", "issue": [done]}, status, headers)
    return _json(resource, status, headers)


def _etag(resource: Resource) -> str:
    return f'W/"{resource["meta"]["versionId"]}"'


def _version_headers(resource: Resource) -> dict[str, str]:
    updated = datetime.fromisoformat(resource["meta"]["lastUpdated"])
    return {"ETag": _etag(resource), "Last-Modified": format_datetime(updated, usegmt=True)}


def _json(body: Resource, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        fhir_json.dumps(body), status, {"Cache-Control": "no-store", **(headers or {})}, f"{FHIR_JSON}; charset=utf-8"
    )


def _refusal(error: FhirError) -> Response:
    return _json(operation_outcome(*error.issues), error.status, error.headers)
