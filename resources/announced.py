"""What rules let through only while the code that it is for says so: `with moving(unit): ...`; in the rule, `unit in moving`."""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from fhir_server.unit_of_work import UnitOfWork


class Announced:
    """One kind of writing, and the transactions in which it is under way."""

    def __init__(self) -> None:
        self._units: WeakSet[UnitOfWork] = WeakSet()

    def __contains__(self, unit: UnitOfWork) -> bool:
        return unit in self._units

    @contextmanager
    def __call__(self, unit: UnitOfWork) -> Iterator[None]:
        """While inside it is under way; where it is already, until that ends."""
        if unit in self._units:
            yield
            return
        self._units.add(unit)
        try:
            yield
        finally:
            self._units.discard(unit)
