"""docs/smart.md, tried from the text alone: its app is run as it stands there, and launched both ways."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from typer.testing import CliRunner

from fhir_server.cli import app as cli
from tests.smart_app import Browser, SmartApp, department

TEXT = (Path(__file__).parent.parent / "docs" / "smart.md").read_text()
SAID = "Patient: Muster, granted: launch/patient openid fhirUser offline_access patient/*.rs"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def app_url(server: SmartApp, mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app of the text, registered by its command and running, on a port of its own, as a native app may."""
    registration = next(block for block in blocks("sh") if "client add" in block)
    arguments = shlex.split(registration.replace("\\\n", " "))
    assert arguments[0].endswith("fhir-ris")
    settings = {"RIS_MONGODB_URI": mongodb_uri, "RIS_MONGODB_DATABASE": server.db.name}
    assert CliRunner().invoke(cli, arguments[1:], env=settings).exit_code == 0
    directory = tmp_path_factory.mktemp("app")
    (directory / "app.py").write_text(blocks("python")[0])
    with httpx.Client() as http:
        port = 20000 + os.getpid() % 20000
        process = subprocess.Popen([sys.executable, "app.py", server.fhir, str(port)], cwd=directory, stderr=subprocess.PIPE)
        try:
            until = time.monotonic() + 20
            while True:
                try:
                    http.get(f"http://127.0.0.1:{port}/not-here")
                    break
                except httpx.ConnectError:
                    assert process.poll() is None, process.stderr and process.stderr.read()
                    assert time.monotonic() < until
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


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
