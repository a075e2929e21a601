"""docs/smart.md, tried from the text alone: its app is run as it stands there, and launched both ways."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from tests.docs_app import SAID, TEXT, docs_app
from tests.smart_app import Browser, SmartApp, department


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


def sent(browser: Browser, url: str) -> dict[str, str]:
    """The authorization request that the app sends a browser to."""
    answer = httpx.get(url)
    assert answer.status_code == 302
    assert answer.headers["location"].startswith(f"{browser.server.base}/oauth/authorize?")
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def test_the_app_of_the_text_is_launched_standalone_and_shows_what_the_text_says(server: SmartApp, app_url: str) -> None:
    assert SAID in TEXT
    browser = server.browser(server.user())
    redirect = browser.grant(sent(browser, f"{app_url}/"))
    assert httpx.get(redirect.headers["location"]).text == SAID


def test_the_app_of_the_text_is_launched_from_an_ehr(server: SmartApp, app_url: str) -> None:
    ehr = server.backend(re.findall(r'--scope "(system/Patient\.rs urn:fhir-ris:launch)"', TEXT)[0])
    body = '{"client_id": "first-app", "patient": "mara"}'
    assert body in TEXT
    headers = {"Authorization": f"Bearer {ehr}", "Content-Type": "application/json"}
    minted = httpx.post(f"{server.base}/launch", content=body, headers=headers).json()
    assert minted["launch_uri"].startswith("http://127.0.0.1:8765/launch?")
    browser = server.browser(server.user())
    request = sent(browser, f"{app_url}/launch?{urlencode({'iss': server.fhir, 'launch': minted['launch']})}")
    redirect = browser.grant(request)
    assert httpx.get(redirect.headers["location"]).text == SAID.replace("launch/patient", "launch")
