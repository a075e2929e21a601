"""What an interface administrator does at the screen: no FHIR operations, and named as in `fhir-ris messages`."""

from typing import Any

from playwright.sync_api import Page

from tests.console_steps import by, done


@by("messages-replay", "")
def replay(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Send, or process, a message again."""
    del given
    page.goto(f"/interfaces/messages/{id_}")
    page.locator("[data-part=state] form.act button").click()
    done(page)


@by("messages-cancel", "")
def cancel(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Don't send a message: `reason`."""
    page.goto(f"/interfaces/messages/{id_}")
    page.locator("[data-opens=cancel]").click()
    page.locator("#cancel textarea, #cancel input[name=reason]").fill(given["reason"])
    page.locator("#cancel button.danger").click()
    done(page)


@by("connection-test", "Endpoint")
def call_partner(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Send a test message to a partner."""
    del given
    page.goto(f"/interfaces/partners/{id_}")
    page.locator("form[action$='/test'] button").click()
    done(page)


@by("connection-test", "Device")
def call_scanner(page: Page, id_: str, given: dict[str, Any]) -> None:
    """C-ECHO to a scanner."""
    del given
    page.goto(f"/interfaces/scanners/{id_}")
    page.locator("form[action$='/test'] button").click()
    done(page)


@by("messages-replay-all", "Endpoint")
def replay_all(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Send everything again that a partner has refused or never answered."""
    del given
    page.goto(f"/interfaces/partners/{id_}")
    page.locator("form[action$='/replay'] button[data-key=A]").click()
    done(page)


@by("update", "Endpoint")
def change_partner(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Change a partner's settings: `name`, `status`, `address`, `header` (a list of lines)."""
    page.goto(f"/interfaces/partners/{id_}")
    page.locator("[data-opens=settings]").click()
    for field in ("name", "address"):
        if field in given:
            page.locator(f"#settings input[name={field}]").fill(given[field])
    if "status" in given:
        page.locator("#settings select[name=status]").select_option(given["status"])
    if "header" in given:
        page.locator("#settings textarea[name=header]").fill("\n".join(given["header"]))
    page.locator("#settings .buttons button").first.click()
    done(page)
