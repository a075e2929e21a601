"""What all pages of the console have in common: who gets where, the frame, keys, and languages."""

import re
import string
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

import console as console_package
from console.screens import SCREENS
from console.texts import LANGUAGES, catalogue
from smart_auth.roles import ROLES
from tests.console_world import ConsoleWorld

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
        assert client.get("/events?of=Task").status_code == 204


def test_a_form_without_the_sessions_token_is_refused(console: ConsoleWorld) -> None:
    with console.http("scheduler") as client:
        assert client.post("/language", data={"language": "de"}).status_code == 403
        assert client.post("/find", data={"q": "Abel"}).status_code == 403


def test_texts_are_in_the_readers_language_and_can_be_chosen(console: ConsoleWorld) -> None:
    page = console.at("scheduler", language="de-AT")
    expect(page.locator(".menu").get_by_role("link", name="Termine")).to_be_visible()
    page.locator(".person summary").click()
    page.get_by_role("button", name="English").click()
    expect(page.locator(".menu").get_by_role("link", name="Schedule")).to_be_visible()


def test_keys_lead_to_screens_and_are_listed(console: ConsoleWorld) -> None:
    page = console.at("scheduler")
    page.keyboard.press("g")
    page.keyboard.press("o")
    expect(page).to_have_url(re.compile("/orders$"))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Orders")


def test_no_script_breaks_the_policy_and_none_fails(console: ConsoleWorld) -> None:
    """Last in this file: it looks at what the browsers have complained of so far."""
    assert [c for c in console.complaints if "status of 403" not in c] == []
