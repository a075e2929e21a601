"""S-22: who may ask about a token, and what is said of it (SMART App Launch 2.2, "Token introspection")."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from joserfc import jws

from smart_auth.tokens import token_id
from tests.smart_app import SmartApp, answered, department
from tests.test_smart_launch import CONTEXT, LAUNCH_SCOPE


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def user(server: SmartApp) -> str:
    return server.user()


@pytest.fixture(scope="module")
def service(server: SmartApp) -> str:
    """The token of a resource server that may ask about all tokens."""
    return server.backend("urn:fhir-ris:introspect")


def ask(server: SmartApp, token: str, bearer: str | None = None, **how: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    return httpx.post(f"{server.base}/oauth/introspect", data={"token": token, **how}, headers=headers)


def test_s22_only_who_has_the_right_may_ask_about_any_token(server: SmartApp, user: str, service: str) -> None:
    token = server.client().tokens(server.browser(user))["access_token"]
    anonymous = ask(server, token)
    assert anonymous.status_code == 401
    assert anonymous.headers["www-authenticate"].startswith("Bearer")
    assert ask(server, token, "unknown").status_code == 401
    assert ask(server, token, server.backend("system/*.cruds")).status_code == 403
    assert ask(server, token, token).status_code == 403
    allowed = ask(server, token, service)
    assert (allowed.status_code, allowed.json()["active"]) == (200, True)
    assert allowed.headers["cache-control"] == "no-store"


def test_s22_a_token_is_described_with_its_launch_and_its_person(server: SmartApp, user: str, service: str) -> None:
    app = server.client()
    browser = server.browser(user)
    request = app.request(LAUNCH_SCOPE, launch=app.launch(CONTEXT))
    body = app.redeem(answered(browser.consent(browser.authorize(request)))["code"]).json()
    claims = json.loads(jws.extract_compact(body["id_token"].encode()).payload)
    told = ask(server, body["access_token"], service).json()
    assert (told["active"], told["token_type"], told["client_id"]) == (True, "Bearer", app.id)
    assert told["scope"] == body["scope"]
    assert 3500 < told["exp"] - time.time() <= 3600
    assert {name: told[name] for name in CONTEXT} == CONTEXT
    assert (told["iss"], told["sub"]) == (claims["iss"], claims["sub"])
    assert told["fhirUser"] == claims["fhirUser"] == f"{server.fhir}/Practitioner/rita"


def test_s22_without_openid_the_person_is_not_named(server: SmartApp, user: str, service: str) -> None:
    token = server.client().tokens(server.browser(user), "launch/patient patient/*.rs")["access_token"]
    assert not {"iss", "sub", "fhirUser"} & set(ask(server, token, service).json())


def test_s22_of_anything_else_nothing_is_said(server: SmartApp, user: str, service: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), "openid launch/patient patient/*.rs offline_access")
    expired = server.client().tokens(server.browser(user))["access_token"]
    past = {"$set": {"expires": datetime.now(UTC) - timedelta(seconds=1)}}
    server.run(server.db["oauth_tokens"].update_one({"_id": token_id(expired)}, past))
    revoked = app.refresh(body["refresh_token"]).json()
    for token in (body["refresh_token"], expired, "invalid_token_value", "x" * 5000):
        answer = ask(server, token, service)
        assert (answer.status_code, answer.json()) == (200, {"active": False})
    app.post("/oauth/revoke", {"token": revoked["access_token"], "client_id": app.id})
    for token in (revoked["access_token"], body["access_token"]):
        assert ask(server, token, service).json() == {"active": False}


def test_s22_a_client_with_a_secret_asks_about_its_own_tokens(server: SmartApp, user: str) -> None:
    app, other = server.client(secret=True), server.client(secret=True)
    token = app.tokens(server.browser(user))["access_token"]
    assert app.post("/oauth/introspect", {"token": token}).json()["patient"] == "mara"
    assert other.post("/oauth/introspect", {"token": token}).json() == {"active": False}
    assert other.post("/oauth/introspect", {"token": token}, auth=(other.id, "wrong")).status_code == 401


def test_s22_a_public_client_cannot_ask(server: SmartApp, user: str) -> None:
    app = server.client()
    token = app.tokens(server.browser(user))["access_token"]
    assert app.post("/oauth/introspect", {"token": token, "client_id": app.id}).status_code == 401


def test_the_token_is_needed(server: SmartApp, service: str) -> None:
    answer = httpx.post(f"{server.base}/oauth/introspect", data={"x": "y"}, headers={"Authorization": f"Bearer {service}"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_s22_a_token_of_fewer_scopes_says_no_more_than_those_allow(server: SmartApp, user: str, service: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), "openid fhirUser launch/patient patient/*.rs offline_access")
    less = app.refresh(body["refresh_token"], scope="launch/patient patient/*.rs").json()
    told = ask(server, less["access_token"], service).json()
    assert (told["active"], told["patient"]) == (True, "mara")
    assert not {"iss", "sub", "fhirUser"} & set(told)
