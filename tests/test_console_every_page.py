"""Every page of the console, filled: no serious or critical fault, nothing wider than the window, a key for every action."""

import re

import pytest

from console.screen import Door
from console.screens import SCREENS, doors
from tests import every_page
from tests.console_pages import LOOKS, Furnished, Look
from tests.console_world import ConsoleWorld, press
from tests.every_page import How, Looker

# What is no page: files, and the form of which another page is the answer.
_FILES = {"/numbers/figures.csv", "/reading/reports/{id}/documents/{n}"}
# Pages that lead to another one, which is looked at.
_LEADS_ON = {"/exams", "/reading/reports/{id}/text"}
_DOORS: list[Door] = [d for s in SCREENS for d in doors(s) if d.method == "GET"]


@pytest.fixture(scope="module")
def department(console: ConsoleWorld) -> Furnished:
    return Furnished(console)


@pytest.fixture(scope="module")
def looker(department: Furnished) -> Looker:
    return Looker(department)


def _door(path: str) -> str:
    """The address that a path is of: the first that fits, as the router takes it."""
    for door in _DOORS:
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", door.path), path.partition("?")[0]):
            return door.path
    raise AssertionError(path)


def test_every_door_is_looked_at() -> None:
    assert {_door(look.path) for look in LOOKS} == {d.path for d in _DOORS} - _FILES - _LEADS_ON


@pytest.mark.parametrize("screen", sorted({look.path.split("/")[1].partition("?")[0] for look in LOOKS}))
def test_nothing_is_wrong_with_its_pages(department: Furnished, looker: Looker, screen: str) -> None:
    told = []
    looks = zip(LOOKS, every_page.rotated(), strict=False)
    for look, how in [(o, h) for o, h in looks if o.path.split("/")[1].partition("?")[0] == screen and not o.seldom]:
        told += [f"{look.role} {department.path(look)} {how}: {each}" for each in _wrong(department, looker, look, how)]
    assert not told, "\n".join(told)


def _wrong(department: Furnished, looker: Looker, look: Look, how: How) -> list[str]:
    page, status = looker.at(look, how)
    if status != look.status or not page.locator(look.shows).count():
        return [f"{status}, and it should show {look.shows}"]
    return every_page.wrong(page)


def test_the_frame_is_right_in_every_way(looker: Looker) -> None:
    """With its menu of the person open, and the list of keys."""
    told = []
    for how in every_page.ALL:
        page, _ = looker.at(Look("scheduler", "/"), how)
        page.locator(".person summary").click()
        told += [f"{how}: {each}" for each in every_page.wrong(page)]
        press(page, "?")
        told += [f"{how}, keys: {each}" for each in every_page.grave(page, "#keys")]
    assert not told, "\n".join(told)


def test_no_script_fails(console: ConsoleWorld) -> None:
    """Last in this file: what the browsers have complained of so far."""
    assert [c for c in console.complaints if "status of 40" not in c] == []
