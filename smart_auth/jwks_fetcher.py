"""Fetches the keys that a client publishes at its `jwks_uri`, and nothing else in the network (no SSRF).

https only; each address that the host's name resolves to must be a public one, and the connection goes to the address that was
judged, under the host's name; no redirects, no proxies; little time and little data. What is fetched is kept as long as the
client's Cache-Control allows, ten seconds at least and an hour at most; a failure for half a minute. An unknown `kid` is a
reason to look once more; when that fails, the keys that are known stay as good as they were.
"""

import asyncio
import logging
import re
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from fhir_server.public_hosts import NotPublic, resolved
from smart_auth.jwks import JwksError, published_keys

LONGEST_CACHED = 3600  # seconds
FAILURE_CACHED = 30
_UNSAID_CACHED = 300
LOOK_AGAIN_AFTER = 10  # seconds between two fetches, at least, whatever the reason
_SECONDS = 5.0
_MOST_BYTES = 65536
_MOST_SETS = 1000
_log = logging.getLogger(__name__)

Keys = tuple[Mapping[str, Any], ...]


class FetchError(Exception):
    """The keys could not be had; the text is for the log, and names no more than the reason."""


@dataclass(slots=True)
class _Fetched:
    keys: Keys
    until: float
    looked: float


class JwksFetcher:
    """The key sets of clients, by URL: one object a process."""

    def __init__(
        self, *, loopback: Collection[str] = (), verify: ssl.SSLContext | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`loopback` are `host:port`s on this machine that may be asked all the same, by http too: for tests.

        `verify` says which certificates are trusted; None: those of the public internet.
        """
        self._loopback = frozenset(loopback)
        self._tls = verify
        self._clock = clock
        self._sets: dict[str, _Fetched] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def keys(self, url: str, kid: str) -> Keys:
        """The keys at a URL; fetched anew if there is none with this `kid` among those known. None when they can't be had."""
        known = self._sets.get(url)
        if known is not None and self._serves(known, kid):
            return known.keys
        async with self._locks.setdefault(url, asyncio.Lock()):
            known = self._sets.get(url)  # another request may have fetched them meanwhile
            if known is None or not self._serves(known, kid):
                known = await self._refreshed(url)
            return known.keys

    def _serves(self, known: _Fetched, kid: str) -> bool:
        now = self._clock()
        if now >= known.until:
            return False
        return any(key["kid"] == kid for key in known.keys) or now < known.looked + LOOK_AGAIN_AFTER

    async def _refreshed(self, url: str) -> _Fetched:
        before = self._sets.get(url)
        try:
            keys, seconds = await self._fetch(url)
        except FetchError as error:
            _log.warning("the keys of a client can't be fetched: %s", error)
            if before is not None and self._clock() < before.until:
                before.looked = self._clock()
                return before
            keys, seconds = (), FAILURE_CACHED
        now = self._clock()
        # The first look for a kid that is new is always made, later ones at intervals.
        looked = now if before is not None else now - LOOK_AGAIN_AFTER
        fetched = _Fetched(keys, now + max(seconds, LOOK_AGAIN_AFTER), looked if keys else now)
        if len(self._sets) >= _MOST_SETS:
            self._sets.clear()
            self._locks = {url: self._locks[url]}
        self._sets[url] = fetched
        return fetched

    async def _fetch(self, url: str) -> tuple[Keys, float]:
        """The keys and for how many seconds they may be kept. Raises FetchError."""
        try:
            async with asyncio.timeout(_SECONDS):
                body, cache_control = await self._get(url)
        except TimeoutError:
            raise FetchError(f"no answer within {_SECONDS:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise FetchError(type(error).__name__) from error
        try:
            return tuple(published_keys(body)), _lifetime(cache_control)
        except JwksError as error:
            raise FetchError(str(error)) from None

    async def _get(self, url: str) -> tuple[bytes, str]:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        known = f"{host}:{port}" in self._loopback
        if parts.scheme != "https" and not (known and parts.scheme == "http"):
            raise FetchError("the URL is not https")
        try:
            address = await resolved(host, port, check=not known)
        except NotPublic as error:
            raise FetchError(str(error)) from None
        target = httpx.URL(url).copy_with(host=address, fragment=None)
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        headers = {"Host": parts.netloc.rpartition("@")[2], "Accept": "application/json", "Accept-Encoding": "identity"}
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, verify=self._tls, timeout=_SECONDS) as http,
            http.stream("GET", target, headers=headers, extensions={"sni_hostname": host}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise FetchError(f"HTTP status {answer.status_code}")
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise FetchError(f"more than {_MOST_BYTES} bytes")
            return bytes(body), answer.headers.get("cache-control", "")


def _lifetime(cache_control: str) -> float:
    """For how many seconds an answer may be kept (RFC 9111 5.2.2), at most an hour; without a word about it, five minutes."""
    directives = {part.strip().lower() for part in cache_control.split(",")}
    if {"no-store", "no-cache"} & directives:
        return 0
    ages = [float(match[1]) for d in directives if (match := re.fullmatch(r'max-age="?(\d{1,9})"?', d))]
    return min(LONGEST_CACHED, *ages) if ages else _UNSAID_CACHED
