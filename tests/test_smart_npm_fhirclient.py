"""A client that we did not write: npm's fhirclient (SMART JS) in a real browser, on pages of another site than the server's."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from smart_auth.tokens import token_id
from tests.chromium import BINARY, Chromium, chromium
from tests.npm import unpacked
from tests.script_app import ScriptApp, script_app
from tests.smart_app import App, SmartApp, department
from tests.test_smart_launch_in_chromium import TEXT, choose_mara, log_in, tab_to

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium here")
SCOPE = "openid fhirUser offline_access patient/*.rs"
CONTEXT: dict[str, Any] = {
    "patient": "mara",
    "encounter": "e1",
    "fhirContext": [{"reference": "ImagingStudy/study1"}],
    "intent": "read-study",
    "need_patient_banner": False,
}
OBSERVATION = """{resourceType: 'Observation', status: 'preliminary', code: {text: 'invented'},
                  subject: {reference: 'Patient/mara'}}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptApp]:
    with script_app(unpacked(tmp_path_factory.mktemp("npm"), "fhirclient")) as running:
        yield running


@pytest.fixture(scope="module")
def server(pages: ScriptApp, mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path / "profile") as running:
        yield running


def registered(server: SmartApp, pages: ScriptApp, **registration: Any) -> App:
    return server.client(redirect_uris=[pages.redirect_uri], launch_uri=pages.launch_uri, **registration)


def begin(browser: Chromium, pages: ScriptApp, app: App, scope: str = f"launch/patient {SCOPE}", **settings: Any) -> None:
    """The app sends the user to log in, of its own accord."""
    pages.options = {}
    pages.settings = {"iss": app.server.fhir, "clientId": app.id, "scope": scope, "redirectUri": "/app", "pkceMode": "required"}
    pages.settings |= settings
    browser.open(pages.launch_uri)
    browser.until("location.pathname === '/login' && document.activeElement.id === 'name'")
    log_in(browser, app.server.user())
    browser.until("document.querySelector('button[value=allow]')")


def allow(browser: Chromium) -> None:
    tab_to(browser, "button[value=allow]")
    browser.press("Enter", leaves=True)


def at_the_app(browser: Chromium, pages: ScriptApp) -> None:
    browser.until("location.pathname === '/app' && (client || problem)")
    assert browser.value("problem") is None
    assert browser.value("location.origin") == pages.origin


def launched(browser: Chromium, pages: ScriptApp, app: App, scope: str = f"launch/patient {SCOPE}", **settings: Any) -> None:
    begin(browser, pages, app, scope, **settings)
    allow(browser)
    choose_mara(browser)
    at_the_app(browser, pages)


def token(browser: Chromium) -> str:
    return str(browser.value("client.getState('tokenResponse.access_token')"))


def refused(browser: Chromium, expression: str) -> str:
    """What the script is told instead."""
    told = browser.awaited(f"({expression}).then(() => null, e => String(e.message || e))")
    assert told is not None
    return str(told)


def test_it_launches_standalone_and_reads_across_origins(server: SmartApp, pages: ScriptApp, browser: Chromium) -> None:
    launched(browser, pages, registered(server, pages))
    assert browser.awaited("client.patient.read().then(p => p.name[0].family)") == "Muster"
    assert browser.awaited("client.patient.request('ImagingStudy').then(b => b.entry.map(e => e.resource.id))") == ["study1"]
    assert browser.value("client.user.fhirUser") == "Practitioner/rita"
    assert browser.awaited("client.user.read().then(p => p.name[0].family)") == "Radiologist"
    assert "404" in refused(browser, "client.request('Patient/max')")
    assert browser.complaints() == []


def test_it_is_launched_from_an_ehr_with_its_context(server: SmartApp, pages: ScriptApp, browser: Chromium) -> None:
    app = registered(server, pages)
    ehr = {"Authorization": f"Bearer {server.backend('system/*.rs urn:fhir-ris:launch')}"}

    def launch_uri() -> str:
        made = httpx.post(f"{server.base}/launch", json={"client_id": app.id, **CONTEXT}, headers=ehr)
        return str(made.json()["launch_uri"])

    pages.options = {}
    pages.settings = {"clientId": app.id, "scope": f"launch launch/imagingstudy {SCOPE}", "redirectUri": "/app"}
    browser.open(launch_uri())
    browser.until("location.pathname === '/login' && document.activeElement.id === 'name'")
    log_in(browser, server.user())
    browser.until("document.querySelector('button[value=allow]')")
    allow(browser)
    at_the_app(browser, pages)
    told = browser.value("client.state.tokenResponse")
    assert {name: told[name] for name in CONTEXT} == CONTEXT
    assert browser.awaited("client.patient.read().then(p => p.id)") == "mara"
    assert browser.awaited("client.encounter.read().then(e => e.id)") == "e1"
    # The same user again: neither login nor consent is asked for, though the way leads through another site.
    before = token(browser)
    browser.open(launch_uri())
    at_the_app(browser, pages)
    assert token(browser) != before
    assert browser.complaints() == []


