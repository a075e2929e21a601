"""One order through the whole department at the console: from the EHR's order to the report back there.

The server is a process of its own with its own mongod, furnished as the demo's. At the end both are killed under open pages, as
by a power cut, and started again.
"""

import asyncio
import re
import threading
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Page, expect

from demo import ehr
from demo.apps import App
from demo.department import people, rooms
from demo.ehr import Listener
from demo.scanner import Scanner
from demo.server import free_port
from tests.quick_command import QuickServer
from tests.screenshots import log_in

T = TypeVar("T")
_WHO = [login for login in people.LOGINS if login.name in ("sam", "tilda", "ada")]


class Hospital:
    """The server and the EHR, in a thread with a loop of its own, as Playwright's is in the way of others in the test's."""

    def __init__(self, place: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server, self.listener = QuickServer(place), Listener()
        self.scanner = Scanner("CT1", 0)
        self.run(self._open())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    async def _open(self) -> None:
        await self.listener.start()
        await self.server.start_somewhere()
        self.scanner = Scanner("CT1", self.server.dicom_port)
        async with App("furnisher", "system/*.cruds", self.server.base_url) as app:
            keys = str(app.write_jwks(self.server.directory))
            await self.server.command("client", "add", app.client_id, "--scope", app.scope, "--jwks", keys)
            await rooms.furnish(app, self.listener.port, free_port(), rooms.STATIONS[:1])
            await app.ok("PUT", "Endpoint/ehr", rooms.endpoint("ehr", "EHR", self.listener.port, "ORU^R01"))
            await people.engage(self.server, app, _WHO)

    def orders(self, number: int, family: str) -> None:
        """The HIS registers somebody, and the EHR orders a CT of the chest."""
        for message in (
            ehr.registration(f"A{number}", f"P{number}", family, "Jo"),
            ehr.order(f"O{number}", f"PL-{number}", f"P{number}", family, "Jo"),
        ):
            ack = self.run(ehr.send(self.server.mllp_port, message))
            assert ack.all("MSA")[0].field(1) == "AA", ack.raw

    def close(self) -> None:
        self.run(self.server.stop())
        self.run(self.listener.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    opened = Hospital(tmp_path)
    yield opened
    opened.close()


def test_an_order_is_booked_examined_and_reported_at_the_console_and_a_power_cut_ends_nothing(
    hospital: Hospital, chromium: Browser
) -> None:
    hospital.orders(1, "Reisner")
    sam, tilda, ada = (log_in(chromium, hospital.server.base_url, login.name, {}) for login in _WHO)
    day = _booked(sam)
    _examined(tilda, hospital, day)
    _reported(ada)
    (report,) = hospital.run(hospital.listener.expect("ORU^R01", placer="PL-1"))
    assert report.all("OBR")[0].field(25) == "F"
    assert any("No nodule." in said.text(5) for said in report.all("OBX"))

    # The power is cut under two open pages.
    sam.goto("/orders?tab=unscheduled")
    expect(sam.get_by_text("Reisner")).to_have_count(0)
    ada.goto("/reading")
    hospital.run(hospital.server.kill())
    for page in (sam, ada):
        expect(page.locator("#away")).to_contain_text("No connection to the server")
    hospital.run(hospital.server.start())
    for page in (sam, ada):
        expect(page.locator("#away")).to_have_class(re.compile("back"), timeout=20_000)
    # They go on, in the same sessions and without a reload.
    hospital.orders(2, "Nachher")
    sam.get_by_role("row").filter(has_text="Nachher, Jo").get_by_role("link", name="Book").click()
    expect(sam.locator(".picked")).to_contain_text("Nachher, Jo")


def _booked(sam: Page) -> str:
    """The scheduler takes what waits on the home page, and books the first free time; its day."""
    sam.get_by_role("link", name="Reisner, Jo").click()
    sam.locator(".free-times a").first.click()
    sam.locator("#confirm").click()
    expect(sam.locator("#done")).to_be_visible()
    expect(sam.locator(".booking")).to_contain_text("Reisner, Jo")
    found = re.search(r"day=(\d{4}-\d\d-\d\d)", sam.url)
    return found[1] if found else datetime.now(UTC).date().isoformat()


def _examined(tilda: Page, hospital: Hospital, day: str) -> None:
    """The technologist has the patient in, and sees what the scanner tells."""
    tilda.locator(".menu").get_by_role("link", name="Rooms").click()
    if not tilda.get_by_text("Reisner, Jo").count():
        tilda.goto(f"/rooms?day={day}")  # the first free time is tomorrow, a little before midnight
    tilda.get_by_role("button", name="Arrived").click()
    expect(tilda.locator("#done")).to_be_visible()
    tilda.get_by_role("link", name="Reisner, Jo").click()
    for state in ("Prepared", "In the room"):
        tilda.get_by_role("button", name=state).click()
        expect(tilda.locator(".path .now")).to_contain_text(state.lower())
    (item,) = hospital.run(hospital.scanner.worklist("", "", PatientID="P1"))
    told = hospital.run(hospital.scanner.begin(item))
    expect(tilda.locator(".path .now")).to_contain_text("started")
    hospital.run(hospital.scanner.end(told))
    expect(tilda.locator(".path .now")).to_contain_text("done")


def _reported(ada: Page) -> None:
    """The radiologist takes the next one, writes and signs."""
    ada.locator(".menu").get_by_role("link", name="Reading").click()
    ada.get_by_role("button", name="Claim next").click()
    expect(ada.locator("main")).to_contain_text("Reisner, Jo")
    ada.get_by_role("button", name="Begin").click()
    ada.locator("[data-section]").first.fill("No nodule.")
    ada.get_by_role("button", name=re.compile(r"^Sign\b")).click()
    expect(ada.locator("#done")).to_be_visible()
    expect(ada.locator("main")).to_contain_text("No nodule.")
