"""The console in browsers: the whole HTTP application on a socket, an invented department, and Playwright in Debian's Chromium.

world.at("scheduler")         a browser in which a scheduler has logged in, on the home page
world.create({...})           a resource, as the department itself writes it; also `update`, `read`, `search`, `operation`
world.patient(), .order(), .scanner()    what most tests begin with
"""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, Playwright, expect

from fhir_server.audit import Act
from fhir_server.operations import Call, dispatch
from smart_auth.access import Access
from smart_auth.users import User
from tests import people_app
from tests.people_app import PASSWORD, PeopleApp

# The headless shell is Chromium without a window's surroundings, and takes half the time.
CHROMIUM = (
    shutil.which("chromium-headless-shell")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
SECONDS = 60  # for a page to become what is waited for, on a slow machine
REASON = "Chromium is not installed"
FLAGS = """--no-sandbox --disable-dev-shm-usage --disable-gpu --in-process-gpu --disable-software-rasterizer --disable-extensions
    --disable-features=Translate,OptimizationHints,MediaRouter --blink-settings=imagesEnabled=true""".split()
DEPARTMENT = Access.system("test")
DCM = "http://dicom.nema.org/resources/ontology/DCM"
LOINC = "http://loinc.org"
CT_CHEST = {"coding": [{"system": LOINC, "code": "24627-2", "display": "CT Chest"}]}
_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
_FAMILIES = "Abel Brandt Conrad Dietz Engel Falk Gruber Haas Imhof Jung Keller Lang Moser Neumann Otto Pohl Richter".split()
_GIVEN = "Anna Bernd Clara David Emma Felix Greta Hans Ida Jonas Karla Leo Mia Nils Olga Paul".split()
_numbers = itertools.count(1)
Resource = dict[str, Any]


def today(moment: datetime, later: timedelta) -> datetime:
    """So much later, or, late in the evening, so much earlier: what is booked for today must be, at any hour."""
    return moment + later if (moment + later).date() == moment.date() else moment - later


class ConsoleWorld:
    """A server with its own database, and browsers at it."""

    def __init__(self, app: PeopleApp, browser: Browser) -> None:
        self.app, self._browser = app, browser
        self.base = app.base_url
        self.complaints: list[str] = []
        self._pages: list[Page] = []

    # At the screen

    def user(self, role: str, name: str = "", **how: Any) -> User:
        """A user with a Practitioner of its own."""
        user = self.app.user(role, name=name, **how)
        given, family = user.name.split("-")[0].title(), f"{role.title()} {user.name[-4:]}"
        self.put({"resourceType": "Practitioner", "id": user.name, "name": [{"given": [given], "family": family}]})
        return user

    def at(self, who: str | User, path: str = "/", *, language: str = "en-GB", **context: Any) -> Page:
        """A browser of its own, in which a new user of this role (or this user) has logged in, at this page."""
        user = who if isinstance(who, User) else self.user(who)
        opened = self._browser.new_context(
            base_url=self.base, locale=language, viewport=context.pop("viewport", {"width": 1280, "height": 800}), **context
        )
        opened.set_default_timeout(SECONDS * 1000)
        page = opened.new_page()
        self._pages.append(page)
        page.on("console", lambda said: self.complaints.append(f"{page.url}: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        opened.add_cookies([{"name": "ris", "value": self.cookie(user), "url": self.base}])
        page.goto(path)
        return page

    def cookie(self, user: User) -> str:
        """The cookie of a session that the user has opened at the login page, with a second factor where the role needs one."""
        browser = people_app.Browser(self.app)
        device = self.app.with_device(user) if user.needs_second_factor and not user.second_factor else None
        browser.log_in(user, PASSWORD)
        if device is not None:
            browser.submit("/login/second-factor", code=device.code())
        assert browser.logged_in
        cookie = browser.cookie()
        assert cookie
        return cookie

    def http(self, who: str | User) -> httpx.Client:
        """The same without a browser: a client with the session's cookie."""
        cookie = self.cookie(who if isinstance(who, User) else self.user(who))
        return httpx.Client(base_url=self.base, cookies={"ris": cookie}, timeout=60)

    def rest(self) -> None:
        """Leave all pages: each that stays open is asked for anew whenever something changes."""
        for page in self._pages:
            if not page.is_closed() and page.url.startswith(self.base):
                _leave(page)

    # Behind it, as the department

    def put(self, resource: Resource) -> Resource:
        return self.app.run(self.app.ris.interactions.update(DEPARTMENT, resource))[0]

    def create(self, resource: Resource) -> Resource:
        return self.app.run(self.app.ris.interactions.create(DEPARTMENT, resource))

    def update(self, resource: Resource, **changes: Any) -> Resource:
        """The resource as it is now with these elements (None removes one)."""
        now = self.read(f"{resource['resourceType']}/{resource['id']}")
        return self.put({k: v for k, v in (now | changes).items() if v is not None})

    def read(self, reference: str) -> Resource:
        kind, id_ = reference.split("/")
        found = self.app.run(self.app.ris.interactions.store.read(kind, id_))
        assert found is not None
        assert found.resource is not None
        return found.resource

    def search(self, resource_type: str, **parameters: str) -> list[Resource]:
        query = [(n[0] + n[1:].replace("_", "-"), v) for n, v in parameters.items()]
        return self.app.run(self.app.ris.interactions.search(DEPARTMENT, resource_type, [*query, ("_count", "1000")])).matches

    def operation(self, address: str, parameters: list[Resource] | None = None, access: Access = DEPARTMENT) -> Any:
        """Call an operation, such as `ServiceRequest/1/$accept`, as the department (or with other rights)."""
        parts = address.split("/")
        name, kind, id_ = parts[-1], parts[0] if len(parts) > 1 else None, parts[1] if len(parts) > 2 else None
        body = {"resourceType": "Parameters", "parameter": parameters} if parameters else None
        call = Call(self.app.ris.interactions, access, Act("operation"), f"{self.base}/fhir", kind, id_, [], body)
        return self.app.run(dispatch.call(self.app.ris.interactions.registry, call, name, "POST")).resource

    def v2(self, message: bytes) -> bytes:
        """What an HL7 v2 message is answered with."""
        from bridges.v2.mllp import Peer

        return self.app.run(self.app.ris.inbound.handle(message, Peer("127.0.0.1", 40000)))

    # What most tests begin with

    def patient(self, **elements: Any) -> Resource:
        n = next(_numbers)
        name = {"family": _FAMILIES[n % len(_FAMILIES)], "given": [_GIVEN[n % len(_GIVEN)]]}
        kind = {"coding": [{"system": _V2_0203, "code": "MR"}]}
        number = {"type": kind, "system": "urn:example:mrn", "value": f"MRN{n:05}"}
        begin = {"resourceType": "Patient", "identifier": [number], "name": [name], "gender": "female", "birthDate": "1970-01-31"}
        return self.create(begin | elements)

    def scanner(self, modality: str = "CT", name: str = "", **elements: Any) -> Resource:
        title = name or f"{modality}{next(_numbers)}"
        return self.create(
            {
                "resourceType": "Device",
                "status": "active",
                "identifier": [{"system": "urn:fhir-ris:ae-title", "value": title.upper()}],
                "deviceName": [{"name": title, "type": "user-friendly-name"}],
                "type": {"coding": [{"system": DCM, "code": modality}]},
            }
            | elements
        )

    def order(self, patient: Resource | None = None, modality: str = "CT", **elements: Any) -> Resource:
        """An imaging order, made over FHIR: accepted, if the rules of intake find nothing (docs/workflow/orders.md)."""
        whose = patient or self.patient()
        begin = {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "code": CT_CHEST,
            "subject": {"reference": f"Patient/{whose['id']}"},
            "orderDetail": [{"coding": [{"system": DCM, "code": modality}]}],
            "reasonCode": [{"text": "Cough for six weeks"}],
        }
        return self.create(begin | elements)

    def steps(self, order: Resource) -> list[Resource]:
        """The scheduled procedure steps of an order."""
        procedures = self.search("ServiceRequest", based_on=f"ServiceRequest/{order['id']}", intent="filler-order")
        return [s for p in procedures for s in self.search("Task", based_on=f"ServiceRequest/{p['id']}", intent="plan")]

    def booked(self, order: Resource, scanner: Resource, start: datetime | None = None, minutes: int = 30) -> Resource:
        """An Appointment for an order."""
        at = start or today(datetime.now(UTC).replace(minute=0, second=0, microsecond=0), timedelta(hours=1))
        who = [order["subject"]["reference"], f"Device/{scanner['id']}"]
        return self.create(
            {
                "resourceType": "Appointment",
                "status": "booked",
                "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
                "start": at.isoformat(),
                "end": (at + timedelta(minutes=minutes)).isoformat(),
                "participant": [{"actor": {"reference": r}, "status": "accepted"} for r in who],
            }
        )


def _leave(page: Page) -> None:
    """Go away, also from a page that loads itself anew at this moment, as open ones do when something has changed."""
    for _ in range(20):
        with suppress(Error):
            page.goto("about:blank")
            if page.url == "about:blank":
                return
        page.wait_for_timeout(100)
    raise AssertionError(f"{page.url} can't be left")


def press(page: Page, key: str) -> None:
    """A key, once the page it is meant for listens: a new page has its address before its scripts."""
    page.wait_for_load_state()
    page.keyboard.press(key)


def log_in(page: Page, name: str, password: str) -> None:
    """At the login page, as a person does."""
    page.goto("/login")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(password)
    press(page, "Enter")


@contextmanager
def console_world(mongodb_uri: str, data_dir: Path, browser: Browser, **settings: Any) -> Iterator[ConsoleWorld]:
    """`settings`: those of the server, such as `viewer_url`."""
    with people_app.serving_people(mongodb_uri, data_dir, **settings) as app:
        yield ConsoleWorld(app, browser)


@contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    expect.set_options(timeout=SECONDS * 1000)
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield browser
    browser.close()


def faults(page: Page, only: str = "") -> list[str]:
    """What axe-core finds on a page that is serious or critical; `only`: by one of its rules, such as `color-contrast`."""
    options: dict[str, Any] = {"resultTypes": ["violations"], **({"runOnly": [only]} if only else {})}
    found = Axe().run(page, options=options).response["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    return [f"{v['id']}: {v['help']}: {[n['target'] for n in v['nodes']][:5]}" for v in grave]
