"""What all pages of the console have in common: who gets where, the frame, keys, and languages."""

import contextlib
import re
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

import console as console_package
from console import live, routes
from console.screens import SCREENS
from console.texts import LANGUAGES, catalogue
from smart_auth.roles import ROLES
from smart_auth.users import User
from tests.console_world import ConsoleWorld, press
from tests.people_app import PASSWORD

_HERE = Path(console_package.__file__).parent
_ENTRY = {s.name: s.path for s in SCREENS if s.name not in {"exam", "patient"}}


def test_every_text_is_there_in_every_language_with_the_same_values() -> None:
    first, *others = (catalogue(language) for language in LANGUAGES)
    for other in others:
        assert first.keys() == other.keys()
        for name, text in first.items():
            assert _values(text) == _values(other[name]), name


def test_every_text_that_a_page_names_is_there() -> None:
    names = catalogue("en").keys()
    for path in [*_HERE.rglob("*.html"), *(_HERE / "screens").rglob("*.py")]:
        text = path.read_text()
        for name in re.findall(r"\bt\(\s*[\"']([a-z0-9.-]+)[\"']\s*[,)]", text):
            assert name in names, f"{path.name}: {name}"
        for name in re.findall(r"\bt\.count\(\s*[\"']([a-z0-9.-]+)[\"']", text):
            assert {f"{name}.one", f"{name}.other"} <= names, f"{path.name}: {name}"
        for name in re.findall(r"done=[\"']([a-z-]+)[\"']", text) + re.findall(
            r"visit\.to\([^()]*,\s*[\"']([a-z-]+)[\"']\)", text
        ):
            assert f"done.{name}" in names, f"{path.name}: done.{name}"


def _values(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_role_sees_its_screens_and_gets_nowhere_else(console: ConsoleWorld, role: str) -> None:
    page = console.at(role)
    shown = set(page.locator(".menu a").evaluate_all("links => links.map(a => a.getAttribute('href'))"))
    with console.http(role) as client:
        for name, path in _ENTRY.items():
            status = client.get(path).status_code
            if name == "find":
                continue
            assert status == (200 if path in shown else 403), f"{role} at {path}"


def test_nobody_gets_anywhere_without_a_session(console: ConsoleWorld) -> None:
    with httpx.Client(base_url=console.base) as client:
        for path in _ENTRY.values():
            answer = client.get(path)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/login?next=")
        assert client.get("/events?of=Task").text == "event: ended\ndata: -\n\n"


def test_a_form_without_the_sessions_token_is_refused(console: ConsoleWorld) -> None:
    with console.http("scheduler") as client:
        assert client.post("/language", data={"language": "de"}).status_code == 403
        assert client.post("/find", data={"q": "Abel"}).status_code == 403


def _end_session(console: ConsoleWorld, user: User) -> None:
    console.app.in_mongodb("oauth_sessions", {"$set": {"seen": datetime.now(UTC) - timedelta(hours=1)}}, user=user.name)


def test_when_the_session_ends_nothing_of_a_patient_stays_on_an_open_page(
    console: ConsoleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_ALIVE", 0.3)
    monkeypatch.setattr(routes, "_SESSION_LOOKED_AT", 0.0)
    sam = console.user("scheduler")
    order = console.order(console.patient(name=[{"family": "Verborgen", "given": ["Vera"]}]))
    page = console.at(sam, f"/orders/{order['id']}")
    found = page.context.new_page()  # a page that shows nothing new by itself
    found.goto(f"/orders/new?patient={order['subject']['reference'].partition('/')[2]}")
    expect(found.locator("main")).to_contain_text("Verborgen")
    page.locator("[data-opens=hold]").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    _end_session(console, sam)
    for one in (page, found):
        expect(one.locator("#away")).to_contain_text("You are logged out")
        expect(one.locator("main")).to_be_empty()
        expect(one).to_have_title("fhir-ris")
        assert "Verborgen" not in one.content()
        assert not one.locator("dialog[open]").count()
    page.get_by_role("link", name="Log in again").click()
    page.locator("[name=name]").fill(sam.name)
    page.locator("[name=password]").fill(PASSWORD)
    press(page, "Enter")
    expect(page).to_have_url(f"{console.base}/orders/{order['id']}")
    expect(page.locator("main")).to_contain_text("Verborgen")
    page.context.close()


@pytest.mark.parametrize("gone", [403, 404, 410])
def test_a_page_that_can_not_be_shown_any_more_says_so_and_a_server_in_trouble_changes_nothing(
    console: ConsoleWorld, gone: int
) -> None:
    order = console.order(console.patient(name=[{"family": "Verborgen"}]))
    page = console.at("scheduler", f"/orders/{order['id']}")
    answer = {"status": 503, "body": "<main>busy</main>"}
    page.route(f"**/orders/{order['id']}", lambda route: route.fulfill(content_type="text/html", **answer))  # type: ignore[arg-type]
    _look_again(page)
    _look_again(page)
    expect(page.locator("main")).to_contain_text("Verborgen")
    answer |= {"status": gone, "body": "<title>Gone</title><main id=content tabindex=-1>This is gone</main>"}
    _look_again(page)
    expect(page.locator("main")).to_have_text("This is gone")
    expect(page).to_have_title("Gone")
    # It is there again, for the same person.
    page.unroute(f"**/orders/{order['id']}")
    _look_again(page)
    expect(page.locator("main")).to_contain_text("Verborgen")
    page.context.close()


def _look_again(page: Page) -> None:
    with page.expect_response(lambda answer: "/orders/" in answer.url):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_of_too_many_pages_that_listen_the_oldest_makes_room(console: ConsoleWorld) -> None:
    with console.http("scheduler") as client, contextlib.ExitStack() as open_:
        streams = [open_.enter_context(client.stream("GET", "/events?of=Task")).iter_lines() for _ in range(live.MOST + 2)]
        for oldest in streams[:2]:
            assert "event: enough" in list(oldest)  # and it has ended
        console.order()
        for stays in streams[2], streams[-1]:
            assert any(said == "data: Task" for said in stays)
    # In a browser, such a page asks when it is looked at again.
    page = console.at("scheduler", "about:blank")
    page.route("**/events*", lambda route: route.fulfill(content_type="text/event-stream", body="event: enough\ndata: -\n\n"))
    with page.expect_response("**/events*"):
        page.goto("/orders")
    console.order(console.patient(name=[{"family": "Spaeter"}]), status="draft")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("main")).to_contain_text("Spaeter")
    expect(page.locator("#away")).to_be_hidden()
    page.context.close()


def test_texts_are_in_the_readers_language_and_can_be_chosen(console: ConsoleWorld) -> None:
    page = console.at("scheduler", language="de-AT")
    expect(page.locator(".menu").get_by_role("link", name="Termine")).to_be_visible()
    page.locator(".person summary").click()
    page.get_by_role("button", name="English").click()
    expect(page.locator(".menu").get_by_role("link", name="Schedule")).to_be_visible()


def test_keys_lead_to_screens_and_are_listed(console: ConsoleWorld) -> None:
    page = console.at("scheduler")
    press(page, "g")
    press(page, "o")
    expect(page).to_have_url(re.compile("/orders$"))
    press(page, "?")
    expect(page.get_by_role("dialog")).to_contain_text("Orders")


def test_no_script_breaks_the_policy_and_none_fails(console: ConsoleWorld) -> None:
    """Last in this file: it looks at what the browsers have complained of so far."""
    assert [c for c in console.complaints if not re.search("status of (401|403|404|410|503)", c)] == []
