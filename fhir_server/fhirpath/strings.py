"""FHIRPath's functions on strings, conversions and the clock (FHIRPath N1 5.5, 5.6 and 5.9).

`matches` means the whole string, as in FHIRPath N1 and the invariants written for R4 (later versions of FHIRPath search instead).
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from fhir_server import clock
from fhir_server.fhir_json import decimal_text
from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.items import Items, number, plain, single, system_value, text
from fhir_server.fhirpath.temporal import Temporal
from fhir_server.fhirpath.tokens import FhirPathError

MAX_TEXT = 1024 * 1024
"""Characters in a string that a function makes (FHIR R4 2.24.0.1 has the same limit)."""

Run = Callable[..., Items]


def _string_function(name: str, run: Callable[..., object]) -> Run:
    """A function of strings that is empty when its string, or an argument, is (FHIRPath N1 5.6)."""

    def function(items: Items, context: Context, *arguments: Items) -> Items:
        value = text(items, f"{name}()")
        others = [plain(single(argument, f"{name}()")) for argument in arguments]
        if value is None or None in others:
            context.undecided = True
            return []
        context.spend(1 + len(value) // 100)
        try:
            found = run(value, *others)
        except (TypeError, re.error, IndexError):
            raise FhirPathError(f"{name}() does not take these arguments") from None
        return [] if found is None else [found]

    return function


@lru_cache(maxsize=256)
def _pattern(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression, re.DOTALL)
    except (re.error, RecursionError, OverflowError):
        raise FhirPathError(f"{expression[:80]!r} is not a regular expression") from None


def _substring(value: str, start: int, length: int | None = None) -> str | None:
    if not 0 <= start < len(value):
        return None
    return value[start:] if length is None else value[start : start + max(length, 0)]


def _replace(value: str, pattern: str, substitution: str) -> str:
    if len(value) + (value.count(pattern) if pattern else len(value) + 1) * len(substitution) > MAX_TEXT:
        raise FhirPathError("replace() makes too long a string")
    return value.replace(pattern, substitution)


def _replace_matches(value: str, pattern: str, substitution: str) -> str:
    if (len(value) + 1) * (len(substitution) + 1) > MAX_TEXT:
        raise FhirPathError("replaceMatches() makes too long a string")
    return _pattern(pattern).sub(lambda match: match.expand(re.sub(r"\$(\d)", r"\\\1", substitution)), value)


def _as_text(items: Items, _context: Context) -> Items:
    value = system_value(single(items, "toString()"))
    if value is None or type(value) in {dict, list}:
        return []
    if type(value) is bool:
        return ["true" if value else "false"]
    return [decimal_text(value) if type(value) is Decimal else str(value)]


def _to_integer(items: Items, _context: Context) -> Items:
    value = plain(single(items, "toInteger()"))
    if type(value) is bool:
        return [int(value)]
    if type(value) is str and re.fullmatch(r"[+-]?[0-9]{1,10}", value):
        return [int(value)]
    return [value] if type(value) is int else []


def _to_decimal(items: Items, _context: Context) -> Items:
    value = plain(single(items, "toDecimal()"))
    try:
        return [Decimal(value)] if type(value) in {int, bool, Decimal, str} else []
    except InvalidOperation:
        return []


def _to_boolean(items: Items, _context: Context) -> Items:
    value = plain(single(items, "toBoolean()"))
    if type(value) is str:
        value = {"true": True, "t": True, "yes": True, "y": True, "1": True, "1.0": True}.get(
            value.lower(), False if value.lower() in {"false", "f", "no", "n", "0", "0.0"} else None
        )
    elif value in {0, 1} and type(value) is not bool:
        value = bool(value)
    return [value] if type(value) is bool else []


def _to_temporal(items: Items, _context: Context) -> Items:
    value = system_value(single(items, "toDateTime()"))
    found = Temporal.parse(value) if type(value) is str else value
    return [found] if isinstance(found, Temporal) else []


def _abs(items: Items, _context: Context) -> Items:
    value = number(items, "abs()")
    return [] if value is None else [abs(value)]


def _now(_items: Items, _context: Context) -> Items:
    return [Temporal.parse(clock.instant(clock.now()))]


def _today(_items: Items, _context: Context) -> Items:
    return [Temporal.parse(clock.now().date().isoformat())]


def _length(value: str) -> int:
    return len(value)


_STRING_FUNCTIONS: dict[str, tuple[Callable[..., object], int, int]] = {
    "contains": (lambda value, part: part in value, 1, 1),
    "startsWith": (str.startswith, 1, 1),
    "endsWith": (str.endswith, 1, 1),
    "indexOf": (str.find, 1, 1),
    "substring": (_substring, 1, 2),
    "upper": (str.upper, 0, 0),
    "lower": (str.lower, 0, 0),
    "trim": (str.strip, 0, 0),
    "length": (_length, 0, 0),
    "replace": (_replace, 2, 2),
    "matches": (lambda value, pattern: _pattern(pattern).fullmatch(value) is not None, 1, 1),
    "replaceMatches": (_replace_matches, 2, 2),
}

FUNCTIONS: dict[str, tuple[Run, int, int]] = {
    **{name: (_string_function(name, run), least, most) for name, (run, least, most) in _STRING_FUNCTIONS.items()},
    "toString": (_as_text, 0, 0),
    "toInteger": (_to_integer, 0, 0),
    "toDecimal": (_to_decimal, 0, 0),
    "toBoolean": (_to_boolean, 0, 0),
    "toDateTime": (_to_temporal, 0, 0),
    "toDate": (_to_temporal, 0, 0),
    "abs": (_abs, 0, 0),
    "now": (_now, 0, 0),
    "today": (_today, 0, 0),
}
