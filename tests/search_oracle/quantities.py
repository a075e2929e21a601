"""Quantities: a number, and perhaps its unit (3.1.1.4.11).

`5.4` is met whatever the unit; `5.4||mg` where the code or the text of the unit is mg; `5.4|system|code` where the coded unit is
that one, or with UCUM any other of the same kind, converted.
"""

from fractions import Fraction
from math import inf
from typing import Any

from tests.search_oracle import units
from tests.search_oracle.asked import Asked, prefixed, split, unescaped
from tests.search_oracle.numbers import Span, between, compare, of_text, point

_CURRENCIES = "urn:iso:std:iso:4217"


def matches(asked: Asked, element_type: str, value: Any) -> bool:
    """Whether a Quantity (Age, Duration, Money) or a Range answers the search."""
    prefix, text = prefixed(asked.text)
    number, system, code = [*(unescaped(part) for part in split(text, "|")), "", ""][:3]
    stored = _range(value, system, code) if element_type == "Range" else _quantity(value, system, code)
    return stored is not None and compare(prefix, stored, of_text(number))


def _range(value: dict[str, Any], system: str, code: str) -> Span | None:
    """The span of a Range in the unit that is asked for; None if an end of it is in another."""
    ends = {end: _amount(value[end], system, code) for end in ("low", "high") if "value" in value.get(end, {})}
    return None if None in ends.values() else between(ends.get("low"), ends.get("high"))


def _quantity(value: dict[str, Any], system: str, code: str) -> Span | None:
    amount = _amount(value, system, code)
    if amount is None:
        return None
    match value.get("comparator"):
        case "<":
            return Span(-inf, amount, high_open=True)
        case "<=":
            return Span(-inf, amount)
        case ">":
            return Span(amount, inf, low_open=True)
        case ">=":
            return Span(amount, inf)
    return point(amount)


def _amount(value: dict[str, Any], system: str, code: str) -> Fraction | None:
    """The value in the unit that is asked for; None without a value, or where the unit is another."""
    if "value" not in value:
        return None
    amount = Fraction(value["value"])
    if "currency" in value:
        value = {"system": _CURRENCIES, "code": value["currency"]}
    if not code:
        return amount
    if not system:
        return amount if code in {value.get("code"), value.get("unit")} else None
    if value.get("system") != system or "code" not in value:
        return None
    factor = units.factor(value["code"], code) if system == units.SYSTEM else Fraction(value["code"] == code)
    return amount * factor if factor else None
