"""`python -m tests.screenshots`: pictures of the console's main pages from the demo's department, into docs/images/.

The server is a real one, the people log in at its login page. Look at each picture before it is committed.
"""

import asyncio
import re
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from demo import department
from demo.department.people import PASSWORD
from demo.ehr import Listener
from demo.play import Play
from demo.server import Server
from tests import console_world
from tests.console_world import press

FOLDER = Path(__file__).parents[1] / "docs" / "images"
# File name, who looks, where, and what is opened first there (the text of a link), if anything.
PICTURES = (
    ("home", "sam", "/", ""),
    ("orders", "sam", "/orders?tab=unscheduled", ""),
    ("order", "sam", "/orders?tab=items", "first"),
    ("schedule", "sam", "/schedule", ""),
    ("rooms", "tilda", "/rooms", ""),
    ("step", "tilda", "/rooms", "first"),
    ("reading", "ada", "/reading", ""),
    ("numbers", "max", "/numbers", ""),
    ("interfaces", "ina", "/interfaces", ""),
    ("messages", "ina", "/interfaces/messages", ""),
    ("message", "ina", "/interfaces/messages", "first"),
    ("administration", "max", "/administration", ""),
    ("audit", "otis", "/audit", ""),
)
TEXTS = ("No bleeding. No fracture. Ventricles of normal width.", "No sign of injury.")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, asyncio.Runner() as runner:
        server, listener = Server(Path(place)), Listener()
        runner.run(listener.start())
        runner.run(server.start_somewhere())
        try:
            codes = runner.run(_played(server, listener))
            with sync_playwright() as playwright, console_world.chromium(playwright) as browser:
                _take(browser, server.base_url, codes)
        finally:
            runner.run(server.stop())
            runner.run(listener.stop())


async def _played(server: Server, listener: Listener) -> dict[str, list[str]]:
    play = Play(server, listener)
    await play.prepare()
    for _, act in play.steps:
        await act()
    await play.close()
    codes, _ = await department.furnish(server, listener.port)
    return codes


def _take(browser: Browser, base_url: str, codes: dict[str, list[str]]) -> None:
    pages: dict[str, Page] = {}
    for name, who, path, first in PICTURES:
        if who not in pages:
            pages[who] = log_in(browser, base_url, who, codes)
        page = pages[who]
        page.goto(path)
        if first:
            page.locator("main [data-row] a, main table tbody a").first.click()
            page.wait_for_url(lambda url: not url.endswith(path))  # noqa: B023 - it is called at once
        page.wait_for_timeout(300)  # charts and boards are placed by their scripts
        _picture(page, name)
    page = pages["ada"]
    page.goto("/reading")
    page.locator("main [data-row] a").first.click()
    page.wait_for_url("**/reading/*")
    press(page, "b")
    page.locator("#editor").wait_for()
    for section, text in zip(page.locator("[data-section]").all(), TEXTS, strict=False):
        section.fill(text)
    page.locator("#save-state.saved").wait_for()
    _picture(page, "report")
    page.goto("/find")
    page.locator(".find [name=q]").fill("Dietz")
    press(page, "Enter")
    page.wait_for_load_state()
    page.locator("main a[href^='/exams/']").first.click()
    page.wait_for_url("**/exams/*")
    _picture(page, "exam")


def _picture(page: Page, name: str) -> None:
    """What the page shows, in 256 colours: a third of the size, and no difference to the eye."""
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def log_in(browser: Browser, base_url: str, who: str, codes: dict[str, list[str]]) -> Page:
    """A browser in which somebody of the demo has logged in at the login page."""
    page = browser.new_context(base_url=base_url, locale="en-GB", viewport={"width": 1280, "height": 800}).new_page()
    console_world.log_in(page, who, PASSWORD)
    page.wait_for_url(f"{base_url}/login/second-factor*" if who in codes else f"{base_url}/")
    if who in codes:
        page.goto("/login/second-factor?recovery")
        page.get_by_label(re.compile("code", re.IGNORECASE)).fill(codes[who].pop())
        press(page, "Enter")
        page.wait_for_url(f"{base_url}/")
    return page


if __name__ == "__main__":
    main()
