"""The HTTP side of the product for tests of SMART: a real server, people who log in through its pages, apps that are launched."""

import asyncio
import base64
import hashlib
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine
from html import unescape
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import httpx
import uvicorn

from fhir_server.app import assemble, http_app
from fhir_server.database import connect
from fhir_server.settings import Settings
from smart_auth import people
from smart_auth.clients import Client, Clients, new_secret
from smart_auth.jwks_fetcher import JwksFetcher
from smart_auth.users import Users
from tests import databases
from tests.quick_passwords import QuickPasswords

T = TypeVar("T")
Resource = dict[str, Any]
REDIRECT = "https://app.example/callback"
PASSWORD = "a long pass phrase"
SCOPE = "launch openid fhirUser profile offline_access online_access launch/patient launch/encounter launch/imagingstudy"
APP_SCOPE = f"{SCOPE} launch/diagnosticreport patient/*.cruds user/*.cruds"


class SmartApp:
    """A running server over a database of its own, with a radiologist and a little data."""

    def __init__(self, mongodb_uri: str, *, fetcher: JwksFetcher | None = None, beside: "SmartApp | None" = None) -> None:
        """`beside`: one more worker of that server, on a port of its own (`here`)."""
        self._beside = beside
        self._uri, self._fetcher = mongodb_uri, fetcher
        self._logins: dict[str, dict[str, str]] = {}
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._main)
        self._thread.start()
        assert self._started.wait(120)
        if self._failed is not None:
            raise self._failed

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._failed = error
            self._started.set()
            raise

    async def _run(self) -> None:
        beside = self._beside
        self.db = await connect(self._uri, beside.db.name if beside else databases.take(self._uri))
        listening = socket.create_server(("127.0.0.1", 0))
        self.here = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.base = beside.base if beside else self.here
        self.fhir = f"{self.base}/fhir"
        with tempfile.TemporaryDirectory() as directory:
            self.data_dir = beside.data_dir if beside else Path(directory)
            settings = Settings(base_url=self.base, data_dir=self.data_dir)
            ris = await assemble(settings, self.db)
            await people.ensure_indexes(self.db)
            self.tokens, self.interactions = ris.tokens, ris.interactions
            self.clients, self.users, self.passwords = Clients(self.db), Users(self.db), QuickPasswords()
            self._loop = asyncio.get_running_loop()
            app = http_app(ris, fetcher=self._fetcher)
            self._uvicorn = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
            serving = asyncio.create_task(self._uvicorn.serve(sockets=[listening]))
            while not self._uvicorn.started and not serving.done():
                await asyncio.sleep(0.005)
            self._started.set()
            await serving
        await self.db.client.close()
        if beside is None:
            await asyncio.to_thread(databases.give_back, self._uri, self.db.name)

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(300)

    # Parties

    def user(self, role: str = "radiologist", practitioner: str = "rita") -> str:
        """A new user with `PASSWORD`; the name."""
        name = f"user-{uuid4().hex[:8]}"

        async def add() -> None:
            encoded = await self.passwords.hash(PASSWORD)
            await self.users.add(name, role, f"Practitioner/{practitioner}", encoded)

        self.run(add())
        return name

    def client(self, scope: str = APP_SCOPE, **registration: Any) -> "App":
        """A new app: public, unless `secret=True`, `jwks` or `jwks_uri` is given; without redirect URIs a backend service."""
        name = f"app-{uuid4().hex[:8]}"
        secret = new_secret() if registration.pop("secret", False) else None
        given = {"redirect_uris": [REDIRECT], "launch_uri": "https://app.example/launch", **registration}
        client = self.run(self.clients.add(name, scope, secret=secret, **given))
        return App(self, client, secret)

    def backend(self, scope: str = "system/*.cruds") -> str:
        """An access token of a backend service with these scopes."""
        from tests.test_smart_token_endpoint import JWKS

        async def issue() -> str:
            client = await self.clients.add(f"backend-{uuid4().hex[:8]}", scope, jwks=JWKS)
            return await self.tokens.issue(client, scope, lifetime=3600)

        return self.run(issue())

    def put(self, *resources: Resource) -> None:
        """Store resources, as a backend service does."""
        headers = {"Authorization": f"Bearer {self.backend()}", "Content-Type": "application/fhir+json"}
        for resource in resources:
            path = f"{self.fhir}/{resource['resourceType']}/{resource['id']}"
            answer = httpx.put(path, json=resource, headers=headers)
            assert answer.status_code in {200, 201}, answer.text

    def read(self, token: str, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.fhir}/{path}", headers={"Authorization": f"Bearer {token}", **headers})

    def browser(self, user: str | None = None, *, fresh: bool = False) -> "Browser":
        """A browser, in which a user may be logged in already; unless `fresh`, in the session of earlier ones."""
        browser = Browser(self)
        if user is not None:
            if fresh:
                browser.log_in(user)
                return browser
            if user not in self._logins:
                browser.log_in(user)
                self._logins[user] = dict(browser.http.cookies)
            browser.http.cookies.update(self._logins[user])
        return browser

    def documents(self) -> dict[str, list[Resource]]:
        """Everything that the authorization server keeps."""

        async def all_of_it() -> dict[str, list[Resource]]:
            names = [name for name in await self.db.list_collection_names() if name.startswith("oauth_")]
            return {name: [d async for d in self.db[name].find()] for name in names}

        return self.run(all_of_it())


