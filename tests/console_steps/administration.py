"""What administrators do at the screens of administration, charges and audit."""

from typing import Any

from playwright.sync_api import Page

from tests.console_steps import by, done

_CHARGES = "/administration/charges"


@by("$release", "ChargeItem")
def release(page: Page, id_: str, given: dict[str, Any]) -> None:
    _open(page, f"{_CHARGES}/{id_}", "r", "release")
    _reason(page, "release", given)


@by("$void", "ChargeItem")
def void(page: Page, id_: str, given: dict[str, Any]) -> None:
    _open(page, f"{_CHARGES}/{id_}", "v", "void")
    _reason(page, "void", given)


@by("$correct", "ChargeItem")
def correct(page: Page, id_: str, given: dict[str, Any]) -> None:
    """`code` and `modifier` (one, or a list) as codes or CodeableConcepts, `quantity`, `diagnosis`, `reason`."""
    _open(page, f"{_CHARGES}/{id_}", "c", "correct")
    for name in ("code", "diagnosis"):
        if name in given:
            coding = _coding(given[name])
            page.locator(f"#correct-{name}").fill(coding["code"])
            system = page.locator("#correct-system" if name == "code" else "#correct-diagnosis-system")
            system.fill(coding.get("system", ""))
    if "quantity" in given:
        page.locator("#correct-quantity").fill(str(given["quantity"]))
    if "modifier" in given:
        several = given["modifier"] if isinstance(given["modifier"], list) else [given["modifier"]]
        page.locator("#correct-modifiers").fill(" ".join(_coding(one)["code"] for one in several))
    _reason(page, "correct", given)


@by("$charge", "ServiceRequest")
def charge(page: Page, id_: str, _given: dict[str, Any]) -> None:
    page.goto(f"{_CHARGES}/orders/{id_}")
    page.keyboard.press("c")
    done(page)


@by("$reconciliation", "ChargeItem")
def reconcile(page: Page, _id: str, given: dict[str, Any]) -> None:
    """Look at a `date`; what is found is on the page (`findings`)."""
    page.goto(f"{_CHARGES}/reconciliation")
    page.locator("#date").fill(given["date"])
    page.wait_for_url(f"**date={given['date']}*")


def findings(page: Page) -> list[str]:
    """What the reconciliation on the page has found."""
    return page.locator("tbody [data-row]").all_inner_texts()


def generate_slots(page: Page, id_: str, _given: dict[str, Any]) -> None:
    page.goto(f"/administration/schedules/{id_}")
    page.locator("form[action$='/slots'] button").click()
    done(page)


def _open(page: Page, path: str, key: str, dialog: str) -> None:
    page.goto(path)
    page.keyboard.press(key)
    page.locator(f"#{dialog}[open]").wait_for(timeout=10_000)


def _reason(page: Page, dialog: str, given: dict[str, Any]) -> None:
    page.locator(f"#{dialog}-reason").fill(given.get("reason", ""))
    page.locator(f"#{dialog} .buttons button").first.click()
    done(page)


def _coding(said: Any) -> dict[str, str]:
    found: dict[str, str] = {"code": said} if isinstance(said, str) else said.get("coding", [said])[0]
    return found
