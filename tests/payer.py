"""A payer on loopback: a small FHIR server with an authorization server, whose first path segment says how it behaves.

/grants   authorizes, with a benefit period and two examinations       /denies  not in force
/slow     as /grants, after `delay` seconds                            /fails   503, as long as `broken` is set, then grants
/queues   `queued` first; its response, read again, grants             /errors  outcome error
/garbage  no FHIR                                                      /refuses 422 with an OperationOutcome
/malformed  an insurance that is no list
/token    as /grants, for who has the bearer token `agreed`            /smart   the same with a token of /smart/token
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from joserfc import jwt
from joserfc.jwk import ECKey

KEY = ECKey.generate_key("P-384", {"kid": "ris-1"})


class Payer:
    """The payer. `asked`: what it was sent; `headers`: with which headers; `tokens`: how many tokens it has given."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.tokens = 0
        self.delay = 0.0
        self.broken = False
        self._app = FastAPI()
        self._app.add_api_route("/smart/token", self._token, methods=["POST"])
        self._app.add_api_route("/{mood}/CoverageEligibilityRequest/$submit", self._submit, methods=["POST"])
        self._app.add_api_route("/{mood}/CoverageEligibilityResponse/{id_}", self._read, methods=["GET"])
        listening = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(self._app, log_config=None, access_log=False))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _submit(self, mood: str, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        if mood in {"token", "smart"} and request.headers.get("authorization") != f"Bearer {self._expected(mood)}":
            return Response(status_code=401)
        if mood == "slow":
            await asyncio.sleep(self.delay)
        if mood == "fails" and self.broken:
            return Response(status_code=503)
        if mood == "garbage":
            return PlainTextResponse("<html>Welcome</html>")
        if mood == "refuses":
            issue = {"severity": "error", "code": "invalid", "diagnostics": "member number unknown"}
            return JSONResponse({"resourceType": "OperationOutcome", "issue": [issue]}, 422)
        return JSONResponse(answer(body, mood))

    def _expected(self, mood: str) -> str:
        return "agreed" if mood == "token" else f"granted-{self.tokens}"

    async def _read(self, mood: str, id_: str) -> Response:
        return JSONResponse(answer(self.asked[-1], "grants") | {"id": id_})

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        claims = jwt.decode(form["client_assertion"], KEY, algorithms=["ES384"]).claims
        assert claims["sub"] == claims["iss"] == "example-ris"
        assert claims["aud"] == f"{self.base}/smart/token"
        self.tokens += 1
        return JSONResponse({"access_token": f"granted-{self.tokens}", "token_type": "bearer", "expires_in": 300})


def answer(request: dict[str, Any], mood: str) -> dict[str, Any]:
    """The CoverageEligibilityResponse, as a payer's own system would write it: with references of its own."""
    item = {
        "productOrService": request.get("item", [{}])[0].get("productOrService", {"text": "any"}),
        "provider": {"reference": "Practitioner/own-9"},
        "authorizationRequired": True,
        "benefit": [{"type": {"coding": [{"code": "visit"}]}, "allowedUnsignedInt": 3, "usedUnsignedInt": 1}],
    }
    granted = {
        "preAuthRef": "AUTH-4711",
        "insurance": [
            {
                "coverage": {"reference": "Coverage/at-the-payer"},
                "inforce": True,
                "benefitPeriod": {"start": "2026-09-01", "end": "2026-09-30"},
                "item": [item],
            }
        ],
    }
    said: dict[str, dict[str, Any]] = {
        "denies": {"insurance": [{"coverage": {"reference": "Coverage/at-the-payer"}, "inforce": False}]},
        "queues": {"outcome": "queued"},
        "malformed": {"insurance": {"coverage": {"reference": "Coverage/at-the-payer"}, "inforce": True}},
        "errors": {"outcome": "error", "error": [{"code": {"text": "no such member"}}]},
    }
    return {
        "resourceType": "CoverageEligibilityResponse",
        "id": "answer-1",
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">An answer</div>'},
        "status": "active",
        "purpose": request["purpose"],
        "patient": {"reference": "Patient/at-the-payer"},
        "created": "2026-08-30",
        "request": {"reference": f"CoverageEligibilityRequest/{request['id']}"},
        "outcome": "complete",
        "insurer": {"reference": "Organization/us"},
    } | said.get(mood, granted)


@contextmanager
def paying() -> Iterator[Payer]:
    """A payer for as long as the block lasts."""
    payer = Payer()
    try:
        yield payer
    finally:
        payer.stop()
