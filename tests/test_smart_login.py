"""Login from outside: a real server, browsers with cookies, and every way to get it wrong (S-25, S-26 of the requirements)."""

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from fhir_server.audit import search_index
from fhir_server.search.index import index
from fhir_server.validation import validate
from smart_auth.login_delays import ACCOUNT, NETWORK, Delays
from smart_auth.sessions import belongs
from smart_auth.users import User
from tests.people_app import OTHER_PASSWORD, PASSWORD, Browser, Forms, PeopleApp, errors_of, serving_people

ACCOUNT_PAGES = ["/account", "/account/password", "/account/second-factor", "/logout"]


@pytest.fixture(scope="module")
def app(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleApp]:
    with serving_people(mongodb_uri, tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh_network(app: PeopleApp) -> None:
    """All tests come from one address: one's wrong passwords are no other's delay."""

    async def forget() -> None:
        await app.db["oauth_delays"].delete_many({})

    app.run(forget())


def ago(**time_: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time_)


def test_a_user_logs_in_and_sees_who_it_is(app: PeopleApp) -> None:
    user = app.user("radiologist")
    browser = Browser(app).log_in(user)
    assert browser.path == "/account"
    assert user.name in browser.page.text
    assert user.fhir_user in browser.page.text


def test_the_user_name_is_taken_in_any_case(app: PeopleApp) -> None:
    user = app.user(name="Mixed.Case-1")
    assert user.name == "mixed.case-1"
    assert Browser(app).log_in(" MIXED.case-1 ").logged_in


def test_login_leads_to_where_the_user_wanted_to_go(app: PeopleApp) -> None:
    browser = Browser(app).log_in(app.user(), leads_to="/account/password%3Fx=1%26y=%2525")
    assert browser.path == "/account/password?x=1&y=%25"


def test_who_is_logged_in_is_led_on_at_once_unless_a_fresh_login_is_asked_for(app: PeopleApp) -> None:
    browser = Browser(app).log_in(app.user())
    assert browser.open("/login?next=/account/password").path == "/account/password"
    assert browser.open("/login?again&next=/account/password").path.startswith("/login")


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "/%09/evil.example", "javascript:alert(1)",
     "evil.example", "/%0d%0aSet-Cookie:x=1", "/a%0aLocation:b", "http:evil.example", "/é", ""],
)  # fmt: skip
def test_s25_login_leads_to_no_other_site(app: PeopleApp, elsewhere: str) -> None:
    browser = Browser(app)
    browser.open(f"/login?next={elsewhere}")
    path, form = browser.filled("/login", name=app.user().name, password=PASSWORD)
    assert form["next"] == "/"
    form["next"] = httpx.QueryParams(f"n={elsewhere}")["n"]  # not the form's word alone is taken
    answer = browser.http.post(path, data=form)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"


def test_s25_the_session_id_changes_at_login(app: PeopleApp) -> None:
    browser = Browser(app).open("/login")
    before = browser.cookie()
    browser.log_in(app.user())
    assert before
    assert browser.cookie() != before
    thief = Browser(app)
    thief.http.cookies.set("ris", before)
    assert not thief.logged_in


def test_s25_a_session_that_somebody_planted_ends_at_login(app: PeopleApp) -> None:
    attacker = Browser(app).log_in(app.user())
    victim = Browser(app)
    victim.http.cookies.set("ris", attacker.cookie() or "")
    user = app.user()
    victim.open("/login?again").submit("/login", name=user.name, password=PASSWORD)
    assert user.name in victim.page.text
    assert not attacker.logged_in


@pytest.mark.parametrize("csrf", ["", "0" * 64, None])
def test_s25_login_without_the_forms_token_is_refused(app: PeopleApp, csrf: str | None) -> None:
    browser = Browser(app).open("/login")
    path, form = browser.filled("/login", name=app.user().name, password=PASSWORD)
    form.pop("csrf")
    answer = browser.http.post(path, data=form if csrf is None else form | {"csrf": csrf})
    assert answer.status_code == 403
    assert not browser.logged_in


def test_s25_login_with_the_token_of_another_browser_is_refused(app: PeopleApp) -> None:
    _, form = Browser(app).open("/login").filled("/login", name=app.user().name, password=PASSWORD)
    victim = Browser(app).open("/login")
    assert victim.http.post("/login", data=form).status_code == 403
    without_cookie = Browser(app)
    assert without_cookie.http.post("/login", data=form).status_code == 403


