"""The second factor from outside: enrolment, codes that are good once, recovery codes, and who can't do without."""

import html
import re
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import segno

from smart_auth.key_file import KeyFile, KeyFileError
from smart_auth.login_delays import SECOND_FACTOR
from smart_auth.users import User
from tests.people_app import OTHER_PASSWORD, PASSWORD, Browser, Device, PeopleApp, errors_of, serving_people

RECOVERY_CODE = re.compile(r"\b(?:[0-9A-Z]{4}-){3}[0-9A-Z]{4}\b")


@pytest.fixture(scope="module")
def app(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleApp]:
    with serving_people(mongodb_uri, tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh_network(app: PeopleApp) -> None:
    async def forget() -> None:
        await app.db["oauth_delays"].delete_many({})

    app.run(forget())


def shown_secret(browser: Browser) -> str:
    found = re.search(r'id="secret"[^>]*>([A-Z2-7 ]+)<', browser.page.text)
    assert found, browser.page.text
    return found[1]


def begin(browser: Browser) -> Browser:
    return browser.open("/account/second-factor").submit("/account/second-factor", "begin", password=PASSWORD)


def enrolled(app: PeopleApp, role: str = "radiologist") -> tuple[User, Device, Browser, list[str]]:
    """A user who sets a second factor up by the pages; the codes as shown."""
    user = app.user(role)
    browser = Browser(app).log_in(user)
    if role not in {"admin", "interface-admin"}:
        begin(browser)
    device = Device(shown_secret(browser))
    browser.submit("/account/second-factor", "confirm", code=device.code())
    return user, device, browser, RECOVERY_CODE.findall(browser.page.text)


def test_a_user_enrols_and_is_asked_for_a_code_from_then_on(app: PeopleApp) -> None:
    user, device, browser, codes = enrolled(app)
    assert len(set(codes)) == 10
    assert browser.logged_in
    again = Browser(app).log_in(user, leads_to="/account/password")
    assert again.path == "/login/second-factor"
    assert not again.logged_in
    again.submit("/login/second-factor", code=device.code())
    assert again.path == "/account/password"
    assert again.logged_in


def test_an_authenticator_app_can_take_the_address_from_the_screen(app: PeopleApp) -> None:
    browser = begin(Browser(app).log_in(app.user()))
    uri = html.unescape(re.findall(r'href="(otpauth:[^"]+)"', browser.page.text)[0])
    [drawn] = re.findall(r"<svg.*?</svg>", browser.page.text, re.DOTALL)
    assert modules(drawn) == [[bool(cell) for cell in row] for row in segno.make(uri, error="m", micro=False).matrix]
    # Drawn within the page, dark on white in any colour scheme, without scripts or styles that its policy would have to allow.
    assert "script" not in drawn
    assert "style=" not in drawn
    assert '"#fff"' in drawn
    policy = browser.page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def modules(svg: str) -> list[list[bool]]:
    """What a camera would see: the fields of a QR code, dark or not, without its border of four."""
    [lines] = re.findall(r'stroke="#000"[^>]* d="M4 4.5([^"]+)"|d="M4 4.5([^"]+)"[^>]*stroke="#000"', svg)
    x, y, dark = 0, 0, set()
    for command, first, second in re.findall(r"([hm])(-?[0-9]+)(?: (-?[0-9]+))?", "".join(lines)):
        if command == "m":
            x, y = x + int(first), y + int(second or 0)
        else:
            dark |= {(x + step, y) for step in range(int(first))}
            x += int(first)
    size = max(y for _, y in dark) + 1
    return [[(column, row) in dark for column in range(size)] for row in range(size)]


def test_an_authenticator_app_can_read_the_address(app: PeopleApp) -> None:
    user = app.user()
    browser = (
        Browser(app).log_in(user).open("/account/second-factor").submit("/account/second-factor", "begin", password=PASSWORD)
    )
    [uri] = {html.unescape(u) for u in re.findall(r'href="(otpauth:[^"]+)"', browser.page.text)}
    url = urlsplit(uri)
    assert (url.scheme, url.netloc, url.path) == ("otpauth", "totp", f"/fhir-ris:{user.name}")
    query = parse_qs(url.query)
    assert query["issuer"] == ["fhir-ris"]
    assert query["secret"] == [shown_secret(browser).replace(" ", "")]
    assert len(query["secret"][0]) == 32  # 160 bits, RFC 4226 4
    # What is not said is the default of RFC 6238 and all apps: SHA-1, 6 digits, 30 s.
    assert set(query) == {"issuer", "secret"}


@pytest.mark.parametrize("role", ["admin", "interface-admin"])
def test_an_admin_gets_nowhere_without_enrolling(app: PeopleApp, role: str) -> None:
    browser = Browser(app).log_in(app.user(role), leads_to="/account?after")
    assert browser.path == "/account/second-factor"
    assert not browser.logged_in
    assert browser.open("/account/password").path == "/account/second-factor"
    device = Device(shown_secret(browser))
    browser.submit("/account/second-factor", "confirm", code=device.code())
    assert len(RECOVERY_CODE.findall(browser.page.text)) == 10
    assert 'href="/account?after"' in browser.page.text
    assert browser.logged_in


@pytest.mark.parametrize("role", ["scheduler", "technologist", "radiologist", "referrer", "auditor"])
def test_others_may_do_without(app: PeopleApp, role: str) -> None:
    assert Browser(app).log_in(app.user(role)).logged_in


def test_an_admin_with_a_one_time_password_chooses_one_and_then_enrols(app: PeopleApp) -> None:
    user = app.user("admin", must_change_password=True)
    browser = Browser(app).log_in(user)
    assert browser.path == "/account/password"
    assert browser.open("/account/second-factor").path == "/account/password"
    browser.submit("/account/password", new=OTHER_PASSWORD, again=OTHER_PASSWORD)
    assert browser.path == "/account/second-factor"
    browser.submit("/account/second-factor", "confirm", code=Device(shown_secret(browser)).code())
    assert browser.logged_in


def test_who_becomes_an_admin_has_to_log_in_and_enrol(app: PeopleApp) -> None:
    user = app.user("scheduler")
    browser = Browser(app).log_in(user)
    app.run(app.users.change(user.name, role="admin"))
    assert not browser.logged_in
    assert browser.log_in(user).path == "/account/second-factor"


def test_the_session_id_changes_at_the_second_factor(app: PeopleApp) -> None:
    user, device, _, _ = enrolled(app)
    browser = Browser(app).log_in(user)
    before = browser.cookie() or ""
    browser.submit("/login/second-factor", code=device.code())
    assert browser.cookie() != before
    thief = Browser(app)
    thief.http.cookies.set("ris", before)
    assert thief.open("/account").path.startswith("/login")


def test_a_wrong_code_is_refused_and_audited(app: PeopleApp) -> None:
    user, device, _, _ = enrolled(app)
    browser = Browser(app).log_in(user)
    right = int(time.time()) // 30
    wrong = next(c for c in ("000000", "000001", "000002", "000003") if c not in {device.at(right + n) for n in range(-1, 3)})
    for code, status in ((wrong, 403), ("12345", 403), ("abcdef", 403), ("", 422), ("１２３４５６", 403)):
        browser.submit("/login/second-factor", code=code)
        assert browser.page.status_code == status
        assert not browser.logged_in
    assert app.audited(user)[-1] == ("second-factor", "4", "wrong or used code")
    app.wait_over()
    code = device.code()
    browser.submit("/login/second-factor", code=f" {code[:3]} {code[3:]} ")  # as people type it
    assert browser.logged_in
    assert app.audited(user)[-1] == ("second-factor", "0", "device")


def test_a_code_is_good_once_also_for_many_at_once(app: PeopleApp) -> None:
    user, device, _, _ = enrolled(app)
    browsers = [Browser(app).log_in(user) for _ in range(4)]
    code = device.code()
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda b: b.submit("/login/second-factor", code=code).page.status_code, browsers))
    assert sorted(pages) == [200, 403, 403, 403]
    assert [b.logged_in for b in browsers].count(True) == 1


