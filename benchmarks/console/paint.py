"""When Chromium first shows a page. Needs Playwright, of the packages of the tests, and Debian's Chromium."""

import shutil
import statistics
from collections.abc import Iterable, Mapping
from typing import Final

from playwright.async_api import async_playwright

from benchmarks.console.pages import Page

_TIMES: Final = 5
_PAINTED: Final = """() => new Promise(done => new PerformanceObserver((list, observer) => {
    const paint = list.getEntriesByName("first-contentful-paint")[0];
    if (paint) { observer.disconnect(); done(paint.startTime); }
}).observe({type: "paint", buffered: true}))"""


async def first_paints(base_url: str, pages: Iterable[Page], cookies: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds to the first contentful paint, by the pages' names: the median of some. Empty without a Chromium."""
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if not chromium:
        return {}
    found = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for one in pages:
            context = await browser.new_context(base_url=base_url, locale="en-GB", viewport={"width": 1280, "height": 800})
            await context.add_cookies([{"name": "ris", "value": cookies[one.who], "url": base_url}])
            page = await context.new_page()
            times = []
            for _ in range(_TIMES):
                await page.goto(one.path, wait_until="commit")
                times.append(float(await page.evaluate(_PAINTED)))
            found[one.name] = statistics.median(times)
            await context.close()
        await browser.close()
    return found
