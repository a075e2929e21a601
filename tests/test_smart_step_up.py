"""A fresh login on demand (RFC 9470): an app that is refused for an old login sends the person to the pages, and goes on."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from smart_auth.people import second_factor_key
from smart_auth.second_factor import SecondFactors
from tests.people_app import Device
from tests.smart_app import PASSWORD, App, Browser, Resource, SmartApp, answered, department, field
from tests.smart_world import label

SCOPE = "openid user/*.rs"
ASKED = {"resourceType": "Parameters", "parameter": [{"name": "reason", "valueString": "Unconscious after a fall"}]}


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    running.put({"resourceType": "Patient", "id": "hidden", "meta": label("V")})
    yield running
    running.stop()


def break_glass(server: SmartApp, tokens: Resource) -> httpx.Response:
    headers = {"Authorization": f"Bearer {tokens['access_token']}", "Content-Type": "application/fhir+json"}
    return httpx.post(f"{server.fhir}/Patient/hidden/$break-glass", json=ASKED, headers=headers)


def minutes_later(server: SmartApp, user: str, minutes: int) -> None:
    """As if the user's login, and what was granted in it, had been made so long ago."""
    then = datetime.now(UTC) - timedelta(minutes=minutes)
    server.run(server.db["oauth_sessions"].update_many({"user": user}, {"$set": {"authenticated_at": then}}))
    server.run(server.db["oauth_grants"].update_many({"user_name": user}, {"$set": {"auth_time": then}}))
    server.tokens._cache.clear()


def again(app: App, browser: Browser, user: str, device: Device | None = None) -> Resource:
    """The authorization that the refusal asks for: through the login page, though the browser is logged in; the tokens."""
    page = browser.authorize(app.request(SCOPE, max_age="300"))
    assert 'name="password"' in page.text
    form = {"csrf": field(page, "csrf"), "next": field(page, "next"), "name": user, "password": PASSWORD}
    page = browser.http.post("/login", data=form)
    if device is not None:
        assert page.headers["location"] == "/login/second-factor"
        page = browser.http.get("/login/second-factor")
        page = browser.http.post("/login/second-factor", data={"csrf": field(page, "csrf"), "code": device.code()})
    redirect = browser.follow(page)
    answer = app.redeem(answered(redirect)["code"])
    assert answer.status_code == 200, answer.text
    tokens: Resource = answer.json()
    return tokens


def test_an_app_gets_a_fresh_login_by_the_pages_and_opens_the_record(server: SmartApp) -> None:
    user, app = server.user(), server.client()
    browser = server.browser(user, fresh=True)
    tokens = app.tokens(browser, SCOPE)
    minutes_later(server, user, 6)
    refused = break_glass(server, tokens)
    assert refused.status_code == 401
    assert 'error="insufficient_user_authentication"' in refused.headers["www-authenticate"]
    assert server.read(tokens["access_token"], "Patient/mara").status_code == 200  # the token itself is good
    fresh = again(app, browser, user)
    assert break_glass(server, fresh).status_code == 200
    assert server.read(fresh["access_token"], "Patient/hidden").status_code == 200
    assert server.read(tokens["access_token"], "Patient/hidden").status_code == 404  # another session


def test_who_has_a_second_factor_proves_that_too(server: SmartApp) -> None:
    name, app = server.user(), server.client()
    device = enrolled(server, name)
    browser = Browser(server)
    shown = browser.http.get("/login")
    form = {"csrf": field(shown, "csrf"), "next": "", "name": name, "password": PASSWORD}
    browser.http.post("/login", data=form)
    page = browser.http.get("/login/second-factor")
    browser.http.post("/login/second-factor", data={"csrf": field(page, "csrf"), "code": device.code()})
    tokens = app.tokens(browser, SCOPE)
    minutes_later(server, name, 6)
    assert break_glass(server, tokens).status_code == 401
    # The password alone leads to no code for the app.
    page = browser.authorize(app.request(SCOPE, max_age="300"))
    form = {"csrf": field(page, "csrf"), "next": field(page, "next"), "name": name, "password": PASSWORD}
    half = browser.http.post("/login", data=form)
    assert half.headers["location"] == "/login/second-factor"
    assert 'name="password"' in browser.authorize(app.request(SCOPE)).text
    half_a_minute_later(server, name, device)
    assert break_glass(server, again(app, browser, name, device)).status_code == 200


def enrolled(server: SmartApp, name: str) -> Device:
    """The device of a user who has set up a second factor."""

    async def enrol() -> Device:
        user = await server.users.get(name)
        assert user is not None
        factors = SecondFactors(server.db, second_factor_key(Path(server.data_dir)))
        sealed = factors.new_secret(user)
        device = Device(factors.secret(user, sealed))
        assert await factors.enrol(user, sealed, device.code())
        return device

    made = server.run(enrol())
    half_a_minute_later(server, name, made)
    return made


def half_a_minute_later(server: SmartApp, name: str, device: Device) -> None:
    """As if the codes that were used were those of before."""
    device.last = 0
    server.run(server.db["oauth_users"].update_one({"_id": name}, {"$set": {"second_factor.last_step": 0}}))
