"""UCUM's terms: the grammar of unit expressions (UCUM 5-12) over the table units.json, which script/ucum makes.

A unit comes out as a factor and powers of base units, exactly: factors are fractions, as UCUM's definitions are.
"""

import re
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

MAX_LENGTH = 64
"""Characters of an expression; brackets can't nest deeper either."""

MAX_EXPONENT = 99

_UNIT = re.compile(r"(10[*^]|(?:[^\s\d./(){}\[\]+-]|\[[^\s\[\]{}]*\])+)([+-]?[0-9]+)?")
_NUMBER = re.compile(r"[0-9]+")
_ANNOTATION = re.compile(r"\{[!-z|~]*\}")


class NotAUnit(ValueError):
    """Not an expression of UCUM, or one that has no place in a product of units."""


class Unit(NamedTuple):
    """`factor` times the product of `powers`: base unit to its exponent, none of them 0."""

    factor: Fraction
    powers: dict[str, int]

    def times(self, other: "Unit", sign: int = 1) -> "Unit":
        powers = dict(self.powers)
        for base, exponent in other.powers.items():
            powers[base] = powers.get(base, 0) + sign * exponent
        return Unit(self.factor * other.factor**sign, {base: exponent for base, exponent in powers.items() if exponent})

    def to_the(self, exponent: int) -> "Unit":
        return Unit(self.factor**exponent, {base: exponent * power for base, power in self.powers.items() if exponent})

    @property
    def text(self) -> str:
        """The base units in the order of their codes, such as `g.m-3`; `1` when there are none."""
        return ".".join(base if power == 1 else f"{base}{power}" for base, power in sorted(self.powers.items())) or "1"


ONE = Unit(Fraction(1), {})


class Special(NamedTuple):
    """A unit on a scale of its own: `function` of the table, applied to `unit`; `prefix` scales what is measured."""

    function: str
    prefix: Fraction
    unit: Unit


def parse(expression: str) -> Unit:
    """The product of units that an expression is. Raises NotAUnit."""
    if not 0 < len(expression) <= MAX_LENGTH:
        raise NotAUnit(expression)
    reader = _Reader(expression)
    unit = reader.term(ONE.times(reader.component(), -1) if reader.takes("/") else reader.component())
    if reader.position != len(expression):
        raise NotAUnit(expression)
    return unit


def special(expression: str) -> Special | None:
    """The special unit that an expression is, with a prefix and an annotation at most; None when it is none."""
    symbol = _ANNOTATION.sub("", expression, count=1) if expression.endswith("}") else expression
    for prefix, code in _readings(symbol):
        row = _table()["units"].get(code)
        if row is not None and "special" in row:
            return Special(row["special"], prefix, parse(row["unit"]).times(Unit(Fraction(row["value"]), {})))
    return None


class _Reader:
    """One expression, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def takes(self, sign: str) -> bool:
        found = self.text.startswith(sign, self.position)
        self.position += len(sign) if found else 0
        return found

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.position)
        if match is not None:
            self.position = match.end()
        return match

    def term(self, unit: Unit) -> Unit:
        """What follows the first component: `.` and `/` bind alike, from the left."""
        while True:
            if self.takes("."):
                unit = unit.times(self.component())
            elif self.takes("/"):
                unit = unit.times(self.component(), -1)
            else:
                return unit

    def component(self) -> Unit:
        """An annotation; or a unit, a number or a term in brackets, each with an annotation or without one."""
        if self._match(_ANNOTATION):
            return ONE
        unit = self._unannotated()
        self._match(_ANNOTATION)
        return unit

    def _unannotated(self) -> Unit:
        if self.takes("("):
            unit = self.term(self.component())
            if not self.takes(")"):
                raise NotAUnit(self.text)
            return unit
        if match := self._match(_UNIT):
            exponent = int(match[2] or 1)
            if abs(exponent) > MAX_EXPONENT:
                raise NotAUnit(self.text)
            return _symbol(match[1]).to_the(exponent)
        if (match := self._match(_NUMBER)) and int(match[0]):
            return Unit(Fraction(int(match[0])), {})
        raise NotAUnit(self.text)


# --- the table --------------------------------------------------------------------------------------------------------


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = orjson.loads((Path(__file__).parent / "units.json").read_bytes())
    return table


def _readings(symbol: str) -> list[tuple[Fraction, str]]:
    """The ways to read a symbol as a prefix and a code of the table; as a code alone comes first, and then it is the only one."""
    table = _table()
    units, base, prefixes = table["units"], table["base"], table["prefixes"]
    if symbol in units or symbol in base:
        return [(Fraction(1), symbol)]
    splits = [(symbol[:length], symbol[length:]) for length in (1, 2)]
    return [
        (Fraction(prefixes[p]), code) for p, code in splits if p in prefixes and (code in base or _is_metric(units.get(code)))
    ]


def _is_metric(row: dict[str, Any] | None) -> bool:
    return row is not None and row.get("metric", False)


def _symbol(symbol: str) -> Unit:
    for prefix, code in _readings(symbol):
        unit = _defined(code)
        return Unit(prefix * unit.factor, unit.powers)
    raise NotAUnit(symbol)


@cache
def _defined(code: str) -> Unit:
    """A unit of the table. An arbitrary one that is not another's equal is a base unit of its own (UCUM 24)."""
    row = _table()["units"].get(code)
    if row is None or (row.get("arbitrary") and row["unit"] == "1"):
        return Unit(Fraction(1), {code: 1})
    if "special" in row:
        raise NotAUnit(code)
    return parse(row["unit"]).times(Unit(Fraction(row["value"]), {}))