class App:
    """An app of the outside world: it sends people to authorize, and exchanges codes."""

    def __init__(self, server: SmartApp, client: Client, secret: str | None) -> None:
        self.server, self.client, self.secret = server, client, secret
        self.id = client.client_id
        self.verifier = secrets.token_urlsafe(48)

    def request(self, scope: str = "openid fhirUser launch/patient patient/*.rs", **changed: str | None) -> dict[str, str]:
        """The parameters of an authorization request, in order but for what is changed; None leaves out."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        full = {
            "response_type": "code",
            "client_id": self.id,
            "redirect_uri": REDIRECT,
            "scope": scope,
            "state": uuid4().hex,
            "aud": self.server.fhir,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **changed,
        }
        return {name: value for name, value in full.items() if value is not None}

    def redeem(self, code: str, auth: tuple[str, str] | None = None, **changed: str | None) -> httpx.Response:
        """Exchange a code, in order but for what is changed."""
        full = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": self.verifier,
            "client_id": self.id if self.secret is None else None,
            **changed,
        }
        return self.post("/oauth/token", full, auth)

    def refresh(self, token: str, auth: tuple[str, str] | None = None, **changed: str | None) -> httpx.Response:
        full = {"grant_type": "refresh_token", "refresh_token": token, "client_id": None if self.secret else self.id, **changed}
        return self.post("/oauth/token", full, auth)

    def post(self, path: str, form: dict[str, str | None], auth: tuple[str, str] | None = None, **headers: str) -> httpx.Response:
        auth = auth or ((self.id, self.secret) if self.secret else None)
        given = {name: value for name, value in form.items() if value is not None}
        return httpx.post(self.server.base + path, data=given, auth=auth, headers=headers)

    def tokens(self, browser: "Browser", scope: str = "openid fhirUser launch/patient patient/*.rs", **how: Any) -> Resource:
        """A whole launch; the token response."""
        code = browser.code(self.request(scope, **how.pop("request", {})), **how)
        answer = self.redeem(code)
        assert answer.status_code == 200, answer.text
        body: Resource = answer.json()
        return body

    def launch(self, context: Resource, bearer: str | None = None, **more: Any) -> str:
        """A launch of this app, as an outside EHR mints it."""
        headers = {"Authorization": f"Bearer {bearer or self.server.backend('system/*.rs urn:fhir-ris:launch')}"}
        answer = httpx.post(f"{self.server.base}/launch", json={"client_id": self.id, **context, **more}, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["launch"])


Ticks = Callable[[str], bool]


class Browser:
    """A person at a browser: follows our pages, and stops where an app begins."""

    def __init__(self, server: SmartApp) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.base, timeout=60)
        self.user: str | None = None

    def log_in(self, user: str, path: str = "/login") -> httpx.Response:
        shown = self.http.get(path)
        form = {"csrf": field(shown, "csrf"), "next": field(shown, "next"), "name": user, "password": PASSWORD}
        answer = self.http.post("/login", data=form)
        assert answer.status_code == 303, answer.text
        self.user = user
        return answer

    def authorize(self, parameters: dict[str, str], method: str = "GET") -> httpx.Response:
        """Come with a request; the first answer that is no redirect of ours."""
        if method == "POST":
            return self.follow(self.http.post("/oauth/authorize", data=parameters))
        return self.follow(self.http.get(f"/oauth/authorize?{urlencode(parameters)}"))

    def follow(self, answer: httpx.Response) -> httpx.Response:
        """Go where we are led, as long as it is to ourselves."""
        while answer.is_redirect and answer.headers["location"].startswith("/"):
            answer = self.http.get(answer.headers["location"])
        return answer

    def submit(self, page: httpx.Response, **form: str) -> httpx.Response:
        """Send the form of a page."""
        return self.follow(self.http.post(str(page.url), data={"csrf": field(page, "csrf"), **form}))

    def consent(self, page: httpx.Response, ticks: Ticks = lambda _scope: True, answer: str = "allow") -> httpx.Response:
        """Answer a consent page."""
        assert 'name="step" value="consent"' in page.text, page.text
        offered = re.findall(r'name="(scope-\d+)".*?<code class="soft">(.*?)</code>', page.text, re.DOTALL)
        ticked = {name: "yes" for name, scope in offered if ticks(unescape(scope))}
        return self.submit(page, step="consent", answer=answer, **ticked)

    def pick(self, page: httpx.Response, patient: str, text: str = "Muster") -> httpx.Response:
        """Find and choose a patient."""
        assert 'name="step" value="search"' in page.text, page.text
        found = self.submit(page, step="search", text=text)
        assert f'value="{patient}"' in found.text, found.text
        return self.submit(found, step="patient", patient=patient, answer="choose")

    def grant(
        self, parameters: dict[str, str], *, ticks: Ticks = lambda _scope: True, patient: str = "mara", encounter: str = "e1"
    ) -> httpx.Response:
        """Say yes to everything on the way; the redirect to the app."""
        page = self.authorize(parameters)
        if page.status_code == 200 and 'value="consent"' in page.text:
            page = self.consent(page, ticks)
        if page.status_code == 200 and 'value="search"' in page.text:
            page = self.pick(page, patient)
        if page.status_code == 200 and 'name="step" value="encounter"' in page.text:
            page = self.submit(page, step="encounter", encounter=encounter, answer="choose")
        assert page.is_redirect, page.text
        return page

    def code(self, parameters: dict[str, str], **how: Any) -> str:
        return answered(self.grant(parameters, **how))["code"]


def answered(redirect: httpx.Response) -> dict[str, str]:
    """What a redirect tells the app."""
    assert redirect.status_code in {302, 303}, redirect.text
    assert redirect.headers["location"].startswith(REDIRECT), redirect.headers["location"]
    return {
        name: values[0] for name, values in parse_qs(urlsplit(redirect.headers["location"]).query, strict_parsing=True).items()
    }


def field(page: httpx.Response, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found, page.text
    return unescape(found[1])


def department(server: SmartApp) -> None:
    """Staff, two patients, and what an app may be launched with."""
    server.put(
        {"resourceType": "Practitioner", "id": "rita", "name": [{"family": "Radiologist", "given": ["Rita"]}]},
        {"resourceType": "Patient", "id": "mara", "name": [{"family": "Muster", "given": ["Mara"]}], "birthDate": "1970-01-31"},
        {"resourceType": "Patient", "id": "max", "name": [{"family": "Muster", "given": ["Max"]}], "birthDate": "1980-02-01"},
        _encounter("e1", "mara"),
        _encounter("e2", "max"),
        {
            "resourceType": "ImagingStudy",
            "id": "study1",
            "status": "available",
            "subject": {"reference": "Patient/mara"},
        },
        _observation("lab1", "laboratory"),
        _observation("vital1", "vital-signs"),
    )


def _encounter(id_: str, patient: str) -> Resource:
    kind = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB", "display": "ambulatory"}
    period = {"start": "2026-11-20T10:00:00Z"}
    subject = {"reference": f"Patient/{patient}"}
    return {"resourceType": "Encounter", "id": id_, "status": "finished", "class": kind, "subject": subject, "period": period}


def _observation(id_: str, category: str) -> Resource:
    coding = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": category}
    return {
        "resourceType": "Observation",
        "id": id_,
        "status": "final",
        "category": [{"coding": [coding]}],
        "code": {"text": "invented"},
        "subject": {"reference": "Patient/mara"},
    }
