"""What every HTTP request passes first: the clock and counter, and the way to the FHIR edge or to all else."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fhir_server import metrics


class Front:
    """Sends what is under the FHIR base straight to its edge, and all else to the application, whose layers it needs none of."""

    def __init__(self, edge: ASGIApp, app: ASGIApp) -> None:
        self._edge, self._app = edge, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        fhir = scope["type"] == "http" and (path == "/fhir" or path.startswith("/fhir/"))
        await (self._edge if fhir and not path.startswith("/fhir/.well-known/") else self._app)(scope, receive, send)


class Measured:
    """Counts and times the requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.answered(scope["method"], message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, measured)
