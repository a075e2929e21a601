"""Cross-origin requests (the Fetch Standard, "CORS protocol"): web apps of any origin may call us, as SMART apps do.

Any origin is allowed, and never with the browser's own credentials: who may do what is decided by the bearer token alone, which
no browser adds by itself.
"""

from collections.abc import Iterable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALLOWED: dict[str, str] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": (
        "ETag, Location, Content-Location, Last-Modified, WWW-Authenticate, Retry-After, Allow, Accept-Patch, Preference-Applied"
    ),
}
_PREFLIGHT = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    # Authorization is not covered by a "*" here.
    "Access-Control-Allow-Headers": (
        "Authorization, Accept, Content-Type, Content-Encoding, Prefer, If-Match, If-None-Match, If-Modified-Since, If-None-Exist"
    ),
    "Access-Control-Max-Age": "7200",
}


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser asks if it may ask. It sends no token with that."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight() -> Response:
    """The answer to it, the same everywhere: whether the address takes the method, the request itself will tell."""
    return Response(status_code=204, headers=_PREFLIGHT)


class CrossOrigin:
    """An ASGI application whose answers scripts of other origins may read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def allowing(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(ALLOWED)
            await send(message)

        await self._app(scope, receive, allowing)


def open_routes(routes: list[BaseRoute], paths: Iterable[str]) -> None:
    """Let scripts of other origins call the routes at these paths (those that are there), preflight included."""
    wanted = set(paths)
    for route in [r for r in routes if isinstance(r, Route) and r.path in wanted]:
        route.app = CrossOrigin(route.app)
        if not route.methods or "OPTIONS" not in route.methods:
            routes.append(Route(route.path, _Preflight(), methods=["OPTIONS"]))


class _Preflight:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await preflight()(scope, receive, send)
