"""S-11 to S-13, S-16: authorization requests, right and wrong, and where the answer goes."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import pytest

from tests.smart_app import REDIRECT, SmartApp, answered, department


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def user(server: SmartApp) -> str:
    return server.user()


def ask(server: SmartApp, query: dict[str, str] | list[tuple[str, str]] | str, method: str = "GET") -> httpx.Response:
    """One authorization request, nothing followed."""
    if method == "POST":
        given = query if isinstance(query, str) else urlencode(query)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return httpx.post(f"{server.base}/oauth/authorize", content=given, headers=form)
    return httpx.get(f"{server.base}/oauth/authorize?{query if isinstance(query, str) else urlencode(query)}")


def is_page(answer: httpx.Response) -> bool:
    """Whether a refusal is shown to the person, and nobody is redirected."""
    assert "location" not in answer.headers
    assert answer.headers["content-type"].startswith("text/html")
    return answer.status_code == 400


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_s11_get_and_post_do_the_same(server: SmartApp, user: str, method: str) -> None:
    app = server.client("openid user/*.rs")
    browser = server.browser(user)
    redirect = browser.consent(browser.authorize(app.request("openid user/*.rs"), method))
    assert app.redeem(answered(redirect)["code"]).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_s11_who_is_not_logged_in_logs_in_first_and_comes_back(server: SmartApp, user: str, method: str) -> None:
    app = server.client("openid user/*.rs")
    browser = server.browser()
    login = browser.authorize(app.request("openid user/*.rs"), method)
    assert login.url.path == "/login"
    page = browser.follow(browser.log_in(user, str(login.url)))
    assert app.redeem(answered(browser.consent(page))["code"]).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"scope": None}, "invalid_scope"),
        ({"scope": "patient/Observaton.rs"}, "invalid_scope"),
        ({"scope": "system/*.rs"}, "invalid_scope"),
        ({"aud": None}, "invalid_request"),
        ({"aud": "https://other.example/fhir"}, "invalid_request"),
        ({"aud": None, "resource": "https://other.example/fhir"}, "invalid_request"),
        ({"state": None}, "invalid_request"),
        ({"state": ""}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"request": "eyJhbGciOiJub25lIn0.e30."}, "invalid_request"),
        ({"launch": "guessed"}, "invalid_request"),
        ({"nonce": "\udcff"}, "invalid_request"),
    ],
)
def test_s12_what_is_wrong_is_told_to_the_app_by_redirect(
    server: SmartApp, method: str, changed: dict[str, str | None], error: str
) -> None:
    request = server.client().request(**changed)
    answer = ask(server, urlencode(request, errors="surrogateescape"), method)
    told = answered(answer)
    assert told["error"] == error
    assert told["iss"] == server.base
    assert told.get("state") == (request.get("state") or None)
    assert "code" not in told


@pytest.mark.parametrize("name", ["response_type", "scope", "aud", "code_challenge", "code_challenge_method", "nonce", "state"])
def test_s12_a_parameter_given_twice_is_told_to_the_app(server: SmartApp, name: str) -> None:
    request = {**server.client().request(), "nonce": "n"}
    assert answered(ask(server, [*request.items(), (name, request[name])]))["error"] == "invalid_request"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "changed", [{"client_id": None}, {"client_id": "nobody"}, {"redirect_uri": None}, {"redirect_uri": "https://evil.example/cb"}]
)
def test_s12_a_wrong_client_or_redirect_uri_is_shown_and_nobody_is_redirected(
    server: SmartApp, method: str, changed: dict[str, str | None]
) -> None:
    assert is_page(ask(server, server.client().request(**changed), method))


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
def test_s12_neither_is_anybody_redirected_when_one_of_them_is_given_twice(server: SmartApp, name: str) -> None:
    request = server.client().request()
    assert is_page(ask(server, [*request.items(), (name, request[name])]))


def test_s12_a_backend_client_cannot_send_people_to_authorize(server: SmartApp) -> None:
    token = server.backend()
    client_id = server.run(server.tokens.find(token)).client_id  # type: ignore[union-attr]
    assert is_page(ask(server, server.client().request(client_id=client_id)))


@pytest.mark.parametrize(
    "uri",
    [
        "https://APP.example/callback",
        "https://app.example/Callback",
        "https://app.example/callback/",
        "https://app.example/callback?",
        "https://app.example/callback?extra=1",
        "https://app.example:443/callback",
        "https://app.example:8443/callback",
        "https://user@app.example/callback",
        "https://app.example@evil.example/callback",
        "https://app.example/callback#fragment",
        "https://app.example/x/../callback",
        "https://app.example/%63allback",
        "https://app.example//callback",
        "https://app.example.evil.example/callback",
        "http://app.example/callback",
        "//app.example/callback",
        " https://app.example/callback",
        "https://app.example/callback ",
        "https://app.example/callback%00",
        "https://app.example\\callback",
    ],
)
def test_s13_a_redirect_uri_that_is_nearly_right_is_wrong(server: SmartApp, uri: str) -> None:
    assert is_page(ask(server, server.client().request(redirect_uri=uri)))


@pytest.mark.parametrize(
    "state",
    ["x", "a b+c/d?e=f&g#h%i", "ünïcödé ✓", "\"<script>'", "%ff%fe", "x" * 4000, "{json: [1]}", "\r\nSet-Cookie: a=b"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_s12_state_comes_back_byte_for_byte(server: SmartApp, user: str, state: str, method: str) -> None:
    app = server.client("openid")
    sent = state if state == "%ff%fe" else quote(state, safe="")
    rest = urlencode({name: value for name, value in app.request("openid").items() if name != "state"})
    refused = ask(server, f"{rest.replace('S256', 'plain')}&state={sent}", method)
    browser = server.browser(user)
    granted = browser.consent(browser.follow(browser_ask(browser.http, f"{rest}&state={sent}", method)))
    for answer in (refused, granted):
        assert raw(answer)["state"] == raw_value(sent)
        assert "set-cookie: a=b" not in str(answer.headers).lower()


def browser_ask(http: httpx.Client, query: str, method: str) -> httpx.Response:
    if method == "GET":
        return http.get(f"/oauth/authorize?{query}")
    return http.post("/oauth/authorize", content=query, headers={"Content-Type": "application/x-www-form-urlencoded"})


def raw(answer: httpx.Response) -> dict[str, bytes]:
    query = urlsplit(answer.headers["location"]).query
    return {name: value.encode("latin-1") for name, value in parse_qsl(query, encoding="latin-1", keep_blank_values=True)}


def raw_value(quoted: str) -> bytes:
    return dict(parse_qsl(f"x={quoted}", encoding="latin-1"))["x"].encode("latin-1")


def test_s11_aud_may_end_in_a_slash_and_be_called_resource(server: SmartApp, user: str) -> None:
    app = server.client("openid")
    for changed in ({"aud": f"{server.fhir}/"}, {"aud": None, "resource": server.fhir}):
        assert "code" in answered(server.browser(user).grant(app.request("openid", **changed)))


def test_s11_the_answer_keeps_the_query_of_the_redirect_uri(server: SmartApp, user: str) -> None:
    uri = f"{REDIRECT}?tenant=a%20b"
    app = server.client("openid", redirect_uris=[uri])
    redirect = server.browser(user).grant(app.request("openid", redirect_uri=uri))
    assert redirect.headers["location"].startswith(f"{uri}&code=")
    assert answered(redirect)["iss"] == server.base


def test_s16_a_confidential_client_needs_pkce_too(server: SmartApp) -> None:
    request = server.client(secret=True).request(code_challenge=None, code_challenge_method=None)
    assert answered(ask(server, request))["error"] == "invalid_request"


@pytest.mark.parametrize("verifier", [None, "", "x", "x" * 43, "challenge"])
@pytest.mark.parametrize("secret", [False, True])
def test_s16_a_code_is_worth_nothing_without_its_verifier(
    server: SmartApp, user: str, verifier: str | None, secret: bool
) -> None:
    app = server.client("openid", secret=secret)
    request = app.request("openid")
    code = server.browser(user).code(request)
    given = request["code_challenge"] if verifier == "challenge" else verifier
    refused = app.redeem(code, code_verifier=given)
    assert refused.status_code == 400
    assert refused.json()["error"] in {"invalid_grant", "invalid_request"}
    assert "access_token" not in refused.text
    assert app.redeem(code).status_code == 200


def test_s12_pages_on_the_way_can_neither_be_framed_nor_kept_nor_read_by_other_origins(server: SmartApp, user: str) -> None:
    browser = server.browser(user)
    page = browser.authorize(server.client().request())
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    origin = {"Origin": "https://app.example"}
    for answer in (browser.http.get(str(page.url), headers=origin), browser.http.get("/oauth/authorize", headers=origin)):
        assert "access-control-allow-origin" not in answer.headers


def test_s12_prompt_none_asks_nobody_and_says_why(server: SmartApp, user: str) -> None:
    app = server.client("openid launch/patient patient/*.rs")
    quiet = {"prompt": "none"}
    assert answered(server.browser().authorize(app.request("openid", **quiet)))["error"] == "login_required"
    browser = server.browser(user)
    assert answered(browser.authorize(app.request("openid", **quiet)))["error"] == "consent_required"
    browser.grant(app.request("openid launch/patient"))
    assert "code" in answered(browser.authorize(app.request("openid", **quiet)))
    assert answered(browser.authorize(app.request("openid launch/patient", **quiet)))["error"] == "interaction_required"


@pytest.mark.parametrize("asked", [{"prompt": "login"}, {"max_age": "0"}])
def test_an_app_may_ask_for_a_fresh_login(server: SmartApp, user: str, asked: dict[str, str]) -> None:
    app = server.client("openid")
    browser = server.browser(user, fresh=True)
    page = browser.authorize(app.request("openid", **asked))
    assert page.url.path == "/login"
    page = browser.follow(browser.log_in(user, str(page.url)))
    assert "code" in answered(browser.consent(page))


def test_a_request_that_was_answered_is_over(server: SmartApp, user: str) -> None:
    app = server.client("openid")
    browser = server.browser(user)
    page = browser.authorize(app.request("openid"))
    assert "code" in answered(browser.consent(page))
    assert is_page(browser.http.get(str(page.url)))
    assert is_page(browser.http.get("/oauth/authorize/guessed"))


def test_a_consent_needs_the_token_of_its_page(server: SmartApp, user: str) -> None:
    browser = server.browser(user)
    page = browser.authorize(server.client("openid").request("openid"))
    forged: dict[str, Any] = {"step": "consent", "answer": "allow", "scope-0": "yes"}
    assert browser.http.post(str(page.url), data=forged).status_code == 403
    assert browser.http.post(str(page.url), data={**forged, "csrf": "0" * 64}).status_code == 403
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert browser.http.post(str(page.url), data=forged, headers=foreign).status_code == 403


def test_an_app_that_is_removed_under_way_gets_nothing(server: SmartApp, user: str) -> None:
    app = server.client("openid")
    browser = server.browser(user)
    page = browser.authorize(app.request("openid"))
    server.run(server.clients.remove(app.id))
    assert is_page(browser.consent(page))


def test_who_logs_in_on_the_way_neither_inherits_consent_nor_patient(server: SmartApp, user: str) -> None:
    app = server.client("openid launch/patient launch/encounter patient/*.rs")
    browser = server.browser(user, fresh=True)
    page = browser.pick(browser.consent(browser.authorize(app.request("openid launch/encounter patient/*.rs"))), "mara")
    assert 'value="encounter"' in page.text
    browser.log_in(server.user(), "/login?again")
    again = browser.http.get(str(page.url))
    assert 'value="consent"' in again.text
    assert 'value="search"' in browser.consent(again).text
