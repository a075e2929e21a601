"""Calling a payer's FHIR server over HTTP, and nothing else in the network (no SSRF).

https, on this machine also http; each address that the host's name resolves to must be a public one (or, where the credentials
file says so, may be private), and the connection goes to the address that was judged, under the host's name; no redirects, no
proxies; little time and little data.
"""

import asyncio
import json
import ssl
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

import httpx

from bridges.payer.credentials import Account, CredentialsError, accounts
from fhir_server import fhir_json
from fhir_server.outcome import FhirError
from fhir_server.public_hosts import NotPublic, is_loopback, resolved
from fhir_server.registry import Resource

_FHIR: Final = "application/fhir+json"
_LARGEST: Final = 4 * 1024 * 1024
_TOKEN_MARGIN: Final = 30  # seconds before its end in which a token is not used any more
_LATER: Final = frozenset({408, 425, 429})  # asked too early or too often; with all of 5xx
_ANSWER: Final = "CoverageEligibilityResponse"


class NotAnswered(Exception):
    """There is no answer now, and may be one later. The text names neither patients nor secrets."""


class Refused(Exception):
    """The payer doesn't take the request, now or later. `said` is what it says about it, which may name a patient."""

    def __init__(self, text: str, said: str = "") -> None:
        super().__init__(text)
        self.said = said


class NotUnderstood(Exception):
    """What came back is no answer to the request."""


@dataclass(slots=True)
class Payers:
    """Calls payers: one object a process, which keeps the tokens that it was given.

    credentials: the file; seconds: how long a call may take; tls: which certificates are trusted, None: the public internet's
    """

    credentials: Path | None = None
    seconds: float = 30.0
    tls: ssl.SSLContext | None = None
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)

    async def submit(self, base: str, request: bytes, request_id: str) -> Resource:
        """POST [base]/CoverageEligibilityRequest/$submit; the payer's CoverageEligibilityResponse."""
        return await self._answer(base, "POST", "/CoverageEligibilityRequest/$submit", request, request_id)

    async def read(self, base: str, id_: str, request_id: str) -> Resource:
        """GET [base]/CoverageEligibilityResponse/[id]: one that was queued, as it is now."""
        return await self._answer(base, "GET", f"/{_ANSWER}/{id_}", None, request_id)

    async def metadata(self, base: str) -> str:
        """GET [base]/metadata, to see whether it answers: the status as text. NotAnswered where that isn't 200."""
        try:
            account = accounts(self.credentials).get(base) or Account(base)
        except CredentialsError as error:
            raise NotAnswered(str(error)) from None
        status, _ = await self._authorized(account, "GET", f"{base}/metadata", None, str(uuid.uuid4()))
        if status != httpx.codes.OK:
            raise NotAnswered(f"the payer answers {status}")
        return f"HTTP {status}"

    async def _answer(self, base: str, method: str, path: str, content: bytes | None, request_id: str) -> Resource:
        try:
            account = accounts(self.credentials).get(base) or Account(base)
        except CredentialsError as error:
            raise NotAnswered(str(error)) from None
        status, body = await self._authorized(account, method, base + path, content, request_id)
        if status == httpx.codes.UNAUTHORIZED and account.token_url:  # the token may have been withdrawn
            self._tokens.pop(account.address, None)
            status, body = await self._authorized(account, method, base + path, content, request_id)
        if status in _LATER or status >= 500:
            raise NotAnswered(f"the payer answers {status}")
        if not 200 <= status < 300:
            raise Refused(f"the payer answers {status}", _diagnostics(body))
        return _response(body)

    async def _authorized(
        self, account: Account, method: str, url: str, content: bytes | None, request_id: str
    ) -> tuple[int, bytes]:
        headers = {"Accept": _FHIR, "X-Request-Id": request_id}
        if content is not None:
            headers["Content-Type"] = _FHIR
        if token := account.bearer or await self._token(account):
            headers["Authorization"] = f"Bearer {token}"
        return await self._call(account, method, url, headers, content)

    async def _token(self, account: Account) -> str:
        """A token of the payer's authorization server; empty where there is none to be had."""
        if not account.token_url:
            return ""
        token, until = self._tokens.get(account.address, ("", 0.0))
        if token and time.monotonic() < until:
            return token
        try:
            form = urlencode(account.assertion()).encode()
        except CredentialsError as error:
            raise NotAnswered(str(error)) from None
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        status, body = await self._call(account, "POST", account.token_url, headers, form)
        try:
            granted = json.loads(body) if status == httpx.codes.OK else {}
            token, seconds = str(granted["access_token"]), float(granted.get("expires_in", 300))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise NotAnswered(f"the payer's authorization server gives no token: it answers {status}") from None
        self._tokens[account.address] = token, time.monotonic() + seconds - _TOKEN_MARGIN
        return token

    async def _call(
        self, account: Account, method: str, url: str, headers: dict[str, str], content: bytes | None
    ) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(self.seconds):
                return await self._exchange(account, method, url, headers, content)
        except TimeoutError:
            raise NotAnswered(f"no answer within {self.seconds:g} s") from None
        except NotPublic as error:
            raise NotAnswered(str(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise NotAnswered(f"no answer: {type(error).__name__}") from None

    async def _exchange(
        self, account: Account, method: str, url: str, headers: dict[str, str], content: bytes | None
    ) -> tuple[int, bytes]:
        parts = urlsplit(url)
        host = parts.hostname or ""
        here = is_loopback(host)
        if parts.scheme != "https" and not (here and parts.scheme == "http"):
            raise NotPublic("the address is not https")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await resolved(host, port, check=not (here or account.private))
        if here and not is_loopback(address):
            raise NotPublic("the host is not this machine")
        if self.tls is None:
            self.tls = httpx.create_ssl_context(trust_env=False)
        # Not compressed: how much it becomes can't be told before it has become that.
        sent = headers | {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity"}
        where = httpx.URL(url).copy_with(host=address, fragment=None)
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, verify=self.tls, timeout=self.seconds) as http,
            http.stream(method, where, headers=sent, content=content, extensions={"sni_hostname": host}) as answer,
        ):
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > _LARGEST:
                    raise NotPublic(f"the answer has more than {_LARGEST} bytes")
            return answer.status_code, bytes(body)


def _response(body: bytes) -> Resource:
    """The CoverageEligibilityResponse in an answer: itself, in a Bundle, or the `return` of Parameters."""
    found = _resource(body)
    if found.get("resourceType") == "Bundle":
        inside = [e.get("resource") for e in _objects(found, "entry")]
    elif found.get("resourceType") == "Parameters":
        inside = [p.get("resource") for p in _objects(found, "parameter") if p.get("name") == "return"]
    else:
        inside = [found]
    answers = [r for r in inside if isinstance(r, dict) and r.get("resourceType") == _ANSWER]
    if len(answers) != 1:
        raise NotUnderstood(f"the payer's answer is no {_ANSWER}")
    return answers[0]


def _objects(resource: Resource, name: str) -> list[Resource]:
    found = resource.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _resource(body: bytes) -> Resource:
    try:
        return fhir_json.loads(body)
    except FhirError:
        raise NotUnderstood("the payer's answer is no FHIR JSON") from None


def _diagnostics(body: bytes) -> str:
    """What an OperationOutcome says, for people."""
    try:
        issues = _objects(_resource(body), "issue")
    except NotUnderstood:
        return ""
    texts = [i.get("diagnostics") or i.get("code") for i in issues]
    return "; ".join(str(t) for t in texts if t)[:500]
