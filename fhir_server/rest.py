"""The FHIR REST edge (FHIR R4 3.1.0): HTTP in, an interaction, HTTP out. All but `metadata` and discovery needs a token."""

import urllib.parse
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fhir_server import bundles, definitions
from fhir_server.audit import Act
from fhir_server.bundle_links import localize
from fhir_server.http_frame import (
    Authenticate,
    Endpoint,
    Handler,
    json_response,
    peer,
    read_form,
    read_json,
    stored_response,
    version_headers,
)
from fhir_server.interactions import Interactions, known_type
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from fhir_server.search.query import MAX_COUNT, number
from fhir_server.search.results import Found
from fhir_server.store import Version
from smart_auth.access import Access

DEFAULT_HISTORY = 100


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

        def route(path: str, **handlers: Handler) -> Route:
            return Route(path, Endpoint(handlers, self._authenticate))

        return [
            Route("/fhir/metadata", Endpoint({"GET": self.metadata}, None)),
            route("/fhir", POST=self.bundle),
            route("/fhir/", POST=self.bundle),
            route("/fhir/{type}/_search", POST=self.search_form),
            route("/fhir/{type}/{id}/_history/{version}", GET=self.vread),
            route("/fhir/{type}/{id}/_history", GET=self.history),
            route("/fhir/{type}/{id}", GET=self.read, PUT=self.update, DELETE=self.delete),
            route("/fhir/{type}", GET=self.search, POST=self.create),
            route("/fhir/{rest:path}"),
        ]

    async def metadata(self, _request: Request, _access: Access) -> Response:
        return json_response(self._metadata())

    # Interactions on one resource

    async def read(self, request: Request, access: Access) -> Response:
        found = await self._interactions.read(access, _type(request), request.path_params["id"], _act(request, "read"))
        assert found.resource is not None
        headers = version_headers(found.resource)
        tags = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
        if headers["ETag"] in tags or "*" in tags:
            return Response(status_code=304, headers=headers)
        return json_response(found.resource, headers=headers)

    async def vread(self, request: Request, access: Access) -> Response:
        id_, version = request.path_params["id"], request.path_params["version"]
        found = await self._interactions.vread(access, _type(request), id_, version, _act(request, "vread"))
        assert found.resource is not None
        return json_response(found.resource, headers=version_headers(found.resource))

    async def create(self, request: Request, access: Access) -> Response:
        resource_type = _type(request)
        if request.headers.get("if-none-exist"):
            raise fail("not-supported", "conditional create is not supported yet")
        body = await self._resource(request)
        if known_type(body) != resource_type:
            raise fail("structure", f"a {resource_type} is expected here, not a {body['resourceType']}", "Resource.resourceType")
        created = await self._interactions.create(access, body, _act(request, "create"))
        return stored_response(created, request, 201, {"Location": self._version_url(created)})

    async def update(self, request: Request, access: Access) -> Response:
        resource_type, id_ = _type(request), request.path_params["id"]
        if_match = bundles.etag(request.headers.get("if-match"))
        unless = request.headers.get("if-none-match")
        if unless is not None and unless.strip() != "*":
            raise fail("not-supported", "If-None-Match on an update is *: only if there is no such resource yet")
        body = await self._resource(request)
        if known_type(body) != resource_type:
            raise fail("structure", f"a {resource_type} is expected here, not a {body['resourceType']}", "Resource.resourceType")
        if body.get("id") != id_:
            raise fail("value", f"the id must be {id_[:64]}, as the address says", f"{resource_type}.id")
        act = _act(request, "update")
        stored, created = await self._interactions.update(access, body, if_match, act, only_new=unless is not None)
        headers = {"Location": self._version_url(stored)} if created else {}
        return stored_response(stored, request, 201 if created else 200, headers)

    async def delete(self, request: Request, access: Access) -> Response:
        resource_type, id_ = _type(request), request.path_params["id"]
        if_match = bundles.etag(request.headers.get("if-match"))
        await self._interactions.delete(access, resource_type, id_, if_match, _act(request, "delete"))
        return Response(status_code=204)

    async def history(self, request: Request, access: Access) -> Response:
        resource_type, id_ = _type(request), request.path_params["id"]
        given = request.query_params
        if unknown := set(given) - {"_count", "_cursor", "_format", "_pretty"}:
            raise fail("not-supported", f"the history has no parameter {min(unknown)[:64]!r}; it has: _count", status=400)
        asked = min(number("_count", given.get("_count", str(DEFAULT_HISTORY))), MAX_COUNT)
        before = number("_cursor", given["_cursor"]) if "_cursor" in given else None
        act = _act(request, "history-instance")
        versions = await self._interactions.history(access, resource_type, id_, asked + 1, act, before=before)
        address = f"{self._base}/{resource_type}/{id_}/_history"
        links = [{"relation": "self", "url": f"{address}?{request.url.query}" if request.url.query else address}]
        if 0 < asked < len(versions):
            links.append({"relation": "next", "url": f"{address}?_count={asked}&_cursor={versions[asked - 1].version}"})
        bundle: Resource = {"resourceType": "Bundle", "type": "history", "link": links}
        if before is None:
            bundle["total"] = versions[0].version  # every number from 1 on is a version
        if versions[:asked]:
            bundle["entry"] = [self._history_entry(resource_type, v) for v in versions[:asked]]
        return json_response(bundle)

    def _history_entry(self, resource_type: str, version: Version) -> dict[str, Any]:
        return {
            "fullUrl": f"{self._base}/{resource_type}/{version.id}",
            **({"resource": version.resource} if version.resource else {}),
            "request": {
                "method": version.method,
                "url": resource_type if version.method == "POST" else f"{resource_type}/{version.id}",
            },
            "response": {
                "status": "204" if version.method == "DELETE" else "201" if version.version == 1 else "200",
                "etag": f'W/"{version.version}"',
                "lastModified": version.updated.isoformat(timespec="milliseconds") + "Z",
            },
        }

    # Bundles

    async def bundle(self, request: Request, access: Access) -> Response:
        body = await read_json(request)
        if body.get("resourceType") != "Bundle":
            raise fail("structure", "only a Bundle can be posted to the base", "Resource.resourceType")
        act = _act(request, "transaction" if body.get("type") == "transaction" else "batch")
        return json_response(await bundles.process(self._interactions, access, body, act, self._base))

    # Search

    async def search(self, request: Request, access: Access) -> Response:
        return await self._search(request, access, list(request.query_params.multi_items()))

    async def search_form(self, request: Request, access: Access) -> Response:
        return await self._search(request, access, await read_form(request) + list(request.query_params.multi_items()))

    async def _search(self, request: Request, access: Access, parameters: list[tuple[str, str]]) -> Response:
        resource_type = _type(request)
        act = Act("search-type", peer=peer(request), query=urllib.parse.urlencode(parameters))
        found = await self._interactions.search(access, resource_type, parameters, act, base_url=self._base)
        return json_response(self._searchset(resource_type, parameters, found))

    def _searchset(self, resource_type: str, parameters: list[tuple[str, str]], found: Found) -> Resource:
        asked = [(n, v) for n, v in parameters if n != "_cursor"]
        links = [{"relation": "self", "url": self._link(resource_type, parameters)}]
        if found.cursor:
            links.append({"relation": "next", "url": self._link(resource_type, [*asked, ("_cursor", found.cursor)])})
        entries = [self._entry(r, "match") for r in found.matches] + [self._entry(r, "include") for r in found.included]
        if found.truncated:
            warning = {"severity": "warning", "code": "too-costly", "diagnostics": "not all included resources are here"}
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

    def _version_url(self, resource: Resource) -> str:
        return f"{self._base}/{resource['resourceType']}/{resource['id']}/_history/{resource['meta']['versionId']}"

    async def _resource(self, request: Request) -> Resource:
        body = await read_json(request)
        localize(body, self._base)
        return body


def _type(request: Request) -> str:
    resource_type: str = request.path_params["type"]
    if resource_type not in definitions.RESOURCE_TYPES:
        raise fail("not-supported", f"{resource_type[:64]} is not a FHIR R4 resource type", status=404)
    return resource_type


def _act(request: Request, event: str) -> Act:
    return Act(event, peer=peer(request))
