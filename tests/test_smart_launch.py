"""Launches of apps from outside: standalone and from an EHR, over real pages (S-11, S-20, Inferno's launch groups)."""

from collections.abc import Iterator

import pytest

from tests.smart_app import SmartApp, department


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


def test_standalone(server: SmartApp) -> None:
    user = server.user()
    app = server.client()
    body = app.tokens(server.browser(user))
    print(body)
    print(server.read(body["access_token"], "Patient/mara").text[:200])
    print(server.read(body["access_token"], "Patient/max").text[:200])
    print(server.read(body["access_token"], "Practitioner/rita").text[:200])
    assert 0
