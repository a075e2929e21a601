"""Quantities in FHIRPath: a number with a unit (FHIRPath N1 4.1.8; FHIR R4 2.1.9.1.4). Units are compared, never converted."""

from decimal import Decimal
from typing import Any, NamedTuple

UCUM = "http://unitsofmeasure.org"
QUANTITY_TYPES = frozenset({"Quantity", "Age", "Count", "Distance", "Duration"})

_CALENDAR = {
    "year": "a",
    "month": "mo",
    "week": "wk",
    "day": "d",
    "hour": "h",
    "minute": "min",
    "second": "s",
    "millisecond": "ms",
}
CALENDAR_UNITS = frozenset(_CALENDAR) | {f"{name}s" for name in _CALENDAR}


class Quantity(NamedTuple):
    """`unit` is a UCUM code, or `system|code` of another system, or the unit's text where there is no code."""

    value: int | Decimal
    unit: str

    def __str__(self) -> str:
        return f"{self.value} '{self.unit}'"

    @property
    def comparable_unit(self) -> str:
        return _CALENDAR.get(self.unit, self.unit)


def quantity(element: dict[str, Any]) -> Quantity | None:
    """A FHIR Quantity as a FHIRPath one; None without a value, or with a comparator, which leaves the value open."""
    value = element.get("value")
    if value is None or "comparator" in element:
        return None
    code, system = element.get("code"), element.get("system")
    if code is None:
        return Quantity(value, element.get("unit", "1"))
    return Quantity(value, code if system in {None, UCUM} else f"{system}|{code}")
