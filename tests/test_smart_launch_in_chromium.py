"""Launches in a real browser, across origins and by keyboard alone: login, consent, choice of a patient, and back at the app."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.chromium import BINARY, Chromium, chromium
from tests.docs_app import SAID, docs_app
from tests.smart_app import PASSWORD, SmartApp, department
from tests.test_smart_pages_in_chromium import CONTRAST, OVERFLOWS

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium here")
TEXT = "document.body.innerText"


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def app_url(server: SmartApp, mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docs_app(server, mongodb_uri, tmp_path_factory.mktemp("app")) as url:
        yield url


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path / "profile") as running:
        yield running


def log_in(browser: Chromium, user: str) -> None:
    browser.type(user)
    browser.press("Tab")
    browser.type(PASSWORD)
    browser.press("Enter", leaves=True)


def tab_to(browser: Chromium, selector: str) -> None:
    """Press Tab until the focus is there."""
    for _ in range(40):
        if browser.value(f"document.activeElement.matches('{selector}')"):
            return
        browser.press("Tab")
    raise AssertionError(f"the keyboard does not reach {selector}")


def choose_mara(browser: Chromium) -> None:
    """The focus is where one types; then down to the patient and on."""
    browser.type("Muster")
    browser.press("Enter", leaves=True)
    assert "2 found" in browser.value(TEXT)
    tab_to(browser, "input[name=patient]")
    assert browser.value("document.activeElement.value") in {"mara", "max"}
    browser.value("document.getElementById('patient-mara').focus()")
    browser.press(" ")
    tab_to(browser, "button[value=choose]")
    browser.press("Enter", leaves=True)


def test_an_app_is_launched_by_keyboard_and_gets_its_answer_across_origins(
    server: SmartApp, app_url: str, browser: Chromium
) -> None:
    browser.open(f"{app_url}/")
    assert browser.value("location.pathname") == "/login"
    log_in(browser, server.user())
    assert "Give First app access?" in browser.value(TEXT)
    tab_to(browser, "button[value=allow]")
    browser.press("Enter", leaves=True)
    choose_mara(browser)
    assert browser.value(TEXT) == SAID
    assert browser.value("location.origin") == app_url
    assert browser.complaints() == []


def test_what_is_unticked_by_keyboard_is_not_granted(server: SmartApp, app_url: str, browser: Chromium) -> None:
    browser.open(f"{app_url}/")
    log_in(browser, server.user())
    tab_to(browser, "input[name=scope-2]")
    browser.press(" ")
    tab_to(browser, "button[value=deny]")
    browser.press("Enter", leaves=True)
    assert browser.value(TEXT).startswith("Not allowed: access_denied")
    assert browser.complaints() == []


def test_a_login_that_leads_straight_back_to_the_app_is_not_stopped_by_our_own_policy(
    server: SmartApp, app_url: str, browser: Chromium
) -> None:
    """What was granted before isn't asked again: the redirects after the login form end at another origin."""
    user = server.user()
    ehr = server.backend("system/*.rs urn:fhir-ris:launch")
    # Where only the port differs from what is registered, consent is asked each time (RFC 8252 8.6).
    exact = {"$addToSet": {"redirect_uris": f"{app_url}/callback"}}
    server.run(server.db["oauth_clients"].update_one({"_id": "first-app"}, exact))

    def launch() -> str:
        body = {"client_id": "first-app", "patient": "mara"}
        made = httpx.post(f"{server.base}/launch", json=body, headers={"Authorization": f"Bearer {ehr}"}).json()
        return str(made["launch_uri"]).replace("http://127.0.0.1:8765", app_url)

    browser.open(launch())
    log_in(browser, user)
    tab_to(browser, "button[value=allow]")
    browser.press("Enter", leaves=True)
    said = SAID.replace("launch/patient", "launch")
    assert browser.value(TEXT) == said
    browser.ask("Network.clearBrowserCookies")
    browser.open(launch())
    assert browser.value("location.pathname") == "/login"
    log_in(browser, user)
    assert browser.value(TEXT) == said
    assert browser.complaints() == []


def test_the_pages_fit_a_phone_and_can_be_read_in_light_and_dark(server: SmartApp, app_url: str, browser: Chromium) -> None:
    looked_at = []

    def look(page: str) -> None:
        for dark in (False, True):
            browser.look(360, 700, dark=dark)
            looked_at.append((page, dark, browser.value(OVERFLOWS), browser.value(CONTRAST) >= 4.5))

    browser.open(f"{app_url}/")
    log_in(browser, server.user())
    look("consent")
    tab_to(browser, "button[value=allow]")
    browser.press("Enter", leaves=True)
    look("search")
    browser.type("Muster")
    browser.press("Enter", leaves=True)
    look("patients")
    browser.value("document.getElementById('patient-mara').click()")
    tab_to(browser, "button[value=choose]")
    browser.press("Enter", leaves=True)
    browser.open(f"{server.base}/account/apps")
    assert "First app" in browser.value(TEXT)
    look("apps")
    assert looked_at == [(page, dark, False, True) for page, dark, _, _ in looked_at]
    assert len(looked_at) == 8
    assert browser.complaints() == []
