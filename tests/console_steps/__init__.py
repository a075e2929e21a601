"""How the people of a scenario do at the screen what an operation does: a module a screen, a function an operation.

    @by("$accept", "ServiceRequest")
    def accept(page: Page, id_: str, given: dict[str, Any]) -> None: ...

`page` is somebody's browser, wherever it was left; `id_` what the operation is called on; `given` its arguments as a scenario's
step has them (`tests/scenario_steps`). The function opens the screen, does it as that person would, and ends with `done(page)`.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

How = Callable[[Page, str, dict[str, Any]], None]
HOW: dict[tuple[str, str], How] = {}


class Refused(RuntimeError):
    """What was tried is refused; the text is what the page says."""


def by(operation: str, resource_type: str) -> Callable[[How], How]:
    """This function does at a screen what the operation does."""

    def entered(how: How) -> How:
        assert (operation, resource_type) not in HOW, "another screen does this already"
        HOW[operation, resource_type] = how
        return how

    return entered


def how(operation: str, resource_type: str) -> How | None:
    """What does this at a screen; None where there is none."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return HOW.get((operation, resource_type))


def done(page: Page) -> None:
    """The page has answered a form. Raises Refused with what it says when it did not do what was asked."""
    answered = page.locator("#done, #errors, main.narrow h1").first
    expect(answered).to_be_visible()
    if answered.get_attribute("id") != "done":
        raise Refused(page.locator("main").inner_text())
