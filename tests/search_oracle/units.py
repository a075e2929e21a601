"""As much of UCUM as the generated data needs: what kind of thing a unit measures, and how much of it one unit is."""

from fractions import Fraction

SYSTEM = "http://unitsofmeasure.org"

_UNITS: dict[str, tuple[str, Fraction]] = {
    "ug": ("mass", Fraction(1, 10**6)),
    "mg": ("mass", Fraction(1, 10**3)),
    "g": ("mass", Fraction(1)),
    "kg": ("mass", Fraction(10**3)),
    "mg/dL": ("mass per volume", Fraction(1, 100)),
    "g/L": ("mass per volume", Fraction(1)),
    "mmol/L": ("amount per volume", Fraction(1, 10**3)),
    "mol/L": ("amount per volume", Fraction(1)),
    "mm": ("length", Fraction(1, 10**3)),
    "cm": ("length", Fraction(1, 100)),
    "m": ("length", Fraction(1)),
    "s": ("time", Fraction(1)),
    "min": ("time", Fraction(60)),
    "h": ("time", Fraction(3600)),
}


def factor(unit: str, to: str) -> Fraction | None:
    """What a number of `unit` is multiplied with to be one of `to`; None where they measure different things."""
    if unit == to:
        return Fraction(1)
    if unit not in _UNITS or to not in _UNITS or _UNITS[unit][0] != _UNITS[to][0]:
        return None
    return _UNITS[unit][1] / _UNITS[to][1]
