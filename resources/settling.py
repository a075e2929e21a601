"""Settling whose an examination was (`reconciliation`), or that it was none: only then may a patient or an end change.

Rules say that the subject of what was performed stays, and that an ended step has ended. When a person has found out that it was
somebody else's, or another step, both are put right together, in a transaction of its own.
"""

from typing import Final

from fhir_server.unit_of_work import UnitOfWork
from resources.announced import Announced

settling: Final = Announced()  # what is written in here puts an examination right


def under_way(unit: UnitOfWork) -> bool:
    """Whether this transaction settles an examination at the moment."""
    return unit in settling
