"""The whole HTTP application on a real socket, and browsers that fill in its forms as people do."""

import base64
import hashlib
import hmac
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx

from fhir_server.app import Ris, assemble, http_app
from fhir_server.database import connect
from fhir_server.settings import Settings
from smart_auth.people import second_factor_key
from smart_auth.second_factor import SecondFactors
from smart_auth.users import User, Users
from tests import databases
from tests.quick_passwords import QuickPasswords
from tests.served import Served

PASSWORD = "vier wilde Esel tanzen"
OTHER_PASSWORD = "drei leise Tauben lachen"


class PeopleApp(Served):
    """A server with its own database. `again` is a second process's worth of application over the same one."""

    def __init__(self, mongodb_uri: str, data_dir: Path, database: str, base_url: str | None = None, **settings: Any) -> None:
        self._settings: dict[str, Any] = {"mongodb_database": database, "data_dir": data_dir} | settings
        if base_url:
            self._settings["base_url"] = base_url
        self._uri = mongodb_uri
        self.data_dir = data_dir
        self._hashes: dict[str, str] = {}
        super().__init__()

    async def opened(self, port: int) -> Any:
        settings = Settings(http_port=port, **self._settings)
        self.base_url = f"http://127.0.0.1:{port}"
        self.db = await connect(self._uri, settings.mongodb_database)
        self.ris: Ris = await assemble(settings, self.db)
        self.users, self.passwords = Users(self.db), QuickPasswords()
        self.second_factors = SecondFactors(self.db, second_factor_key(settings.data_dir))
        return http_app(self.ris)

    async def closed(self) -> None:
        await self.db.client.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self.ris.ending.set)
        super().stop()

    def user(self, role: str = "radiologist", password: str = PASSWORD, name: str = "", **how: Any) -> User:
        """A new user with an invented name."""
        if password not in self._hashes:
            self._hashes[password] = self.run(self.passwords.hash(password))
        name = name or f"{role[:4]}-{uuid4().hex[:8]}"
        return self.run(self.users.add(name, role, f"Practitioner/{name}", self._hashes[password], **how))

    def with_device(self, user: User) -> "Device":
        """Enrol a second factor for the user."""
        sealed = self.second_factors.new_secret(user)
        device = Device(self.second_factors.secret(user, sealed))
        assert self.run(self.second_factors.enrol(user, sealed, device.code())) is not None
        return device

    def audited(self, user: User | None = None) -> list[tuple[str, str, str]]:
        """(event, outcome, reason) of the AuditEvents in their order; of one user, or all."""

        async def read() -> list[dict[str, Any]]:
            return [d["resource"] async for d in self.db["AuditEvent"].find(sort=[("$natural", 1)])]

        events = self.run(read())
        if user is not None:
            events = [e for e in events if e["agent"][0]["who"].get("identifier", {}).get("value") == user.name]
        return [(e["subtype"][0]["code"], e["outcome"], e.get("outcomeDesc", "")) for e in events]

    def as_if_tried(self, failures: int) -> None:
        """All that has been tried so far was tried so often: the next wait is long enough to be met on a slow machine."""
        self.in_mongodb("oauth_delays", {"$set": {"failures": failures, "until": datetime.now(UTC)}})

    def wait_over(self) -> None:
        """All waits have passed."""
        self.in_mongodb("oauth_delays", {"$set": {"until": datetime.now(UTC) - timedelta(seconds=1)}})

    def in_mongodb(self, collection: str, update: dict[str, Any], **which: Any) -> None:
        """Change what is stored, such as a time that would have to pass."""

        async def change() -> None:
            await self.db[collection].update_many(which, update)

        self.run(change())


@contextmanager
def serving_people(mongodb_uri: str, data_dir: Path, database: str = "", **how: Any) -> Iterator[PeopleApp]:
    app = PeopleApp(mongodb_uri, data_dir, database or databases.take(mongodb_uri), **how)
    try:
        yield app
    finally:
        app.stop()
        databases.give_back(mongodb_uri, app.db.name)


