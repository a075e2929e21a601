"""Several workers serve one authorization server: what one of them knows, ends or uses up, holds for all."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from smart_auth.tokens import token_id
from tests.smart_app import REDIRECT, App, SmartApp, department
from tests.smart_world import consent, label
from tests.test_smart_token_endpoint import EC, JWKS, authenticated

OFFLINE = "openid launch/patient patient/*.rs offline_access"


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def other(mongodb_uri: str, server: SmartApp) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri, beside=server)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def user(server: SmartApp) -> str:
    return server.user()


def redeem(worker: SmartApp, app: App, code: str) -> httpx.Response:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "client_id": app.id}
    return httpx.post(f"{worker.here}/oauth/token", data={**form, "code_verifier": app.verifier})


def opens(worker: SmartApp, body: dict[str, Any]) -> bool:
    header = {"Authorization": f"Bearer {body['access_token']}"}
    return httpx.get(f"{worker.here}/fhir/Patient/mara", headers=header).status_code == 200


def test_a_code_of_one_is_redeemed_at_another_and_its_token_good_at_both(server: SmartApp, other: SmartApp, user: str) -> None:
    app = server.client()
    body = redeem(other, app, server.browser(user).code(app.request(OFFLINE))).json()
    assert opens(server, body)
    assert opens(other, body)


def test_s14_a_code_is_good_once_over_all_workers(server: SmartApp, other: SmartApp, user: str) -> None:
    app = server.client()
    code = server.browser(user).code(app.request(OFFLINE))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: redeem((server, other)[n % 2], app, code), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
    body = next(answer.json() for answer in answers if answer.status_code == 200)
    time.sleep(1)
    assert not opens(server, body)
    assert not opens(other, body)


def test_s17_parallel_refreshes_at_two_workers_get_the_same_successor(server: SmartApp, other: SmartApp, user: str) -> None:
    app = server.client()
    token = app.tokens(server.browser(user), OFFLINE)["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": token}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: httpx.post(f"{(server, other)[n % 2].here}/oauth/token", data=form).json(), range(6)))
    assert len({answer["refresh_token"] for answer in found}) == 1


def test_s18_an_assertion_is_good_once_over_all_workers(server: SmartApp, other: SmartApp) -> None:
    server.run(server.clients.add("twice", "system/*.rs", jwks=JWKS))
    proof = authenticated("twice", EC, aud=f"{server.base}/oauth/token")
    form = {"grant_type": "client_credentials", "scope": "system/*.rs", **proof}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: httpx.post(f"{(server, other)[n % 2].here}/oauth/token", data=form), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7


@pytest.mark.parametrize("how", ["revoked", "refreshed twice", "disabled", "another role", "another password", "client removed"])
def test_what_ends_at_one_has_ended_at_another_within_a_second(server: SmartApp, other: SmartApp, how: str) -> None:
    user, app = server.user(), server.client()
    body = app.tokens(server.browser(user), OFFLINE)
    assert opens(other, body)
    if how == "revoked":
        httpx.post(f"{server.here}/oauth/revoke", data={"token": body["refresh_token"], "client_id": app.id})
    elif how == "refreshed twice":
        assert app.refresh(body["refresh_token"]).status_code == 200
        long_ago = {"$set": {"used": datetime.now(UTC) - timedelta(seconds=11)}}
        server.run(server.db["oauth_refresh_tokens"].update_one({"_id": token_id(body["refresh_token"])}, long_ago))
        assert app.refresh(body["refresh_token"]).status_code == 400
    elif how == "disabled":
        server.run(server.users.disable(user))
    elif how == "another role":
        server.run(server.users.change(user, role="technologist"))
    elif how == "another password":
        server.run(server.users.set_password(user, "encoded"))
    else:
        server.run(server.clients.remove(app.id))
    time.sleep(1)
    assert not opens(other, body)


def test_a_login_that_ends_at_one_ends_what_hangs_on_it_at_another(server: SmartApp, other: SmartApp) -> None:
    browser = server.browser(server.user(), fresh=True)
    body = server.client().tokens(browser, "openid launch/patient patient/*.rs online_access")
    assert opens(other, body)
    browser.submit(browser.http.get("/logout"))
    time.sleep(1)
    assert not opens(other, body)


@pytest.mark.parametrize("what", ["label", "consent"])
def test_what_is_closed_at_one_is_closed_at_another_within_a_second(server: SmartApp, other: SmartApp, what: str) -> None:
    user = server.user()
    body = server.client().tokens(server.browser(user), "openid launch/patient patient/*.rs")
    patient = server.read(server.backend(), "Patient/mara").json()
    assert opens(other, body)
    denial = consent("mara-denies", "mara", {"type": "deny"})
    server.put({**patient, "meta": label("V")} if what == "label" else denial)
    time.sleep(1)
    assert not opens(other, body)
    server.put({**patient, "meta": label("N")} if what == "label" else {**denial, "status": "inactive"})
    time.sleep(1)
    assert opens(other, body)


def test_a_record_that_one_opens_in_an_emergency_and_closes_is_open_and_closed_at_another(
    server: SmartApp, other: SmartApp
) -> None:
    body = server.client().tokens(server.browser(server.user()), "openid launch/patient user/*.rs")
    header = {"Authorization": f"Bearer {body['access_token']}", "Content-Type": "application/fhir+json"}
    server.put({"resourceType": "Patient", "id": "hidden", "meta": label("V")})

    def seen() -> bool:
        return httpx.get(f"{other.here}/fhir/Patient/hidden", headers=header).status_code == 200

    assert not seen()
    reason = {"name": "reason", "valueString": "Unconscious after a fall"}
    asked = {"resourceType": "Parameters", "parameter": [reason]}
    for operation, after in (("$break-glass", True), ("$mend-glass", False)):
        sent = asked if after else None
        answer = httpx.post(f"{server.here}/fhir/Patient/hidden/{operation}", json=sent, headers=header)
        assert answer.status_code == 200, answer.text
        time.sleep(1)
        assert seen() is after


def test_both_sign_with_the_same_keys(server: SmartApp, other: SmartApp) -> None:
    first, second = (httpx.get(f"{worker.here}/oauth/jwks").json() for worker in (server, other))
    assert first == second
