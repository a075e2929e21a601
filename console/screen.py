"""A screen and its addresses: what a module of `screens/` declares of itself."""

from dataclasses import dataclass

from console.visit import Handler


@dataclass(frozen=True, slots=True)
class Screen:
    """An entry of the menu: `name` (of its text, `menu.<name>`), its address, the key that leads there after `g`.

    `needs`: what a role must be able to do for it, such as `ServiceRequest.s` or `$claim` (one of several: `$start $reconcile`);
    without it there is no way to any of its addresses.
    """

    name: str
    path: str
    key: str
    needs: str


@dataclass(frozen=True, slots=True)
class Door:
    """An address of a screen. A form's handler (`again`) is shown the page again, with the errors, when it is refused.

    `alone`: what the door needs stands for what the screen needs, so that others get to it who have no use for the rest.
    """

    method: str
    path: str
    handler: Handler
    again: Handler | None = None
    needs: str = ""
    alone: bool = False


def shows(path: str, handler: Handler, needs: str = "", *, alone: bool = False) -> Door:
    """A page to look at. `needs`: beyond what the screen does, or `alone`."""
    return Door("GET", path, handler, needs=needs, alone=alone)


def does(path: str, handler: Handler, again: Handler | None = None, needs: str = "", *, alone: bool = False) -> Door:
    """Where a form is sent to. `again` makes the page that is shown when it is refused (FhirError)."""
    return Door("POST", path, handler, again, needs, alone)
