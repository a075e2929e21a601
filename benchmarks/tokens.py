"""What tokens cost: getting them at `/oauth/token` as a backend client, and their check at each FHIR request.

python -m benchmarks.tokens [--count 2000] [--connections 8]

Every request for a token has an assertion of its own, signed before the measurement. The check is timed in this process, on the
server's MongoDB: with a token that was seen within the last second, and with one that has to be looked up.
"""

import argparse
import statistics
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import uvloop
from pymongo import AsyncMongoClient
from starlette.requests import Request

from benchmarks.load import machine, request_bytes, run
from benchmarks.stand import Stand, standing
from smart_auth.routes import authenticate
from smart_auth.tokens import Tokens, token_id

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


async def measure(count: int, connections: int) -> None:
    """Measure and print."""
    async with standing() as stand:
        print(f"{machine()}; 1 HTTP worker\n", flush=True)
        requests = [_request_for_token(stand) for _ in range(count)]
        for number in (1, connections):
            share = requests[: count // 4] if number == 1 else requests[count // 4 :]
            result = await run(stand.port, lambda n, share=share: share[n], connections=number, count=len(share))
            print(f"/oauth/token, ES384  c={number:<3} {result}", flush=True)
        client = AsyncMongoClient[dict[str, object]](stand.mongodb_uri)
        try:
            tokens = Tokens(client["ris"])
            header = (b"authorization", f"Bearer {stand.token}".encode())
            asked = Request({"type": "http", "query_string": b"", "headers": [header]})

            async def anew() -> None:
                tokens.forget(token_id(stand.token))
                await authenticate(tokens, asked)

            print(f"check of a token: {await _median(lambda: authenticate(tokens, asked)):.4f} ms", flush=True)
            print(f"of one that is looked up: {await _median(anew):.3f} ms")
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
