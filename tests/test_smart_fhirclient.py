"""A client that we did not write: PyPI fhirclient (SMART Python) is launched both ways, refreshes, and comes as a backend."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import httpx
import pytest
from fhirclient import client as smart
from fhirclient.models.imagingstudy import ImagingStudy
from fhirclient.models.patient import Patient
from fhirclient.server import FHIRNotFoundException, FHIRUnauthorizedException

from tests.smart_app import REDIRECT, App, Browser, SmartApp, department
from tests.test_smart_token_endpoint import EC, JWKS, assertion

SCOPE = "openid fhirUser patient/*.rs offline_access"


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(params=["public", "secret"])
def app(server: SmartApp, request: pytest.FixtureRequest) -> App:
    return server.client(secret=request.param == "secret")


def client(server: SmartApp, app: App, **more: Any) -> smart.FHIRClient:
    settings = {"app_id": app.id, "app_secret": app.secret, "api_base": server.fhir, "redirect_uri": REDIRECT, "scope": SCOPE}
    return smart.FHIRClient(settings=settings | more)


def authorized(browser: Browser, theirs: smart.FHIRClient) -> str:
    """Where the browser ends that is sent to authorize."""
    url = urlsplit(theirs.authorize_url)
    assert url.path == "/oauth/authorize"
    return browser.grant(dict(parse_qsl(url.query))).headers["location"]


def test_it_launches_standalone_and_refreshes(server: SmartApp, app: App) -> None:
    theirs = client(server, app)
    assert theirs.prepare() is False
    theirs.handle_callback(authorized(server.browser(server.user()), theirs))
    assert theirs.ready
    assert theirs.patient_id == "mara"
    assert theirs.human_name(theirs.patient.name[0]) == "Mara Muster"
    with pytest.raises(FHIRNotFoundException):
        Patient.read("max", theirs.server)
    before = theirs.server.auth.access_token
    assert theirs.reauthorize()
    assert theirs.server.auth.access_token != before
    assert Patient.read("mara", theirs.server).birthDate.isostring == "1970-01-31"


def test_it_is_launched_from_an_ehr_and_searches(server: SmartApp, app: App) -> None:
    context = {"patient": "mara", "fhirContext": [{"reference": "ImagingStudy/study1"}]}
    theirs = client(server, app, launch_token=app.launch(context))
    theirs.prepare()
    theirs.handle_callback(authorized(server.browser(server.user()), theirs))
    assert theirs.launch_context["patient"] == "mara"
    assert theirs.launch_context["fhirContext"] == context["fhirContext"]
    found = ImagingStudy.where(struct={"patient": theirs.patient_id}).perform_resources_iter(theirs.server)
    assert [study.id for study in found] == ["study1"]


def test_its_own_default_scopes_work(server: SmartApp) -> None:
    app = server.client("launch/patient openid profile user/*.* patient/*.read")
    theirs = client(server, app, scope=smart.scope_default)
    theirs.prepare()
    theirs.handle_callback(authorized(server.browser(server.user()), theirs))
    assert theirs.patient.id == "mara"
    assert Patient.read("max", theirs.server).id == "max"


def test_it_is_told_when_the_user_denies(server: SmartApp) -> None:
    app = server.client()
    theirs = client(server, app)
    theirs.prepare()
    browser = server.browser(server.user())
    page = browser.authorize(dict(parse_qsl(urlsplit(theirs.authorize_url).query)))
    with pytest.raises(Exception, match="the user does not allow it"):
        theirs.handle_callback(browser.consent(page, answer="deny").headers["location"])


def test_it_is_shut_out_when_it_is_revoked(server: SmartApp) -> None:
    app = server.client()
    theirs = client(server, app)
    theirs.prepare()
    theirs.handle_callback(authorized(server.browser(server.user()), theirs))
    httpx.post(f"{server.base}/oauth/revoke", data={"token": theirs.server.auth.refresh_token, "client_id": app.id})
    with pytest.raises(FHIRUnauthorizedException):
        Patient.read("mara", theirs.server)
    with pytest.raises(Exception, match=r"400|No access token"):
        theirs.reauthorize()


def test_it_comes_as_a_backend_service_though_it_asks_for_a_patient(server: SmartApp) -> None:
    name = f"backend-{uuid4().hex[:8]}"
    server.run(server.clients.add(name, "system/*.rs", jwks=JWKS))
    token = assertion(name, EC, aud=f"{server.base}/oauth/token")
    theirs = smart.FHIRClient(
        settings={"app_id": name, "api_base": server.fhir, "scope": "system/Patient.rs", "jwt_token": token}
    )
    theirs.prepare()
    theirs.authorize()
    assert theirs.launch_context["scope"] == "system/Patient.rs"
    assert Patient.read("max", theirs.server).id == "max"