@pytest.mark.parametrize("header", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                                    {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}])  # fmt: skip
def test_s25_a_form_from_another_site_is_refused_even_with_the_token(app: PeopleApp, header: dict[str, str]) -> None:
    browser = Browser(app).open("/login")
    path, form = browser.filled("/login", name=app.user().name, password=PASSWORD)
    assert browser.http.post(path, data=form, headers=header).status_code == 403
    assert not browser.logged_in
    # Browsers hide the origin under our referrer policy, and say where the form is from all the same.
    ours = {"Origin": "null", "Sec-Fetch-Site": "same-origin"} if "Origin" in header else {"Origin": app.base_url}
    assert browser.http.post(path, data=form, headers=ours).status_code == 303


@pytest.mark.parametrize("path", ["/login?again", "/login?again&next=/oauth/x", *ACCOUNT_PAGES])
def test_s25_no_page_can_be_framed_scripted_or_kept(app: PeopleApp, path: str) -> None:
    pages = [Browser(app).open(path).page, Browser(app).log_in(app.user()).open(path).page]
    for page in pages:
        policy = page.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "style-src 'self'"} <= set(policy)
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script|style=|<style|\son[a-z]+=|javascript:", page.text)


def test_a_form_may_end_at_another_site_only_where_an_app_waits(app: PeopleApp) -> None:
    browser = Browser(app)
    assert "form-action 'self'" in browser.open("/login").page.headers["content-security-policy"]
    assert "form-action" not in browser.open("/login?next=/oauth/authorize%3Fx").page.headers["content-security-policy"]


def test_the_stylesheet_is_served_under_the_policy(app: PeopleApp) -> None:
    browser = Browser(app).open("/login")
    found = re.search(r'<link rel="stylesheet" href="(/[^"]+)"', browser.page.text)
    assert found
    style = browser.http.get(found[1])
    assert style.status_code == 200
    assert style.headers["content-type"].startswith("text/css")
    assert "url(" not in style.text
    assert "@import" not in style.text


def test_what_a_user_typed_is_shown_as_text(app: PeopleApp) -> None:
    browser = Browser(app).log_in('"><script>alert(1)</script>', "x")
    assert "<script" not in browser.page.text
    assert "&lt;script&gt;" in browser.page.text


def test_s26_unknown_user_wrong_password_and_disabled_user_get_the_same_answer(app: PeopleApp) -> None:
    disabled = app.user()
    app.run(app.users.disable(disabled.name))
    tries = [("nobody-of-this-name", "wrong password"), (app.user().name, "wrong password"), (disabled.name, PASSWORD)]
    answers = []
    for name, password in tries:
        page = Browser(app).log_in(name, password).page
        bare = re.sub(r'name="csrf" value="\w+"', "", page.text).replace(name, "NAME")
        headers = {n: v for n, v in page.headers.items() if n not in {"date", "set-cookie", "content-length"}}
        answers.append((page.status_code, headers, bare))
    assert answers[0][0] == 403
    assert answers[0] == answers[1] == answers[2]