def test_the_code_that_confirmed_the_enrolment_is_not_good_for_a_login(app: PeopleApp) -> None:
    user, device, _, _ = enrolled(app)
    used = device.at(device.last)
    assert Browser(app).log_in(user).submit("/login/second-factor", code=used).page.status_code == 403


def test_an_old_code_is_refused(app: PeopleApp) -> None:
    user, device, _, _ = enrolled(app)
    app.in_mongodb("oauth_users", {"$set": {"second_factor.last_step": 0}}, _id=user.name)
    old = device.at(int(time.time()) // 30 - 3)
    assert Browser(app).log_in(user).submit("/login/second-factor", code=old).page.status_code == 403


def test_codes_can_not_be_guessed_fast_not_even_by_logging_in_anew(app: PeopleApp) -> None:
    user, device, _, _ = enrolled(app)
    for _ in range(SECOND_FACTOR.free):
        Browser(app).log_in(user).submit("/login/second-factor", code="12345x")
    app.as_if_tried(SECOND_FACTOR.free + 8)
    Browser(app).log_in(user).submit("/login/second-factor", code="12345x")
    browser = Browser(app).log_in(user).submit("/login/second-factor", code="12345x")
    assert browser.page.status_code == 429
    assert int(browser.page.headers["retry-after"]) >= 1
    app.wait_over()
    assert browser.submit("/login/second-factor", code=device.code()).logged_in


def test_a_recovery_code_gets_a_user_in_once(app: PeopleApp) -> None:
    user, _, _, codes = enrolled(app)
    browser = Browser(app).log_in(user).open("/login/second-factor?recovery")
    browser.submit("/login/second-factor", code=codes[3].lower().replace("-", " "))
    assert browser.logged_in
    assert "9 recovery codes left" in browser.open("/account").page.text
    assert app.audited(user)[-1] == ("second-factor", "0", "recovery code")
    again = Browser(app).log_in(user).open("/login/second-factor?recovery").submit("/login/second-factor", code=codes[3])
    assert again.page.status_code == 403
    assert "was used" in errors_of(again.page)
    assert again.submit("/login/second-factor", code=codes[4]).logged_in


def test_of_many_uses_of_one_recovery_code_at_once_one_succeeds(app: PeopleApp) -> None:
    user, _, _, codes = enrolled(app)
    browsers = [Browser(app).log_in(user) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda b: b.submit("/login/second-factor", code=codes[0]).page.status_code, browsers))
    assert sorted(pages) == [200, 403, 403, 403]


