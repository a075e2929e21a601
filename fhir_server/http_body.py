"""The body of a FHIR request: how large it may be, in which formats it comes, and how it is unpacked."""

import asyncio
import urllib.parse
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request

from fhir_server import fhir_json
from fhir_server.bundle_links import localize
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.registry import Resource

T = TypeVar("T")

MAX_BODY = 20 * 1024 * 1024
MAX_FORM = 1024 * 1024
FHIR_JSON = "application/fhir+json"
JSON_PATCH = "application/json-patch+json"
FORM = "application/x-www-form-urlencoded"
ACCEPT_PATCH = f"{JSON_PATCH}, {FHIR_JSON}"
_RESOURCES = frozenset({FHIR_JSON, "application/json"})
# Parsing more than this would keep the other requests waiting for longer than they take themselves.
_LARGE = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_MAX_MEMBERS = 1000


def content_type(request: Request) -> str:
    """The media type of the body, without its parameters. FhirError (415) for a FHIR version that isn't ours."""
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    if not is_our_version(rest):
        raise fail("not-supported", "this server speaks FHIR R4: fhirVersion=4.0", status=415)
    return kind.strip().lower()


def is_our_version(parameters: str) -> bool:
    """Whether the parameters of a media type name FHIR R4, or no version (FHIR R4 3.1.0.1.11)."""
    for part in parameters.split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "fhirversion":
            return value.strip().strip('"') in {"4.0", "4.0.1"}
    return True


async def read_json(request: Request, base_url: str | None = None) -> Resource:
    """The JSON object in the body. FhirError 415, 413, or `structure` (400).

    With `base_url`, our FHIR base, references that are written with it are made relative.
    """
    if content_type(request) not in _RESOURCES:
        raise fail("not-supported", f"resources are sent as {FHIR_JSON}; XML is not offered", status=415)
    return await _loads(await _read(request, MAX_BODY), partial(_resource, base_url=base_url))


def _resource(data: bytes, base_url: str | None) -> Resource:
    resource = fhir_json.loads(data)
    # Most bodies don't have our address in them; where a slash or anything is escaped, only the elements can tell.
    if base_url is not None and (base_url.encode() in data or b"\\/" in data or b"\\u" in data):
        localize(resource, base_url)
    return resource


async def read_optional_json(request: Request, base_url: str) -> Resource | None:
    """The same for what need not be there: None when nothing is sent."""
    if request.headers.get("content-length") == "0":
        return None
    if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        return None
    return await read_json(request, base_url)


async def read_patch(request: Request) -> Resource | list[Any]:
    """A JSON Patch (a list), or a FHIRPath Patch (a resource). FhirError 415 names what is taken, as RFC 5789 3.1 asks."""
    kind = content_type(request)
    if kind == JSON_PATCH:
        return await _loads(await _read(request, MAX_BODY), fhir_json.loads_array)
    if kind == FHIR_JSON:
        return await _loads(await _read(request, MAX_BODY), fhir_json.loads)
    text = f"a patch is sent as {JSON_PATCH}, or as a Parameters resource in {FHIR_JSON} (FHIRPath Patch)"
    raise FhirError(Issue("not-supported", text), status=415, headers={"Accept-Patch": ACCEPT_PATCH})


async def read_form(request: Request) -> list[tuple[str, str]]:
    """The parameters in the body of a search by POST. FhirError 415 or 413, or `structure` (400)."""
    if content_type(request) != FORM:
        raise fail("not-supported", f"a search by POST is sent as {FORM}", status=415)
    try:
        return urllib.parse.parse_qsl((await _read(request, MAX_FORM)).decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise fail("structure", "the form is not valid UTF-8", status=400) from None


async def _loads(data: bytes, loads: Callable[[bytes], T]) -> T:
    return await asyncio.to_thread(loads, data) if len(data) > _LARGE else loads(data)


async def _read(request: Request, limit: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 12 or int(announced) > limit):
        raise _too_long(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_long(limit)
        chunks.append(chunk)
    data = b"".join(chunks)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"identity", ""}:
        return data
    if encoding not in {"gzip", "x-gzip"}:
        raise FhirError(
            Issue("not-supported", f"Content-Encoding {encoding[:32]!r} is not taken; gzip is"),
            status=415,
            headers={"Accept-Encoding": "gzip"},
        )
    return await asyncio.to_thread(_unpacked, data, limit)


def _unpacked(data: bytes, limit: int) -> bytes:
    """The content of a gzip file, of one member or several (RFC 1952 2.2), never more than `limit`."""
    content, size = [], 0
    try:
        while data:
            member = zlib.decompressobj(_GZIP)
            content.append(member.decompress(data, limit - size + 1))
            size += len(content[-1])
            if size > limit:
                raise _too_long(limit)
            if not member.eof:
                raise fail("structure", "the gzip content ends too early", status=400)
            data = member.unused_data
            if len(content) == _MAX_MEMBERS and data:
                raise fail("structure", f"the gzip content has more than {_MAX_MEMBERS} members", status=400)
    except zlib.error:
        raise fail("structure", "the content is not valid gzip", status=400) from None
    return b"".join(content)


def _too_long(limit: int) -> FhirError:
    return fail("too-long", f"a request body holds at most {limit // 1024 // 1024} MiB here", status=413)
