"""What tokens cost: getting them at `/oauth/token` as a backend client, and their check at each FHIR request.

python -m benchmarks.tokens [--count 2000] [--connections 8]

Every request for a token has an assertion of its own, signed before the measurement. The check is timed in this process, on the
server's MongoDB: with a token that was seen within the last second, and with one that has to be looked up, a backend's and a
radiologist's. The load generator has one of the two cores: what the server alone takes for a token is said beside.
"""

import argparse
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import uvloop
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from starlette.requests import Request

from benchmarks.load import machine, request_bytes, run
from benchmarks.stand import Stand, standing
from smart_auth.clients import Clients
from smart_auth.grants import Grant, Grants
from smart_auth.routes import authenticate
from smart_auth.tokens import Tokens, token_id
from smart_auth.users import Users

_CHECKS = 2000
_FORM = "application/x-www-form-urlencoded"
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def _request_for_token(stand: Stand) -> bytes:
    form = {
        "grant_type": "client_credentials",
        "scope": "system/*.rs",
        "client_assertion_type": _JWT_BEARER,
        "client_assertion": stand.app.assertion(),
    }
    return request_bytes("POST", "/oauth/token", urlencode(form).encode(), content_type=_FORM)


async def _median(check: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds."""
    times = []
    for _ in range(_CHECKS):
        began = time.perf_counter()
        await check()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


async def _checks(tokens: Tokens, bearer: str) -> tuple[float, float]:
    """Milliseconds for a token that is known, and for one that isn't."""
    asked = Request({"type": "http", "query_string": b"", "headers": [(b"authorization", f"Bearer {bearer}".encode())]})

    async def anew() -> None:
        tokens.forget(token_id(bearer))
        await authenticate(tokens, asked)

    return await _median(lambda: authenticate(tokens, asked)), await _median(anew)


async def _person(db: AsyncDatabase[dict[str, Any]], tokens: Tokens) -> str:
    """A token of somebody who is logged in."""
    client = await Clients(db).get("bench")
    assert client is not None
    user = await Users(db).add("bench", "radiologist", "Practitioner/bench", "encoded")
    now = datetime.now(UTC)
    grant = Grant(
        "bench", client.client_id, client.registration, user.name, user.fhir_user, user.role, user.registration,
        user.security_stamp, "user/*.rs", now, ("pwd",),
    )  # fmt: skip
    await Grants(db).start(grant)
    await Grants(db).redeemed(grant)
    return await tokens.issue(client, grant.scope, 3600, **grant.token_context)


async def measure(count: int, connections: int) -> None:
    """Measure and print."""
    async with standing() as stand:
        print(f"{machine()}; 1 HTTP worker\n", flush=True)
        requests = [_request_for_token(stand) for _ in range(count)]
        for number in (1, connections):
            share = requests[: count // 4] if number == 1 else requests[count // 4 :]
            with stand.watched() as used:
                result = await run(stand.port, lambda n, share=share: share[n], connections=number, count=len(share))
                print(f"/oauth/token, ES384  c={number:<3} {result}", flush=True)
                print(f"    {used(len(share))}", flush=True)
        client = AsyncMongoClient[dict[str, Any]](stand.mongodb_uri)
        try:
            tokens = Tokens(client["ris"])
            for name, bearer in (("backend", stand.token), ("radiologist", await _person(client["ris"], tokens))):
                known, anew = await _checks(tokens, bearer)
                print(f"check of a {name}'s token: {known:.4f} ms; of one that is looked up: {anew:.3f} ms", flush=True)
        finally:
            await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="tokens")
    parser.add_argument("--connections", type=int, default=8)
    given = parser.parse_args()
    uvloop.run(measure(given.count, given.connections))


if __name__ == "__main__":
    main()
