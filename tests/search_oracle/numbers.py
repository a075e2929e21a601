"""Numbers: a stored value is a span of the number line, most often a point (3.1.1.4.5, 3.1.1.4.6).

Only `eq` and `ne` mind the precision of the searched number; `ap` takes ten per cent; all others compare with it exactly.
"""

from decimal import Decimal
from fractions import Fraction
from math import inf
from typing import Any, NamedTuple

from tests.search_oracle.asked import Asked, prefixed

Number = Fraction | float
"""A number, or an infinity."""


class Span(NamedTuple):
    """From `low` to `high`, each with itself unless it is open."""

    low: Number
    high: Number
    low_open: bool = False
    high_open: bool = False


class Searched(NamedTuple):
    """A number as it was written, and half a unit of its last significant digit."""

    value: Fraction
    half: Fraction


def matches(asked: Asked, element_type: str, value: Any) -> bool:
    """Whether a decimal, an integer or a Range answers the search."""
    stored = span(element_type, value)
    prefix, text = prefixed(asked.text)
    return stored is not None and compare(prefix, stored, of_text(text))


def span(element_type: str, value: Any) -> Span | None:
    """What a stored number stands for."""
    if element_type == "Range":
        return between(_amount(value, "low"), _amount(value, "high"))
    return point(Fraction(value))


def point(value: Fraction) -> Span:
    return Span(value, value)


def between(low: Fraction | None, high: Fraction | None) -> Span | None:
    """The span of a Range; an end that is not there is open."""
    if low is None and high is None:
        return None
    return Span(-inf if low is None else low, inf if high is None else high)


def _amount(value: dict[str, Any], end: str) -> Fraction | None:
    amount = value.get(end, {}).get("value")
    return None if amount is None else Fraction(amount)


def of_text(text: str) -> Searched:
    """`100` is meant as [99.5, 100.5), `100.00` as [99.995, 100.005).

    With an exponent there are two significant digits at least: `1e2` is [95, 105), as the standard has it.
    """
    _, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int), text
    if "e" in text.lower() and len(digits) == 1:
        exponent -= 1
    return Searched(Fraction(text), Fraction(10) ** exponent / 2)


def compare(prefix: str, stored: Span, searched: Searched) -> bool:
    """The table of prefixes (3.1.1.4.5)."""
    wanted, half = searched
    match prefix:
        case "eq":
            return _is_within(stored, wanted - half, wanted + half)
        case "ne":
            return not _is_within(stored, wanted - half, wanted + half)
        case "gt":
            return stored.high > wanted
        case "lt":
            return stored.low < wanted
        case "ge":
            return not _is_below(stored, wanted)
        case "le":
            return not _is_above(stored, wanted)
        case "sa":
            return _is_above(stored, wanted)
        case "eb":
            return _is_below(stored, wanted)
        case _:
            tenth = abs(wanted) / 10
            return not _is_below(stored, wanted - tenth) and not _is_above(stored, wanted + tenth)


def _is_within(stored: Span, start: Fraction, end: Fraction) -> bool:
    """Whether all of it is in [start, end)."""
    return stored.low >= start and (stored.high < end or (stored.high == end and stored.high_open))


def _is_above(stored: Span, wanted: Fraction) -> bool:
    return stored.low > wanted or (stored.low == wanted and stored.low_open)


def _is_below(stored: Span, wanted: Fraction) -> bool:
    return stored.high < wanted or (stored.high == wanted and stored.high_open)