@pytest.mark.parametrize("with_client_id", [False, True])
def test_it_refreshes_and_stays_what_it_is_when_the_page_is_loaded_again(
    server: SmartApp, pages: ScriptApp, browser: Chromium, with_client_id: bool
) -> None:
    launched(browser, pages, registered(server, pages))
    browser.value(f"FHIR.oauth2.settings.refreshTokenWithClientId = {str(with_client_id).lower()}")
    before = token(browser)
    assert browser.awaited("client.refresh().then(s => s.tokenResponse.scope)") == f"launch/patient {SCOPE}"
    refreshed = token(browser)
    assert refreshed != before
    assert browser.awaited("client.patient.read().then(p => p.id)") == "mara"
    browser.open(pages.redirect_uri)
    at_the_app(browser, pages)
    assert token(browser) == refreshed
    assert browser.awaited("client.refresh().then(s => s.tokenResponse.patient)") == "mara"
    assert browser.complaints() == []


def test_when_its_token_is_over_it_refreshes_by_itself(server: SmartApp, pages: ScriptApp, browser: Chromium) -> None:
    launched(browser, pages, registered(server, pages))
    before = token(browser)
    past = {"$set": {"expires": datetime.now(UTC) - timedelta(seconds=1)}}
    assert server.run(server.db["oauth_tokens"].update_one({"_id": token_id(before)}, past)).modified_count == 1
    assert browser.value("client.state.expiresAt - Date.now() / 1000") == pytest.approx(3600, abs=120)
    browser.value("client.state.expiresAt = Date.now() / 1000")
    assert browser.awaited("client.patient.read().then(p => p.id)") == "mara"
    assert token(browser) != before


def test_when_its_grant_is_withdrawn_it_is_told_at_once(server: SmartApp, pages: ScriptApp, browser: Chromium) -> None:
    """A challenge to log in with a name and a password would make the browser wait for somebody to do so."""
    app = registered(server, pages)
    launched(browser, pages, app)
    app.post("/oauth/revoke", {"token": token(browser), "client_id": app.id})
    assert "invalid_grant" in refused(browser, "client.refresh()")
    assert browser.value("client.getState('tokenResponse.refresh_token')") is None
    assert "Session expired" in refused(browser, "client.patient.read()")


def test_it_is_told_when_the_user_denies(server: SmartApp, pages: ScriptApp, browser: Chromium) -> None:
    begin(browser, pages, registered(server, pages))
    tab_to(browser, "button[value=deny]")
    browser.press("Enter", leaves=True)
    browser.until("location.pathname === '/app' && (client || problem)")
    assert browser.value("problem").startswith("access_denied: ")


def test_it_writes_and_is_told_the_version(server: SmartApp, pages: ScriptApp, browser: Chromium) -> None:
    launched(browser, pages, registered(server, pages), "launch/patient user/Observation.cruds")
    made = browser.awaited(
        f"client.create({OBSERVATION}, {{includeResponse: true}})"
        ".then(a => ({id: a.body.id, tag: a.response.headers.get('ETag'), at: a.response.headers.get('Location')}))"
    )
    assert made["tag"] == 'W/"1"'
    assert made["at"] == f"{server.fhir}/Observation/{made['id']}/_history/1"
    changed = f"client.update({{...{OBSERVATION}, id: '{made['id']}', status: 'final'}}, {{headers: {{'If-Match': '%s'}}}})"
    assert browser.awaited(f"{changed % made['tag']}.then(o => o.meta.versionId)") == "2"
    assert "412" in refused(browser, changed % made["tag"])
    assert browser.awaited(f"client.delete('Observation/{made['id']}').then(() => 'deleted')") == "deleted"


def test_it_proves_itself_with_a_key(server: SmartApp, pages: ScriptApp, browser: Chromium) -> None:
    key = ECKey.generate_key("P-384", {"kid": "app", "alg": "ES384"})
    app = registered(server, pages, jwks={"keys": [key.as_dict(private=False)]})
    launched(browser, pages, app, clientPrivateJwk={**key.as_dict(private=True), "key_ops": ["sign"]})
    assert browser.awaited("client.patient.read().then(p => p.id)") == "mara"


def test_a_page_of_another_origin_gets_neither_token_nor_data(server: SmartApp, pages: ScriptApp, browser: Chromium) -> None:
    app = registered(server, pages)
    launched(browser, pages, app)
    read = f"fetch('{server.fhir}/Patient/mara', {{headers: {{Authorization: 'Bearer {token(browser)}'}}}}).then(a => a.status)"
    form = f"{{method: 'POST', body: new URLSearchParams({{grant_type: 'refresh_token', client_id: '{app.id}'}})}}"
    ask = f"fetch('{server.base}/oauth/token', {form}).then(a => a.status)"
    find = f"fetch('{server.fhir}/.well-known/smart-configuration').then(a => a.status)"
    assert (browser.awaited(read), browser.awaited(ask), browser.awaited(find)) == (200, 400, 200)
    other = ScriptApp(b"")
    try:
        browser.open(other.empty)
        assert browser.value("location.origin") not in {pages.origin, server.base}
        assert refused(browser, read) == refused(browser, ask) == "Failed to fetch"
        assert browser.awaited(find) == 200
    finally:
        other.stop()


def test_our_pages_are_not_shown_in_a_frame_of_an_app(server: SmartApp, pages: ScriptApp, browser: Chromium) -> None:
    """Its users would not see whose page asks for their password."""
    browser.open(pages.empty)
    framed = f"""new Promise(done => {{
        const frame = document.createElement('iframe');
        frame.onload = () => {{ try {{ done(frame.contentDocument !== null) }} catch {{ done(false) }} }};
        frame.src = '{server.base}/login';
        document.body.append(frame);
    }})"""
    browser.awaited(framed)
    assert any("frame-ancestors" in text or "X-Frame-Options" in text for text in browser.complaints())
    assert "Log in" not in browser.value(TEXT)
