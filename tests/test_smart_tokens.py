"""S-14, S-15, S-17, S-21, S-23, S-27, X33: the life of a person's grant: code, access, refresh, revocation, and its end."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from smart_auth.tokens import token_id
from tests.smart_app import REDIRECT, App, SmartApp, answered, department

OFFLINE = "openid launch/patient patient/*.rs offline_access"


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def user(server: SmartApp) -> str:
    return server.user()


@pytest.fixture(params=["public", "secret"])
def app(server: SmartApp, request: pytest.FixtureRequest) -> App:
    return server.client(secret=request.param == "secret")


def refused(answer: httpx.Response, error: str = "invalid_grant", status: int = 400) -> bool:
    body = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    assert "access_token" not in body
    return (answer.status_code, body["error"]) == (status, error)


def opens(server: SmartApp, body: dict[str, Any]) -> bool:
    return server.read(body["access_token"], "Patient/mara").status_code == 200


def test_the_token_response_is_what_smart_asks_for(server: SmartApp, user: str, app: App) -> None:
    answer = app.redeem(server.browser(user).code(app.request(OFFLINE)))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    body = answer.json()
    assert (body["token_type"], body["expires_in"], body["scope"], body["patient"]) == ("Bearer", 3600, OFFLINE, "mara")
    assert len(body["access_token"]) == len(body["refresh_token"]) == 43
    assert opens(server, body)


def test_scripts_of_the_apps_origin_may_redeem_and_those_of_others_not(server: SmartApp, user: str) -> None:
    app = server.client()
    for origin, allowed in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
        form: dict[str, str | None] = {"grant_type": "authorization_code", "code": "x", "client_id": app.id}
        answer = app.post("/oauth/token", form, Origin=origin)
        assert answer.headers.get("access-control-allow-origin") == allowed
        body = app.tokens(server.browser(user))
        assert (
            server.read(body["access_token"], "Patient/mara", Origin=origin).headers.get("access-control-allow-origin") == allowed
        )


def test_s14_a_code_that_comes_again_ends_what_it_gave(server: SmartApp, user: str, app: App) -> None:
    code = server.browser(user).code(app.request(OFFLINE))
    body = app.redeem(code).json()
    assert opens(server, body)
    assert refused(app.redeem(code))
    assert not opens(server, body)
    assert refused(app.refresh(body["refresh_token"]))


def test_s14_of_parallel_redemptions_one_succeeds_and_gives_nothing_that_lasts(server: SmartApp, user: str, app: App) -> None:
    code = server.browser(user).code(app.request(OFFLINE))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: app.redeem(code), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
    body = next(answer.json() for answer in answers if answer.status_code == 200)
    time.sleep(1)
    assert not opens(server, body)
    assert refused(app.refresh(body["refresh_token"]))


def test_s14_a_foreign_client_that_has_a_used_code_ends_nothing(server: SmartApp, user: str) -> None:
    app = server.client()
    code = server.browser(user).code(app.request(OFFLINE))
    body = app.redeem(code).json()
    assert refused(server.client().redeem(code))
    assert opens(server, body)


def test_s15_a_code_is_for_its_client_and_redirect_uri(server: SmartApp, user: str) -> None:
    app = server.client(redirect_uris=[REDIRECT, f"{REDIRECT}/2"])
    code = server.browser(user).code(app.request(OFFLINE))
    other = server.client()
    assert refused(other.redeem(code, code_verifier=app.verifier))
    assert refused(app.redeem(code, redirect_uri=f"{REDIRECT}/2"))
    assert refused(app.redeem(code, redirect_uri=None))
    assert app.redeem(code).status_code == 200


def test_s15_a_code_is_good_for_a_minute(server: SmartApp, user: str, app: App) -> None:
    code = server.browser(user).code(app.request(OFFLINE))
    old = {"$set": {"issued": datetime.now(UTC) - timedelta(seconds=61)}}
    server.run(server.db["oauth_codes"].update_one({"_id": token_id(code)}, old))
    assert refused(app.redeem(code))


def test_s15_what_is_no_code_or_client_is_refused(server: SmartApp, user: str) -> None:
    app = server.client()
    assert refused(app.redeem("BAD_CODE"))
    code = server.browser(user).code(app.request(OFFLINE))
    assert refused(app.redeem(code, client_id="nobody"), "invalid_client")
    assert refused(app.redeem(code, client_id=None), "invalid_client")
    confidential = server.client(secret=True)
    assert refused(app.redeem(code, auth=(confidential.id, "wrong")), "invalid_client", 401)
    assert app.redeem(code).status_code == 200


def test_a_secret_works_in_the_header_and_in_the_body_and_only_one_of_them(server: SmartApp, user: str) -> None:
    app = server.client(secret=True)
    assert app.secret is not None

    def redeem(auth: tuple[str, str] | None, **form: str | None) -> httpx.Response:
        code = server.browser(user).code(app.request("openid"))
        full = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": app.verifier, **form}
        given = {name: value for name, value in full.items() if value is not None}
        return httpx.post(f"{server.base}/oauth/token", data=given, auth=auth)

    basic = (app.id, app.secret)
    assert redeem(basic).status_code == 200
    assert redeem(basic, client_id=app.id).status_code == 200
    assert redeem(None, client_id=app.id, client_secret=app.secret).status_code == 200
    assert refused(redeem(basic, client_id="other"), "invalid_client", 401)
    assert refused(redeem(basic, client_id=app.id, client_secret=app.secret), "invalid_client", 401)
    assert refused(redeem(None, client_id=app.id, client_secret=f"{app.secret}x"), "invalid_client")
    assert refused(redeem(None, client_id=app.id), "invalid_client")
    wrong = redeem((app.id, "wrong"))
    assert wrong.headers["www-authenticate"].startswith("Basic")
    assert "www-authenticate" not in redeem(None, client_id=app.id).headers
    unknown = redeem(("nobody", "wrong"))
    assert unknown.json() == wrong.json()


def test_an_app_cannot_come_on_its_own_account(app: App) -> None:
    form: dict[str, str | None] = {"grant_type": "client_credentials", "scope": "system/*.rs", "client_id": app.id}
    answer = app.post("/oauth/token", form)
    assert answer.json()["error"] == "invalid_client"


def test_without_offline_or_online_access_there_is_no_refresh_token(server: SmartApp, user: str, app: App) -> None:
    assert "refresh_token" not in app.tokens(server.browser(user))


def test_s17_a_refresh_gives_the_next_refresh_token(server: SmartApp, user: str, app: App) -> None:
    body = app.tokens(server.browser(user), OFFLINE)
    for _ in range(3):
        answer = app.refresh(body["refresh_token"])
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        again = answer.json()
        assert (again["token_type"], again["expires_in"], again["scope"]) == ("Bearer", 3600, OFFLINE)
        assert again["refresh_token"] != body["refresh_token"]
        assert again["access_token"] != body["access_token"]
        assert opens(server, again)
        body = again


def test_s17_an_old_refresh_token_that_comes_again_ends_the_family(server: SmartApp, user: str, app: App) -> None:
    first = app.tokens(server.browser(user), OFFLINE)
    second = app.refresh(first["refresh_token"]).json()
    past = {"$set": {"used": datetime.now(UTC) - timedelta(seconds=11)}}
    server.run(server.db["oauth_refresh_tokens"].update_one({"_id": token_id(first["refresh_token"])}, past))
    assert opens(server, second)
    assert refused(app.refresh(first["refresh_token"]))
    assert not opens(server, second)
    assert not opens(server, first)
    assert refused(app.refresh(second["refresh_token"]))


def test_s17_parallel_refreshes_of_one_app_get_the_same_successor(server: SmartApp, user: str, app: App) -> None:
    body = app.tokens(server.browser(user), OFFLINE)
    with ThreadPoolExecutor(6) as pool:
        answers = [a.json() for a in pool.map(lambda _: app.refresh(body["refresh_token"]), range(6))]
    assert len({answer["refresh_token"] for answer in answers}) == 1
    assert len({answer["access_token"] for answer in answers}) == 6
    assert all(opens(server, answer) for answer in answers)
    assert app.refresh(answers[0]["refresh_token"]).status_code == 200


def test_s17_a_refresh_may_narrow_and_never_widen(server: SmartApp, user: str, app: App) -> None:
    body = app.tokens(server.browser(user), OFFLINE)
    narrow = app.refresh(body["refresh_token"], scope="patient/Patient.r").json()
    assert narrow["scope"] == "patient/Patient.r"
    assert server.read(narrow["access_token"], "Patient/mara").status_code == 200
    assert server.read(narrow["access_token"], "Observation/lab1").status_code == 403
    for wider in ("patient/*.cruds", "user/*.rs", f"{OFFLINE} fhirUser", "nonsense"):
        assert refused(app.refresh(narrow["refresh_token"], scope=wider), "invalid_scope")
    assert app.refresh(narrow["refresh_token"]).json()["scope"] == OFFLINE


def test_s17_another_client_can_neither_use_nor_end_it(server: SmartApp, user: str, app: App) -> None:
    body = app.tokens(server.browser(user), OFFLINE)
    for other in (server.client(), server.client(secret=True)):
        assert refused(other.refresh(body["refresh_token"]))
    assert app.refresh(body["refresh_token"]).status_code == 200


def test_s17_a_public_client_may_leave_its_id_out_and_a_confidential_one_must_prove_itself(server: SmartApp, user: str) -> None:
    public, confidential = server.client(), server.client(secret=True)
    for app, good in ((public, True), (confidential, False)):
        token = app.tokens(server.browser(user), OFFLINE)["refresh_token"]
        answer = httpx.post(f"{server.base}/oauth/token", data={"grant_type": "refresh_token", "refresh_token": token})
        assert (answer.status_code == 200) is good
        assert "basic" not in answer.headers.get("www-authenticate", "").lower()


def test_s17_a_random_refresh_token_is_refused(app: App) -> None:
    assert refused(app.refresh("x" * 43))


def test_a_public_app_that_names_only_its_refresh_token_is_told_when_that_is_over(server: SmartApp, user: str) -> None:
    """As one that gives its client_id: it begins anew at invalid_grant, and is set up wrongly at invalid_client."""
    app, confidential = server.client(), server.client(secret=True)
    body = app.tokens(server.browser(user), OFFLINE)
    app.post("/oauth/revoke", {"token": body["refresh_token"], "client_id": app.id})
    assert refused(app.refresh(body["refresh_token"], client_id=None), "invalid_grant")
    assert refused(app.refresh("x" * 43, client_id=None), "invalid_grant")
    body = confidential.tokens(server.browser(user), OFFLINE)
    alone = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]}
    assert httpx.post(f"{server.base}/oauth/token", data=alone).json()["error"] == "invalid_client"


def test_offline_access_lives_on_after_logout_and_online_access_does_not(server: SmartApp, user: str) -> None:
    app = server.client()
    browser = server.browser(user, fresh=True)
    offline = app.tokens(browser, OFFLINE)
    online = app.tokens(browser, "openid launch/patient patient/*.rs online_access")
    assert opens(server, online)
    online = app.refresh(online["refresh_token"]).json()
    page = browser.http.get("/logout")
    browser.submit(page)
    time.sleep(1)
    assert not opens(server, online)
    assert refused(app.refresh(online["refresh_token"]))
    assert opens(server, offline)
    assert app.refresh(offline["refresh_token"]).status_code == 200


@pytest.mark.parametrize("what", ["disabled", "role", "password", "removed"])
def test_x33_what_was_granted_dies_with_the_user_as_he_was(server: SmartApp, what: str) -> None:
    user = server.user()
    app = server.client()
    body = app.tokens(server.browser(user), OFFLINE)
    code_app = server.client("openid offline_access")
    code = server.browser(user).code(code_app.request("openid offline_access"))
    assert opens(server, body)
    if what == "disabled":
        server.run(server.users.disable(user))
    elif what == "role":
        server.run(server.users.change(user, role="scheduler"))
    elif what == "password":
        server.run(server.users.set_password(user, "encoded"))
    else:
        server.run(server.db["oauth_users"].delete_one({"_id": user}))
    time.sleep(1)
    assert not opens(server, body)
    assert refused(app.refresh(body["refresh_token"]))
    assert refused(code_app.redeem(code))


def test_removing_a_client_ends_what_people_granted_it(server: SmartApp, user: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), OFFLINE)
    assert opens(server, body)
    server.run(server.clients.remove(app.id))
    time.sleep(1)
    assert not opens(server, body)
    assert refused(app.refresh(body["refresh_token"]), "invalid_client")


def test_s23_revoking_a_token_ends_its_whole_family(server: SmartApp, user: str, app: App) -> None:
    for name in ("access_token", "refresh_token"):
        body = app.tokens(server.browser(user), OFFLINE)
        renewed = app.refresh(body["refresh_token"]).json()
        form = {"token": renewed[name], "client_id": None if app.secret else app.id}
        answer = app.post("/oauth/revoke", form)
        assert (answer.status_code, answer.json()) == (200, {})
        assert not opens(server, body)
        assert not opens(server, renewed)
        assert refused(app.refresh(renewed["refresh_token"]))


def test_s23_a_foreign_token_is_not_revoked_and_an_unknown_one_is_fine(server: SmartApp, user: str, app: App) -> None:
    body = app.tokens(server.browser(user), OFFLINE)
    other = server.client()
    for name in ("access_token", "refresh_token"):
        assert refused(other.post("/oauth/revoke", {"token": body[name], "client_id": other.id}))
    assert opens(server, body)
    assert other.post("/oauth/revoke", {"token": "unknown", "client_id": other.id}).status_code == 200
    assert httpx.post(f"{server.base}/oauth/revoke", data={"token": body["access_token"]}).status_code == 400


def test_s23_a_user_ends_an_app_on_the_page_of_apps_and_is_asked_again(server: SmartApp, user: str) -> None:
    app = server.client(name="Viewer of invented images")
    browser = server.browser(user)
    body = app.tokens(browser, OFFLINE)
    page = browser.http.get("/account/apps")
    assert "Viewer of invented images" in page.text
    done = browser.submit(page, client_id=app.id)
    assert "Viewer of invented images" not in done.text
    assert not opens(server, body)
    assert refused(app.refresh(body["refresh_token"]))
    assert 'value="consent"' in browser.authorize(app.request(OFFLINE)).text


def test_s21_a_token_in_the_url_or_the_form_is_refused_by_the_fhir_api(server: SmartApp, user: str) -> None:
    token = server.client().tokens(server.browser(user))["access_token"]
    assert httpx.get(f"{server.fhir}/Patient/mara?access_token={token}").status_code == 401
    form = {"access_token": token, "_id": "mara"}
    assert httpx.post(f"{server.fhir}/Patient/_search", data=form).status_code == 401


def test_an_expired_access_token_is_refused(server: SmartApp, user: str) -> None:
    body = server.client().tokens(server.browser(user))
    past = {"$set": {"expires": datetime.now(UTC) - timedelta(seconds=1)}}
    server.run(server.db["oauth_tokens"].update_one({"_id": token_id(body["access_token"])}, past))
    assert server.read(body["access_token"], "Patient/mara").status_code == 401


def test_s27_secrets_are_neither_stored_nor_logged_in_clear(
    server: SmartApp, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = server.client(secret=True)
    launch = app.launch({"patient": "mara"})
    request = app.request(f"launch {OFFLINE}", launch=launch)
    browser = server.browser(user)
    code = answered(browser.consent(browser.authorize(request)))["code"]
    body = app.redeem(code).json()
    renewed = app.refresh(body["refresh_token"]).json()
    assert opens(server, renewed)
    stored = repr(server.documents())
    assert app.id in stored
    # The first two are those of this test as a client; the product switches the last one off (tests/test_logs.py).
    others = ("httpx", "httpcore", "uvicorn.access")
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith(others))
    for secret in (launch, code, body["access_token"], body["refresh_token"], renewed["refresh_token"], app.secret):
        assert secret not in stored
        assert secret not in ours
