"""UCUM canonical units, for the search of quantities (FHIR R4 3.1.1.4.11): what is equal in any unit meets in base units."""

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache

from fhir_server.fhir_json import fits_decimal128
from fhir_server.outcome import fail
from fhir_server.ucum.units import MAX_LENGTH, NotAUnit, parse, special

__all__ = ["Converter", "converter"]

_DECIMAL128 = Context(prec=34, Emin=-6143, Emax=6144, clamp=1, traps=[])
_EXACT = Context(prec=12_000, Emin=-999_999, Emax=999_999)
"""Wide enough for any Decimal128 times a factor, plus another number, with every digit."""

_MAX_BITS = 3400
"""Of a factor: those beyond 1e1000 or below 1e-1000 are no unit of anything."""

_ZERO_IN_KELVIN = {
    "Cel": Fraction("273.15"),
    "degF": Fraction("459.67") * 5 / 9,
    "degRe": Fraction("273.15"),
}
"""Where the zero of each scale of temperature lies (UCUM 22, functions of special units)."""


@dataclass(frozen=True, slots=True)
class Converter:
    """From one unit to `unit`, its base units: m, s, g, rad, K, C, cd, and arbitrary units such as `[iU]`, each its own.

    The value in base units is (value * _factor + _zero) / _divisor, three whole numbers.
    """

    unit: str
    _factor: Decimal
    _zero: Decimal
    _divisor: Decimal

    def __call__(self, value: Decimal) -> Decimal:
        """The value in base units, worked out exactly and rounded once to 34 digits, so that equal quantities have equal values.

        Raises FhirError (`value`, 400) for a value, or a result, that Decimal128 can't hold.
        """
        if fits_decimal128(value):
            result = _DECIMAL128.divide(_EXACT.fma(value, self._factor, self._zero), self._divisor)
            if result.is_finite():
                return result
        raise fail("value", "a quantity's value is beyond what can be compared")


def _converter_to(unit: str, scale: Fraction, zero: Fraction) -> Converter:
    factor, offset = scale.numerator * zero.denominator, zero.numerator * scale.denominator
    return Converter(unit, Decimal(factor), Decimal(offset), Decimal(scale.denominator * zero.denominator))


def converter(code: str) -> Converter | None:
    """The converter of a UCUM code (case-sensitive); None for what is not UCUM, and for logarithms, tangents and roots.

    Longer codes than units.MAX_LENGTH are not looked at.
    """
    return _converter(code) if len(code) <= MAX_LENGTH else None


@lru_cache(maxsize=4096)
def _converter(code: str) -> Converter | None:
    try:
        scale = special(code)
        if scale is not None:
            zero = _ZERO_IN_KELVIN.get(scale.function)
            return None if zero is None else _converter_to(scale.unit.text, scale.unit.factor * scale.prefix, zero)
        unit = parse(code)
    except NotAUnit:
        return None
    bits = unit.factor.numerator.bit_length() - unit.factor.denominator.bit_length()
    return _converter_to(unit.text, unit.factor, Fraction(0)) if abs(bits) < _MAX_BITS else None
