"""Charges: made by the catalogue at the end of an examination and with its report, reviewed, taken back, and reconciled.

A charge is `planned` while it is held for review (`review.py`), `billable` when it may go out, `billed` when whoever has the bill
says so, `not-billable` or `aborted` when it isn't to be paid: whoever was told of it then gets a credit.
"""

from fhir_server.registry import Registry
from resources import charge_item
from resources.charging import follow, operations, reconciliation_operation, rules


def register(registry: Registry) -> None:
    """Put the rules, reactions and operations of charges into the registry."""
    registry.rule("ChargeItem", charge_item.check)
    rules.register(registry)
    follow.register(registry)
    operations.register(registry)
    reconciliation_operation.register(registry)
