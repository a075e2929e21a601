"""What is right with every page of the console, whoever looks at it and however: its looks, its width, its keys.

`python -m tests.every_page [--pictures FOLDER] [--language de]`: every page of tests/console_pages.py in two languages, light
and dark, at two sizes. It prints what is wrong, takes some minutes, and ends with 1 if anything is.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from fhir_server.mongod import EmbeddedMongod
from tests import console_world
from tests.console_pages import LOOKS, Furnished, Look
from tests.console_world import press

SIZES = {"desk": {"width": 1280, "height": 800}, "tablet": {"width": 820, "height": 1180}}
Theme = Literal["light", "dark"]
_SCRIPT = f"{Axe().axe_script};\n" + Path(__file__).with_suffix(".js").read_text("utf-8")


class How(NamedTuple):
    """How a page is looked at."""

    theme: Theme
    language: str
    size: str


ALL = tuple(How(t, n, s) for t, n, s in itertools.product(("light", "dark"), ("en", "de"), SIZES))  # type: ignore[arg-type]


def rotated() -> Iterator[How]:
    """Each page in one way, neighbours in different ones."""
    return itertools.cycle(ALL[n] for n in (0, 7, 2, 5, 4, 3, 6, 1))


class Looker:
    """Browsers at a department, one a role, that look at one page after the other."""

    def __init__(self, department: Furnished) -> None:
        self._of, self._pages = department, dict[str, Page]()

    def at(self, look: Look, how: How) -> tuple[Page, int]:
        """The page, and its HTTP status."""
        if look.role not in self._pages:
            self._pages[look.role] = self._of.world.at(self._of.users[look.role], "about:blank")
        page = self._pages[look.role]
        page.emulate_media(color_scheme=how.theme)
        page.set_viewport_size(SIZES[how.size])  # type: ignore[arg-type]
        page.context.add_cookies([{"name": "ris-language", "value": how.language, "url": self._of.world.base}])
        answer = page.goto(self._of.path(look))
        if look.typed:
            page.locator("main input[type=search]").first.fill(self._of.typed(look))
            press(page, "Enter")
            page.wait_for_load_state()
            page.locator(look.shows).first.wait_for()
        return page, answer.status if answer else 0


def wrong(page: Page) -> list[str]:
    """What is wrong with the page that is open; then with what is folded on it, unfolded, and with each of its dialogs."""
    page.evaluate(_SCRIPT)
    told = list(page.evaluate("[...look.keys(), ...look.sideways()]"))
    page.evaluate("document.activeElement.blur()")
    press(page, "j")
    told += page.evaluate("look.walked()")
    page.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true })")
    told += grave(page)
    for id_ in page.locator("main dialog").evaluate_all("all => all.map((each) => each.id)"):
        page.evaluate("id => document.getElementById(id).showModal()", id_)
        told += [f"dialog {id_}: {each}" for each in grave(page, f"#{id_}")]
        page.evaluate("id => document.getElementById(id).close()", id_)
    return list(dict.fromkeys(told))


def grave(page: Page, part: str | None = None) -> list[str]:
    """What axe-core finds in a part of the page (a selector), or all of it, and what is too wide now; after `wrong`."""
    return list(page.evaluate("async (part) => [...(await look.faults(part)), ...look.sideways()]", part))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of each page in each way")
    parser.add_argument("--language", choices=["en", "de"], help="only in this one")
    asked = parser.parse_args()
    pictures: Path | None = asked.pictures
    ways = [how for how in ALL if asked.language in (None, how.language)]
    looked, faulty = 0, 0
    with tempfile.TemporaryDirectory() as place:
        mongod = EmbeddedMongod(Path(place) / "mongodb")
        uri = asyncio.run(mongod.start())
        try:
            with (
                sync_playwright() as playwright,
                console_world.chromium(playwright) as browser,
                console_world.console_world(uri, Path(place) / "data", browser) as world,
            ):
                looker = Looker(Furnished(world))
                for look, how in itertools.product(LOOKS, ways):
                    page, status = looker.at(look, how)
                    if pictures:
                        _picture(page, pictures, look, how)
                    told = wrong(page)
                    looked, faulty = looked + 1, faulty + bool(told)
                    for each in told:
                        print(f"{status} {look.role} {look.path} {' '.join(how)}: {each}", flush=True)
                for complaint in dict.fromkeys(world.complaints):
                    print(f"the browser: {complaint}")
        finally:
            asyncio.run(mongod.stop())
    print(f"{len(LOOKS)} pages looked at in {len(ways)} ways, {looked} looks; something is wrong in {faulty}")
    return bool(faulty)


def _picture(page: Page, folder: Path, look: Look, how: How) -> None:
    name = "".join(c if c.isalnum() else "_" for c in f"{look.role}{look.path}{look.typed}")
    there = folder / f"{how.language}-{how.theme}-{how.size}"
    there.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=there / f"{name}.png", full_page=True)


if __name__ == "__main__":
    sys.exit(main())
