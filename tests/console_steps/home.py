"""Numbers, as people look at them."""

from typing import Any

from playwright.sync_api import Page, expect

from tests.console_steps import by


@by("$figures", "Measure")
def figures(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Open a view for a period, narrowed and broken down as was asked."""
    page.goto(f"/numbers?view={id_}")
    for field, argument in (("#from", "periodStart"), ("#to", "periodEnd")):
        if argument in given and page.locator(field).is_visible():
            page.locator(field).fill(str(given[argument]))
    for name in ("modality", "priority", "scanner", "location"):
        if name in given:
            page.locator(f"#{name}").select_option(str(given[name]))
    if "group_by" in given:
        page.locator("#by").select_option(str(given["group_by"]))
    page.get_by_role("button", name="Show").click()
    expect(page.locator("main table, main .nothing").first).to_be_visible()