def test_another_users_recovery_code_is_worth_nothing(app: PeopleApp) -> None:
    _, _, _, codes = enrolled(app)
    user, _, _, _ = enrolled(app)
    assert Browser(app).log_in(user).submit("/login/second-factor", code=codes[0]).page.status_code == 403


def test_new_recovery_codes_replace_the_old_ones(app: PeopleApp) -> None:
    user, _, browser, old = enrolled(app)
    browser.open("/account/second-factor").submit("/account/second-factor", "codes", password="wrong password")
    assert browser.page.status_code == 403
    browser.submit("/account/second-factor", "codes", password=PASSWORD)
    new = RECOVERY_CODE.findall(browser.page.text)
    assert len(set(new) - set(old)) == 10
    login = Browser(app).log_in(user).submit("/login/second-factor", code=old[0])
    assert login.page.status_code == 403
    assert login.submit("/login/second-factor", code=new[0]).logged_in


def test_what_is_stored_is_of_no_use_to_a_thief_of_the_database(app: PeopleApp) -> None:
    user, device, browser, codes = enrolled(app)
    secret = device.secret

    async def stored() -> str:
        names = await app.db.list_collection_names()
        return "".join([repr(d) for n in names async for d in app.db[n].find()])

    documents = app.run(stored())
    assert user.name in documents
    assert secret not in documents
    assert not any(code in documents or code.replace("-", "") in documents for code in codes)
    key = app.data_dir / "keys" / "second-factor.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert browser.logged_in


def test_the_codes_are_shown_once(app: PeopleApp) -> None:
    _, _, browser, codes = enrolled(app)
    pages = [browser.open(path).page.text for path in ("/account", "/account/second-factor")]
    assert not any(code in text for code in codes for text in pages)


def test_a_wrong_code_at_enrolment_keeps_the_secret_and_can_be_corrected(app: PeopleApp) -> None:
    browser = (
        Browser(app)
        .log_in(app.user())
        .open("/account/second-factor")
        .submit("/account/second-factor", "begin", password=PASSWORD)
    )
    secret = shown_secret(browser)
    browser.submit("/account/second-factor", "confirm", code="12345x")
    assert browser.page.status_code == 422
    assert shown_secret(browser) == secret
    browser.submit("/account/second-factor", "confirm", code=Device(secret).code())
    assert len(RECOVERY_CODE.findall(browser.page.text)) == 10


def test_enrolment_needs_the_password_and_can_be_given_up(app: PeopleApp) -> None:
    user = app.user()
    browser = Browser(app).log_in(user).open("/account/second-factor")
    browser.submit("/account/second-factor", "begin", password="wrong password")
    assert browser.page.status_code == 403
    assert "not your password" in errors_of(browser.page)
    browser.submit("/account/second-factor", "begin", password=PASSWORD)
    assert shown_secret(browser)
    browser.submit("/account/second-factor", "cancel")
    assert 'id="secret"' not in browser.page.text
    assert Browser(app).log_in(user).logged_in


