"""A SMART backend app: its key, its token, and FHIR requests with it."""

import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import httpx
from joserfc import jwk, jwt

Resource = dict[str, Any]


class App:
    """An app of the outside world. `register` makes it known, `token` is fetched when needed."""

    def __init__(self, client_id: str, scope: str, base_url: str) -> None:
        self.client_id = client_id
        self.scope = scope
        self.base_url = base_url
        self.key = jwk.ECKey.generate_key("P-384", parameters={"kid": client_id, "use": "sig", "alg": "ES384"}, private=True)
        self.http = httpx.AsyncClient(base_url=base_url, timeout=30)
        self._token = ""
        self._until = 0.0

    def write_jwks(self, directory: Path) -> Path:
        """The file to register it with."""
        path = directory / f"{self.client_id}.jwks.json"
        path.write_text(json.dumps({"keys": [self.key.as_dict(private=False)]}))
        return path

    def assertion(self) -> str:
        """What the app proves itself with, once (RFC 7523; SMART App Launch 2.2, "Client authentication: asymmetric")."""
        now = int(time.time())
        header = {"alg": "ES384", "kid": self.client_id, "typ": "JWT"}
        claims = {"iss": self.client_id, "sub": self.client_id, "aud": f"{self.base_url}/oauth/token", "jti": uuid.uuid4().hex}
        return jwt.encode(header, claims | {"iat": now, "exp": now + 240}, self.key, algorithms=["ES384"])

    async def token(self) -> str:
        """An access token by client_credentials and private_key_jwt (SMART Backend Services)."""
        if time.time() > self._until:
            form = {
                "grant_type": "client_credentials",
                "scope": self.scope,
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": self.assertion(),
            }
            answer = await self.http.post("/oauth/token", data=form)
            answer.raise_for_status()
            self._token, self._until = answer.json()["access_token"], time.time() + 200
        return self._token

    async def request(self, method: str, path: str, body: Resource | None = None, **headers: str) -> httpx.Response:
        """A FHIR request: `request("GET", "Patient?name=x")`."""
        sent = {"Authorization": f"Bearer {await self.token()}", "Accept": "application/fhir+json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = json.dumps(body) if body is not None else None
        if body is not None:
            sent["Content-Type"] = "application/fhir+json"
        return await self.http.request(method, f"/fhir/{path}", content=content, headers=sent)

    async def ok(self, method: str, path: str, body: Resource | None = None, **headers: str) -> Resource:
        """The same, and its resource. RuntimeError with the issues when it is refused."""
        answer = await self.request(method, path, body, **headers)
        if answer.status_code >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        found: Resource = answer.json() if answer.content else {}
        return found

    async def search(self, query: str) -> list[Resource]:
        """The matches of a search."""
        bundle = await self.ok("GET", query)
        return [e["resource"] for e in bundle.get("entry", ()) if e["search"]["mode"] == "match"]

    async def put(self, resources: Iterable[Resource]) -> None:
        """Store all of these under their own ids, in one transaction."""
        entry = [{"resource": r, "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}} for r in resources]
        await self.ok("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entry})

    async def close(self) -> None:
        await self.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
