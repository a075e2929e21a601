"""JSON and BSON of FHIR resources without loss: decimals keep their digits (FHIR R4 2.24.0.1, 2.6.2), field order is kept.

In memory a JSON number with a point or an exponent is a `decimal.Decimal` (as is an integer beyond 64 bits), every other number
an `int`; in BSON a Decimal is a Decimal128. A float never appears.
"""

import codecs
import json
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
from bson.decimal128 import Decimal128
from bson.int64 import Int64

from fhir_server.outcome import FhirError, fail

MAX_NESTING = 80
"""Levels of objects and arrays in one document; MongoDB stops at 100, and wraps a resource in some of its own."""

_NOT_BRACKETS = bytes(b for b in range(256) if b not in b"{}[]")
# Numbers that only the thorough way reads as they are: decimals, -0, and what may be beyond 64 bits.
_PARTICULAR = re.compile(rb"[.E]|[0-9]e|-0|[0-9]{19}")
_DIGITS = 100_000
_NOT_UTF8 = "The content is not valid UTF-8"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _refuse(text: str) -> FhirError:
    return fail("structure", text, status=400)


def _outside_strings(data: bytes) -> bytes:
    """What stands outside of strings: they are cut out after their escaped quotes."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(data.split(b'"')[::2])


def _is_nested_too_deeply(outside: bytes) -> bool:
    """Whether brackets nest deeper than MAX_NESTING, found without recursion (unbalanced ones count as too deep).

    Each pass takes the innermost level away.
    """
    brackets = outside.translate(None, _NOT_BRACKETS)
    for _ in range(MAX_NESTING):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    return bool(brackets)


def _quickly(raw: bytes, outside: bytes) -> Any:
    """What orjson makes of it; None where it can't be trusted: numbers that it would change, or a property given twice."""
    if _PARTICULAR.search(outside):
        return None
    try:
        value = orjson.loads(raw)
        written = orjson.dumps(value)
    except (orjson.JSONDecodeError, TypeError):
        return None
    # Of a property that is given twice, orjson keeps one: then there are fewer colons.
    return value if outside.count(b":") == _outside_strings(written).count(b":") else None


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _refuse(f"The property {twice[:64]!r} stands twice in one object")
    return found


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise _refuse("A number's exponent is out of range") from None


def _integer(text: str) -> int | Decimal:
    """An int where JSON and BSON writers hold it in 64 bits, else a Decimal (as for -0, which no int can say)."""
    if len(text) < 19 and text != "-0":
        return int(text)
    if len(text) > _DIGITS:
        raise _refuse(f"a number has more than {_DIGITS} digits")
    number = _decimal(text)
    return int(number) if number and abs(number) < 2**63 else number


def _constant(text: str) -> Any:
    raise _refuse(f"{text} is not a JSON number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_object, parse_float=_decimal, parse_int=_integer, parse_constant=_constant, strict=True
)


def loads(data: bytes | bytearray | memoryview | str) -> dict[str, Any]:
    """One JSON object.

    Raises FhirError (`structure`, status 400) for anything that is not one: syntax errors, a property given twice, NaN and
    Infinity, invalid UTF-8, a byte order mark, a lone surrogate, nesting beyond MAX_NESTING. The texts name places, never values.
    """
    value = _decoded(data)
    if type(value) is not dict:
        raise _refuse("The content is not a JSON object")
    return value


def loads_array(data: bytes | bytearray | memoryview | str) -> list[Any]:
    """The same for one JSON array, as a JSON Patch is."""
    value = _decoded(data)
    if type(value) is not list:
        raise _refuse("The content is not a JSON array")
    return value


def _decoded(data: bytes | bytearray | memoryview | str) -> Any:
    try:
        raw = data.encode() if isinstance(data, str) else bytes(data)
    except UnicodeError:
        raise _refuse(_NOT_UTF8) from None
    if raw.startswith(codecs.BOM_UTF8):
        raise _refuse("The content begins with a byte order mark, which JSON does not allow")
    outside = _outside_strings(raw)
    if _is_nested_too_deeply(outside):
        raise _refuse(f"The content nests deeper than {MAX_NESTING} levels, or its brackets do not match")
    if (value := _quickly(raw, outside)) is not None:
        return value
    return _thoroughly(raw)


def _thoroughly(raw: bytes) -> Any:
    """Read with each decimal as it is, and with a refusal that says what is wrong."""
    try:
        text = raw.decode()
        value = _DECODER.decode(text)
    except UnicodeError:
        raise _refuse(_NOT_UTF8) from None
    except json.JSONDecodeError as error:
        raise _refuse(f"Not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise _refuse("A string holds half of a surrogate pair") from None
    return value


def decimal_text(number: Decimal) -> str:
    """The number as FHIR JSON writes it, with all its digits: `1.50`, `0.0100`, `1e3`.

    A negative exponent is written out (`0.0000001`), as nearly everyone does, until that takes more than 20 places.
    """
    text = str(number)
    if "E" not in text:
        if not number.is_finite():
            raise TypeError("FHIR has no NaN and no infinity")
        return text
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    if -20 <= exponent < 0:
        return f"{number:f}"
    mantissa, power = text.split("E")
    return f"{mantissa}e{power.removeprefix('+')}"


def _render(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, Decimal):
        return orjson.Fragment(decimal_text(value))
    raise TypeError(f"{type(value).__name__} has no place in a FHIR resource")


def dumps(obj: object, *, pretty: bool = False) -> bytes:
    """UTF-8 JSON, in the order that the fields have; `pretty` indents by two."""
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
    return orjson.dumps(obj, default=_render, option=options | (orjson.OPT_INDENT_2 if pretty else 0))


def fits_decimal128(number: Decimal) -> bool:
    """Whether BSON's Decimal128 holds the number with every digit as it is: 34 digits, exponents -6176 to 6111."""
    _, digits, exponent = number.as_tuple()
    return isinstance(exponent, int) and len(digits) <= 34 and -6176 <= exponent <= 6111


def _decimal128(number: Decimal) -> Decimal128:
    if not fits_decimal128(number):
        raise fail("value", "A decimal has more than the 34 digits, or the exponent, that can be stored")
    return Decimal128(number)


_TO_BSON: dict[type, Callable[[Any], Any]] = {Decimal: _decimal128}
_FROM_BSON: dict[type, Callable[[Any], Any]] = {Decimal128: Decimal128.to_decimal, Int64: int}


def _mapped(value: Any, conversions: dict[type, Callable[[Any], Any]]) -> Any:
    """An object or array with its leaves converted; the parts that hold none are shared with the original, not copied."""
    changed: Any = None
    for key, item in value.items() if type(value) is dict else enumerate(value):
        kind = type(item)
        if kind is str:
            continue
        if kind is dict or kind is list:
            mapped = _mapped(item, conversions)
        elif (conversion := conversions.get(kind)) is not None:
            mapped = conversion(item)
        else:
            continue
        if mapped is not item:
            changed = value.copy() if changed is None else changed
            changed[key] = mapped
    return value if changed is None else changed


def to_bson(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource with Decimal128 for Decimal, for PyMongo. The argument is not changed, and is returned when it holds none.

    Raises FhirError (`value`) for a decimal that Decimal128 can't hold exactly.
    """
    mapped: dict[str, Any] = _mapped(resource, _TO_BSON)
    return mapped


def from_bson(document: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `to_bson`, with plain ints for PyMongo's 64-bit ones."""
    mapped: dict[str, Any] = _mapped(document, _FROM_BSON)
    return mapped