def test_s26_an_unknown_user_costs_a_password_hash_too(app: PeopleApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The times are alike because the work is: what is counted here is the hashing itself."""
    from argon2 import PasswordHasher

    verified: list[str] = []
    verify = PasswordHasher.verify

    def counted(hasher: PasswordHasher, encoded: str | bytes, password: str | bytes) -> Any:
        verified.append(str(encoded).rpartition("$")[0].rpartition("$")[0])
        return verify(hasher, encoded, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    Browser(app).log_in("nobody-of-this-name", "wrong password")
    Browser(app).log_in(app.user(), "wrong password")
    assert len(verified) == 2
    assert verified[0] == verified[1]  # algorithm, memory, passes, lanes


@pytest.mark.parametrize("name", ["$where", "a" * 5000, "a b", "\x00", "admin' || '1'=='1", "{}", "é", "%s"])
def test_s26_no_name_makes_the_server_stumble(app: PeopleApp, name: str) -> None:
    page = Browser(app).log_in(name, "x" * 20_000).page
    assert page.status_code == 403
    assert "Traceback" not in page.text
    assert "not right" in errors_of(page)


@pytest.mark.parametrize(("content", "kind"), [(b"\xff=1", "application/x-www-form-urlencoded"), (b"{}", "application/json"),
                                               (b"a=1&a=2", "application/x-www-form-urlencoded"),
                                               (b"a=" + b"x" * 70_000, "application/x-www-form-urlencoded")])  # fmt: skip
def test_s26_what_is_no_form_gets_a_page_without_inner_workings(app: PeopleApp, content: bytes, kind: str) -> None:
    answer = Browser(app).http.post("/login", content=content, headers={"Content-Type": kind})
    assert answer.status_code in {400, 413}
    assert answer.headers["content-type"].startswith("text/html")
    assert "Traceback" not in answer.text


def test_a_form_left_empty_is_told_what_is_missing_field_by_field(app: PeopleApp) -> None:
    page = Browser(app).open("/login").submit("/login", name="", password="").page
    assert page.status_code == 422
    assert 'href="#name"' in errors_of(page)
    assert 'href="#password"' in errors_of(page)
    assert page.text.count('aria-invalid="true"') == 2


@pytest.mark.parametrize("path", ["/login?next=/account", "/account/password", "/account/second-factor"])
def test_every_field_has_a_label_and_no_id_is_there_twice(app: PeopleApp, path: str) -> None:
    for browser in (Browser(app), Browser(app).log_in(app.user())):
        text = browser.open(path).page.text
        forms = Forms(text)
        assert {i.get("id") for i in forms.inputs if i.get("type") != "hidden"} == forms.labels
        ids = re.findall(r'\sid="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        for described in re.findall(r'aria-describedby="([^"]+)"', text):
            assert set(described.split()) <= set(ids)


def test_the_cookie_is_for_this_host_over_https_and_no_script(mongodb_uri: str, tmp_path: Any) -> None:
    with serving_people(mongodb_uri, tmp_path, base_url="https://ris.example") as outside:
        browser = Browser(outside).open("/login")
        [cookie] = browser.page.headers.get_list("set-cookie")
        assert cookie.startswith("__Host-ris=")
        assert {"httponly", "secure", "samesite=lax", "path=/"} == set(cookie.lower().split("; ")[1:])


def test_the_cookie_is_kept_as_a_hash_only(app: PeopleApp) -> None:
    browser = Browser(app).log_in(app.user())

    async def stored() -> str:
        names = await app.db.list_collection_names()
        return "".join([repr(d) for n in names if n.startswith("oauth_") async for d in app.db[n].find()])

    documents = app.run(stored())
    assert browser.cookie()
    assert str(browser.cookie()) not in documents
    assert str(browser.cookie("ris-known")) not in documents
    assert PASSWORD not in documents


def test_a_session_ends_after_15_minutes_without_use(app: PeopleApp) -> None:
    user = app.user()
    browser = Browser(app).log_in(user)
    app.in_mongodb("oauth_sessions", {"$set": {"seen": ago(minutes=14.5)}}, user=user.name)
    assert browser.logged_in  # which is use
    app.in_mongodb("oauth_sessions", {"$set": {"seen": ago(minutes=15, seconds=1)}}, user=user.name)
    assert not browser.logged_in
    assert browser.open("/account/password").path == "/login?next=/account/password"


def test_use_keeps_a_session_alive(app: PeopleApp) -> None:
    user = app.user()
    browser = Browser(app).log_in(user)
    app.in_mongodb("oauth_sessions", {"$set": {"seen": ago(minutes=10)}}, user=user.name)
    assert browser.logged_in

    async def seen() -> datetime:
        document = await app.db["oauth_sessions"].find_one({"user": user.name})
        assert document
        return document["seen"].replace(tzinfo=UTC)  # type: ignore[no-any-return]

    assert app.run(seen()) > ago(minutes=1)


def test_a_session_ends_after_12_hours_however_used(app: PeopleApp) -> None:
    user = app.user()
    browser = Browser(app).log_in(user)

    async def document() -> dict[str, Any]:
        return await app.db["oauth_sessions"].find_one({"user": user.name}) or {}

    ends = app.run(document())["expires"].replace(tzinfo=UTC)
    assert abs(ends - datetime.now(UTC) - timedelta(hours=12)) < timedelta(minutes=1)
    app.in_mongodb("oauth_sessions", {"$set": {"expires": ago(seconds=1)}}, user=user.name)
    assert not browser.logged_in


def test_logout_ends_the_session_for_who_copied_the_cookie_too(app: PeopleApp) -> None:
    user = app.user()
    browser = Browser(app).log_in(user)
    copied = Browser(app)
    copied.http.cookies.set("ris", browser.cookie() or "")
    assert copied.logged_in
    browser.submit("/logout")
    assert "You are logged out" in browser.page.text
    assert not browser.logged_in
    assert not copied.logged_in
    assert app.audited(user)[-1][:2] == ("logout", "0")


def test_another_site_can_not_log_a_user_out(app: PeopleApp) -> None:
    browser = Browser(app).log_in(app.user())
    assert browser.http.post("/logout", data={"csrf": "0" * 64}).status_code == 403
    assert browser.http.get("/logout").status_code == 200  # a page that asks
    assert browser.logged_in


def test_a_user_who_is_disabled_is_out_at_the_next_request(app: PeopleApp) -> None:
    user = app.user()
    browser = Browser(app).log_in(user)
    app.run(app.users.disable(user.name))
    assert not browser.logged_in
    app.run(app.users.disable(user.name, disabled=False))
    assert not browser.logged_in  # the old session stays ended
    assert Browser(app).log_in(user).logged_in


def test_a_password_change_logs_out_everywhere_else(app: PeopleApp) -> None:
    user = app.user()
    here, there = Browser(app).log_in(user), Browser(app).log_in(user)
    cookie = here.cookie()
    here.open("/account/password").submit("/account/password", current=PASSWORD, new=OTHER_PASSWORD, again=OTHER_PASSWORD)
    assert "Your password is changed" in here.page.text
    assert here.logged_in
    assert here.cookie() != cookie
    assert not there.logged_in
    assert errors_of(Browser(app).log_in(user).page)
    assert Browser(app).log_in(user, OTHER_PASSWORD).logged_in
    assert ("password-change", "0", "") in app.audited(user)


@pytest.mark.parametrize(
    ("current", "new", "again", "said"),
    [
        ("wrong password", OTHER_PASSWORD, OTHER_PASSWORD, "This is not your password"),
        (PASSWORD, "too short", "too short", "at least 12 characters"),
        (PASSWORD, OTHER_PASSWORD, f"{OTHER_PASSWORD}!", "not the same"),
        (PASSWORD, "Password2026!", "Password2026!", "first that would be tried"),
        (PASSWORD, PASSWORD, PASSWORD, "present password"),
        ("", OTHER_PASSWORD, OTHER_PASSWORD, "Enter your present password"),
    ],
)
def test_a_password_change_that_is_not_in_order_changes_nothing(
    app: PeopleApp, current: str, new: str, again: str, said: str
) -> None:
    user = app.user()
    browser = Browser(app).log_in(user).open("/account/password")
    browser.submit("/account/password", current=current, new=new, again=again)
    assert said in errors_of(browser.page)
    assert browser.page.status_code in {403, 422}
    assert Browser(app).log_in(user).logged_in


def test_a_one_time_password_must_be_changed_before_anything_else(app: PeopleApp) -> None:
    user = app.user(must_change_password=True)
    browser = Browser(app).log_in(user, leads_to="/account?after")
    assert browser.path == "/account/password"
    assert browser.open("/account").path == "/account/password"
    browser.submit("/account/password", new=PASSWORD, again=PASSWORD)
    assert "present password" in errors_of(browser.page)
    browser.submit("/account/password", new=OTHER_PASSWORD, again=OTHER_PASSWORD)
    assert browser.path == "/account?after"
    assert Browser(app).log_in(user, OTHER_PASSWORD).path == "/account"


def wrong_tries(user: User, *apps: PeopleApp, **cookies: str) -> None:
    """As many wrong passwords as have no wait, and one that has a long one."""
    for n in range(ACCOUNT.free):
        assert Browser(apps[n % len(apps)]).log_in(user, "wrong password").page.status_code == 403
    apps[0].as_if_tried(ACCOUNT.free + 8)
    browser = Browser(apps[-1])
    browser.http.cookies.update(cookies)
    assert browser.log_in(user, "wrong password").page.status_code == 403


def test_wrong_passwords_slow_an_account_down_and_the_right_one_works_after_the_wait(app: PeopleApp) -> None:
    user = app.user()
    wrong_tries(user, app)
    page = Browser(app).log_in(user).page  # right, but too early: not looked at
    assert page.status_code == 429
    assert "too many tries" in errors_of(page)
    assert 1 <= int(page.headers["retry-after"]) <= ACCOUNT.longest.total_seconds()
    app.wait_over()
    assert Browser(app).log_in(user).logged_in
    assert Browser(app).log_in(user, "wrong password").page.status_code == 403  # and the count began anew
    assert Browser(app).log_in(user).logged_in


def test_the_wait_is_over_when_the_page_says_so(app: PeopleApp) -> None:
    user = app.user()
    wrong_tries(user, app)
    app.in_mongodb("oauth_delays", {"$set": {"until": datetime.now(UTC) + timedelta(seconds=2)}})
    page = Browser(app).log_in(user).page
    time.sleep(int(page.headers.get("retry-after", "0")))
    assert Browser(app).log_in(user).logged_in


def test_the_wait_doubles_up_to_a_limit_and_tries_during_it_do_not_add(app: PeopleApp) -> None:
    async def waits() -> list[float]:
        delays, found = Delays(app.db, secure=False), []
        for _ in range(ACCOUNT.free + 14):
            assert await delays.admit(ACCOUNT, "somebody") == 0
            counted = await app.db["oauth_delays"].find_one() or {}
            found.append(max(0, (counted["until"] - counted["at"]).total_seconds()))
            if found[-1] > 30:
                assert await delays.admit(ACCOUNT, "somebody") > 20
                after = await app.db["oauth_delays"].find_one() or {}
                assert (after["until"], after["failures"]) == (counted["until"], counted["failures"])
            await app.db["oauth_delays"].update_one({}, {"$set": {"until": ago(seconds=1)}})
        return found

    limit = ACCOUNT.longest.total_seconds()
    assert app.run(waits()) == [0] * ACCOUNT.free + [min(2**n, limit) for n in range(14)]


def test_many_tries_at_once_are_no_way_around_the_wait(app: PeopleApp) -> None:
    async def admitted() -> int:
        delays = Delays(app.db, secure=False)
        return (await asyncio.gather(*(delays.admit(ACCOUNT, "somebody else") for _ in range(40)))).count(0)

    assert app.run(admitted()) == ACCOUNT.free + 1


def test_strangers_do_not_keep_a_user_waiting_in_a_browser_used_before(app: PeopleApp) -> None:
    user = app.user()
    own = Browser(app).log_in(user).submit("/logout")
    wrong_tries(user, app)
    assert Browser(app).log_in(user).page.status_code == 429
    assert own.log_in(user).logged_in


def test_a_made_up_browser_cookie_is_no_way_around_the_wait(app: PeopleApp) -> None:
    user = app.user()
    wrong_tries(user, app, **{"ris-known": "a made up value of good length"})
    browser = Browser(app)
    browser.http.cookies.set("ris-known", "another made up value of good length")
    assert browser.log_in(user).page.status_code == 429


def test_tries_on_many_accounts_slow_an_address_down(app: PeopleApp) -> None:
    user = app.user()

    async def guessed() -> None:
        delays = Delays(app.db, secure=False)
        for _ in range(NETWORK.free + 1):
            await delays.admit(NETWORK, "127.0.0.1")

    app.run(guessed())
    app.as_if_tried(NETWORK.free + 8)
    Browser(app).log_in(user, "wrong password")
    assert Browser(app).log_in(user).page.status_code == 429


def test_right_passwords_do_not_count_against_an_address(app: PeopleApp) -> None:
    user = app.user()
    for _ in range(3):
        assert Browser(app).log_in(user).logged_in

    async def failures() -> list[int]:
        return [d["failures"] async for d in app.db["oauth_delays"].find()]

    assert app.run(failures()) == [0]


def test_the_wait_holds_over_processes_and_sessions_do_too(app: PeopleApp, mongodb_uri: str) -> None:
    user = app.user()
    other = PeopleApp(mongodb_uri, app.data_dir, app.db.name)
    try:
        wrong_tries(user, app, other)
        assert Browser(app).log_in(user).page.status_code == 429
        assert Browser(other).log_in(user).page.status_code == 429
        app.wait_over()
        browser = Browser(app).log_in(user)
        elsewhere = Browser(other)
        elsewhere.http.cookies.set("ris", browser.cookie() or "")
        assert elsewhere.logged_in
        browser.submit("/logout")
        assert not elsewhere.logged_in
    finally:
        other.stop()


def test_many_logins_at_once_do_not_hold_up_the_server(app: PeopleApp) -> None:
    app.run(app.db["oauth_delays"].delete_many({}))  # other tests have guessed from this address
    users = [app.user() for _ in range(6)]
    with ThreadPoolExecutor(7) as pool:
        logins = [pool.submit(lambda u: Browser(app).log_in(u).logged_in, u) for u in users]
        assert httpx.get(f"{app.base_url}/livez").status_code == 200
        assert all(login.result() for login in logins)


def test_logins_are_audited_under_the_users_name_and_without_the_password(app: PeopleApp) -> None:
    user = app.user()
    Browser(app).log_in(user, "wrong password")
    Browser(app).log_in(user)
    assert app.audited(user) == [("login", "4", "wrong password"), ("login", "0", "password")]

    async def events() -> list[dict[str, Any]]:
        return [
            d["resource"]
            async for d in app.db["AuditEvent"].find({"search.t": "type@http://dicom.nema.org/resources/ontology/DCM|110114"})
        ]

    mine = [e for e in app.run(events()) if e["agent"][0]["who"].get("display") == user.name]
    assert [e["agent"][0]["network"]["address"] for e in mine] == ["127.0.0.1"] * 2
    assert mine[0]["agent"][0]["who"]["identifier"] == {"system": "urn:fhir-ris:user", "value": user.name}
    assert PASSWORD not in str(mine)
    for event in app.run(events()):
        assert validate(event) == []
        assert search_index(event) == index(event)


def test_a_password_typed_in_the_name_field_is_written_nowhere(app: PeopleApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    slip = "meine alten blauen Schuhe"
    Browser(app).log_in(slip, "x")

    async def stored() -> str:
        return "".join([repr(d) for name in await app.db.list_collection_names() async for d in app.db[name].find()])

    assert app.audited()[-1] == ("login", "4", "no such user")
    assert slip not in app.run(stored())
    assert slip not in caplog.text


def test_a_session_has_ended_for_apps_when_its_user_logged_out_or_was_shut_out(app: PeopleApp) -> None:
    async def ended(session_id: str) -> bool:
        session = await app.db["oauth_sessions"].find_one({"_id": session_id, "expires": {"$gt": datetime.now(UTC)}})
        user = await app.db["oauth_users"].find_one({"_id": session["user"]}) if session else None
        return session is None or user is None or bool(user.get("disabled")) or not belongs(session, user)

    async def session_of(name: str) -> str:
        document = await app.db["oauth_sessions"].find_one({"user": name})
        assert document
        return str(document["_id"])

    leaving, shut_out, idle = app.user(), app.user(), app.user()
    browsers = {u.name: Browser(app).log_in(u) for u in (leaving, shut_out, idle)}
    ids = {name: app.run(session_of(name)) for name in browsers}
    assert [app.run(ended(i)) for i in ids.values()] == [False] * 3
    browsers[leaving.name].submit("/logout")
    app.run(app.users.disable(shut_out.name))
    app.in_mongodb("oauth_sessions", {"$set": {"seen": ago(hours=1)}}, user=idle.name)
    assert [app.run(ended(i)) for i in ids.values()] == [True, True, False]
    app.run(app.users.disable(shut_out.name, disabled=False))
    assert browsers[shut_out.name].log_in(shut_out).logged_in
    assert app.run(ended(ids[shut_out.name]))
    # The same user goes on in the same browser: what was started there lives on. Another user ends it.
    browsers[idle.name].log_in(idle)
    assert app.run(session_of(idle.name)) == ids[idle.name]
    browsers[idle.name].open("/login?again").submit("/login", name=leaving.name, password=PASSWORD)
    assert app.run(ended(ids[idle.name]))


def test_what_can_not_be_recorded_is_not_done(app: PeopleApp) -> None:
    user = app.user()
    browser = Browser(app).log_in(user).open("/account/password")

    def recording(possible: bool) -> None:
        app.run(app.db.command("collMod", "AuditEvent", validator={} if possible else {"nothing": "passes"}))

    recording(False)
    try:
        browser.submit("/account/password", current=PASSWORD, new=OTHER_PASSWORD, again=OTHER_PASSWORD)
        assert browser.page.status_code == 503
        assert Browser(app).log_in(user).page.status_code == 503
    finally:
        recording(True)
    assert browser.logged_in
    assert Browser(app).log_in(user).logged_in
