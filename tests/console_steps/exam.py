"""At the page of an exam: it is moved to the right patient, and a record is opened in an emergency."""

from typing import Any

from playwright.sync_api import Page

from tests.console_steps import by, done


@by("$move", "ServiceRequest")
def move(page: Page, id_: str, given: dict[str, Any]) -> None:
    """`patient` is a Reference; the page is given its id, as it stands in the address of the patient's own page."""
    page.goto(f"/exams/{id_}")
    page.keyboard.press("m")
    page.get_by_label("The right patient").fill(str(given["patient"]["reference"]).partition("/")[2])
    page.get_by_role("button", name="Look for").click()
    page.get_by_role("radio").first.check()
    page.get_by_label("Reason").fill(given["reason"])
    correct = page.get_by_role("checkbox", name="The signed report goes along")
    if given.get("correctReports") and correct.count():
        correct.check()
    page.get_by_role("button", name="Move").click()
    done(page)


@by("$break-glass", "Patient")
def break_glass(page: Page, _id: str, given: dict[str, Any]) -> None:
    """At the page of an exam of this patient, of which the person sees a part."""
    page.get_by_role("button", name="Emergency access").click()
    page.get_by_label("Why").fill(given["reason"])
    page.get_by_label("Minutes").fill(str(given.get("minutes", 60)))
    page.get_by_role("button", name="Open the record").click()
    done(page)


@by("$mend-glass", "Patient")
def mend_glass(page: Page, _id: str, _given: dict[str, Any]) -> None:
    """At the same page."""
    page.get_by_role("button", name="Close it").click()
    done(page)
