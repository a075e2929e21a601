"""The screens, in the order of the menu. Each module has a `SCREEN` and its `DOORS`."""

from types import ModuleType
from typing import TYPE_CHECKING

from console.screen import Door, Screen
from console.screens import (
    administration,
    exam,
    find,
    home,
    interfaces,
    numbers,
    orders,
    patient,
    reading,
    rooms,
    schedule,
    trail,
)

if TYPE_CHECKING:
    from console.visit import Visit

_MODULES: tuple[ModuleType, ...] = (
    home, orders, schedule, rooms, reading, numbers, interfaces, administration, trail, find, exam, patient,
)  # fmt: skip
_DOORS: dict[str, list[Door]] = {module.SCREEN.name: module.DOORS for module in _MODULES}
SCREENS: tuple[Screen, ...] = tuple(module.SCREEN for module in _MODULES)
_NOT_IN_THE_MENU = frozenset({"find", "exam", "patient"})


def doors(screen: Screen) -> list[Door]:
    """The addresses of a screen."""
    return _DOORS[screen.name]


def menu(visit: "Visit") -> list[Screen]:
    """The screens that this person can use."""
    return [s for s in SCREENS if s.name not in _NOT_IN_THE_MENU and (not s.needs or visit.can(s.needs))]
