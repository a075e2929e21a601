"""How people decide on orders at the screen, take one by hand, ask a payer, and merge two records."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.console_steps import by, done

Given = dict[str, Any]


def _text(reason: Any) -> str:
    """A reason as a person types it."""
    if not isinstance(reason, dict):
        return str(reason or "")
    return str(reason.get("text") or next(iter(reason.get("coding", [{}]))).get("display", ""))


def _decide(page: Page, id_: str, name: str, given: Given) -> None:
    page.goto(f"/orders/{id_}")
    button = page.locator(f"[data-opens='{name}']")
    expect(button).to_be_visible()
    button.click()
    dialog = page.get_by_role("dialog")
    dialog.locator("textarea[name=reason]").fill(_text(given.get("reason")))
    if given.get("group"):
        dialog.locator("[name=group]").check()
    if "replacement" in given:
        _examination(page, "#cancel-examination", given["replacement"]["code"])
    dialog.locator("form button").first.click()
    done(page)


def _examination(page: Page, select: str, code: Given) -> None:
    """Choose an examination of the catalogue by what it is called."""
    called = code.get("text") or code["coding"][0]["display"]
    option = page.locator(f"{select} option").filter(has_text=re.compile(rf"^\s*{re.escape(called)}( · |\s*$)"))
    page.locator(select).select_option(option.get_attribute("value"))


@by("$accept", "ServiceRequest")
def accept(page: Page, id_: str, given: Given) -> None:
    page.goto(f"/orders/{id_}")
    button = page.locator(".decide [data-key=a]")
    expect(button).to_be_visible()
    if button.get_attribute("data-opens"):
        return _decide(page, id_, "accept", given)
    button.click()
    return done(page)


@by("$reject", "ServiceRequest")
def reject(page: Page, id_: str, given: Given) -> None:
    _decide(page, id_, "reject", given)


@by("$hold", "ServiceRequest")
def hold(page: Page, id_: str, given: Given) -> None:
    _decide(page, id_, "hold", given)


@by("$cancel", "ServiceRequest")
def cancel(page: Page, id_: str, given: Given) -> None:
    _decide(page, id_, "cancel", given)


@by("$add-procedure", "ServiceRequest")
def add_procedure(page: Page, id_: str, given: Given) -> None:
    page.goto(f"/orders/{id_}")
    page.locator("[data-opens=add]").click()
    _examination(page, "#add-examination", given["code"])
    if "bodySite" in given:
        page.locator("#add-side").select_option(label=_text(given["bodySite"]))
    page.locator("#add-reason").fill(_text(given.get("reason")))
    page.get_by_role("dialog").locator("form button").first.click()
    done(page)


@by("$create-order", "")
def create_order(page: Page, _: str, given: Given) -> None:
    """`order`: a Bundle of a known patient (with an identifier) and the order."""
    resources = {e["resource"]["resourceType"]: e["resource"] for e in given["order"]["entry"]}
    order, number = resources["ServiceRequest"], resources["Patient"]["identifier"][0]["value"]
    page.goto("/orders/new")
    page.locator("#q").fill(number)
    page.locator("#q").press("Enter")
    page.locator(".picks a").filter(has_text=number).click()
    _examination(page, "#examination", order["code"])
    page.locator("#reason").fill(_text(next(iter(order.get("reasonCode", ())), "")))
    page.locator("#priority").select_option(order.get("priority", "routine"))
    page.locator("form.card button").first.click()
    done(page)


@by("$submit", "CoverageEligibilityRequest")
def submit(page: Page, _: str, given: Given) -> None:
    """`resource`: a request about an order, to the payer of a coverage."""
    request = given["resource"]
    page.goto(f"/orders/{request['item'][0]['detail'][0]['reference'].partition('/')[2]}")
    page.locator("[data-opens=ask]").click()
    coverage = request["insurance"][0]["coverage"]["reference"].partition("/")[2]
    page.locator(f"#ask input[value='{coverage}']").check()
    page.locator("#ask form button").first.click()
    done(page)


@by("$override-authorization", "ServiceRequest")
def override_authorization(page: Page, id_: str, given: Given) -> None:
    page.goto(f"/orders/{id_}")
    page.locator("[data-opens=override]").click()
    page.locator("#override-reason").fill(_text(given.get("reason")))
    page.locator("#override form button").first.click()
    done(page)


@by("$merge", "Patient")
def merge(page: Page, id_: str, given: Given) -> None:
    page.goto(f"/orders/records?one={id_}&other={given['prior'].removeprefix('Patient/')}")
    page.locator("[data-opens=keep-1]").click()
    page.locator("#keep-1 form button").first.click()
    done(page)
