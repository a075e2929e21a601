"""The login pages in a real browser, by keyboard alone: focus order, small screens, and nothing that the policy blocks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import BINARY, Chromium, chromium
from tests.people_app import OTHER_PASSWORD, PASSWORD, Device, PeopleApp, serving_people

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium here")
FOCUS = "document.activeElement.id || document.activeElement.textContent.trim()"
OVERFLOWS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
# The least contrast of a text with what is behind it, by the computed colours (WCAG 2.2 1.4.3).
CONTRAST = """(() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const linear = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = rgb(c).map(linear); return .2126 * r + .7152 * g + .0722 * b; };
  const colour = (e, name) => getComputedStyle(e)[name];
  const behind = e => rgb(colour(e, 'backgroundColor'))[3] === 0 ? behind(e.parentElement) : colour(e, 'backgroundColor');
  const has_text = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  const texts = [...document.querySelectorAll('body *')].filter(has_text);
  return Math.min(...texts.map(e => {
    const [dark, bright] = [light(colour(e, 'color')), light(behind(e))].sort((a, b) => a - b);
    return (bright + .05) / (dark + .05);
  }));
})()"""


@pytest.fixture(scope="module")
def app(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleApp]:
    with serving_people(mongodb_uri, tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path / "profile") as running:
        yield running


def log_in(browser: Chromium, app: PeopleApp, name: str, password: str = PASSWORD) -> None:
    browser.open(f"{app.base_url}/login?again")
    browser.type(name)
    browser.press("Tab")
    browser.type(password)
    browser.press("Enter", leaves=True)


def test_a_user_logs_in_enrols_and_logs_out_by_keyboard(app: PeopleApp, browser: Chromium) -> None:
    user = app.user("admin", must_change_password=True)
    log_in(browser, app, user.name)
    assert browser.value(FOCUS) == "new"
    browser.type(OTHER_PASSWORD)
    browser.press("Tab")
    browser.type(OTHER_PASSWORD)
    browser.press("Enter", leaves=True)
    assert browser.value("location.pathname") == "/account/second-factor"
    secret = browser.value("document.getElementById('secret').textContent")
    browser.value("document.getElementById('code').focus()")
    browser.type(Device(secret).code())
    browser.press("Enter", leaves=True)  # the first button of the form confirms
    assert browser.value("document.querySelectorAll('.codes li').length") == 10
    browser.value("document.querySelector('a.button').focus()")
    browser.press("Enter", leaves=True)
    assert browser.value("location.pathname") == "/"
    browser.open(f"{app.base_url}/account")
    browser.press("Tab")
    assert browser.value(FOCUS) == "fhir-ris Radiology"
    browser.press("Tab")
    assert browser.value(FOCUS) == user.name
    browser.press("Tab")
    assert browser.value(FOCUS) == "Log out"
    browser.press("Enter", leaves=True)
    assert "You are logged out" in browser.value("document.body.innerText")
    assert browser.complaints() == []


def test_an_error_gets_the_focus_and_leads_to_its_field(app: PeopleApp, browser: Chromium) -> None:
    log_in(browser, app, app.user().name, "wrong password")
    assert browser.value("document.activeElement.className") == "errors"
    assert browser.value("document.title").startswith("Error: ")
    browser.press("Tab")
    assert browser.value(FOCUS) == "The user name or the password is not right."
    browser.press("Enter")
    assert browser.value(FOCUS) == "name"


def test_pages_fit_a_phone_and_can_be_read_in_light_and_dark(app: PeopleApp, browser: Chromium) -> None:
    user = app.user()
    looked_at = []

    def look(page: str) -> None:
        for dark in (False, True):
            browser.look(360, 700, dark=dark)
            looked_at.append((page, dark, browser.value(OVERFLOWS), browser.value(CONTRAST) >= 4.5))

    log_in(browser, app, user.name, "wrong password")
    look("login")
    log_in(browser, app, user.name)
    for path in ("/account", "/account/password", "/account/second-factor"):
        browser.open(app.base_url + path)
        look(path)
    browser.value("document.getElementById('password-begin').focus()")
    browser.type(PASSWORD)
    browser.press("Enter", leaves=True)
    look("setup")
    device = Device(browser.value("document.getElementById('secret').textContent"))
    browser.value("document.getElementById('code').focus()")
    browser.type(device.code())
    browser.press("Enter", leaves=True)
    look("codes")
    browser.open(f"{app.base_url}/account/second-factor")
    look("second factor")
    log_in(browser, app, user.name)
    look("code")
    assert looked_at == [(page, dark, False, True) for page, dark, _, _ in looked_at]
    assert len(looked_at) == 16
    assert browser.complaints() == []
