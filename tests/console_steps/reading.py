"""How radiologists read and report at the screen, and how critical results are acknowledged there."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.console_steps import Refused, by, done


def press(page: Page, key: str) -> None:
    """Press a button or a link by its key. Refused where the page doesn't offer it."""
    if not page.locator(f'main [data-key="{key}"]').count():
        raise Refused(page.locator("main").inner_text())
    page.locator(f'main [data-key="{key}"]').first.click()


@by("$claim", "Task")
def claim(page: Page, id_: str, given: dict[str, Any]) -> None:
    del given
    page.goto(f"/reading/{id_}")
    press(page, "c")
    done(page)


@by("$release", "Task")
def release(page: Page, id_: str, given: dict[str, Any]) -> None:
    del given
    page.goto(f"/reading/{id_}")
    press(page, "r")
    done(page)


@by("$reassign", "Task")
def reassign(page: Page, id_: str, given: dict[str, Any]) -> None:
    page.goto(f"/reading/{id_}")
    press(page, "o")
    page.locator("#owner").select_option(given["owner"]["reference"] if "owner" in given else "")
    page.locator("#reason").fill(given["reason"])
    page.locator("#reassign .buttons button").first.click()
    done(page)


@by("$start-report", "Task")
def start_report(page: Page, id_: str, given: dict[str, Any]) -> None:
    page.goto(f"/reading/{id_}")
    if "template" in given:
        page.locator("#template").select_option(given["template"]["reference"].rpartition("/")[2])
    press(page, "b")
    expect(page.locator("#editor, #errors, main.narrow h1").first).to_be_visible()
    if not page.locator("#editor").count():
        raise Refused(page.locator("main").inner_text())


@by("$write", "DiagnosticReport")
def write(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Sections; structured findings, comparisons and codes come from other programs."""
    _open_editor(page, id_)
    for code, text in _sections(given):
        if not page.locator(f"[data-section='{code}']").count():
            page.locator("#add-section").select_option(code)
        page.locator(f"[data-section='{code}']").fill(text)
    page.locator("[data-does=save]").click()
    expect(page.locator("#save-state")).to_have_class(re.compile("saved|refused|crossed"))
    if "saved" not in (page.locator("#save-state").get_attribute("class") or ""):
        raise Refused(page.locator("#editor").inner_text())


@by("$sign", "DiagnosticReport")
def sign(page: Page, id_: str, given: dict[str, Any]) -> None:
    del given
    _open_editor(page, id_)
    press(page, "F8")
    done(page)


@by("$addend", "DiagnosticReport")
def addend(page: Page, id_: str, given: dict[str, Any]) -> None:
    page.goto(f"/reading/reports/{id_}/addend")
    page.locator("#text").fill(given["text"])
    press(page, "F8")
    done(page)


@by("$correct", "DiagnosticReport")
def correct(page: Page, id_: str, given: dict[str, Any]) -> None:
    page.goto(f"/reading/reports/{id_}/correct")
    for code, text in _sections(given):
        page.locator(f"#s-{code}").fill(text)
    if "status" in given:
        page.locator("#status").select_option(given["status"])
    page.locator("#reason").fill(given["reason"])
    press(page, "F8")
    done(page)


@by("$withdraw", "DiagnosticReport")
def withdraw(page: Page, id_: str, given: dict[str, Any]) -> None:
    page.goto(f"/reading/reports/{id_}/withdraw")
    page.locator("#reason").fill(given["reason"])
    press(page, "F8")
    done(page)


@by("$verify", "DiagnosticReport")
def verify(page: Page, id_: str, given: dict[str, Any]) -> None:
    del given
    page.goto(f"/reading/reports/{id_}")
    press(page, "y")
    expect(page.locator("#signatures table")).to_be_visible()


@by("$critical", "DiagnosticReport")
def critical(page: Page, id_: str, given: dict[str, Any]) -> None:
    page.goto(f"/reading/reports/{id_}/critical")
    page.locator("#category").select_option(given["category"])
    page.locator("#finding").fill(given["finding"])
    if "recipient" in given:
        page.locator("#recipient").select_option(given["recipient"]["reference"])
    press(page, "F8")
    done(page)


@by("$acknowledge", "CommunicationRequest")
def acknowledge(page: Page, id_: str, given: dict[str, Any]) -> None:
    """A referrer acknowledges for itself, and is asked for nothing."""
    page.goto(f"/reading/critical/{id_}")
    if page.locator("#by").count():
        page.locator("#by").select_option(given["by"]["reference"])
        page.locator("#medium").select_option(given.get("medium", "PHONE"))
        page.locator("[name=read-back]").set_checked(bool(given.get("read_back")))
    press(page, "F8")
    done(page)


def _open_editor(page: Page, report: str) -> None:
    page.goto(f"/reading/reports/{report}")
    press(page, "w")
    expect(page.locator("#editor, .report").first).to_be_visible()


def _sections(given: dict[str, Any]) -> list[tuple[str, str]]:
    """(code, text) of the sections that a scenario's step gives."""
    said = given.get("section", [])
    listed = said if isinstance(said, list) else [said]
    parts = [{p["name"]: next(v for k, v in p.items() if k != "name") for p in one["part"]} for one in listed]
    return [(part["code"], part.get("text", "")) for part in parts]