class Device:
    """An authenticator app of our own making (RFC 6238): each code once."""

    def __init__(self, secret: str) -> None:
        self.secret = secret.replace(" ", "")
        self._key = base64.b32decode(self.secret)
        self.last = 0

    def code(self) -> str:
        """The next code that was not used yet; the server takes those of a step to come, too."""
        step = max(self.last + 1, int(time.time()) // 30)
        while step > time.time() // 30 + 1:
            time.sleep(0.2)
        self.last = step
        return self.at(step)

    def at(self, step: int) -> str:
        digest = hmac.new(self._key, struct.pack(">Q", step), hashlib.sha1).digest()
        start = digest[-1] & 15
        return f"{(struct.unpack('>I', digest[start : start + 4])[0] & 0x7FFFFFFF) % 10**6:06d}"


class Browser:
    """Keeps cookies, and fills in the forms that it is shown. `page` is what it shows."""

    def __init__(self, app: PeopleApp, **headers: str) -> None:
        self.http = httpx.Client(base_url=app.base_url, timeout=30, headers={n.replace("_", "-"): v for n, v in headers.items()})
        self.page = httpx.Response(204)

    def open(self, path: str) -> Self:
        """Go to a page, wherever it leads within this server."""
        self.page = self.http.get(path)
        return self._followed()

    def submit(self, action: str = "", choose: str = "", **fields: str) -> Self:
        """Fill in and send the form on the page (with this `action`; with this value of the hidden field or button `action`)."""
        path, form = self.filled(action, choose, **fields)
        self.page = self.http.post(path, data=form)
        return self._followed()

    def filled(self, action: str = "", choose: str = "", **fields: str) -> tuple[str, Any]:
        """Where the form goes and what with, for a request that is to be changed."""
        for form in Forms(self.page.text).forms:
            chosen = not choose or choose in form["choices"]
            if form["action"].startswith(action or "/") and form["action"] != "/logout" * (not action) and chosen:
                extra = {"action": choose} if choose else {}
                unknown = set(fields) - set(form["fields"])
                assert not unknown, f"no fields {unknown} in {form}"
                return form["action"], {**form["fields"], **fields, **extra}
        raise AssertionError(f"no form for {action or 'this'} in {self.page.text}")

    def log_in(self, user: User | str, password: str = PASSWORD, leads_to: str = "/account") -> Self:
        self.open("/login" + (f"?next={leads_to}" if leads_to else ""))
        return self.submit("/login", name=user if isinstance(user, str) else user.name, password=password)

    @property
    def path(self) -> str:
        return self.page.request.url.raw_path.decode()

    @property
    def logged_in(self) -> bool:
        return self.http.get("/account").status_code == 200

    def cookie(self, name: str = "ris") -> str | None:
        return self.http.cookies.get(name)

    def _followed(self) -> Self:
        while self.page.status_code == 303 and self.page.headers["location"].startswith("/"):
            self.page = self.http.get(self.page.headers["location"])
        return self


class Forms(HTMLParser):
    """The forms of a page: action, fields with their values, and the buttons' values."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.labels: set[str] = set()
        self.inputs: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.forms.append({"action": given["action"], "method": given["method"], "fields": {}, "choices": set()})
        elif tag == "label":
            self.labels.add(given["for"] or "")
        elif tag == "input":
            self.inputs.append(given)
            self.forms[-1]["fields"][given["name"]] = given.get("value") or ""
            if given["name"] == "action":
                self.forms[-1]["choices"].add(given["value"])
        elif tag == "button" and given.get("name") == "action":
            self.forms[-1]["choices"].add(given["value"])


def errors_of(page: httpx.Response) -> str:
    """What the error summary says."""
    _, found, rest = page.text.partition('class="errors"')
    return rest.partition("</div>")[0] if found else ""
