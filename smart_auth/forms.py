"""What comes in at the OAuth endpoints: a form of limited size, each parameter once (RFC 6749 3.2)."""

import asyncio
from collections.abc import Collection
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

LARGEST_FORM = 65536  # bytes
_MOST_FIELDS = 250
_SECONDS = 10
_CONTENT_TYPE = "application/x-www-form-urlencoded"


class OAuthError(Exception):
    """A refusal with an RFC 6749 5.2 error code. `client_id` is the client if proven; `claimed` is who it says it is."""

    def __init__(
        self, error: str, description: str, status: int = 400, *, client_id: str | None = None, claimed: str | None = None
    ) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status
        self.client_id = client_id
        self.claimed = claimed


async def read_form(request: Request, *, schemes: Collection[str] = ()) -> dict[str, str]:
    """The parameters of the body. Those without a value count as left out (RFC 6749 3.2); raises OAuthError.

    `schemes` are those of an Authorization header that may come with it, in lower case.
    """
    if request.url.query:
        raise OAuthError("invalid_request", "parameters belong in the body, not in the URL")
    _require_form(request)
    given = request.headers.getlist("authorization")
    scheme = given[0].partition(" ")[0].lower() if given else ""
    if len(given) > 1 or (scheme and scheme not in schemes):
        # RFC 6749 5.2: who tried to authenticate by that header gets a 401 with the scheme that was tried.
        raise OAuthError("invalid_client", "this way of authentication is not supported here", 401 if scheme == "basic" else 400)
    body = await read_body(request)
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise OAuthError("invalid_request", "the body is not a valid form") from error
    return once(fields)


async def read_parameters(request: Request) -> list[tuple[str, str]]:
    """The parameters of an authorization request, from the URL or (POST) the body; raises OAuthError.

    What is not UTF-8 comes as surrogate escapes, so that `state` can be echoed byte for byte.
    """
    if request.method == "POST":
        _require_form(request)
        if request.url.query:
            raise OAuthError("invalid_request", "parameters belong in the body, not in the URL")
        text = await read_body(request)
    else:
        text = request.scope["query_string"]
    try:
        fields = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="surrogateescape", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise OAuthError("invalid_request", "the parameters are not a valid form") from error
    return [(name, value) for name, value in fields if value]


def _require_form(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _CONTENT_TYPE:
        raise OAuthError("invalid_request", f"the content type must be {_CONTENT_TYPE}")


def once(fields: list[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name. Raises OAuthError when one is given more than once."""
    if len({name for name, _ in fields}) < len(fields):
        raise OAuthError("invalid_request", "a parameter is given more than once")
    return {name: value for name, value in fields if value}


async def read_body(request: Request) -> bytes:
    """The body, of limited size and within limited time; raises OAuthError."""
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_FORM:
                    raise OAuthError("invalid_request", f"the body is larger than {LARGEST_FORM} bytes", 413)
    except TimeoutError as error:
        raise OAuthError("invalid_request", f"the body did not arrive within {_SECONDS} s", 408) from error
    except ClientDisconnect as error:
        raise OAuthError("invalid_request", "the connection ended before the body") from error
    return bytes(body)
