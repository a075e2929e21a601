"""The items of FHIRPath collections: nodes of the resource and plain values, and what it means that two are equal or in order.

Plain values are bool, int, Decimal, str, Temporal and Quantity (FHIRPath N1 4.1, 6.1 and 6.2).
"""

from decimal import Decimal
from typing import Any

from fhir_server.fhirpath import temporal
from fhir_server.fhirpath.nodes import Node
from fhir_server.fhirpath.temporal import Temporal
from fhir_server.fhirpath.tokens import FhirPathError
from fhir_server.fhirpath.units import QUANTITY_TYPES, Quantity, quantity

Item = Any
"""A Node or a plain value."""

Items = list[Item]

_TEMPORAL_TYPES = frozenset({"date", "dateTime", "instant", "time"})


def plain(item: Item) -> Any:
    """The JSON value of a node, or the plain value as it is."""
    return item.value if type(item) is Node else item


def system_value(item: Item) -> Any:
    """The plain value that a node stands for: dates as Temporal, quantities as Quantity; else its JSON value."""
    if type(item) is not Node:
        return item
    value = item.value
    if type(value) is str and item.type in _TEMPORAL_TYPES:
        return Temporal.parse(value) or value
    if type(value) is dict and item.type in QUANTITY_TYPES:
        return quantity(value)
    return value


def truth(items: Items) -> bool | None:
    """A collection as a condition: None when empty; one item that is not a boolean counts as true (FHIRPath N1 4.5)."""
    if not items:
        return None
    if len(items) > 1:
        raise FhirPathError("a condition has several items")
    value = plain(items[0])
    return value if type(value) is bool else True


def single(items: Items, what: str) -> Item | None:
    """The one item of a collection, or None. Raises FhirPathError when there are several."""
    if len(items) > 1:
        raise FhirPathError(f"{what} takes one item, and there are {len(items)}")
    return items[0] if items else None


def text(items: Items, what: str) -> str | None:
    """The one string of a collection; None when it is empty, or a primitive that has only extensions."""
    item = plain(single(items, what))
    if item is not None and type(item) is not str:
        raise FhirPathError(f"{what} takes a string")
    return item


def number(items: Items, what: str) -> int | Decimal | None:
    item = plain(single(items, what))
    if item is not None and type(item) is not int and type(item) is not Decimal:
        raise FhirPathError(f"{what} takes a number")
    return item


def equal_items(left: Item, right: Item) -> bool | None:
    """`=` of two items; None where the precision of dates, or the units of quantities, leave it open."""
    mine, other = system_value(left), system_value(right)
    if isinstance(mine, Temporal) and isinstance(other, Temporal):
        order = temporal.compare(mine, other)
        return None if order is None else order == 0
    if isinstance(mine, Quantity) and isinstance(other, Quantity):
        return bool(mine.value == other.value) if mine.comparable_unit == other.comparable_unit else None
    if isinstance(mine, Temporal) or isinstance(other, Temporal):
        return str(mine) == str(other)
    return bool(frozen(left) == frozen(right))


def equal(left: Items, right: Items) -> bool | None:
    if not left or not right:
        return None
    if len(left) != len(right):
        return False
    verdicts = [equal_items(mine, other) for mine, other in zip(left, right, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def equivalent(left: Items, right: Items) -> bool:
    """`~`: in any order, without regard to case and white space, dates only with the same precision (FHIRPath N1 6.1.2)."""
    if len(left) != len(right):
        return False
    return sorted(map(_loose, left)) == sorted(map(_loose, right))


def _loose(item: Item) -> str:
    value = system_value(item)
    if type(value) is str:
        value = " ".join(value.lower().split())
    elif type(value) is int or type(value) is Decimal:
        value = Decimal(value).normalize()
    return repr(frozen(value)) if type(value) is dict else f"{type(value).__name__} {value}"


def compare(left: Item, right: Item) -> int | None:
    """-1, 0 or 1 by order; None where it is open. Raises FhirPathError for values that have no order together."""
    mine, other = system_value(left), system_value(right)
    if mine is None or other is None:
        return None
    if isinstance(mine, Temporal) or isinstance(other, Temporal):
        mine, other = _as_temporal(mine), _as_temporal(other)
        return temporal.compare(mine, other)
    if isinstance(mine, Quantity) and isinstance(other, Quantity):
        return _order(mine.value, other.value) if mine.comparable_unit == other.comparable_unit else None
    numbers = {type(mine), type(other)} <= {int, Decimal}
    if not numbers and not (type(mine) is str and type(other) is str):
        raise FhirPathError(f"{type(mine).__name__} and {type(other).__name__} have no order")
    return _order(mine, other)


def _order(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def _as_temporal(value: Any) -> Temporal:
    found = value if isinstance(value, Temporal) else Temporal.parse(value) if type(value) is str else None
    if found is None:
        raise FhirPathError("a date can be compared with a date only")
    return found


def frozen(item: Item) -> Any:
    """A hashable that is the same for equal items. Booleans are kept from 0 and 1; 1 and 1.0 are equal."""
    value = plain(item)
    if value is None:
        return ("extension only", frozen(item.extra)) if type(item) is Node else None
    if type(value) is dict:
        return frozenset((key, frozen(part)) for key, part in value.items())
    if type(value) is list:
        return tuple(frozen(part) for part in value)
    return ("boolean", value) if type(value) is bool else value


_FEW = 8


def distinct(items: Items) -> Items:
    """The items without repetitions, in order."""
    if len(items) < 2:
        return items
    if len(items) <= _FEW:
        few: Items = []
        for item in items:
            if not any(_is_same(item, other) for other in few):
                few.append(item)
        return few
    found: dict[Any, Item] = {}
    for item in items:
        found.setdefault(frozen(item), item)
    return list(found.values())


def _is_same(left: Item, right: Item) -> bool:
    """As equality by `frozen`, which is asked only where Python's own, quicker and coarser, says yes."""
    return bool(plain(left) == plain(right)) and bool(frozen(left) == frozen(right))
