"""Settling whose an examination was (`reconciliation`), or that it was none: only then may a patient or an end change.

Rules say that the subject of what was performed stays, and that an ended step has ended. When a person has found out that it was
somebody else's, or another step, both are put right together, in a transaction of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from fhir_server.unit_of_work import UnitOfWork

_under_way: "WeakSet[UnitOfWork]" = WeakSet()


def under_way(unit: UnitOfWork) -> bool:
    """Whether this transaction settles an examination at the moment."""
    return unit in _under_way


@contextmanager
def settling(unit: UnitOfWork) -> Iterator[None]:
    """What is written in here puts an examination right."""
    if unit in _under_way:
        yield
        return
    _under_way.add(unit)
    try:
        yield
    finally:
        _under_way.discard(unit)
