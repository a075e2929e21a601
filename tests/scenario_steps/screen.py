"""People who do at the console's screens what a scenario has them do, where it has a screen for it (tests/console_steps)."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from benchmarks.department.stage import Resource
from tests import console_steps, smart_app
from tests.console_world import CHROMIUM
from tests.scenario_steps.staff import Person

T = TypeVar("T")


class Desks:
    """A Chromium in a thread of its own, as Playwright's calls block; a page for each login, logged in at the login page."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._thread = ThreadPoolExecutor(1)
        self._pages: dict[str, Page] = {}
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    async def run(self, work: Callable[..., T], *given: Any) -> T:
        """Call this in the browser's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)

    def page(self, login: str) -> Page:
        """Somebody's page; in the browser's thread."""
        if self._browser is None:
            self._playwright = sync_playwright().start()
            flags = ["--no-sandbox", "--disable-dev-shm-usage"]
            self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        if login not in self._pages:
            context = self._browser.new_context(base_url=self._base_url, locale="en-GB", viewport={"width": 1280, "height": 800})
            context.set_default_timeout(20_000)
            page = self._pages[login] = context.new_page()
            page.goto("/login")
            page.get_by_label("User name").fill(login)
            page.get_by_label("Password").fill(smart_app.PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_url(f"{self._base_url}/")
        return self._pages[login]

    async def close(self) -> None:
        await self.run(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._browser is not None and self._playwright is not None:
            self._browser.close()
            self._playwright.stop()


class AtTheScreen(Person):
    """Somebody at the console."""

    def __init__(self, login: str, base_url: str, desks: Desks) -> None:
        super().__init__(login, base_url)
        self._desks = desks

    async def do(self, path: str, **given: Any) -> Resource:
        """The same as over the API: by the screen that it has, and what it answers is then read."""
        *whom, operation = path.split("/")
        kind, id_ = whom[0], whom[1] if len(whom) > 1 else ""
        how = console_steps.HOW.get((operation, kind))
        if how is None or not console_steps.has_screen(operation, kind, given):
            return await super().do(path, **given)
        await self._desks.run(lambda: how(self._desks.page(self.login), id_, given))
        return await self._answer(operation, kind, id_)

    async def _answer(self, operation: str, kind: str, id_: str) -> Resource:
        if operation == "$start-report":
            task = await self.ok("GET", f"Task/{id_}")
            requests = ",".join(r["reference"] for r in task["basedOn"])
            return (await self.search(f"DiagnosticReport?based-on={requests}&_sort=-_lastUpdated"))[0]
        if operation == "$critical":
            return (await self.search(f"CommunicationRequest?about={kind}/{id_}&_sort=-_lastUpdated"))[0]
        return await self.ok("GET", f"{kind}/{id_}") if id_ else {}
