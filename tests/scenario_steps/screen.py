"""People who do at the console's screens what a scenario has them do, where it has a screen for it (tests/console_steps)."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from benchmarks.department.stage import Resource
from tests import console_steps, smart_app
from tests.console_world import CHROMIUM, FLAGS, SECONDS, log_in
from tests.scenario_steps.staff import Person

if TYPE_CHECKING:
    from tests.scenario_steps.world import Case

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
            self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            expect.set_options(timeout=SECONDS * 1000)
        if login not in self._pages:
            context = self._browser.new_context(base_url=self._base_url, locale="en-GB", viewport={"width": 1280, "height": 800})
            context.set_default_timeout(SECONDS * 1000)
            page = self._pages[login] = context.new_page()
            log_in(page, login, smart_app.PASSWORD)
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
        """The same as over the API: by the screen that it has. What it would answer is then read."""
        *whom, operation = path.split("/")
        kind, id_ = whom[0], whom[1] if len(whom) > 1 else ""
        if not await self._at_the_screen(operation, kind, id_, given):
            return await super().do(path, **given)
        if operation == "$find":  # which proposals there are, no person sees by their ids
            return await super().do(path, **given)
        return await self._answer(operation, kind, id_, given)

    async def book(self, case: "Case") -> None:
        made = await self.do("Appointment/$book", appointment_resource=case.booking())
        case.appointment = made["entry"][0]["resource"]

    async def change(self, case: "Case", operation: str, **given: Any) -> None:
        case.appointment = await self.do(f"Appointment/{case.appointment['id']}/{operation}", **given)

    async def answer(self, case: "Case", questionnaire: str, answers: dict[str, Any]) -> None:
        step = (await case.step())["id"]
        await self._at_the_screen("create", "QuestionnaireResponse", step, {"questionnaire": questionnaire, "answers": answers})

    async def _at_the_screen(self, operation: str, kind: str, id_: str, given: dict[str, Any]) -> bool:
        how = console_steps.how(operation, kind)
        if how is None:
            return False
        await self._desks.run(self._do, how, id_, given)
        return True

    def _do(self, how: console_steps.How, id_: str, given: dict[str, Any]) -> None:
        page = self._desks.page(self.login)
        try:
            how(page, id_, given)
        except (PlaywrightError, AssertionError) as error:
            seen = page.locator("body").inner_text()
            raise AssertionError(f"{self.login} at {page.url}: {str(error)[:600]}\n\nThe page says: {seen[:1500]}") from error

    async def _answer(self, operation: str, kind: str, id_: str, given: dict[str, Any]) -> Resource:
        if operation == "$start-report":
            requests = ",".join(r["reference"] for r in (await self.ok("GET", f"Task/{id_}"))["basedOn"])
            return await self._newest(f"DiagnosticReport?based-on={requests}")
        if operation == "$critical":
            return await self._newest("CommunicationRequest?category=urn:fhir-ris:communication|critical-result")
        if operation in ("$hold", "$book") and kind == "Appointment":
            return {"entry": [{"resource": one} for one in await self._booked(given)]}
        if "replacement" in given:
            made = await self._newest(f"ServiceRequest?replaces=ServiceRequest/{id_}")
            made_is = {"reference": f"ServiceRequest/{made['id']}"}
            return {"parameter": [{"name": "replacement", "valueReference": made_is}]}
        return await self.ok("GET", f"{kind}/{id_}")

    async def _booked(self, given: dict[str, Any]) -> list[Resource]:
        """What was held or booked of the orders that are named."""
        orders = [r["reference"] for r in given["appointment_resource"]["basedOn"]]
        found = [await self.search(f"Appointment?based-on={o}&status=pending,booked,arrived") for o in orders]
        return [one for of in found for one in of]

    async def _newest(self, query: str) -> Resource:
        return (await self.search(f"{query}&_sort=-_lastUpdated"))[0]
