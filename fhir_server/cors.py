"""Cross-origin requests (the Fetch Standard, "CORS protocol"; SMART App Launch 2.2, "Considerations for cross-origin resource
sharing"): what describes us may be read by scripts of any origin, tokens and data by those of the registered apps.

Never with the browser's own credentials: who may do what is decided by the bearer token alone, which no browser adds by itself.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Whether scripts of this origin may call.
Origins = Callable[[str], Awaitable[bool]]

_EXPOSED = {
    "Access-Control-Expose-Headers": (
        "ETag, Location, Content-Location, Last-Modified, WWW-Authenticate, Retry-After, Allow, Accept-Patch, Preference-Applied"
    ),
}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    # Authorization is not covered by a "*" here.
    "Access-Control-Allow-Headers": (
        "Authorization, Accept, Content-Type, Content-Encoding, Prefer, If-Match, If-None-Match, If-Modified-Since, If-None-Exist"
    ),
    "Access-Control-Max-Age": "7200",
}


async def anybody(_origin: str) -> bool:
    """Any origin."""
    return True


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser asks if it may ask. It sends no token with that."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


async def preflight(origin: str, origins: Origins = anybody) -> Response:
    """The answer to it, the same everywhere: whether the address takes the method, the request itself will tell."""
    response = Response(status_code=204)
    if await allow(response.headers, origin, origins):
        response.headers.update(_PREFLIGHT)
    return response


async def allow(headers: MutableHeaders, origin: str, origins: Origins = anybody) -> bool:
    """Let scripts of this origin read an answer, if they may."""
    if origins is not anybody:
        headers.add_vary_header("Origin")
    if not await origins(origin):
        return False
    headers.update({"Access-Control-Allow-Origin": "*" if origins is anybody else origin, **_EXPOSED})
    return True


class CrossOrigin:
    """An ASGI application whose answers scripts of these origins may read."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = _origin(scope)

        async def allowing(message: Message) -> None:
            if message["type"] == "http.response.start" and (origin is not None or self._origins is anybody):
                await allow(MutableHeaders(scope=message), origin or "", self._origins)
            await send(message)

        await self._app(scope, receive, allowing)


def open_routes(routes: list[BaseRoute], paths: Iterable[str], origins: Origins = anybody) -> None:
    """Let scripts of these origins call the routes at these paths (those that are there), preflight included."""
    wanted = set(paths)
    for route in [r for r in routes if isinstance(r, Route) and r.path in wanted]:
        route.app = CrossOrigin(route.app, origins)
        if not route.methods or "OPTIONS" not in route.methods:
            routes.append(Route(route.path, _Preflight(origins), methods=["OPTIONS"]))


class _Preflight:
    def __init__(self, origins: Origins) -> None:
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await preflight(_origin(scope) or "", self._origins))(scope, receive, send)


def _origin(scope: Scope) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), None)
