"""Numbers and quantities as intervals [l, h] of decimals (FHIR R4 Search, "number" and "quantity").

A plain number is a point. A comparator or a Range opens one end. A quantity is indexed three ways at once, told apart by `u`:
    ``                     the bare number, whatever its unit
    `|mg`                  with the code, or the text, of its unit
    `<system>|<code>`      with its coded unit; UCUM's are brought to their base units, so that 1 g meets 1000 mg
"""

from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from bson.decimal128 import Decimal128

from fhir_server.outcome import FhirError
from fhir_server.search.dates import interval
from fhir_server.ucum import converter

UCUM = "http://unitsofmeasure.org"
_CURRENCY = "urn:iso:std:iso:4217"
# MongoDB keeps 34 digits. Converted values are rounded to 30, so that what is equal by the book is so after a division.
_STORED = Context(prec=34)
_CONVERTED = Context(prec=30)
_OPEN = Context(prec=28)  # how near an open end comes to its bound, which must survive that
_LOWEST, _HIGHEST = Decimal("-Infinity"), Decimal("Infinity")

Bounds = tuple[Decimal, Decimal]


@lru_cache(16_384)
def stored(number: Decimal) -> Decimal128:
    """The number as MongoDB compares it."""
    return Decimal128(_STORED.plus(number))


def number(value: Any) -> dict[str, Decimal128] | None:
    """The interval of a number, or of a Range's bare numbers; None for what is neither."""
    if isinstance(value, dict):
        found = _range(value)
        return {"l": stored(found[0][0]), "h": stored(found[0][1])} if found else None
    at = _decimal(value)
    return None if at is None else {"l": stored(at), "h": stored(at)}


def spans(kind: str, element_type: str, value: Any) -> list[dict[str, Any]]:
    """The entries of a value for a parameter of type `date`, `number` or `quantity`; none for what holds nothing of it."""
    if kind == "date":
        span = interval(element_type, value)
        return [{"s": span[0], "e": span[1]}] if span else []
    if kind == "number":
        at = number(value)
        return [at] if at else []
    return quantities(value)


def quantities(value: Any) -> list[dict[str, Any]]:
    """The entries of a Quantity (or Money, or Range)."""
    if not isinstance(value, dict):
        return []
    if "low" in value or "high" in value:
        return _entries(*found) if (found := _range(value)) else []
    at, unit = value.get("value"), (value.get("system"), value.get("code"), value.get("unit"), value.get("currency"))
    if isinstance(at, bool) or not isinstance(at, (int, Decimal)) or not all(u is None or isinstance(u, str) for u in unit):
        return []
    return list(_of_quantity(at, str(value.get("comparator", "")), *unit))


@lru_cache(16_384)  # the same value is asked for by a plain parameter and by composites
def _of_quantity(
    at: int | Decimal, comparator: str, system: str | None, code: str | None, text: str | None, currency: str | None
) -> tuple[dict[str, Any], ...]:
    number = Decimal(at)
    bounds = {
        "<": (_LOWEST, _OPEN.next_minus(number)),
        "<=": (_LOWEST, number),
        ">": (_OPEN.next_plus(number), _HIGHEST),
        ">=": (number, _HIGHEST),
    }.get(comparator, (number, number))
    if currency is not None:
        return tuple(_entries(bounds, {"system": _CURRENCY, "code": currency}))
    return tuple(_entries(bounds, {"system": system, "code": code, "unit": text}))


def _entries(bounds: Bounds, unit: dict[str, Any]) -> list[dict[str, Any]]:
    code = unit.get("code")
    found = [_entry("", bounds)]
    found += [_entry(f"|{text}", bounds) for text in {code, unit.get("unit")} if isinstance(text, str)]
    if isinstance(code, str):
        found.append(_entry(*in_unit(unit.get("system") or "", code, bounds)))
    return found


def in_unit(system: str, code: str, bounds: Bounds) -> tuple[str, Bounds]:
    """The `u` of a coded unit, and the bounds as they stand under it."""
    convert = converter(code) if system == UCUM else None
    if convert is None:
        return f"{system}|{code}", bounds
    try:
        low = _CONVERTED.plus(convert(bounds[0])) if bounds[0].is_finite() else bounds[0]
        if bounds[0] is bounds[1]:
            return f"{UCUM}|{convert.unit}", (low, low)
        high = _CONVERTED.plus(convert(bounds[1])) if bounds[1].is_finite() else bounds[1]
    except FhirError:  # out of range in base units
        return f"{system}|{code}", bounds
    return f"{UCUM}|{convert.unit}", (low, high)


def _entry(unit: str, bounds: Bounds) -> dict[str, Any]:
    low = stored(bounds[0])
    return {"u": unit, "l": low, "h": low if bounds[0] is bounds[1] else stored(bounds[1])}


def _range(value: dict[str, Any]) -> tuple[Bounds, dict[str, Any]] | None:
    low, high = value.get("low") or {}, value.get("high") or {}
    start, end = _decimal(low.get("value")), _decimal(high.get("value"))
    if start is None and end is None:
        return None
    return (_LOWEST if start is None else start, _HIGHEST if end is None else end), low if "code" in low or not high else high


def _decimal(value: Any) -> Decimal | None:
    return Decimal(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None


def of_text(text: str) -> tuple[Decimal, Decimal]:
    """A number as a search gives it, and half a unit of its last digit; ValueError when it is none.

    `100` is [99.5, 100.5), `100.00` is [99.995, 100.005); with an exponent there are at least two significant digits, so that
    `1e2` is [95, 105) as in FHIR R4's own example.
    """
    try:
        value = Decimal(text) if text.isascii() and len(text) <= 64 and "_" not in text else Decimal("NaN")
    except InvalidOperation:
        value = Decimal("NaN")
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or abs(exponent) > 6000:
        raise ValueError(f"{text[:64]!r} is not a number")
    if "e" in text.lower() and len(digits) < 2:
        exponent -= 1
    return value, Decimal((0, (5,), exponent - 1))