def test_enrolment_makes_other_sessions_ask_for_the_second_factor(app: PeopleApp) -> None:
    user = app.user()
    other, browser = Browser(app).log_in(user), Browser(app).log_in(user)
    begin(browser)
    device = Device(shown_secret(browser))
    browser.submit("/account/second-factor", "confirm", code=device.code())
    assert other.open("/account").path == "/login/second-factor"
    assert other.submit("/login/second-factor", code=device.code()).logged_in


def test_another_device_takes_the_place_of_the_first(app: PeopleApp) -> None:
    user, first, browser, codes = enrolled(app)
    elsewhere = Browser(app).log_in(user).submit("/login/second-factor", code=codes[0])
    begin(browser)
    second = Device(shown_secret(browser))
    browser.submit("/account/second-factor", "confirm", code=second.code())
    assert browser.logged_in
    assert not elsewhere.logged_in
    assert Browser(app).log_in(user).submit("/login/second-factor", code=first.code()).page.status_code == 403
    assert Browser(app).log_in(user).submit("/login/second-factor", code=codes[1]).page.status_code == 403
    assert Browser(app).log_in(user).submit("/login/second-factor", code=second.code()).logged_in


def test_who_need_not_have_one_can_turn_it_off_and_an_admin_can_not(app: PeopleApp) -> None:
    user, _, browser, codes = enrolled(app)
    elsewhere = Browser(app).log_in(user).submit("/login/second-factor", code=codes[0])
    browser.open("/account/second-factor").submit("/account/second-factor", "off", password=PASSWORD)
    assert "The second factor is off" in browser.page.text
    assert browser.logged_in
    session = app.run(app.db["oauth_sessions"].find_one({"user": user.name}))
    assert session is not None
    assert session["amr"] == ["pwd"]
    assert not elsewhere.logged_in
    assert Browser(app).log_in(user).logged_in
    _, _, admin, _ = enrolled(app, "admin")
    admin.open("/account/second-factor")
    path, form = admin.filled("/account/second-factor", "codes", password=PASSWORD)
    assert admin.http.post(path, data=form | {"action": "off"}).status_code == 403
    assert admin.open("/account").page.text.count("On since") == 1


def test_a_form_without_its_token_changes_nothing(app: PeopleApp) -> None:
    user, device, browser, _ = enrolled(app)
    for action in ("codes", "begin", "off"):
        answer = browser.http.post("/account/second-factor", data={"action": action, "password": PASSWORD})
        assert answer.status_code == 403
    waiting = Browser(app).log_in(user)
    assert waiting.http.post("/login/second-factor", data={"code": device.code()}).status_code == 403
    assert not waiting.logged_in


def test_without_the_right_key_file_nobody_gets_past_and_the_page_says_so(
    app: PeopleApp, mongodb_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    user, device, _, _ = enrolled(app)
    other = PeopleApp(mongodb_uri, tmp_path, app.db.name)
    try:
        browser = Browser(other).log_in(user).submit("/login/second-factor", code=device.code())
        assert browser.page.status_code == 503
        assert "doesn't work at the moment" in html.unescape(browser.page.text)
        assert not browser.logged_in
        assert "is not the key" in caplog.text
    finally:
        other.stop()


def test_a_key_file_that_others_can_read_or_that_is_damaged_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k"
    sealed = KeyFile(path).seal(b"secret", "about")
    assert KeyFile(path).open(sealed, "about") == b"secret"
    with pytest.raises(KeyFileError, match="not the key"):
        KeyFile(path).open(sealed, "about something else")
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyFile(path).open(sealed, "about")
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(KeyFileError, match="damaged"):
        KeyFile(path).open(sealed, "about")


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    files = [KeyFile(tmp_path / "keys" / "k") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(lambda f: f.seal(b"secret", "about"), files))
    assert {files[0].open(s, "about") for s in sealed} == {b"secret"}
    assert [p.name for p in (tmp_path / "keys").iterdir()] == ["k"]


def test_enrolment_and_its_end_are_audited(app: PeopleApp) -> None:
    user, _, browser, _ = enrolled(app)
    browser.open("/account/second-factor").submit("/account/second-factor", "off", password=PASSWORD)
    events: list[Any] = [e for e, outcome, _ in app.audited(user) if outcome == "0"]
    assert events == ["login", "second-factor-enrolment", "second-factor-off"]
